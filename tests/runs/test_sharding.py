"""From an input to shards: cut at the limits, bad lines reported or set aside, and the same rows read again."""

from __future__ import annotations

import hashlib
import json
import tracemalloc
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from together_batches import RunChangedError, UsageError, ValidationError
from together_batches._local.atomic_file import AtomicFile
from together_batches.runs import _sharding
from together_batches.runs._files import sha256_of
from together_batches.runs._sharding import Scan, rows_in, scan, unsplit_rows

if TYPE_CHECKING:
    from together_batches.runs._records import Shard

ENDPOINT = "/v1/chat/completions"


def _row(custom_id: str, text: str = "") -> bytes:
    return json.dumps({"custom_id": custom_id, "body": {"model": "m", "text": text}}).encode()


ROWS = [_row(f"row-{number}") for number in range(7)]


def _scan(path: Path, content: bytes, **options: Any) -> Scan:
    path.write_bytes(content)
    return scan(path, **{"endpoint": ENDPOINT, "max_rows": 3, "raise_if_cancelled": lambda: None, **options})


def _read(path: Path, shards: tuple[Shard, ...]) -> list[list[bytes]]:
    return [_rows_in(path, shard) for shard in shards]


def _rows_in(path: Path, shard: Shard) -> list[bytes]:
    return b"".join(rows_in(path, shard, directory=path.parent)).split(b"\n")[:-1]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "in.jsonl"


def _lines(*rows: bytes, end: bytes = b"\n") -> bytes:
    return b"".join(row + end for row in rows)


# --- cutting ---


@pytest.mark.parametrize(("first", "rows"), [(1, [1, 3, 3]), (2, [2, 3, 2]), (3, [3, 3, 1]), (9, [3, 3, 1])])
def test_a_first_shard_of_its_own_size(path: Path, first: int, rows: list[int]) -> None:
    """The first shard can be smaller than the others, and no row is lost at its border."""
    found = _scan(path, _lines(*ROWS), first_rows=first)
    assert [shard.rows for shard in found.shards] == rows
    assert [row for shard in _read(path, found.shards) for row in shard] == ROWS


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\n\n", b" \n\t\n"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("last", [True, False])
def test_shards_are_ranges_of_the_input(path: Path, end: bytes, bom: bytes, *, last: bool) -> None:
    """Shards have the maximum of rows; blank lines, carriage returns and a byte order mark are not part of rows."""
    content = bom + _lines(*ROWS, end=end)
    content = content if last else content.rstrip()
    found = _scan(path, content)
    assert (found.bytes, found.sha256, found.invalid) == (len(content), hashlib.sha256(content).hexdigest(), 0)
    assert [(shard.number, shard.rows) for shard in found.shards] == [(1, 3), (2, 3), (3, 1)]
    assert [row.strip() for rows in _read(path, found.shards) for row in rows] == ROWS
    assert found.shards[0].offset == len(bom)
    assert sum(shard.size for shard in found.shards) == len(content) - len(bom)


def test_a_shard_has_so_many_bytes_at_most(path: Path) -> None:
    """The limit of bytes applies to the upload: without omitted bytes, and with a newline for each row."""
    size = len(ROWS[0]) + 1
    for max_bytes, expected in ((2 * size, [2, 2, 2, 1]), (3 * size - 1, [2, 2, 2, 1]), (3 * size, [3, 3, 1])):
        found = _scan(path, _lines(*ROWS, end=b"\r\n"), max_rows=100, max_bytes=max_bytes)
        assert [shard.rows for shard in found.shards] == expected


