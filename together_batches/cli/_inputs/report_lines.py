"""Lines of the report of a cancel, which may be read as ids: JSON, or CSV that no spreadsheet takes for formulas."""

from __future__ import annotations

import csv
import io
import json
import re
from typing import TYPE_CHECKING

from together_batches.cli._terminal.exits import CommandError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ENCODING = ("utf-8", "surrogatepass")
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
"""What a spreadsheet may take for a formula, or what was kept from that by an apostrophe."""


def results_in(content: bytes, name: str, *, is_csv: bool) -> Iterator[tuple[str, str]]:
    """Yield the id and the result of each line of a report; raise :class:`CommandError` for other content."""
    try:
        text = content.decode(*ENCODING).removeprefix("\ufeff")
        if is_csv:
            for row in csv.DictReader(io.StringIO(text, newline=""), strict=True):
                yield _uncell(row["job_id"]), row["result"]
        else:
            for line in filter(None, text.split("\n")):
                row = json.loads(line)
                yield row["job_id"], row["result"]
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        message = f"{name} is not the report of a cancel, or was changed: {error!r}"
        raise CommandError(message) from error


def csv_line(values: Iterable[object]) -> str:
    """Return values as a line of CSV."""
    line = io.StringIO()
    csv.writer(line).writerow(map(_cell, values))
    return line.getvalue()


def _cell(value: object) -> str:
    text = "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return f"'{text}" if _FORMULA.match(text) else text


def _uncell(text: str) -> str:
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text
