"""False states that a service may show for a while: the troubles of a seed, each of a kind that can be omitted.

Everything is drawn when it is needed, from the seed and a number, so one kind more or less changes no other. Times
are in seconds, spans include their start and exclude their end. The facts behind what a job shows do not change: a
job that cannot be seen runs, and a file that cannot be read has been paid for.
"""

from __future__ import annotations

from math import inf
from random import Random

import attrs

from together_batches.emulator import Answer, Failure

__all__ = ["KINDS", "Away", "Looks", "Loss", "OddCreate", "Span", "Troubles", "within"]

Span = tuple[float, float]

KINDS = (
    "late file ids",
    "unknown jobs",
    "late in the list",
    "absent files",
    "growing results",
    "short downloads",
    "late answers",
    "errors of answered rows",
    "wrong sizes",
    "failed for a moment",
    "odd creates",
    "foreign jobs",
    "another run",
    "lost ledger",
    "refused rows",
    "failing jobs",
    "away",
)
_SHOULD_BE_THE_SAME = frozenset({"late answers", "refused rows", "failing jobs", "odd creates", "foreign jobs"})
"""Kinds by which a call that resumes from an older ledger may make other attempts than the first one."""

SETTLED_SECONDS = 25.0
"""Seconds after which answers that follow an error of the same row have arrived, and a job's file ids are final."""
WHOLE_SECONDS = 50.0
"""Seconds after which a job's files are complete, and the second file id has followed the first."""
LISTED_SECONDS = 240.0
"""Seconds after which a job is in the list."""


def within(moment: float, *spans: Span) -> bool:
    """Return whether a moment is within one of these spans."""
    return any(begins <= moment < ends for begins, ends in spans)


@attrs.frozen(kw_only=True)
class Looks:
    """The view of a job: ``listed_after``, ``unknown`` and ``fails`` count from its create, the rest from its end.

    ``ids_after`` are those of its output and of its errors. Of each file, ``no_content`` and ``no_metadata`` are the
    spans of a 404. ``short`` downloads are cut after a ``share``, at the end of a line unless ``within_line``.
    ``size`` is the value that the metadata shows instead of the size, if any. A share of the answers is an error
    until ``answers_after``; with ``new_ids`` the files then have other ids. ``errors_stay`` is the share of the
    answered rows that are in the error file as well.
    """

    listed_after: float = 0.0
    unknown: Span | None = None
    unlisted: Span | None = None
    fails: Span | None = None
    ids_after: tuple[float, float] = (0.0, 0.0)
    no_content: Span | None = None
    no_metadata: Span | None = None
    affected: tuple[str, ...] = ("output_file_id", "error_file_id")
    grows_for: float = 0.0
    within_line: bool = False
    short: float = 0
    share: float = 0.5
    size: int | str | None = None
    answers_after: float = 0.0
    new_ids: bool = False
    errors_stay: float = 0.0


@attrs.frozen(kw_only=True)
class OddCreate:
    """A response to a create: its ``status`` and ``body``, whether the job is ``made``, and how much later.

    A body is named: ``usual``, ``bare`` (without the envelope), ``other file``, ``number`` (instead of a date),
    ``null job``, or given as it is sent.
    """

    status: int
    body: str | bytes = b""
    made: bool = True
    later: float = 0.0
    location: bool = False


@attrs.frozen
class Away:
    """An outage of the service in this ``span``: connections are ``refused``, or every response is an ``error``, 503.

    If only its ``jobs`` are away, files can be read, and requests about jobs take effect, but are answered with 503.
    """

    span: Span
    how: str


@attrs.frozen
class Loss:
    """The fate of a ledger between two starts: ``older``, ``without its journal``, or ``cut`` to a share."""

    kind: str
    share: float = 0.0