@given(
    st.lists(st.sampled_from(["good", "bad", "blank", "again"]), min_size=1, max_size=30),
    st.integers(1, 5),
    st.booleans(),
)
def test_any_mixture_of_lines(kinds: list[str], max_rows: int, end: bool) -> None:  # hypothesis gives it by position
    """Each good row is in one shard, in its place; each bad line is set aside; nothing is added."""
    lines = {"bad": b"no JSON", "blank": b" \t", "again": _row("again")}
    content = [lines.get(kind, _row(f"row-{number}")) for number, kind in enumerate(kinds)]
    good = [line for kind, line in zip(kinds, content, strict=True) if kind == "good"]
    if "again" in kinds:
        good.insert(sum(kind == "good" for kind in kinds[: kinds.index("again")]), lines["again"])
    bad = [line for kind, line in zip(kinds, content, strict=True) if kind == "bad"]
    with TemporaryDirectory() as directory, ExitStack() as stack:
        path = Path(directory, "in.jsonl")
        aside = stack.enter_context(AtomicFile(Path(directory, "aside")))
        text = _lines(*content)
        try:
            found = _scan(path, text if end else text.removesuffix(b"\n"), max_rows=max_rows, aside=aside)
        except ValidationError:
            assert not good
            return
        assert [row for rows in _read(path, found.shards) for row in rows] == good
        assert found.invalid == len(bad) + max(0, kinds.count("again") - 1)
        aside.commit()
        assert len(Path(directory, "aside").read_bytes().splitlines()) == found.invalid


# --- bad lines ---


def test_bad_lines_are_refused(path: Path) -> None:
    """Bad lines are refused in the words of a validation, and with advice."""
    content = _lines(ROWS[0], b"no JSON", ROWS[1], ROWS[0], b'{"custom_id": "a"}', b"[]")
    message = "4 problems in lines 2, 4, 5, 6; the first: line 2 .*; fix this, or .* with skip_invalid"
    with pytest.raises(ValidationError, match=message) as raised:
        _scan(path, content)
    shown = [problem.partition(" (")[0] for problem in raised.value.problems]
    assert shown == ["line 2", "line 4", "line 5", "line 6"]
    assert "custom_id is that of line 1 too" in raised.value.problems[1]


def test_very_many_bad_lines(path: Path) -> None:
    """All problems are counted, and the first thousand are listed."""
    content = _lines(*(b"{" if number % 2 else _row(str(number)) for number in range(3_000)))
    with pytest.raises(ValidationError, match=r"1 500 problems in lines 2, 4, .*40, …; the first: line 2 ") as raised:
        _scan(path, content)
    assert len(raised.value.problems) == 1_000


def test_bad_lines_set_aside(path: Path, tmp_path: Path) -> None:
    """Bad lines are set aside byte for byte, even one too long for memory, and the second of two equal ids."""
    long = b'{"custom_id": "long", "text": "' + b"x" * 5_000 + b'"}'
    content = _lines(b"no JSON", ROWS[0], long, ROWS[1], ROWS[1], ROWS[2], b"\xff", ROWS[3])
    with AtomicFile(tmp_path / "invalid.jsonl") as aside:
        found = _scan(path, content, max_bytes=2_000, aside=aside)
        aside.commit()
    assert found.invalid == 4
    assert (tmp_path / "invalid.jsonl").read_bytes() == _lines(b"no JSON", long, ROWS[1], b"\xff")
    assert _read(path, found.shards) == [ROWS[:3], [ROWS[3]]]


@pytest.mark.parametrize("content", [b"", b"\n\n", b"no JSON\n"])
def test_no_rows(path: Path, tmp_path: Path, content: bytes) -> None:
    """An input without rows is refused."""
    with (
        AtomicFile(tmp_path / "invalid.jsonl") as aside,
        pytest.raises(ValidationError, match="there are no rows to send"),
    ):
        _scan(path, content, aside=aside)


