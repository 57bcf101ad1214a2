"""Options of ``run`` and ``estimate`` for an input that is a table: what is made of each of its rows."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from together_batches.cli._terminal.commands import option
from together_batches.cli._terminal.exits import CommandError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from together_batches.jsonl import TableRequests

    F = TypeVar("F", bound=Callable[..., object])

_SUFFIXES = {".csv", ".parquet"}
_NAMES = ("prompt", "custom_id", "system", "images", "image_directory", "parameters")


def parameter(text: str) -> tuple[str, object]:
    """Parse ``NAME=VALUE``; the value is JSON, or otherwise text."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        message = f"{text!r} is not NAME=VALUE, such as max_tokens=32"
        raise click.BadParameter(message)
    if name in {"table", "model", "messages", *_NAMES}:
        message = f"{name} has an option of its own, or none: a parameter is one of the endpoint, such as max_tokens"
        raise click.BadParameter(message)
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


_OPTIONS = (
    option("--prompt TEXT", "make a request of each row of a CSV or Parquet file, with its values for {column}"),
    option("--custom-id COLUMN", "with --prompt: the column with the ids (id)"),
    option("--system TEXT", "with --prompt: the system message"),
    option("--images COLUMN", "with --prompt: a column with URLs, or with names of files in --image-directory"),
    option("--image-directory DIR", "with --images: the directory of local images", complete="dir"),
    option(
        "--parameter NAME=VALUE",
        "with --prompt: a parameter of each request, such as max_tokens=32",
        "parameters",
        type=parameter,
        multiple=True,
    ),
)


def table_options(function: F) -> F:
    """Add the options for tables."""
    for add in reversed(_OPTIONS):
        function = add(function)
    return function


def as_options(message: str) -> str:
    """Return a message of the library, with options instead of keywords."""
    for param in click.get_current_context().command.params:
        name = param.name or ""
        if "_" in name or name == "overwrite":
            message = re.sub(rf"\b{name}\b(=True)?", max(param.opts, key=len), message)
    return message.replace("pass prices", "pass --price-in and --price-out")


def taken(options: dict[str, Any]) -> dict[str, Any]:
    """Remove the options for tables from all options, and return those that were given."""
    return {name: value for name in _NAMES if (value := options.pop(name)) not in (None, ())}


def requests_of(
    source: str, model: str | None, given: dict[str, Any], schema: dict[str, object] | None
) -> TableRequests | None:
    """Return the requests that the options make of a table; None for a file of requests."""
    from together_batches import jsonl

    is_table = Path(source).suffix.lower() in _SUFFIXES
    if "prompt" not in given:
        if given:
            message = f"--{next(iter(given)).rstrip('s').replace('_', '-')} is for a table: add --prompt"
            raise CommandError(message)
        if is_table:
            message = f"{source} is a table: --prompt, with its columns in braces, makes a request of each row"
            raise CommandError(message)
        return None
    if model is None:
        message = "--prompt makes requests: name their model with --model"
        raise CommandError(message)
    limit = csv.field_size_limit(jsonl.MAX_LINE_BYTES)
    click.get_current_context().call_on_close(lambda: csv.field_size_limit(limit))
    parameters = dict(given.pop("parameters", ()))
    return jsonl.requests(source, model=model, schema=schema, **given, **parameters)
