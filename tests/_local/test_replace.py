"""Files that replace others: links and modes stay, and new files are private to their owner."""

from __future__ import annotations

import os
import stat
import sys
from typing import TYPE_CHECKING

import pytest

from together_batches import UsageError, jsonl
from together_batches._local.async_atomic_file import open_atomic
from together_batches._local.replace import check_replaceable, created, destination, take_place

if TYPE_CHECKING:
    from pathlib import Path

posix = pytest.mark.skipif(sys.platform == "win32", reason="modes, links and pipes are those of POSIX")


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@posix
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o600), (0o000, 0o600), (0o277, 0o400)])
def test_a_new_file_is_for_its_owner(tmp_path: Path, umask: int, mode: int) -> None:
    """A new file is private to its owner, or has a mode that is stricter by umask."""
    before = os.umask(umask)
    try:
        created(tmp_path / "new").close()
    finally:
        os.umask(before)
    assert mode_of(tmp_path / "new") == mode


@posix
def test_a_part_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    """A link under the name of a part is not followed; it would direct the content to a file of another's choice."""
    (tmp_path / "precious").write_text("old")
    (tmp_path / "part").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="symbolic link"):
        created(tmp_path / "part", "wb")
    assert (tmp_path / "precious").read_text() == "old"


@posix
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664])
def test_the_mode_of_the_file_before_is_kept(tmp_path: Path, mode: int) -> None:
    """The mode of the replaced file is kept, stricter or wider."""
    old, part = tmp_path / "old", tmp_path / "part"
    old.write_text("old")
    old.chmod(mode)
    part.write_text("new")
    take_place(part, old)
    assert (old.read_text(), mode_of(old)) == ("new", mode)


@posix
def test_what_links_lead_to(tmp_path: Path) -> None:
    """A chain of links is resolved, also to a file that does not exist yet; any other path is itself."""
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to(tmp_path / "three")
    assert destination(tmp_path / "one") == (tmp_path / "three").resolve()
    assert destination(tmp_path / "three") == tmp_path / "three"


@posix
def test_what_no_file_may_replace(tmp_path: Path) -> None:
    """Directories, pipes and devices are not replaced; a missing file is, and any other with ``overwrite``."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").touch()
    check_replaceable(tmp_path / "file")
    check_replaceable(tmp_path / "none", overwrite=False)
    for name, reason in (
        ("", ": it is a directory"),
        ("pipe", r": it is not a file \(a device or a pipe\)"),
        ("file", " exists already"),
    ):
        with pytest.raises(UsageError, match=reason):
            check_replaceable(tmp_path / name, overwrite=False)


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


async def fill(path: Path, *, replace: bool = False) -> None:
    async with open_atomic(path, replace=replace) as target:
        await target.write(b"new")
        await target.commit()


@posix
async def test_a_download_through_a_link(tmp_path: Path) -> None:
    """A download through a link keeps the link; its file, in any directory, gets new content and keeps its mode."""
    (tmp_path / "far").mkdir()
    real, link = tmp_path / "far" / "real", tmp_path / "link"
    real.write_text("old")
    real.chmod(0o640)
    link.symlink_to(real)
    with pytest.raises(UsageError, match="exists already"):
        await fill(link)
    await fill(link, replace=True)
    assert link.is_symlink()
    assert (real.read_bytes(), mode_of(real)) == (b"new", 0o640)
    assert contents(tmp_path) == {"link": b"new", "real": b"new"}


@posix
def test_requests_through_a_link(tmp_path: Path) -> None:
    """``jsonl.write`` keeps link and mode too."""
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_text("old")
    real.chmod(0o600)
    link.symlink_to(real)
    jsonl.write([jsonl.chat_request("a", model="m", messages=[])], link, overwrite=True)
    assert link.is_symlink()
    assert (b'"a"' in real.read_bytes(), mode_of(real)) == (True, 0o600)


@posix
def test_new_files_of_requests_have_the_usual_mode(tmp_path: Path) -> None:
    """New files of requests have the mode that the umask gives, like those of any editor."""
    requests = [jsonl.chat_request("a", model="m", messages=[])]
    before = os.umask(0o027)
    try:
        jsonl.write(requests, tmp_path / "requests.jsonl")
        (piece,) = jsonl.split(requests, tmp_path / "pieces")
    finally:
        os.umask(before)
    assert (mode_of(tmp_path / "requests.jsonl"), mode_of(piece)) == (0o640, 0o640)


@posix
async def test_a_part_that_was_left_is_used_again(tmp_path: Path) -> None:
    """The part of a killed process is used again, so at most one exists for each path after any number of tries."""
    async with open_atomic(tmp_path / "out", replace=False):
        (part,) = contents(tmp_path)
    (tmp_path / part).write_bytes(b"from a process that was killed")
    async with open_atomic(tmp_path / "out", replace=False) as target:
        assert contents(tmp_path) == {part: b""}
        await target.write(b"new")
        await target.commit()
    assert contents(tmp_path) == {"out": b"new"}


@posix
async def test_two_downloads_to_one_place(tmp_path: Path) -> None:
    """Two downloads to one path do not share a part, and each file is complete."""
    async with (
        open_atomic(tmp_path / "out", replace=True) as first,
        open_atomic(tmp_path / "out", replace=True) as second,
    ):
        await first.write(b"1" * 10)
        await second.write(b"2" * 5)
        assert len(contents(tmp_path)) == 2
        await first.commit()
        assert (tmp_path / "out").read_bytes() == b"1" * 10
        await second.commit()
    assert contents(tmp_path) == {"out": b"2" * 5}


@posix
async def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without file locks, each part has a unique name, and none remains."""
    import errno
    import fcntl

    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    await fill(tmp_path / "out")
    assert contents(tmp_path) == {"out": b"new"}
