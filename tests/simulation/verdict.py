"""Conditions that must hold after a simulation, by the service's true state and by the files on the disk.

They are stated independently of the package: for each row, in which jobs it was and their results for it, which of
them were evidence for sending it again, and therefore in which file it must be.
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from math import inf
from typing import TYPE_CHECKING

import attrs
import msgspec

from together_batches import BatchesError, RunInUseError, RunLedgerError, runs

from .service import FOREIGN, Made

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from .service import Version
    from .world import Run, World

WITHOUT = "without evidence"

_FOR_GOOD = "invalid_request_error"
_ACCOUNT = frozenset({"401", "402"})
"""Codes of rows that were refused for the account, not for their content."""
_PATIENCE_SECONDS = 900.0
_RACE_SECONDS = 20.0
"""Maximum seconds between the last read of a job and the next create: an answer in between is not seen."""
_SECOND_LOOK_SECONDS = 29.0
_WHOLE_SECONDS = 59.0
"""Seconds after the end of a job before which absent results, or omitted rows, are not believed.

A second less than a minute, because the clocks of a run and of the service are read one after the other.
"""
_PAUSES_SECONDS = (29.0, 119.0, 599.0)
"""Seconds after the end of a job before which the call that created it does not send its rows again.

After the first, the second, and any further job that failed as a whole; after any other job as after the first.
"""


@attrs.frozen
class _Trial:
    """A row in one job: what may be known of it, and which of its attempts the job is, if it is one.

    ``counts`` are the possible numbers of attempts: 0, 1, or either.
    """

    made: Made
    attempt: int | None
    failed_as_a_whole: bool
    known_as: frozenset[str]
    """``answered``, ``failed for good``, ``failed``, ``refused`` for the account, ``none``.

    More than one if it depends on when it is read.
    """
    counts: frozenset[int]

    @property
    def is_noted(self) -> bool:
        """Return whether the run knows the job as its own."""
        return self.attempt is not None


_Trials = dict[str, list[_Trial]]


def judge(world: World, paid: Counter[str]) -> None:
    """Raise :class:`AssertionError` if a condition is violated; count rows that were ``paid`` for again.

    They are counted by the evidence for it.
    """
    assert not world.service.mistakes, f"the simulation itself: {world.service.mistakes[0]!r}"
    _judge_starts(world)
    for run in world.runs:
        noted = _noted(world, run)
        trials = _trials(world, run, noted)
        _judge_jobs(world, run, trials, paid)
        _judge_files(world, run, trials)


def _judge_starts(world: World) -> None:
    """Check that errors are the package's, only one of two processes gets the run, a cut ledger is refused."""
    for start in (start for run in world.runs for start in run.starts):
        assert start.error is None or isinstance(start.error, BatchesError), f"not an error of ours: {start}"
        assert not isinstance(start.error, RunInUseError), f"refused, and no other process was at it: {start}"
        is_refused = start.killed or isinstance(start.error, RunLedgerError)
        assert is_refused or not start.is_cut, f"a ledger that was cut is believed: {start}"
    for start in world.seconds:
        # On a full disk not even the lock can be taken, and a ledger that has been cut is refused first.
        kept_out = isinstance(start.error, RunLedgerError)
        assert kept_out or isinstance(start.error, RunInUseError) or start.result is not None, f"let in: {start}"


def _noted(world: World, run: Run) -> dict[str, int]:
    """Return the jobs of the ledger with their attempt numbers: each a job of the service, once, and no other."""
    service = world.service
    view = runs.read(run.root / "answers.jsonl.run")
    attempts = [attempt for shard in view.shards for attempt in shard.attempts if attempt.job_id]
    noted = [str(attempt.job_id) for attempt in attempts]
    by_id = {made.job.id: made for made in world.made}
    assert len(set(noted)) == len(noted), f"noted twice: {noted}"
    assert set(noted) <= set(by_id), f"never made: {set(noted) - set(by_id)}"
    others = {job_id for job_id in noted if by_id[job_id].by not in {run.name, FOREIGN}}
    assert not others, f"taken from another run: {others}"
    files = {by_id[job_id].job.input_file_id for job_id in noted}
    for made in world.made:
        job = made.job
        # Of two jobs of one file either is valid. A job that is deleted before its create is answered is unknown to
        # all; and a file may be given up.
        is_equal = job.input_file_id in files
        is_gone = job.id in service.gone or run.given_up_at(job.input_file_id) < inf
        is_ours = made.by == run.name
        assert not is_ours or job.id in noted or is_equal or is_gone, f"made, and not noted: {job.id}"
    assert sum(shard.rows for shard in view.shards) == len(world.plan.rows)
    return {str(attempt.job_id): attempt.number for attempt in attempts}


