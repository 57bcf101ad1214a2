"""The commands ``together-batches demo`` and ``emulator``: an emulator of the service, full of jobs."""

from __future__ import annotations

import math
import shlex
import sys
import time
from collections import Counter
from random import Random
from typing import TYPE_CHECKING, Any

import click

from together_batches._display.progress import Meter, terminal_bar
from together_batches._display.tallies import CancelTally
from together_batches.cli._commands.cancel.output import counted, print_table
from together_batches.cli._terminal.commands import command, option
from together_batches.cli._terminal.exits import CommandError, Exit
from together_batches.cli._terminal.loop import in_loop, report_early_end
from together_batches.cli._terminal.numbers import above_zero, at_least_one, port, zero_or_above, zero_or_more
from together_batches.cli._terminal.table import Column, draw
from together_batches.cli._terminal.text import (
    PROGRAM,
    can_redraw,
    count_of,
    escape,
    folded,
    format_count,
    print_err,
    print_lines,
    terminal,
)
from together_batches.errors import APIError

if TYPE_CHECKING:
    from collections.abc import Callable

    from together_batches.emulator import Emulator, Fault, RecordedRequest
    from together_batches.outcomes import CancelOutcome, CancelReport

_DEMO_KEY = "demo-key"
_STRAY_IDS = ("no-such-job", "odd id/with?#", "..")
"""Two ids that the service does not know, and one that cannot be sent."""


@command("demo")
@option("--jobs N", "how many jobs (1000)", type=at_least_one, default=1_000)
@option("--seed N", "another number, other fates (0)", type=zero_or_more, default=0)
def demo(jobs: int, seed: int) -> Exit:
    """Start a stand-in for the service on this machine, fill it with jobs of mixed
    fates, and cancel them all while some requests fail, get lost or are refused.
    It needs no key and no network, and ignores the environment's TOGETHER_*.

    examples:
      together-batches demo
      together-batches demo --jobs 10000
    """
    tally = CancelTally()

    def state() -> str:
        answered = count_of(tally.done + len(tally.followed), "id")
        return f"{answered} answered: {counted(tally) or 'no jobs'}; the jobs were the emulator's own"

    with report_early_end(state):
        _demonstrate(jobs, seed, tally)
    return Exit.DONE


