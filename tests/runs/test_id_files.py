"""The ids that are kept when an input is scanned: those of its rows, or none."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from together_batches import UsageError
from together_batches._local.atomic_file import AtomicFile
from together_batches._protocol.request_codec import custom_ids
from together_batches.runs._id_files import IdFiles
from together_batches.runs._sharding import rows_in, scan

if TYPE_CHECKING:
    from pathlib import Path

    from together_batches.runs._records import Shard

IDS = ["a", "\u00e9 \U0001f600", 'with "quotes"', "\\ and \n", "e", "f", "g"]


def _row(custom_id: str, text: str = "") -> str:
    return json.dumps({"custom_id": custom_id, "body": {"model": "m", "text": text}})


def _scan(directory: Path, content: str) -> tuple[IdFiles, tuple[Shard, ...]]:
    path, files = directory / "in.jsonl", IdFiles(directory)
    path.write_bytes(content.encode())
    files.prepare()
    with AtomicFile(directory / "invalid") as aside:
        found = scan(
            path,
            endpoint="/v1/chat/completions",
            max_rows=3,
            aside=aside,
            keep_ids=files.write,
            raise_if_cancelled=lambda: None,
        )
    return files, found.shards


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n"])
@pytest.mark.parametrize("bad", ["", "no JSON\n", '{"custom_id": "x"}\n', _row("a") + "\n"])
@pytest.mark.parametrize("text", ["", "x" * 300_000], ids=["short rows", "rows of several blocks"])
def test_the_ids_of_the_rows(tmp_path: Path, end: str, bad: str, text: str) -> None:
    """The ids of each shard are those of its rows, whatever lines are set aside or are not sent as they are."""
    content = "".join(_row(custom_id, text) + end + bad for custom_id in IDS)
    files, shards = _scan(tmp_path, content)
    found = [files.read(shard) for shard in shards]
    assert found == [
        custom_ids(b"".join(rows_in(tmp_path / "in.jsonl", shard, directory=tmp_path))) for shard in shards
    ]
    assert [custom_id for ids in found for custom_id in ids or []] == IDS


def test_a_file_that_cannot_be_used(tmp_path: Path) -> None:
    """A file that is absent, cut, changed or of another input is ignored."""
    files, (first, second, _) = _scan(tmp_path, "".join(_row(custom_id) + "\n" for custom_id in IDS))
    path, other = (tmp_path / "ids" / f"0000{shard.number}.jsonl" for shard in (first, second))
    content = path.read_bytes()
    for changed in (b"", content[:-1], content.replace(b'"a"', b'"b"'), other.read_bytes(), b"\xff\n" + content):
        path.write_bytes(changed)
        assert files.read(first) is None
    path.write_bytes(content)
    assert files.read(first) == IDS[:3]
    files.remove([1])
    assert files.read(first) is None
    assert files.read(second) == IDS[3:6]


def test_a_link_in_place_of_the_directory(tmp_path: Path) -> None:
    """A link instead of the directory is refused: the files behind it belong to the user."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "ids").symlink_to("elsewhere")
    with pytest.raises(UsageError, match="is a link"):
        IdFiles(tmp_path).prepare()