# --- rows and jobs ------------------------------------------------------------------------------------------------


def _trials(world: World, run: Run, noted: Mapping[str, int]) -> _Trials:
    """Return for each row the jobs that it was in: those that the run made, and those of others that it adopted."""
    trials: _Trials = {row.custom_id: [] for row in world.plan.rows}
    for made in world.made:
        if made.by != run.name and made.job.id not in noted:
            continue
        versions = [world.service.version(made, at) for at in (made.ended_at(), world.loop.unix_time())]
        may_be_missed = made.job.id in world.service.gone or _was_given_up(run, made) or _is_late(made, world)
        counts = _counts(world, run, made, noted)
        is_bad = made.job.id in noted and made.job.phase(inf).status == "FAILED" and not versions[0].files
        for custom_id in made.ids:
            known = {_known(version, custom_id) for version in versions}
            if may_be_missed:
                known.add("none")
                if made.looks.errors_stay:
                    known.add("failed")  # its error can be read, and its answer cannot
            trials[custom_id].append(_Trial(made, noted.get(made.job.id), is_bad, frozenset(known), counts))
    return trials


def _known(version: Version, custom_id: str) -> str:
    if custom_id in version.answered:
        return "answered"
    code = version.failed.get(custom_id)
    if code in _ACCOUNT:
        return "refused"
    return "none" if code is None else "failed for good" if code == _FOR_GOOD else "failed"


def _counts(world: World, run: Run, made: Made, noted: Mapping[str, int]) -> frozenset[int]:
    """Return how many attempts a job counts as: none if it was cancelled, either if that could not be seen.

    Rows that are refused for the account are no attempt, and a job in which others are refused may be none.
    """
    if made.job.id not in noted:
        return frozenset({0})
    codes = set(world.service.version(made, inf).failed.values())
    is_unclear = made.job.id in world.service.gone or _was_given_up(run, made) or bool(_ACCOUNT & codes)
    if is_unclear:
        return frozenset({0, 1})
    is_cancelled = made.job.phase(world.service.emulator.now()).status == "CANCELLED"
    return frozenset({0}) if is_cancelled else frozenset({1})


def _was_given_up(run: Run, made: Made) -> bool:
    return run.given_up_at(made.job.id, made.job.input_file_id) < inf


def _is_late(made: Made, world: World) -> bool:
    """Return whether a job that ended badly names its files so late that it may be taken for one without results."""
    return made.job.phase(inf).status != "COMPLETED" and max(made.looks.ids_after) >= _patience(world)


def _patience(world: World) -> float:
    return float(world.plan.settings.get("patience", _PATIENCE_SECONDS))


def _judge_jobs(world: World, run: Run, trials: _Trials, paid: Counter[str]) -> None:
    """Check that a row is in a second job only on evidence."""
    for made in world.made:
        assert len(set(made.ids)) == len(made.ids), f"job {made.number} has a row twice"
        assert made.ids, f"job {made.number} was made of nothing"
    without: dict[str, list[str]] = {}
    for custom_id, tried in trials.items():
        for before, after in pairwise(tried):
            if after.made.by == FOREIGN:
                continue
            if before.made.job.input_file_id == after.made.job.input_file_id:
                evidence, objection = _for_the_same_file(world, before.made, after.made)
            else:
                failures = sum(each.failed_as_a_whole for each in tried if each.made.number <= before.made.number)
                pause = _PAUSES_SECONDS[min(failures - 1, 2) if failures and before.failed_as_a_whole else 0]
                found = [
                    _evidence(world, run, custom_id, made, after.made, pause) for made in _taken(before, after, tried)
                ]
                evidence, objection = next((each for each in found if each[1]), found[0])
            paid[evidence] += 1
            if objection:
                what = f"in job {before.made.number} and in job {after.made.number}, {objection}"
                without.setdefault(what, []).append(custom_id)
        most = world.plan.settings["max_attempts"]
        counted = _attempts(tried, min)
        assert counted <= most, f"{custom_id} was sent {counted} times, and {most} were allowed"
    worst = next(iter(without), "")
    rows = sum(map(len, without.values()))
    assert not without, f"{rows} rows paid without evidence: {without[worst][0]} is {worst}"


