"""The view of a run: read from its ledger, without a lock and without a request."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from together_batches import RunLedgerError, Usage, UsageError, runs, to_dict
from together_batches.runs import _ledger
from together_batches.runs._lock import locked
from together_batches.runs._picture.timeline import standing
from together_batches.runs._reading import view_of
from together_batches.runs._records import Attempt, LedgerSnapshot, Run, Shard, packed

if TYPE_CHECKING:
    from pathlib import Path

NOON = datetime(2026, 9, 14, 12, tzinfo=UTC)
RUN = Run(
    id="0123456789abcdef",
    input_name="in.jsonl",
    input_bytes=300,
    input_sha256="ab" * 32,
    spooled=False,
    endpoint="/v1/chat/completions",
    model_id=None,
    priority=None,
    max_attempts=3,
    invalid=2,
    started_at=NOON,
)
SHARDS = tuple(
    Shard(number=number, first_line=4 * number - 3, rows=4, offset=40 * number, size=40, sha256="")
    for number in (1, 2, 3)
)
STEPS: list[dict[str, Any]] = [
    {},
    {"file_id": "file-1", "uploaded_at": NOON},
    {"since": NOON, "creating_at": NOON},
    {"job_id": "job-1", "known_at": NOON, "created_at": NOON, "warning": "slow"},
    {"status": "COMPLETED", "ended_at": NOON},
    {"collected_at": NOON, "outcomes": packed(b"sfam"), "total_tokens": 7},
]


def _attempt(steps: int) -> Attempt:
    facts = {name: value for step in STEPS[:steps] for name, value in step.items()}
    return Attempt(**{"shard": 1, "number": 1, "rows": 4, "planned_at": NOON, **facts})


def test_a_run_that_was_only_begun(tmp_path: Path) -> None:
    """A run that was only begun has its shards, all rows still to be sent, and its holder while there is one."""
    _ledger.create(tmp_path, RUN, SHARDS)
    view = runs.read(str(tmp_path))
    assert (view.state, view.pid, view.host) == ("interrupted", None, None)
    assert (view.rows, view.not_sent, view.invalid, view.usage) == (14, 12, 2, Usage())
    assert [(shard.number, shard.first_line, shard.rows, shard.bytes) for shard in view.shards] == [
        (1, 1, 4, 40),
        (2, 5, 4, 40),
        (3, 9, 4, 40),
    ]
    with locked(tmp_path):
        assert runs.read(tmp_path).state == "running"
        assert runs.read(tmp_path).pid is not None


@pytest.mark.parametrize(
    ("steps", "state", "in_flight"),
    [
        (1, "planned", 0),
        (2, "uploaded", 0),
        (3, "creating", 4),
        (4, "running", 4),
        (5, "ended", 4),
        (6, "collected", 0),
    ],
)
def test_how_far_an_attempt_is(tmp_path: Path, steps: int, state: str, in_flight: int) -> None:
    """The state of an attempt follows from its records; from the create on its rows are in flight until settled."""
    view = view_of(tmp_path, LedgerSnapshot(RUN, SHARDS, (_attempt(steps),)), None)
    ((attempt,), *others) = [shard.attempts for shard in view.shards]
    assert (attempt.state, view.in_flight, others) == (state, in_flight, [(), ()])
    assert view.rows == 14


def test_what_became_of_its_rows(tmp_path: Path) -> None:
    """Outcomes are counted in the attempt and in the run: rows that go again are not sent yet."""
    view = view_of(tmp_path, LedgerSnapshot(RUN, SHARDS, (_attempt(6),)), None)
    attempt = view.shards[0].attempts[0]
    assert (attempt.succeeded, attempt.failed, attempt.again, attempt.missing) == (1, 1, 1, 1)
    assert (view.succeeded, view.failed, view.not_sent, view.warnings) == (1, 1, 10, ("slow",))
    assert view.usage == attempt.usage == Usage(0, 0, 7)
    last = view_of(tmp_path, LedgerSnapshot(attrs.evolve(RUN, max_attempts=1), SHARDS, (_attempt(6),)), None)
    assert (last.succeeded, last.failed, last.missing, last.not_sent) == (1, 2, 1, 8)
    assert [shard.not_sent for view in (view, last) for shard in view.shards] == [2, 4, 4, 0, 4, 4]


def test_rows_that_were_refused_for_the_account(tmp_path: Path) -> None:
    """Rows refused for the account are sent again once it is in order, and their shard is not done."""
    refused = attrs.evolve(_attempt(6), outcomes=packed(b"srrd"))
    view = view_of(tmp_path, LedgerSnapshot(RUN, SHARDS, (refused,)), None)
    (shard, *_) = view.shards
    assert (shard.attempts[0].again, shard.not_sent, view.not_sent) == (3, 3, 11)
    assert standing(shard) == "to be sent again"


def test_a_view_is_plain_data(tmp_path: Path) -> None:
    """A view converts to JSON data: times as text in UTC, absent values omitted."""
    snapshot = LedgerSnapshot(attrs.evolve(RUN, finished_at=NOON), SHARDS, (_attempt(3),))
    decoded = json.loads(json.dumps(to_dict(view_of(tmp_path, snapshot, None))))
    assert (decoded["state"], decoded["directory"], decoded["rows"]) == ("finished", str(tmp_path), 14)
    assert (decoded["started_at"], "model_id" in decoded) == ("2026-09-14T12:00:00Z", False)
    assert decoded["shards"][0]["attempts"][0]["creating_at"] == "2026-09-14T12:00:00Z"


def test_what_is_no_run(tmp_path: Path) -> None:
    """A directory without a run raises an error that says so."""
    with pytest.raises(RunLedgerError, match="is not the directory of a run"):
        runs.read(tmp_path)


@pytest.mark.parametrize("given", [None, 5, ["a"], "a\0b", "\ud800"])
def test_what_is_no_path(given: Any) -> None:
    """An invalid path is refused with its value."""
    with pytest.raises(UsageError, match=r"directory is (a path, not|not a path that a file can have)"):
        runs.read(given)
