"""What a seed decides: the input, the service, the accidents."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any

import attrs
import msgspec

from together_batches.emulator import Answer, Failure, Fault, Missing, RateLimit, Timing

from .troubles import Troubles

_TROUBLES: tuple[Mapping[str, Any], ...] = (
    {"lose": "request"},
    {"lose": "answer"},
    {"status": 500},
    {"status": 502, "acts": True, "body": "<html>", "content_type": "text/html"},
    {"status": 429, "body": {"error": "slow down"}},
    {"cut_after": 5},
    {"cut_after": 3_000},
    {"status": 200, "acts": True, "body": b"no JSON"},
    {"delay": 3.0},
)
_OPERATIONS = (
    *("create", "create", "create", "list", "list", "retrieve"),
    *("begin_upload", "store", "preprocess", "file", "content", "content", "*"),
)


@attrs.frozen
class Row:
    """A line of the input. ``fate`` is its fixed outcome; None if it differs from job to job."""

    custom_id: str
    line: bytes
    fate: Answer | Failure | Missing | None


@attrs.frozen
class Life:
    """The life of a job: its final status, the rows done by then, and when it, or its output, is deleted."""

    timing: Timing
    ends_as: str | None = None
    percent: float | None = None
    deleted_after: float | None = None
    file_deleted_after: float | None = None


@attrs.frozen
class Death:
    """The step right before which a process is killed: so many after the first one with this description.

    With 0 it is killed right after that step itself: what was sent is on its way.
    """

    steps: int
    after: str = ""


@attrs.frozen(kw_only=True)
class Plan:
    """A simulation, decided before it begins. Times are in seconds of its own clock."""

    seed: int
    rows: tuple[Row, ...]
    settings: Mapping[str, Any]
    bad_lines: Mapping[int, bytes] = attrs.field(factory=dict[int, bytes])
    """Invalid lines, by the number of the row that they precede."""
    from_iterable: bool = False
    """Whether the requests come from an iterable instead of a path."""
    fail_rows: float = 0.0
    missing_rows: float = 0.0
    calm: bool = False
    """Whether all jobs complete."""
    patient: bool = False
    """Whether jobs may be stuck for days; then they are polled rarely."""
    faults: tuple[Fault, ...] = ()
    rate_limit: RateLimit | None = None
    slow_chance: float = 0.0
    reset_chance: float = 0.0
    deaths: tuple[Death | None, ...] = ()
    """For each start of the process, the kill, if any."""
    full_at: int | None = None
    full_for: int = 0
    second_after: float | None = None
    """Seconds after which a second process tries the same run while the first one is working on it."""
    clocks: tuple[float, ...] = ()
    """For each start, the error of this machine's clock in seconds."""
    troubles: Troubles = attrs.field(factory=Troubles)
    """False states that the service shows for a while."""

    @property
    def input(self) -> bytes:
        """Return the file of requests."""
        return b"".join(self.bad_lines.get(number, b"") + row.line for number, row in enumerate(self.rows))

    def life(self, number: int) -> Life:
        """Return the life of the job with this number."""
        random = Random(f"{self.seed} job {number}")
        quick = Timing(validating=random.uniform(0, 5), running=random.uniform(0, 60))
        if self.calm or random.random() < 0.6:
            return Life(quick)
        slow = Timing(validating=random.uniform(0, 300), running=random.uniform(60, 1_500))
        stuck = Timing(running=random.uniform(20_000, 200_000))
        lives = (
            Life(slow),
            Life(stuck if self.patient else slow),
            Life(quick, "EXPIRED", random.choice((0, 40, 99))),
            Life(quick, "FAILED", random.choice((0, 70))),
            Life(quick, "CANCELLED", random.choice((0, 50))),
            Life(slow, deleted_after=random.uniform(0, 600)),
            Life(quick, file_deleted_after=random.uniform(0, 200)),
        )
        return random.choice(lives if self.troubles.lets_jobs_go else lives[:-2])