def _taken(before: _Trial, after: _Trial, tried: Sequence[_Trial]) -> list[Made]:
    """Return the jobs of the first one's file that the run knew: a row goes again only if each leaves it."""
    same = [each for each in tried if each.made.job.input_file_id == before.made.job.input_file_id]
    noted = [each for each in same if each.is_noted]
    known = [each.made for each in noted if (each.attempt or 0) < (after.attempt or inf)]
    return known or [(noted[0] if noted and not before.is_noted else before).made]


def _attempts(tried: Iterable[_Trial], bound: Callable[[Iterable[int]], int]) -> int:
    """Return how many attempts these are, by the ``bound`` of each: two jobs of one file are one."""
    by_file: dict[str | None, int] = {}
    for trial in tried:
        file_id = trial.made.job.input_file_id
        by_file[file_id] = max(by_file.get(file_id, 0), bound(trial.counts))
    return sum(by_file.values())


def _for_the_same_file(world: World, before: Made, after: Made) -> tuple[str, str]:
    """Return the reason for two jobs of one file, and the objection, if any."""
    if before.by == FOREIGN:
        return "another's job of the same file", ""
    if world.service.may_be_unheard_of(before, after.at):
        return "job never listed", ""
    return WITHOUT, "which is made of the same file"


def _evidence(world: World, run: Run, custom_id: str, before: Made, after: Made, pause: float) -> tuple[str, str]:
    """Return the reason for a row of one job in that of the next attempt, and the objection, if any.

    ``pause`` is how long a call that has created the one waits from its end until it creates the other.
    """
    service, at, ended_at = world.service, after.at, before.ended_at()
    given_up_at = run.given_up_at(before.job.id, before.job.input_file_id)
    if given_up_at <= at:
        could_be_read = run.given_up_at(before.job.id) <= at and service.can_be_read(before, given_up_at)
        is_answered = custom_id in service.version(before, given_up_at).answered
        if could_be_read and is_answered and not any(_away(world, given_up_at, at)):
            return WITHOUT, "although it could be read when it was given up"
        return "given up", ""
    if ended_at > at:
        return WITHOUT, "made while the first ran"
    is_bad = before.job.phase(at).status != "COMPLETED"
    patience = _patience(world) * 0.95
    if is_bad and at - ended_at >= patience and min(before.looks.ids_after) >= patience:
        return "ended without results", ""
    seen_at = _seen_at(world, before, after)
    if seen_at is None:
        return WITHOUT, "although the first one is only not to be seen"
    version = service.version(before, seen_at)
    known = _known(version, custom_id)
    if known in {"answered", "failed for good"}:
        return WITHOUT, f"although it is {known}"
    kind, seconds = "left out", _WHOLE_SECONDS
    if known in {"failed", "refused"}:
        kind, seconds = "error row", 0.0
    elif not version.files:
        shows_rows = before.job.share_done(at) > 0
        kind, seconds = "ended without results", patience if shows_rows else _SECOND_LOOK_SECONDS if is_bad else inf
    if before.looks.fails is not None and before.job.phase(at).status == "FAILED":
        ended_at = before.at  # it had been seen to fail before
    since = seen_at - ended_at
    if since < seconds:
        return WITHOUT, f"made {since:.0f} s after the end of the first, which is too soon to know"
    is_of_one_call = any(start.began <= before.at and at <= start.ended for start in run.starts)
    if is_of_one_call and at - ended_at < pause and "retry_delays" not in world.plan.settings:
        return WITHOUT, f"made {since:.0f} s after the end of the first, by the same call"
    return kind, ""


