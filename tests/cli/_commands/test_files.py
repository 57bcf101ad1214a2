"""The commands ``files upload``, ``list``, ``get``, ``download`` and ``delete``."""

from __future__ import annotations

import io
import json
import sys
from typing import TYPE_CHECKING

import pytest

from together_batches.emulator import Fault

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cli.conftest import Ran
    from together_batches.emulator import Emulator

    Run = Callable[..., Ran]

REQUESTS = b'{"custom_id":"row-1","body":{"model":"m"}}\n'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_bytes(REQUESTS)
    return path


@pytest.mark.parametrize("via", [(), ("--via", "api")])
def test_upload(run: Run, emulator: Emulator, path: Path, via: tuple[str, ...]) -> None:
    """An upload prints only the id, so that a script can use it."""
    ran = run("files", "upload", str(path), *via)
    assert (ran.code, ran.err) == (0, "")
    (file,) = emulator.files
    assert ran.lines == [file["id"]]
    assert (file["filename"], file["purpose"]) == ("in.jsonl", "batch-api")
    assert emulator.content(ran.lines[0]) == REQUESTS
    assert emulator.count("upload") == bool(via)


def test_upload_json(run: Run, emulator: Emulator, path: Path) -> None:
    """--json prints everything that the service returns; name and purpose can be set."""
    decoded = json.loads(run("files", "upload", str(path), "--json", "--name", "a.csv", "--purpose", "eval").out)
    assert (decoded["id"], decoded["bytes"], decoded["file_type"]) == (emulator.files[0]["id"], len(REQUESTS), "csv")
    assert (decoded["filename"], decoded["purpose"]) == ("a.csv", "eval")


def test_upload_of_nothing(run: Run, emulator: Emulator, tmp_path: Path) -> None:
    """Uploading a file that does not exist is a usage error in one sentence."""
    ran = run("files", "upload", str(tmp_path / "none"))
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == f"together-batches: error: cannot read {tmp_path}/none: there is no such file or directory\n"
    assert "--via" in run("files", "upload", "x", "--via", "mail").err


def test_upload_shows_how_far_it_is(
    run: Run, emulator: Emulator, path: Path, on_terminal: Callable[..., None]
) -> None:
    """An upload shows its progress on standard error if that is a terminal, unless --quiet is given."""
    on_terminal("stderr")
    assert "Uploading" in run("files", "upload", str(path)).err
    assert run("files", "upload", str(path), "--quiet").err == ""


def test_list(run: Run, emulator: Emulator, on_terminal: Callable[..., None]) -> None:
    """A list is five columns with tabs in a pipe and a table on a terminal, without control characters."""
    assert run("files", "list").err == "there are no files\n"
    file_id = emulator.add_file(bytes(1234), filename="a\t\x1b.jsonl", purpose="eval")
    (line,) = run("files", "list").lines
    columns = line.split("\t")
    assert [columns[0], columns[1], columns[3], columns[4]] == [file_id, "1234", "eval", "a\\t\\x1b.jsonl"]
    assert columns[2].endswith("Z")
    on_terminal("stdout")
    header, row = run("files", "list").lines
    assert header.split() == ["ID", "BYTES", "AGE", "PURPOSE", "NAME"]
    id_, *size, _age, purpose, name = row.split()
    assert (id_, size, purpose, name) == (file_id, ["1", "234"], "eval", "a\\t\\x1b.jsonl")


def test_list_json(run: Run, emulator: Emulator) -> None:
    """A list with --json is one complete array."""
    assert json.loads(run("files", "list", "--json").out) == []
    ids = {emulator.add_file(REQUESTS), emulator.add_file(b"{}\n")}
    assert ids == {file["id"] for file in json.loads(run("files", "list", "--json").out)}


def test_get(run: Run, emulator: Emulator) -> None:
    """Each file is printed as a block, in the order of the ids; ids of no file are named on standard error."""
    first, second = emulator.add_file(REQUESTS), emulator.add_file(b"{}\n")
    ran = run("files", "get", second, "none", first)
    assert ran.code == 5
    assert [line.split()[1] for line in ran.lines if line.startswith("id ")] == [second, first]
    assert "error: none: the service answered 404" in ran.err
    decoded = [json.loads(line) for line in run("files", "get", first, second, "--json").lines]
    assert [file["id"] for file in decoded] == [first, second]
    assert run("files", "get", "none").code == 4


