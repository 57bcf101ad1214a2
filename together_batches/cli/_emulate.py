"""The command ``together-batches emulator``."""

from __future__ import annotations

import math
import shlex
import time
from typing import TYPE_CHECKING, Any

from together_batches.cli._command import command, option
from together_batches.cli._exits import CommandError, Exit
from together_batches.cli._loop import in_loop
from together_batches.cli._numbers import above_zero, at_least_one, port, zero_or_more
from together_batches.cli._text import count_of, print_err

if TYPE_CHECKING:
    from collections.abc import Callable

    from together_batches.emulator import Emulator, Fault, RecordedRequest

__all__ = ["emulator"]

_KEY = "emulator-key"
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
@option("--log", "write a line for each request to stderr")
def emulator(
    listen_port: int,
    jobs: int,
    seed: int,
    rate_limit: float | None,
    burst: int | None,
    speed: float,
    faults: tuple[str, ...],
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
    made = Emulator(
        api_key=_KEY,
        seed=seed,
        port=listen_port,
        rate_limit=limit,
        clock=_clock(speed),
        faults=[_fault(text) for text in faults],
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

    from together_batches.cli._demo_jobs import populate

    async with made as running:
        populate(running, jobs, seed)
        print(f"export TOGETHER_BASE_URL={shlex.quote(running.base_url)}")
        print(f"export TOGETHER_API_KEY={shlex.quote(_KEY)}", flush=True)
        print_err(f"the emulator runs with {count_of(jobs, 'job')} until Ctrl-C; use it from another shell")
        await anyio.sleep_forever()


def _clock(speed: float) -> Callable[[], float]:
    began = time.time()
    return lambda: began + (time.time() - began) * speed


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


def _log(request: RecordedRequest) -> None:
    # Without the query, which contains the signature of a presigned address.
    path = request.path.partition("?")[0]
    print_err(f"{request.status or 'no answer'} {request.operation}: {request.method} {path}")