def _seen_at(world: World, before: Made, after: Made) -> float | None:
    """Return the moment by which the result of a job is judged; None if its run could not know its end.

    It is that of the next create. If an answer came shortly before that, it is the last read; and if the job, or its
    files, were deleted, it is the last read before that.
    """
    service, at = world.service, after.at
    gone_at = service.gone.get(before.job.id, inf)
    read_at = service.read_before(before, min(at, gone_at)) or 0.0
    if gone_at < at:
        return read_at if read_at >= before.ended_at() else None
    is_race = read_at >= max(before.ended_at(), service.stored_at(after) - _RACE_SECONDS)
    return read_at if is_race and service.version(before, read_at) != service.version(before, at) else at


def _away(world: World, begins: float, ends: float) -> Iterator[bool]:
    """Return for each outage whether the service was away at any time in between."""
    began = world.service.began
    for away in world.plan.troubles.away:
        yield away.span[0] + began <= ends and away.span[1] + began >= begins


# --- the output ---------------------------------------------------------------------------------------------------


def _judge_files(world: World, run: Run, trials: _Trials) -> None:
    """Check that every row is in the output once, in its place, with its last result; unanswered rows apart."""
    order = [row.custom_id for row in world.plan.rows]
    lines = _lines(run.root / "answers.jsonl")
    found = {custom_id: bucket for custom_id, bucket, _ in lines}
    written = Counter(custom_id for custom_id, _, _ in lines)
    assert not set(order) - set(written), f"lost: {set(order) - set(written)}"
    assert written.total() == len(order), f"there twice, or no rows: {written - Counter(order)}"
    assert [custom_id for custom_id, _, _ in lines] == order, "the output is out of order"
    unanswered = [line for line in lines if line[1] != "succeeded"]
    assert _lines(run.root / "answers.failures.jsonl") == unanswered, "the failures are others"
    given_up_files = sum(given.startswith("file-") for given in {given for given, _ in run.gave_up})
    for custom_id in order:
        _judge_row(custom_id, found[custom_id], trials[custom_id], world, given_up_files)
    report = run.starts[-1].result
    counts = {name: list(found.values()).count(name) for name in ("succeeded", "failed", "missing")}
    reported = {name: getattr(report, name) for name in counts}
    assert reported == counts, f"the report says {reported}"
    assert report.invalid == len(world.plan.bad_lines)
    if run is world.runs[0]:
        for process, name, content in world.seen:
            whole = (run.root / name).read_bytes()
            assert content == whole, f"{name} was there after {process}, and not whole"
    left = sorted(path.name for path in run.root.iterdir())
    wanted = {"input.jsonl", "answers.jsonl", "answers.failures.jsonl", "answers.jsonl.run"}
    assert set(left) <= wanted, f"left behind: {left}"


def _judge_row(custom_id: str, bucket: str, tried: Sequence[_Trial], world: World, given_up_files: int) -> None:
    known = [trial for trial in tried if trial.is_noted] or tried
    assert known or given_up_files, f"{custom_id} was never sent"
    last = known[-1].known_as if known else frozenset({"none"})
    allowed = {_BUCKETS[each] for each in last if each in _BUCKETS}
    if any("answered" in trial.known_as for trial in known):
        allowed.add("succeeded")  # a late answer: an answer beats an error
    if given_up_files:
        allowed |= {_BUCKETS.get(each, "failed") for trial in known for each in trial.known_as} | {"missing"}
    assert bucket in allowed, f"{custom_id} is {bucket}, and should be {allowed}"
    most = world.plan.settings["max_attempts"]
    counted = _attempts(tried, max) + given_up_files
    is_settled = bucket == "succeeded" or "failed for good" in last
    assert is_settled or counted >= most, f"{custom_id} was sent only {counted} times"


# A row that is refused for the account is in no bucket: it is sent again when the run is called again.
_BUCKETS = {"answered": "succeeded", "failed for good": "failed", "failed": "failed", "none": "missing"}


_RESULTS = {"success": "succeeded", "failure": "failed", "missing": "missing"}


def _lines(path: Path) -> list[tuple[str, str, bytes]]:
    """Return for each line its id, the bucket that it names, and the line itself."""
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]
    rows = [msgspec.json.decode(line) for line in lines]
    return [(row["custom_id"], _RESULTS[row["result"]], line) for row, line in zip(rows, lines, strict=True)]
