"""What must hold when a simulation is over, by the service's own books and by what is on the disk.

It is stated anew here and asks the package nothing: of each row by which jobs it went and what they made of it, and
from that where it must be found.
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING

import attrs
import msgspec

from together_batches import BatchesError, RunInUseError, RunLedgerError, runs
from together_batches.emulator._jobs import ENDED

from .world import Made

if TYPE_CHECKING:
    from pathlib import Path

    from .world import World

_FOR_GOOD = "invalid_request_error"


@attrs.frozen
class _Trial:
    """A row in one job: what may be known of it, and whether the job counts as one of its attempts."""

    made: Made
    known_as: frozenset[str]
    """``answered``, ``failed for good``, ``failed``, ``none``: more than one where the job, or a file, is gone."""
    counts: bool


def judge(world: World) -> None:
    """Raise an :class:`AssertionError` that says what does not hold."""
    _judge_starts(world)
    noted = _noted(world)
    trials = _trials(world, noted)
    _judge_jobs(world, trials)
    _judge_files(world, trials)


def _judge_starts(world: World) -> None:
    """Errors of the package are its own, and only the first of two processes gets the run."""
    for start in world.starts:
        assert start.error is None or isinstance(start.error, BatchesError), f"not an error of ours: {start}"
        assert not isinstance(start.error, RunInUseError), f"refused, and nobody was at it: {start}"
    for start in world.seconds:
        # On a full disk not even the lock can be asked for.
        kept_out = isinstance(start.error, RunLedgerError) and str(start.error).startswith("cannot work in ")
        assert kept_out or isinstance(start.error, RunInUseError) or start.result is not None, f"let in: {start}"


def _noted(world: World) -> set[str]:
    """The jobs of the ledger: those of the service, each once, and no other."""
    view = runs.read(world.disk.root / "answers.jsonl.run")
    noted = [str(attempt.job_id) for shard in view.shards for attempt in shard.attempts]
    made = {made.job.id for made in world.made}
    assert len(set(noted)) == len(noted), f"noted twice: {noted}"
    assert set(noted) <= made, f"never made: {set(noted) - made}"
    # A job that was deleted before the answer to its create was heard is known to nobody any more.
    assert made - set(noted) <= set(world.gone), f"made, and not noted: {made - set(noted)}"
    assert sum(shard.rows for shard in view.shards) == len(world.plan.rows)
    return set(noted)


def _trials(world: World, noted: set[str]) -> dict[str, list[_Trial]]:
    trials: dict[str, list[_Trial]] = {row.custom_id: [] for row in world.plan.rows}
    for made in world.made:
        answered, failed = world.results(made)
        gone = made.job.id in world.gone
        counts = made.job.phase(world.emulator.now()).status != "CANCELLED" and made.job.id in noted
        for custom_id in made.ids:
            code = failed.get(custom_id)
            known = (
                "answered"
                if custom_id in answered
                else "none"
                if code is None
                else "failed for good"
                if code == _FOR_GOOD
                else "failed"
            )
            trials[custom_id].append(_Trial(made, frozenset({known, "none"} if gone else {known}), counts))
    return trials


def _judge_jobs(world: World, trials: dict[str, list[_Trial]]) -> None:
    """A row is in a second job only where the first one has ended without an answer to it."""
    for made in world.made:
        assert len(set(made.ids)) == len(made.ids), f"job {made.number} has a row twice"
        assert made.ids, f"job {made.number} was made of nothing"
    for custom_id, tried in trials.items():
        for before, after in pairwise(tried):
            told = f"{custom_id} is in job {before.made.number} and in job {after.made.number}"
            lost_at = world.gone.get(before.made.job.id)
            over = before.made.job.phase(after.made.at).status in ENDED
            assert over or (lost_at is not None and lost_at <= after.made.at), f"{told}, made while the first ran"
            assert before.known_as & {"failed", "none"}, f"{told}, although the first one {set(before.known_as)}"
        most = world.plan.settings["max_attempts"]
        counted = sum(trial.counts for trial in tried)
        assert counted <= most, f"{custom_id} was sent {counted} times, and {most} were allowed"


def _judge_files(world: World, trials: dict[str, list[_Trial]]) -> None:
    """Every row is in the output once, in its place, with what was made of it last; what was not answered, apart."""
    order = [row.custom_id for row in world.plan.rows]
    lines = _lines(world.disk.root / "answers.jsonl")
    found = {custom_id: bucket for custom_id, bucket, _ in lines}
    there = Counter(custom_id for custom_id, _, _ in lines)
    assert not set(order) - set(there), f"lost: {set(order) - set(there)}"
    assert there.total() == len(order), f"there twice, or no rows: {there - Counter(order)}"
    assert [custom_id for custom_id, _, _ in lines] == order, "the output is out of order"
    unanswered = [line for line in lines if line[1] != "succeeded"]
    assert _lines(world.disk.root / "answers.failures.jsonl") == unanswered, "the failures are others"
    for custom_id in order:
        last = trials[custom_id][-1]
        allowed = {_BUCKETS[known] for known in last.known_as}
        assert found[custom_id] in allowed, f"{custom_id} is {found[custom_id]}, and should be {allowed}"
        counted = sum(trial.counts for trial in trials[custom_id])
        assert counted == world.plan.settings["max_attempts"] or last.known_as & {"answered", "failed for good"}, (
            f"{custom_id} was sent only {counted} times"
        )
    report = world.starts[-1].result
    counts = {name: list(found.values()).count(name) for name in ("succeeded", "failed", "missing")}
    told = {name: getattr(report, name) for name in counts}
    assert told == counts, f"the report says {told}"
    assert report.invalid == len(world.plan.bad_lines)
    for process, name, content in world.seen:
        whole = (world.disk.root / name).read_bytes()
        assert content == whole, f"{name} was there after {process}, and not whole"
    left = sorted(path.name for path in world.disk.root.iterdir())
    wanted = {"input.jsonl", "answers.jsonl", "answers.failures.jsonl", "answers.jsonl.run"}
    assert set(left) <= wanted, f"left behind: {left}"


_BUCKETS = {"answered": "succeeded", "failed for good": "failed", "failed": "failed", "none": "missing"}


_RESULTS = {"success": "succeeded", "failure": "failed", "missing": "missing"}


def _lines(path: Path) -> list[tuple[str, str, bytes]]:
    """Of each line the id, the bucket that it tells, and the line itself."""
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]
    rows = [msgspec.json.decode(line) for line in lines]
    return [(row["custom_id"], _RESULTS[row["result"]], line) for row, line in zip(rows, lines, strict=True)]