def drawn(seed: int) -> Plan:
    """Return the plan of a seed."""
    random = Random(f"plan {seed}")
    rows = _rows(random)
    per_job = max(1, -(-len(rows) // random.randint(1, 6)))
    from_iterable = random.random() < 0.15
    bad_lines = {}
    if not from_iterable and random.random() < 0.15:
        bad_lines = {number: random.choice(_BAD_LINES) for number in range(len(rows)) if random.random() < 0.1}
    settings: dict[str, Any] = {"max_rows_per_job": per_job, "max_attempts": random.randint(1, 4)}
    if random.random() < 0.3:
        settings["max_jobs"] = random.randint(1, 3)
    if random.random() < 0.3:
        settings["max_enqueued_rows"] = random.randint(per_job, 3 * per_job)
    if random.random() < 0.5:
        settings["patience"] = 300.0
    if bad_lines:
        settings["skip_invalid"] = True
    if Random(f"dedupe {seed}").random() < 0.2:
        settings["dedupe"] = True  # no rows are equal, so each is sent, from the files of such a run
    wild = random.random() < 0.8
    patient = random.random() < 0.3
    if patient:
        settings["poll_interval"] = 1_000.0
    plan = Plan(
        seed=seed,
        rows=rows,
        settings=settings,
        bad_lines=bad_lines,
        from_iterable=from_iterable,
        fail_rows=random.choice((0, 0, 0.02, 0.3)),
        missing_rows=random.choice((0, 0, 0.02, 0.3)),
        calm=not wild,
        patient=patient,
        deaths=tuple(_death(random) for _ in range(random.choice((0, 1, 2, 4, 8)))),
        troubles=Troubles.drawn(seed),
        clocks=tuple(random.choice((0, 0, -86_400, 3_600, -7)) for _ in range(10)),
        second_after=random.uniform(0, 30) if random.random() < 0.2 else None,
    )
    if not wild:
        return plan
    return attrs.evolve(
        plan,
        faults=tuple(_fault(random) for _ in range(random.randrange(8))),
        rate_limit=RateLimit(random.uniform(1, 20), random.randint(1, 5)) if random.random() < 0.15 else None,
        slow_chance=random.choice((0, 0, 0.05, 0.3)),
        reset_chance=random.choice((0, 0, 0.003, 0.02)),
        full_at=random.randint(1, 150) if random.random() < 0.2 else None,
        full_for=random.choice((0, 1, 6)),
    )


def _death(random: Random) -> Death | None:
    return random.choice(
        (
            None,
            Death(random.randint(1, 40)),
            Death(random.randint(20, 150)),
            Death(random.randint(100, 600)),
            # Between an effect at the service and its record: the most critical moments.
            Death(0, "send POST /v1/batches "),
            Death(random.randint(1, 3), "send POST /v1/batches "),
            Death(random.randint(1, 12), "send POST /v1/batches "),
            Death(random.randint(1, 12), random.choice(("/content", "send PUT", "replace"))),
        )
    )


def _fault(random: Random) -> Fault:
    on, trouble = random.choice(_OPERATIONS), random.choice(_TROUBLES)
    times = 1 if trouble.get("status") == 429 else random.choice((1, 2, 3, 8))
    return Fault(on=on, times=times, chance=random.choice((0.2, 0.6, 1.0)), **trouble)


_FATES: tuple[Answer | Failure | Missing, ...] = (
    Answer("It is."),
    Failure("Maximum context length exceeded", "invalid_request_error"),
    Failure(),
    Missing(),
)


_BAD_LINES = (b"{\n", b'{"custom_id": "no body"}\n', b'["no", "request"]\n', b"\xff\n")


def _rows(random: Random) -> tuple[Row, ...]:
    count = random.choice((1, 2, 7, random.randint(10, 100), random.randint(100, 400), random.randint(400, 1_200)))
    odd = random.choice((0.0, 0.05, 0.5))
    rows = tuple(_row(random, number, odd) for number in range(count))
    if random.random() < 0.1:
        # If no row is ever answered, each attempt consists of the same rows, and so of the same file.
        fate = random.choice((Failure(), Missing()))
        rows = tuple(attrs.evolve(row, fate=fate) for row in rows)
    return rows


def _row(random: Random, number: int, odd: float) -> Row:
    custom_id = f"row-{number}" if random.random() >= odd else f"Zeile {number} „\u2028{random.choice('äß漢🙂')}“"
    fate = random.choice(_FATES) if random.random() < odd else None
    words = "word " * random.randrange(8)
    body = {"model": "openai/gpt-oss-20b", "messages": [{"role": "user", "content": f"{words}{number}"}]}
    return Row(custom_id, msgspec.json.encode({"custom_id": custom_id, "body": body}) + b"\n", fate)


def small(number: int) -> Plan:
    """Return a plan of few steps that covers all kinds: several shards, rows sent again, a lost response."""
    random = Random(f"small {number}")
    rows = tuple(_row(random, place, 0.3) for place in range(random.randint(3, 9)))
    lost = Fault(on=random.choice(("create", "list", "store", "content")), **random.choice(_TROUBLES[:4]))
    return Plan(
        seed=number,
        rows=rows,
        settings={"max_rows_per_job": 4, "max_attempts": 2, "dedupe": number == 2},
        fail_rows=0.2,
        calm=number % 2 == 0,
        faults=(lost,) if number else (),
    )
