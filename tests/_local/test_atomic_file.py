"""Files that get their names when they are complete."""

from __future__ import annotations

import hashlib
import os
import sys
from typing import TYPE_CHECKING

import pytest

from together_batches import UsageError
from together_batches._local.atomic_file import AtomicFile

if TYPE_CHECKING:
    from pathlib import Path


def test_a_file_appears_when_it_is_committed(tmp_path: Path) -> None:
    """A file appears under its name when it is committed, with its content, size and hash."""
    content = [b"small\n", os.urandom(1 << 20), b"end"]
    with AtomicFile(tmp_path / "out", hashed=True) as file:
        for each in content:
            file.write(each)
        assert not (tmp_path / "out").exists()
        file.commit()
    assert (tmp_path / "out").read_bytes() == b"".join(content)
    assert file.bytes == len(b"".join(content))
    assert file.sha256 == hashlib.sha256(b"".join(content)).hexdigest()
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("finished", [False, True])
def test_what_is_not_committed_is_removed(tmp_path: Path, *, finished: bool) -> None:
    """A file that is not committed is removed, even if it was complete, and the existing one remains."""
    (tmp_path / "out").write_bytes(b"old")
    with AtomicFile(tmp_path / "out", mark="new") as file:
        file.write(b"new")
        if finished:
            file.finish()
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


def test_a_finished_file_can_still_be_committed(tmp_path: Path) -> None:
    """A finished file keeps its temporary name until it is committed, under any path in the same directory."""
    with AtomicFile(tmp_path / "1", mark="new", fsync=True) as file:
        file.write(b"new")
        file.finish()
        assert [path.name for path in tmp_path.iterdir()] == [".1.new.part"]
        file.path = tmp_path / "01"
        file.commit()
    assert (tmp_path / "01").read_bytes() == b"new"


def test_starting_over(tmp_path: Path) -> None:
    """Content can be discarded, also from the hash and the size."""
    with AtomicFile(tmp_path / "out", hashed=True) as file:
        file.write(os.urandom(1 << 20))
        file.write(b"old")
        file.start_over()
        file.write(b"new")
        file.commit()
    assert (file.path.read_bytes(), file.bytes) == (b"new", 3)
    assert file.sha256 == hashlib.sha256(b"new").hexdigest()


def test_a_mark_is_in_the_temporary_name(tmp_path: Path) -> None:
    """With a mark the file of a killed process, which has the same temporary name, is reused."""
    (tmp_path / ".out.new.part").write_bytes(b"left by a process that was killed")
    with AtomicFile(tmp_path / "out", mark="new") as file:
        file.write(b"new")
        file.commit()
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"new"]


@pytest.mark.skipif(sys.platform == "win32", reason="parts have locks on POSIX")
def test_parts_in_use_are_numbered(tmp_path: Path) -> None:
    """Writers of one file at the same time have a part each, and the next one begins with the first again."""
    for _ in range(2):
        with AtomicFile(tmp_path / "out"), AtomicFile(tmp_path / "out"):
            assert sorted(path.name.rpartition("-")[2] for path in tmp_path.iterdir()) == ["0.part", "1.part"]


@pytest.mark.parametrize("follow_links", [True, False])
def test_a_link(tmp_path: Path, *, follow_links: bool) -> None:
    """The target of a link is written, or the link is replaced and its target remains."""
    (tmp_path / "far").write_bytes(b"old")
    (tmp_path / "out").symlink_to(tmp_path / "far")
    with AtomicFile(tmp_path / "out", follow_links=follow_links) as file:
        file.write(b"new")
        file.commit()
    assert (tmp_path / "out").is_symlink() is follow_links
    assert (tmp_path / "out").read_bytes() == b"new"
    assert (tmp_path / "far").read_bytes() == (b"new" if follow_links else b"old")


def test_an_error_has_the_advice(tmp_path: Path) -> None:
    """An error names the path and the cause, and ends with the advice."""
    with pytest.raises(UsageError) as caught, AtomicFile(tmp_path / "none" / "out", advice="do this"):
        pytest.fail("it opened")
    expected = f"cannot write {tmp_path / 'none' / 'out'}: there is no such file or directory; do this"
    assert str(caught.value) == expected
