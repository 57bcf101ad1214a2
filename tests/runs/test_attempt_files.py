"""The upload of rows that are read in order, with a mark in the first of them."""

from __future__ import annotations

import hashlib
import io
from typing import TYPE_CHECKING

import pytest

from together_batches import UsageError, jsonl
from together_batches._protocol.upload_marks import MARK_BYTES, Mark, mark_of
from together_batches.runs._attempt_files import RowsUpload
from together_batches.runs._binary import BinaryInput

if TYPE_CHECKING:
    from collections.abc import Callable

MARK = mark_of("run", 1, 1)
ROW = b'{"custom_id":"a"}\n'


def _measured(open_rows: Callable[[], io.BytesIO], mark: Mark | None = MARK) -> RowsUpload:
    upload = RowsUpload(BinaryInput(open_rows), mark)
    upload.measure(lambda: None)
    return upload


async def _sent(upload: RowsUpload) -> bytes:
    sent = b""
    while len(sent) < upload.size:
        sent += await upload.block(len(sent))
    return sent


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (ROW * 3, b"{" + MARK.white_space + ROW[1:] + ROW * 2),
        (ROW[:-1], b"{" + MARK.white_space + ROW[1:-1]),
        (b"[]\n", b"[]\n"),
        (ROW * 40_000, b"{" + MARK.white_space + ROW[1:] + ROW * 39_999),
    ],
    ids=["some rows", "one without its end", "no object", "many blocks"],
)
async def test_the_mark_is_in_the_first_row(content: bytes, expected: bytes) -> None:
    """The mark is within the first object, the rest is unchanged, and it can be sent again from the start."""
    upload = _measured(lambda: io.BytesIO(content))
    assert (upload.size, upload.sha256) == (len(expected), hashlib.sha256(expected).hexdigest())
    assert upload.is_marked is (len(expected) > len(content))
    assert await _sent(upload) == expected
    assert await _sent(upload) == expected
    upload.close()


async def test_no_mark() -> None:
    """Without a mark the rows are sent as they are."""
    upload = _measured(lambda: io.BytesIO(ROW), None)
    assert await _sent(upload) == ROW


@pytest.mark.parametrize(
    "content",
    [
        b'{"x":"' + b"x" * (jsonl.MAX_LINE_BYTES - 8) + b'"}\n' + ROW,
        ROW + b"x" * (jsonl.MAX_BYTES - len(ROW) - MARK_BYTES + 1),
    ],
    ids=["the row", "the file"],
)
def test_no_room_for_a_mark(content: bytes) -> None:
    """A first row, or a file, that would exceed the limits with a mark is sent without one."""
    upload = _measured(lambda: io.BytesIO(content))
    assert (upload.is_marked, upload.size) == (False, len(content))


@pytest.mark.parametrize("later", [ROW.replace(b"a", b"b"), ROW * 2, ROW[:-1], b""])
async def test_rows_that_change(later: bytes) -> None:
    """Rows that are not those that were measured are not sent to their end."""
    contents = iter([ROW, later])
    upload = _measured(lambda: io.BytesIO(next(contents)))
    with pytest.raises(UsageError, match="changed while it was uploaded"):
        await _sent(upload)