@attrs.frozen
class Troubles:
    """The troubles of these ``kinds``, as a ``seed`` draws them."""

    seed: int = 0
    kinds: frozenset[str] = frozenset()

    @classmethod
    def drawn(cls, seed: int) -> Troubles:
        """Draw no kind for one seed in five, otherwise up to three kinds."""
        random = Random(f"{seed} kinds of trouble")
        kinds = frozenset(random.sample(KINDS, random.choice((0, 1, 1, 2, 3))))
        if "lost ledger" in kinds:
            kinds -= _SHOULD_BE_THE_SAME
        return cls(seed, kinds)

    def _random(self, what: str) -> Random:
        return Random(f"{self.seed} {what}")

    # --- jobs and their files -------------------------------------------------------------------------------------

    def looks(self, number: int) -> Looks:
        """Return how the job with this number is shown."""
        looks = Looks()
        for kind, drawn in _LOOKS.items():
            random = self._random(f"{kind} of job {number}")
            if kind in self.kinds and random.random() < 0.6:
                looks = attrs.evolve(looks, **drawn(random, self._longest))
        return looks

    @property
    def _longest(self) -> float:
        """Return the longest duration of a trouble.

        A call that resumes from an older ledger makes the same attempts if nothing is given up.
        """
        return 200.0 if "lost ledger" in self.kinds else inf

    @property
    def lets_jobs_go(self) -> bool:
        """Return whether jobs, and their files, may be deleted."""
        return "lost ledger" not in self.kinds

    def refused(self, at: float) -> Answer | Failure | None:
        """Return how rows of a job created ``at`` that moment are refused for the account, if they are."""
        random = self._random("refused rows")
        begins = random.choice((0.0, random.uniform(0, 200)))
        span = begins, begins + random.choice((random.uniform(10, 100), random.uniform(1_000, 10_000)))
        if "refused rows" not in self.kinds or not within(at, span):
            return None
        code = random.choice((401, 402, 402, 402, 403))
        message = {401: "Unauthorized", 402: "Credit limit exceeded", 403: "forbidden for this key"}[code]
        if random.random() < 0.5:
            return Failure(message, str(code))
        return Answer(body={"error": {"message": message}}, status_code=code)

    def fails_at_once(self, at: float) -> bool:
        """Return whether a job created at that moment fails while it is validated."""
        random = self._random("failing jobs")
        begins = random.choice((0.0, random.uniform(0, 200)))
        span = begins, begins + random.choice((random.uniform(10, 100), random.uniform(100, 5_000)))
        return "failing jobs" in self.kinds and within(at, span)

    # --- creates --------------------------------------------------------------------------------------------------

    def odd_create(self, number: int) -> OddCreate | None:
        """Return the response to the create with this number; None for the usual one."""
        random = self._random(f"create {number}")
        if "odd creates" not in self.kinds or number > 12 or random.random() < 0.5:
            return None
        return random.choice(_odd_creates(random))

    def foreign(self, number: int) -> tuple[float, bool] | None:
        """Return when another user creates a job of the file with this number, and whether of a copy of it."""
        random = self._random(f"foreign job of file {number}")
        if "foreign jobs" not in self.kinds or random.random() < 0.4:
            return None
        return random.choice((0.0, random.uniform(0, 5), random.uniform(0, 120))), random.random() < 0.3

    # --- everything at once ---------------------------------------------------------------------------------------

    @property
    def away(self) -> tuple[Away, ...]:
        """Return when the service is away."""
        random = self._random("away")
        if "away" not in self.kinds:
            return ()
        begins, spans = 0.0, list[Away]()
        for _ in range(random.randint(1, 3)):
            begins += random.choice((random.uniform(0, 5), random.uniform(0, 100), random.uniform(0, 1_000)))
            ends = begins + random.choice(
                (random.uniform(1, 30), random.uniform(60, 900), random.uniform(3_600, 40_000))
            )
            if random.random() < 0.05:
                ends = inf
            spans.append(Away((begins, ends), random.choice(("refused", "error", "jobs"))))
            begins = ends
        return tuple(spans)

    @property
    def another_run(self) -> float | None:
        """Return when a run of the same input begins in another directory; infinite if after the first one."""
        random = self._random("another run")
        if "another run" not in self.kinds:
            return None
        return random.choice((0.0, random.uniform(0, 3), random.uniform(0, 60), inf))

    def loss(self, number: int) -> Loss | None:
        """Return the fate of the ledger before the start of this number, if there is a ledger."""
        random = self._random(f"ledger before start {number}")
        if "lost ledger" not in self.kinds or number > 8 or random.random() < 0.4:
            return None
        kind = random.choice(("older", "older", "without its journal", "cut"))
        return Loss(kind, random.choice((0.0, 0.001, 0.5, 0.9)))


# --- how jobs are shown ---------------------------------------------------------------------------------------------