def test_an_id_that_only_seems_to_come_twice(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An id with the hash of another is compared itself, and found to be different."""
    monkeypatch.setattr(_sharding, "hash", lambda _: 7, raising=False)
    found = _scan(path, _lines(*ROWS))
    assert sum(shard.rows for shard in found.shards) == len(ROWS)
    with pytest.raises(ValidationError, match=r"1 problem: line 8 .*custom_id is that of line 3 too"):
        _scan(path, _lines(*ROWS, ROWS[2]))


@pytest.mark.unmeasured
def test_memory_does_not_hold_the_ids(path: Path) -> None:
    """Eight bytes of each row are kept in memory, and some more for a moment."""
    content = _lines(*(_row(f"{number:060}") for number in range(50_000)))
    tracemalloc.start()
    try:
        path.write_bytes(content)
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        scan(path, endpoint=ENDPOINT, max_rows=5_000, raise_if_cancelled=lambda: None)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - before < 3_000_000  # the ids alone have as many bytes, and twice that as text


# --- read again ---


@pytest.mark.parametrize("change", [b"x", b"", b'{"custom_id": "row-3", "body": {"model": "n"}}'])
def test_rows_that_are_others_by_now(path: Path, change: bytes) -> None:
    """Changed rows are detected, by their shard; the other shards are read unchanged."""
    found = _scan(path, _lines(*ROWS))
    path.write_bytes(_lines(*ROWS[:3], change.ljust(len(ROWS[3])), *ROWS[4:]))
    assert _rows_in(path, found.shards[0]) == ROWS[:3]
    assert _rows_in(path, found.shards[2]) == ROWS[6:]
    with pytest.raises(RunChangedError, match=r"the rows from line 4 on are others\. Put the file back") as raised:
        _rows_in(path, found.shards[1])
    assert raised.value.directory == str(path.parent)


@pytest.mark.parametrize(
    ("content", "is_unsplit"),
    [
        (_lines(*ROWS), True),
        (_lines(*ROWS).removesuffix(b"\n"), True),
        (b"\xef\xbb\xbf" + _lines(*ROWS), True),
        (b"\n" + _lines(*ROWS), True),
        (_lines(*ROWS, end=b"\r\n"), False),
        (_lines(*ROWS, end=b"\n\n"), False),
    ],
    ids=["usual", "without an end", "byte order mark", "blank line before", "carriage returns", "blank lines"],
)
def test_rows_that_are_copied_without_splitting(tmp_path: Path, content: bytes, *, is_unsplit: bool) -> None:
    """The bytes of a shard are its rows if they have its hash; lines that are sent otherwise give another one."""
    path = tmp_path / "input.jsonl"
    for shard in _scan(path, content).shards:
        digest = hashlib.sha256()
        first, *rest = unsplit_rows(path, shard, digest.update)
        assert first.count(b"\n") == 1
        assert (digest.hexdigest() == shard.sha256) is is_unsplit
        if is_unsplit:
            assert b"".join([first, *rest]).split(b"\n")[:-1] == _rows_in(path, shard)


def test_an_input_that_is_gone(path: Path) -> None:
    """A missing input is an error that says so."""
    found = _scan(path, _lines(*ROWS))
    path.unlink()
    with pytest.raises(UsageError, match=r"cannot read .*in\.jsonl: there is no such file or directory"):
        _rows_in(path, found.shards[0])
    with pytest.raises(UsageError, match=r"cannot read .*in\.jsonl: there is no such file or directory"):
        sha256_of(path, lambda: None)


def test_an_input_that_changes_while_it_is_read(path: Path) -> None:
    """An input that changes between two reads is refused."""
    content = _lines(*ROWS, ROWS[0])
    looks = iter(range(100))

    def raise_if_cancelled() -> None:
        if next(looks) == 0:
            path.write_bytes(_lines(*ROWS))

    with pytest.raises(UsageError, match="changed while it was read"):
        _scan(path, content, raise_if_cancelled=raise_if_cancelled)


def test_a_cancelled_scan_ends(path: Path) -> None:
    """The caller can stop the read at the next block."""

    def raise_if_cancelled() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _scan(path, _lines(*ROWS), raise_if_cancelled=raise_if_cancelled)