def test_download(run: Run, emulator: Emulator, tmp_path: Path) -> None:
    """A download goes to the given file, with a line on standard error; --overwrite replaces an existing file."""
    file_id = emulator.add_file(REQUESTS)
    out = tmp_path / "out.jsonl"
    ran = run("files", "download", file_id, "-o", str(out))
    assert (ran.code, ran.out, ran.err) == (0, "", f"{len(REQUESTS)} bytes in {out}\n")
    assert out.read_bytes() == REQUESTS
    out.write_bytes(b"old")
    ran = run("files", "download", file_id, "-o", str(out))
    assert (ran.code, ran.err) == (2, f"together-batches: error: {out} exists already; --overwrite replaces it\n")
    assert out.read_bytes() == b"old"
    ran = run("files", "download", file_id, "-o", str(out), "--overwrite", "--json")
    assert json.loads(ran.out) == {"id": file_id, "output": str(out), "bytes": len(REQUESTS)}
    assert out.read_bytes() == REQUESTS
    assert list(tmp_path.iterdir()) == [out]


def test_download_to_standard_output(run: Run, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """A download without -o is written to standard output byte for byte."""
    file_id = emulator.add_file(b"\xff\r\n\0")
    content = io.BytesIO()
    out = io.TextIOWrapper(content)
    monkeypatch.setattr(sys, "stdout", out)
    assert run("files", "download", file_id).code == 0
    assert content.getvalue() == b"\xff\r\n\0"


def test_download_that_fails(run: Run, emulator: Emulator, tmp_path: Path) -> None:
    """A failed download leaves no file, and the error states the cause."""
    file_id = emulator.add_file(REQUESTS)
    emulator.fail(Fault(on="content", cut_after=0, times=None))
    ran = run("files", "download", file_id, "-o", str(tmp_path / "out"))
    assert ran.code == 1
    assert f"after 0 bytes of {len(REQUESTS)}" in ran.err
    emulator.clear_faults()
    assert run("files", "download", "none", "-o", str(tmp_path / "out")).code == 4
    assert "is a directory" in run("files", "download", file_id, "-o", str(tmp_path)).err
    assert list(tmp_path.iterdir()) == []


def test_download_of_a_file_that_is_cut(run: Run, emulator: Emulator, path: Path, tmp_path: Path) -> None:
    """A download shorter than the file's metadata says fails when --patience expires, and leaves no file."""
    file_id = emulator.add_file(REQUESTS)
    emulator.fail(Fault(on="file", body={"id": file_id, "bytes": 1_234}, times=None))
    target = tmp_path / "out"
    for patience, downloads in (("0.01", 2), ("0", 3)):
        ran = run("files", "download", file_id, "-o", str(target), "--patience", patience)
        assert (ran.code, ran.out) == (1, "")
        assert (
            f"error: file {file_id} is incomplete: {len(REQUESTS)} bytes received, and its metadata says 1 234"
            in ran.err
        )
        assert emulator.count("content") == downloads
    assert run("files", "download", file_id, "-o", str(target), "--patience", "-1").code == 2
    assert list(tmp_path.iterdir()) == [path]


def test_delete(run: Run, emulator: Emulator) -> None:
    """A delete prints the ids of the deleted files; a file that did not exist is named on standard error."""
    first, second = emulator.add_file(REQUESTS), emulator.add_file(b"{}\n")
    ran = run("files", "delete", first, "none")
    assert (ran.code, ran.lines) == (5, [first])
    assert "error: none: the service answered 404" in ran.err
    assert json.loads(run("files", "delete", second, "--json").out) == {"id": second, "deleted": True}
    assert emulator.files == []


def test_delete_that_takes_too_long(run: Run, emulator: Emulator) -> None:
    """If --timeout ends the command, the files that are gone by then have been printed, whatever their order."""
    ids = {emulator.add_file(REQUESTS), emulator.add_file(b"{}\n")}
    emulator.fail(Fault(on="delete", delay=30))
    ran = run("files", "delete", *ids, "--timeout", "1")
    assert (ran.code, len(ran.lines)) == (6, 1)
    assert ids - {*ran.lines} == {file["id"] for file in emulator.files}


def test_ids_from_standard_input(run: Run, emulator: Emulator, feed: Callable[..., None]) -> None:
    """`files get -` and `files delete -` read ids from standard input, one a line, or the output of a list."""
    ids = {emulator.add_file(REQUESTS), emulator.add_file(b"{}\n")}
    feed(run("files", "list", "--json").out.encode())
    assert {json.loads(line)["id"] for line in run("files", "get", "-", "--json").lines} == ids
    feed(run("files", "list", "--header").out.encode())
    assert set(run("files", "delete", "-").lines) == ids
    assert not emulator.files


def test_list_by_size(run: Run, emulator: Emulator) -> None:
    """A list of files has columns, an order and a limit, as that of jobs."""
    small, large = emulator.add_file(bytes(9)), emulator.add_file(bytes(10))
    argv = ("files", "list", "--columns", "id,bytes", "--header")
    assert run(*argv, "--sort", "bytes").lines == ["id\tbytes", f"{small}\t9", f"{large}\t10"]
    assert run(*argv, "--sort", "-bytes", "--limit", "1").lines[1:] == [f"{large}\t10"]