def _lasts(random: Random, longest: float) -> float:
    seconds = random.choice(
        (
            random.uniform(1, 20),
            random.uniform(1, 60),
            random.uniform(20, 300),
            random.uniform(60, 800),
            random.uniform(1_000, 20_000),
            inf,
        )
    )
    return seconds if seconds <= longest else random.uniform(60, longest)


def _span(random: Random, longest: float, latest: float) -> Span:
    begins = random.choice((0.0, 0.0, random.uniform(0, latest)))
    return begins, begins + _lasts(random, longest)


def _late_ids(random: Random, longest: float) -> dict[str, object]:
    first = _lasts(random, longest)
    second = first + random.choice((0.0, random.uniform(0, WHOLE_SECONDS)))
    return {"ids_after": random.choice(((first, second), (second, first)))}


def _unknown(random: Random, longest: float) -> dict[str, object]:
    span = _span(random, longest, 120)
    return {"unknown": span, "unlisted": span if random.random() < 0.5 else None}


def _absent_files(random: Random, longest: float) -> dict[str, object]:
    span = _span(random, longest, 20)
    which = random.choice((("no_content",), ("no_metadata",), ("no_content", "no_metadata")))
    affected = random.choice((("output_file_id",), ("error_file_id",), ("output_file_id", "error_file_id")))
    return {**dict.fromkeys(which, span), "affected": affected}


def _short(random: Random, longest: float) -> dict[str, object]:
    times = random.choice((1, 1, 2, 4, inf if longest == inf else 3))
    return {"short": times, "share": random.uniform(0, 0.99), "within_line": random.random() < 0.5}


def _growing(random: Random, _: float) -> dict[str, object]:
    return {"grows_for": random.uniform(1, WHOLE_SECONDS), "within_line": random.random() < 0.5}


def _late_answers(random: Random, _: float) -> dict[str, object]:
    return {"answers_after": random.uniform(1, SETTLED_SECONDS), "new_ids": random.random() < 0.5}


def _wrong_sizes(random: Random, longest: float) -> dict[str, object]:
    return {"size": random.choice((0, None, "absent", 10, 1_000_000) if longest == inf else (None, -7))}


def _late_in_the_list(random: Random, _: float) -> dict[str, object]:
    return {"listed_after": random.choice((random.uniform(0, 15), random.uniform(0, LISTED_SECONDS)))}


def _failed_for_a_moment(random: Random, _: float) -> dict[str, object]:
    begins = random.uniform(0, 30)
    return {"fails": (begins, begins + random.uniform(1, SETTLED_SECONDS))}


_LOOKS = {
    "late file ids": _late_ids,
    "unknown jobs": _unknown,
    "late in the list": _late_in_the_list,
    "absent files": _absent_files,
    "growing results": _growing,
    "short downloads": _short,
    "late answers": _late_answers,
    "errors of answered rows": lambda random, _: {"errors_stay": random.choice((0.1, 0.5))},
    "wrong sizes": _wrong_sizes,
    "failed for a moment": _failed_for_a_moment,
}


def _odd_creates(random: Random) -> tuple[OddCreate, ...]:
    later = random.choice((0.0, 0.0, random.uniform(0, 40)))
    made = random.random() < 0.6
    return (
        OddCreate(status=random.choice((200, 201, 202)), body="bare"),
        OddCreate(status=201, body="other file"),
        OddCreate(status=201, body="number"),
        OddCreate(status=200, body="null job", made=False),
        OddCreate(status=random.choice((200, 202)), body=random.choice(_UNREADABLE), made=made, later=later),
        OddCreate(status=204, made=made, later=later),
        OddCreate(status=random.choice((301, 303)), made=made, later=later, location=random.random() < 0.5),
        OddCreate(status=random.choice((307, 308)), made=made, later=later, location=random.random() < 0.5),
        OddCreate(status=random.choice((408, 409)), body=b'{"error":"conflict"}', made=made, later=later),
        OddCreate(status=random.choice((500, 504)), body=b"<html>", made=made, later=later),
        OddCreate(status=random.choice(_REFUSALS), body=b'{"error":"not now"}', made=False),
    )


_UNREADABLE = (b"", b"<html>", b"{}", b"[]", b"null", b'{"job":7}', b'{"job":{}}', b'{"job":"', b"\xff")
_REFUSALS = (400, 401, 402, 403, 404, 413, 422)
