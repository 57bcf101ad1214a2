"""Paths and options of a run, and their validation."""

from __future__ import annotations

import os
from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

import attrs

from together_batches import jsonl
from together_batches._local.replace import resolved
from together_batches._schema.adapters import Adapter
from together_batches._text import format_count, short
from together_batches._validation import check_callback, path_of, positive_int, positive_number, validator
from together_batches.errors import UsageError
from together_batches.jsonl import RequestLike
from together_batches.jsonl._estimate import Prices
from together_batches.jsonl._requests import check_endpoint, check_endpoint_of_schema
from together_batches.models import BatchJob, Price
from together_batches.runs._files import explained
from together_batches.runs._values import RunEvent

Requests = str | os.PathLike[str] | BinaryIO | Iterable[RequestLike] | AsyncIterable[RequestLike]
"""Input of a run: a path, a file opened in binary mode, or requests."""


@attrs.frozen(kw_only=True)
class RunPaths:
    """Paths of a run: its ``directory``, its ``output``, the rows not answered (``failures``), and its input."""

    directory: Path
    output: Path
    failures: Path
    input: Path | None

    @classmethod
    def of(
        cls,
        source: Requests,
        output: str | os.PathLike[str],
        directory: str | os.PathLike[str] | None,
        failures: str | os.PathLike[str] | None,
    ) -> RunPaths:
        """Return the given paths, with defaults for those that are None."""
        out = path_of("output", output)
        if not out.name:
            message = f"output is not the path of a file: {str(output)!r}"
            raise UsageError(message)
        if out.suffix.lower() == ".parquet":
            message = (
                f"a run writes JSON Lines, not Parquet: name its output {out.with_suffix('.jsonl').name}, and make a "
                "table of it with tables.read(output).write_parquet(path) of together_batches.tables"
            )
            raise UsageError(message)
        run = None if directory is None else path_of("directory", directory)
        failed = None if failures is None else path_of("failures", failures)
        requests: object = source
        kind = type(requests).__name__
        if isinstance(requests, bytes | bytearray | memoryview | Mapping) or not (
            isinstance(requests, os.PathLike | Iterable | AsyncIterable) or hasattr(requests, "read")
        ):
            message = (
                "the requests of a run come from a path, a binary file, or an iterable or async iterable of "
                f"BatchRequest, not from {kind}"
            )
            raise UsageError(message)
        return cls(
            directory=run or out.with_name(f"{out.name}.run"),
            output=out,
            failures=failed or out.with_name(f"{out.stem}.failures{out.suffix}"),
            input=path_of("the input", source) if isinstance(source, str | os.PathLike) else None,
        )

    def check(self) -> None:
        """Reject an input that can be read only once, and paths of which one would overwrite another."""
        with explained("read", self.input or self.directory):
            if self.input is not None and self.input.exists() and not (self.input.is_file() or self.input.is_dir()):
                message = f"{self.input} is a pipe or a device, and cannot be read again: open it and pass the file"
                raise UsageError(message)
        with explained("work in", self.directory):
            inside = resolved(self.directory)
            apart = {"output": resolved(self.output), "failures": resolved(self.failures)}
            given = resolved(self.input) if self.input is not None else None
        for name, path in apart.items():
            if path == inside or inside in path.parents:
                message = f"{name} is in the directory of the run, {self.directory}: name a place outside of it"
                raise UsageError(message)
            if path == given:
                message = f"{name} and the input are the same file, {self.input}"
                raise UsageError(message)
        if apart["output"] == apart["failures"]:
            message = f"output and failures are the same file, {self.output}"
            raise UsageError(message)


def _ids(given: Iterable[str | BatchJob]) -> tuple[str, ...]:
    items: object = given
    if isinstance(items, str | BatchJob) or not isinstance(items, Iterable):
        message = f"give_up is an iterable of ids, such as [{items!r}], not {type(items).__name__}"
        raise UsageError(message)
    ids = tuple(item.id if isinstance(item, BatchJob) else item for item in given)
    for item in ids:
        checked: object = item
        if not isinstance(checked, str) or not checked.strip():
            message = f"give_up takes ids of jobs or files, not {short(item)}"
            raise UsageError(message)
    return ids


def _delays(given: float | Iterable[float]) -> tuple[float, ...]:
    delays: object = given
    if isinstance(delays, str) or not isinstance(delays, int | float | Iterable):
        message = f"retry_delays is a number of seconds, or several, not {short(delays)}"
        raise UsageError(message)
    seconds = tuple(given) if isinstance(given, Iterable) else (given,)
    for delay in seconds:
        positive_number("retry_delays", delay, zero=True)
    return seconds


def check_rows_per_job(name: str, value: int) -> None:
    """Raise :class:`UsageError` if this is not a number of rows that a job can have."""
    if positive_int(name, value) > jsonl.MAX_ROWS:
        message = f"{name} is at most {format_count(jsonl.MAX_ROWS)}; it is {format_count(value)}"
        raise UsageError(message)


def _check_prices(name: str, value: object) -> None:
    given = cast("Mapping[object, object]", value).values() if isinstance(value, Mapping) else [value]
    if not all(isinstance(price, Price) for price in given):
        message = f"{name} is a Price, or the Price of each model by its name, not {value!r}"
        raise UsageError(message)


_optional = attrs.validators.optional
_is_count = validator(positive_int)
_is_not_negative = validator(positive_number, zero=True)


@attrs.frozen(kw_only=True)
class Options:
    """Options of a run, as :meth:`AsyncBatches.run` documents them; invalid ones raise :class:`UsageError`."""

    endpoint: str
    model_id: str | None
    priority: int | None
    schema: Adapter[Any] | None
    retry_invalid: bool
    max_rows_per_job: int = attrs.field(validator=validator(check_rows_per_job))
    max_jobs: int = attrs.field(validator=_is_count)
    max_enqueued_rows: int | None = attrs.field(validator=_optional(_is_count))
    max_attempts: int = attrs.field(validator=_is_count)
    stop_after_rows: int | None = attrs.field(validator=_optional(_is_count))
    stop_after_tokens: int | None = attrs.field(validator=_optional(_is_count))
    stop_after_cost: float | None = attrs.field(default=None, validator=_optional(_is_not_negative))
    prices: Prices | None = attrs.field(default=None, validator=_optional(validator(_check_prices)))
    sample: int | None = attrs.field(default=None, validator=_optional(_is_count))
    skip_invalid: bool
    overwrite: bool
    with_text: bool
    patience: float = attrs.field(validator=_is_not_negative)
    give_up: tuple[str, ...] = attrs.field(converter=_ids)
    unique_files: bool
    dedupe: bool
    retry_delays: tuple[float, ...] = attrs.field(converter=_delays)
    cancel_on_interrupt: bool
    on_event: Callable[[RunEvent], None] | None = attrs.field(validator=validator(check_callback))

    def __attrs_post_init__(self) -> None:
        if self.schema is not None:
            check_endpoint(self.endpoint)
            check_endpoint_of_schema(self.endpoint)
        elif self.retry_invalid:
            message = "retry_invalid needs a schema, because without one no answer is invalid"
            raise UsageError(message)