@in_loop
async def _demonstrate(jobs: int, seed: int, tally: CancelTally) -> None:
    from together_batches.client import AsyncBatches
    from together_batches.emulator import Emulator, RateLimit, Timing

    emulator = Emulator(
        api_key=_DEMO_KEY,
        seed=seed,
        timing=Timing(canceling=1.0),
        # Low enough to be reached, and high enough to finish within seconds.
        rate_limit=RateLimit(per_second=max(100.0, jobs / 2), burst=max(50, jobs // 4)),
        faults=_faults(jobs),
    )
    # The key and the address are passed, so that nothing of the user's environment is used.
    async with emulator, AsyncBatches(_DEMO_KEY, base_url=emulator.base_url) as batches:
        ids = [*populate(emulator, jobs, seed), *_STRAY_IDS]
        print_err(f"An emulator of the service runs on this machine, with {count_of(jobs, 'job')} of mixed fates.")
        print_err(f"Cancelling them and {len(_STRAY_IDS)} stray ids, 100 at once, until they have really stopped:")
        began = time.monotonic()
        with terminal_bar(Meter("Cancelling"), shown=can_redraw(sys.stderr)) as show:

            def on_outcome(outcome: CancelOutcome) -> None:
                tally.note(outcome)
                show(tally.done, len(ids), tally.notes)

            report = await batches.cancel_many(ids, wait=True, on_outcome=on_outcome)
        elapsed = time.monotonic() - began
    _show(report, elapsed, emulator)


def _faults(jobs: int) -> list[Fault]:
    """Return the faults, in proportion to the number of jobs, and the latency of every response."""
    from together_batches.emulator import Fault

    some = max(1, jobs // 100)
    return [
        Fault(on="cancel", chance=0.05, times=some, status=500),
        Fault(on="cancel", chance=0.02, times=max(1, some // 3), lose="answer"),
        Fault(on="cancel", chance=0.3, times=None, delay=0.25),
        Fault(on="cancel", times=None, delay=0.1),
    ]


def _show(report: CancelReport, elapsed: float, emulator: Emulator) -> None:
    print()
    print_table(report)
    print()
    strays: list[tuple[str, ...]] = []
    for failure in report.failures:
        error = failure.error
        reason = error.message if isinstance(error, APIError) else str(error)
        strays.append((failure.job_id, failure.result.words, escape(reason)))
    screen = terminal(sys.stdout)
    columns = (Column("STRAY ID"), Column("RESULT"), Column("WHY", rank=1, cut="end"))
    print_lines(draw(columns, strays, screen.width, dots=screen.dots))
    print()
    # The table above does not show the faults on the way, which are the point of the demo, so they are printed here.
    statuses = Counter(request.status for request in emulator.requests)
    text = (
        f"{format_count(len(report))} ids in {elapsed:.1f} s, each accounted for once. "
        f"On the way, of {format_count(statuses.total())} requests,\n"
        f"{format_count(statuses[429])} were refused for their rate, {format_count(statuses[500])} failed, "
        f"{format_count(statuses[None])} got no answer; all were repeated.\n\n"
        "Next, with your own jobs (this only looks; without --dry-run there is a prompt):"
    )
    print_lines(piece for line in text.split("\n") for piece in folded(line, screen.width))
    print(f"  {PROGRAM} login")
    print(f"  {PROGRAM} cancel --all --dry-run")


# --- the emulator

_EMULATOR_KEY = "emulator-key"
_IN_A_FAULT: dict[str, Callable[[str], object]] = {
    "job_id": str,
    "times": lambda text: None if text == "always" else int(text),
    "chance": float,
    "status": int,
    "body": str,
    "content_type": str,
    "delay": float,
    "lose": str,
    "cut_after": int,
    "acts": lambda text: {"yes": True, "no": False}[text],
    "drip": float,
}
"""The fields of :class:`Fault` that the command can set, and the parser of each."""


@command("emulator")
@option("--port N", "where it listens (any free port)", "listen_port", type=port, default=0)
@option("--jobs N", "how many jobs it has (100)", type=zero_or_more, default=100)
@option("--seed N", "another number, other jobs (0)", type=zero_or_more, default=0)
@option("--rate-limit R", "refuse more requests a second than this", type=above_zero)
@option("--burst N", "with --rate-limit: so many at once after a pause (R)", type=at_least_one)
@option("--speed X", "its jobs run X times as fast (1)", type=above_zero, default=1.0)
@option("--fault F", "what goes wrong, such as cancel,status=503,times=3; may be repeated", "faults", multiple=True)
@option(
    "--price P",
    "the list price of a model, such as openai/gpt-oss-20b=0.05,0.20 in USD per million tokens; may be repeated",
    "prices",
    multiple=True,
)
@option("--log", "write a line for each request to stderr")
def emulator(
    listen_port: int,
    jobs: int,
    seed: int,
    rate_limit: float | None,
    burst: int | None,
    speed: float,
    faults: tuple[str, ...],
    prices: tuple[str, ...],
    log: bool,
) -> Exit:
    """Run a stand-in for the service on this machine until Ctrl-C. It prints the two
    lines that point this command, and the library, to it. Its jobs live in memory
    and are gone afterwards.

    examples:
      together-batches emulator             some jobs to play with, on any free port
      together-batches emulator --port 8765 --jobs 5000 --rate-limit 50
    """
    from together_batches.emulator import Emulator, RateLimit

    if burst is not None and rate_limit is None:
        message = "--burst belongs to --rate-limit; give both"
        raise CommandError(message)
    limit = None
    if rate_limit is not None:
        # The limit is in real seconds, but the emulator counts its own, so its Retry-After would be wrong.
        limit = RateLimit(rate_limit / speed, burst or math.ceil(rate_limit), retry_after=speed == 1)
    began = time.time()
    made = Emulator(
        api_key=_EMULATOR_KEY,
        seed=seed,
        port=listen_port,
        rate_limit=limit,
        clock=lambda: began + (time.time() - began) * speed,
        faults=[_fault(text) for text in faults],
        prices=dict(_price(text) for text in prices),
        on_request=_log if log else None,
    )
    try:
        _serve(made, jobs, seed)
    except KeyboardInterrupt:  # the intended end of this command, and not a failure
        print_err("the emulator has stopped, and its jobs are gone")
    return Exit.DONE


@in_loop
async def _serve(made: Emulator, jobs: int, seed: int) -> None:
    import anyio

    async with made as running:
        populate(running, jobs, seed)
        print(f"export TOGETHER_BASE_URL={shlex.quote(running.base_url)}")
        print(f"export TOGETHER_API_KEY={shlex.quote(_EMULATOR_KEY)}", flush=True)
        print_err(f"the emulator runs with {count_of(jobs, 'job')} until Ctrl-C; use it from another shell")
        await anyio.sleep_forever()


def _fault(text: str) -> Fault:
    """Parse a fault of the form ``OPERATION,NAME=VALUE,…``."""
    from together_batches.emulator import Fault

    operation, *settings = text.split(",")
    values: dict[str, Any] = {}
    for setting in settings:
        name, _, value = setting.partition("=")
        try:
            values[name] = _IN_A_FAULT[name](value)
        except (KeyError, ValueError) as error:
            names = ", ".join(_IN_A_FAULT)
            message = f"invalid --fault {text!r}: {setting!r} is not NAME=VALUE with one of {names}"
            raise CommandError(message) from error
    try:
        return Fault(on=operation, **values)
    except ValueError as error:
        message = f"invalid --fault {text!r}: {error}"
        raise CommandError(message) from error


def _price(text: str) -> tuple[str, tuple[float, float]]:
    """Parse a price of the form ``MODEL=IN,OUT``."""
    model, _, price = text.partition("=")
    try:
        price_in, price_out = map(zero_or_above, price.split(","))
    except (ValueError, click.BadParameter) as error:
        message = f"invalid --price {text!r}: it is not MODEL=IN,OUT, with two numbers, zero or above"
        raise CommandError(message) from error
    return model, (price_in, price_out)


def _log(request: RecordedRequest) -> None:
    # Without the query, which contains the signature of a presigned address.
    path = request.path.partition("?")[0]
    print_err(f"{request.status or 'no answer'} {request.operation}: {request.method} {path}")


# --- jobs of the kinds that an account has

_RUNNING: dict[str, str] = {"ends_as": "IN_PROGRESS"}
_KINDS = (
    (60, _RUNNING),
    (12, {"status": "VALIDATING", "ends_as": "VALIDATING"}),
    (14, {"status": "COMPLETED"}),
    (5, {"status": "FAILED", "error": "too many rows could not be processed"}),
    (3, {"status": "EXPIRED"}),
    (3, {"status": "CANCELLED"}),
    (2, {"status": "CANCELING"}),
    (1, {"ends_as": "IN_PROGRESS", "cancels_as": "COMPLETED"}),
)
"""How frequent each kind is, and what its jobs have in common."""
_MODELS = ("openai/gpt-oss-20b", "openai/gpt-oss-120b", "meta-llama/Llama-3.3-70B-Instruct-Turbo")
_MINUTE, _THREE_DAYS = 60.0, 259_200.0


def populate(emulator: Emulator, count: int, seed: int) -> list[str]:
    """Add ``count`` jobs to the emulator, equal for an equal seed, and return their ids."""
    random = Random(seed)  # noqa: S311  # repeatable on purpose
    weights, kinds = zip(*_KINDS, strict=True)
    return [_add(emulator, kind, random) for kind in random.choices(kinds, weights=weights, k=count)]


def _add(emulator: Emulator, kind: dict[str, str], random: Random) -> str:
    # Evenly on a logarithmic scale: as many in the last hour as in the two days before it.
    age = _MINUTE * (_THREE_DAYS / _MINUTE) ** random.random()
    facts: dict[str, Any] = {**kind, "age_seconds": age, "model_id": random.choice(_MODELS)}
    if kind is _RUNNING:
        facts["progress"] = round(random.uniform(0, 99), 1)
    return emulator.add_job(**facts)
