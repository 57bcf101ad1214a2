"""A simulation finds bugs that are planted into a run: proof that it would find others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any
from unittest import mock

import attrs
import pytest

from together_batches import BatchesError, ResultsUnavailableError
from together_batches._jobs import create
from together_batches._jobs.create import Listing, WantedJob
from together_batches._local.atomic_file import AtomicFile
from together_batches.emulator import Fault
from together_batches.runs import (
    _attempt,
    _attempt_files,
    _beginning,
    _collecting,
    _context,
    _engine,
    _evidence,
    _joining,
    _ledger,
    _result_index,
    _resuming,
    _running,
    rules,
)

from .plan import Death, Plan, drawn
from .play import durable, play
from .troubles import KINDS, Troubles

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

    from together_batches.runs._records import Attempt

MOST_SEEDS = 150

pytestmark = pytest.mark.timeout(300)

Plans = Callable[[], Iterator[Plan]]
Patch = tuple[object, str, object]

# --- planted bugs -------------------------------------------------------------------------------------------------

_save = _ledger.SqliteLedger.save
_outcome_of = rules.outcome_of
_upload, _end = _beginning.Beginning.upload, _attempt.AttemptWork.end
_until_answered = _context.RunContext.until_answered


async def _only_afterwards(self: _ledger.SqliteLedger, *attempts: Attempt) -> None:
    known = [attempt for attempt in attempts if attempt.creating_at is None or attempt.job_id is not None]
    await _save(self, *known)


def _whatever_it_is(custom_ids: Any, output: Any, *rest: Any, **options: Any) -> _joining.Arranged:
    try:
        return _joining.arrange(custom_ids, output, *rest, **options)
    except _joining.ForeignFileError:
        return _joining.arrange(custom_ids, None, *rest, **options)


def _errors_first(custom_ids: Any, output: Any, errors: Any, *rest: Any, **options: Any) -> _joining.Arranged:
    """Join with the error file first, whose rows then beat answers."""
    first_counts = mock.patch.object(_result_index, "stray_reason", lambda _, before: "late" if before else None)
    with first_counts:
        return _joining.arrange(custom_ids, errors, output, *rest, **options)


class _NoLock:
    @staticmethod
    def check() -> None:
        """Hold the lock even if another process does."""


class _InPlace(AtomicFile):
    def __enter__(self) -> Self:
        super().__enter__()
        assert self._part is not None
        self._part.rename(self.path)
        return self

    def commit(self) -> None:
        self.finish()
        self._part = None


class _OneInFourHundredLost(AtomicFile):
    lines = 0

    def write(self, content: bytes) -> None:
        type(self).lines += 1
        if self.lines % 400:
            super().write(content)


def _output(kind: type[AtomicFile]) -> Callable[..., AtomicFile]:
    def output_file(path: Path, run_id: str, *, hashed: bool) -> AtomicFile:
        return kind(path, mark=run_id, fsync=True, hashed=hashed)

    return output_file


async def _after_one_look(self: _collecting.Collecting, **_: Any) -> Any:
    return await self._collect_leniently()


async def _or_is_gone(self: _attempt.AttemptWork, ended: Any) -> Any:
    try:
        return await _end(self, ended)
    except ResultsUnavailableError:
        await self.save(status="FAILED", progress=0, ended_at=self.time.now())
        return None


async def _nothing(*_: Any, **__: Any) -> None:
    """Do nothing, and return nothing."""


async def _always(*_: Any) -> bool:
    return True


async def _give_up_by_size(self: _collecting.Collecting) -> Any:
    arranged = await self.read(leniently=True)
    await self._work.save(output_bytes=None, error_bytes=None)
    await self._note(arranged)
    return arranged


def _for_good(result: Any) -> int:
    outcome = _outcome_of(result)
    return rules.FAILED if outcome in rules.FOR_THE_ACCOUNT else outcome


async def _upload_as_a_new_run(self: _beginning.Beginning) -> None:
    self._may_be_uploaded = False
    await _upload(self)


async def _an_empty_list_if_none(self: _context.RunContext, what: str, key: Any, call: Any, **more: Any) -> Any:
    if not what.startswith("search"):
        return await _until_answered(self, what, key, call, **more)
    try:
        return await call()
    except BatchesError:
        return Listing([], None)


# --- seeds that find them -----------------------------------------------------------------------------------------


def _seeds(kind: str | None = None, first: int = 0, **changes: Any) -> Iterator[Plan]:
    """Return the plans as drawn, or with a single kind of trouble; ``first`` is a seed that is known to fail."""
    for seed in range(first, MOST_SEEDS):
        plan = drawn(seed)
        if kind is not None:
            plan = attrs.evolve(plan, troubles=Troubles(seed, frozenset({kind})))
        settings = {**plan.settings, **changes.get("settings", {})}
        yield attrs.evolve(plan, **{**changes, "settings": settings})


def _with_lost_answers(kind: str | None = None) -> Iterator[Plan]:
    return _seeds(kind, faults=(Fault(on="create", lose="answer", times=3, chance=0.6),))


def _with_another_page() -> Iterator[Plan]:
    return _seeds(faults=(Fault(on="content", status=200, body="Sign in, please.\n", times=2),))


def _with_a_death_after(*deaths: Death) -> Iterator[Plan]:
    """Return plans with deaths at the most critical moments, and a service that is slow to show a job."""
    for number, plan in enumerate(_seeds("late in the list")):
        yield attrs.evolve(plan, deaths=(deaths[number % len(deaths)],), faults=(), slow_chance=0.4)


def _with_shared_files(kind: str) -> Iterator[Plan]:
    return _seeds(kind, settings={"unique_files": False})


def _found(plans: Iterator[Plan]) -> str:
    """Return the first failure, or an empty result."""
    outcomes = (play("planted", plan, durable) for plan in plans)
    found = next((outcome.failure for outcome in outcomes if outcome.failure), "")
    assert "TypeError" not in found, found  # the bug has another signature than what it replaces
    return found


def _is_found(plans: Iterator[Plan], *patches: Patch) -> bool:
    with ExitStack() as stack:
        for owner, name, instead in patches:
            stack.enter_context(mock.patch.object(owner, name, instead))
        return bool(_found(plans))


_SEARCH: Patch = (create._Search, "find", _nothing)
_ONE_LOOK: Patch = (_collecting.Collecting, "collect", _after_one_look)


_CREATE = "send POST /v1/batches "


@pytest.mark.parametrize(
    ("plans", "patches"),
    [
        pytest.param(_with_lost_answers, (_SEARCH,), id="a job is not looked for"),
        pytest.param(
            partial(_with_a_death_after, Death(0, _CREATE), Death(1, _CREATE)),
            (
                (_ledger.SqliteLedger, "save", _only_afterwards),
                (_beginning.Beginning, "upload", _upload_as_a_new_run),
            ),
            id="a create is noted when it is done",
        ),
        pytest.param(
            partial(_with_a_death_after, Death(0, _CREATE)),
            ((rules, "SEARCH_SECONDS", 0.0),),
            id="looked for once",
        ),
        pytest.param(
            _with_another_page,
            ((_attempt_files, "arrange", _whatever_it_is),),
            id="any page is taken for results",
        ),
        pytest.param(
            _seeds,
            (
                (_running, "locked", lambda _: nullcontext(_NoLock())),
                (_ledger.SqliteLedger, "_check_holder", lambda _: None),
            ),
            id="two processes are let in",
        ),
        pytest.param(
            partial(_with_a_death_after, *(Death(steps, "rename") for steps in (1, 2, 3))),
            ((_running, "output_file", _output(_InPlace)),),
            id="the output is written in its place",
        ),
        pytest.param(
            partial(_seeds, first=15),
            ((_running, "output_file", _output(_OneInFourHundredLost)),),
            id="a line is lost",
        ),
    ],
)
def test_it_is_found(plans: Plans, patches: tuple[Patch, ...]) -> None:
    """A planted bug is found within 150 seeds, each of which passes without it; the search begins near one."""
    assert _is_found(plans(), *patches)


PLANTED: dict[str, tuple[Callable[[str], Iterator[Plan]], tuple[Patch, ...]]] = {
    "late file ids": (_seeds, (_ONE_LOOK,)),
    "unknown jobs": (_seeds, (_ONE_LOOK, (_attempt.AttemptWork, "end", _or_is_gone))),
    "late in the list": (_with_lost_answers, ((rules, "SEARCH_SECONDS", 5.0),)),
    "absent files": (_seeds, (_ONE_LOOK,)),
    "growing results": (_seeds, (_ONE_LOOK,)),
    "short downloads": (_seeds, (_ONE_LOOK,)),
    "late answers": (partial(_seeds, first=14), ((_evidence.Evidence, "is_as_collected", _always),)),
    "errors of answered rows": (_seeds, ((_attempt_files, "arrange", _errors_first),)),
    "wrong sizes": (
        partial(_seeds, first=16, settings={"patience": 30.0}),
        ((_collecting.Collecting, "_collect_leniently", _give_up_by_size),),
    ),
    "failed for a moment": (_seeds, ((rules, "_BETWEEN_LOOKS_AT_A_JOB_SECONDS", 0.0),)),
    "odd creates": (_seeds, (_SEARCH,)),
    "foreign jobs": (_with_lost_answers, ((WantedJob, "matches", lambda *_, **__: True),)),
    "another run": (_with_shared_files, ()),
    "lost ledger": (
        _seeds,
        (
            (_resuming.Resuming, "look_around", _nothing),
            (_beginning.Beginning, "upload", _upload_as_a_new_run),
        ),
    ),
    "refused rows": (_seeds, ((rules, "outcome_of", _for_good),)),
    "failing jobs": (_seeds, ((_engine.Engine, "_delay", lambda *_: 0.0),)),
    "away": (partial(_seeds, first=12), ((_context.RunContext, "until_answered", _an_empty_list_if_none),)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_of_trouble_finds_it(kind: str) -> None:
    """Each kind of trouble finds a run that does not handle it, which proves that it occurs."""
    plans, patches = PLANTED[kind]
    assert _is_found(plans(kind), *patches)
