"""Tables without a library; with one they are tested by ``nox -s extras``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from together_batches import tables
from together_batches.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a file of results, where no Arrow library is installed."""
    for name in ("arro3.core", "pyarrow"):
        monkeypatch.setitem(sys.modules, name, None)
    path = tmp_path / "answers.jsonl"
    path.write_bytes(b'{"custom_id":"a","result":"missing"}\n')
    return path


async def test_the_error_names_the_extra(answers: Path) -> None:
    """Whatever makes a table names the extra that it needs."""
    wanted = r'pip install "together_batches\[arrow\]"'
    with pytest.raises(UsageError, match=wanted):
        tables.read(answers)
    with pytest.raises(UsageError, match=wanted):
        tables.from_results([])


def test_a_file_that_is_absent(tmp_path: Path) -> None:
    """A file that does not exist is named before a library is needed."""
    with pytest.raises(UsageError, match=r"answers\.jsonl: there is no such file"):
        tables.read(tmp_path / "answers.jsonl")
