"""Tables of results."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from together_batches._validation import path_of
from together_batches.tables._rows import rows_of_file
from together_batches.tables._table import AnswerTable

if TYPE_CHECKING:
    import os


def read(path: str | os.PathLike[str]) -> AnswerTable:
    place = path_of("path", path)
    return AnswerTable(str(place), partial(rows_of_file, place))
