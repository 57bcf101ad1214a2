"""``together-batches emulator``."""

from __future__ import annotations

import math
import shlex
import time
from typing import TYPE_CHECKING, Any

import anyio

from together_batches.cli import _loop
from together_batches.cli._exits import CommandError, Exit
from together_batches.cli._population import populate
from together_batches.cli._text import escape, number, say
from together_batches.emulator import Emulator, Fault, RateLimit

if TYPE_CHECKING:
    from collections.abc import Callable

    from together_batches.cli._parser import Arguments
    from together_batches.emulator import Received

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
"""What the command can say of a fault, in the words of :class:`Fault`."""


def emulator(arguments: Arguments) -> Exit:
    """Serve until Ctrl-C, which is how this command is meant to end, and so no failure."""
    if arguments.burst is not None and arguments.rate_limit is None:
        message = "--burst belongs to --rate-limit; give both"
        raise CommandError(message)
    made = Emulator(
        api_key=_KEY,
        seed=arguments.seed,
        port=arguments.port,
        rate_limit=_limit(arguments),
        clock=_clock(arguments.speed),
        faults=[_fault(text) for text in arguments.faults],
        on_request=_log if arguments.log else None,
    )
    try:
        _loop.run(_serve, made, arguments)
    except KeyboardInterrupt:
        say("the emulator has stopped, and its jobs are gone")
    return Exit.DONE


async def _serve(made: Emulator, arguments: Arguments) -> None:
    async with made as running:
        populate(running, arguments.jobs, arguments.seed)
        print(f"export TOGETHER_BASE_URL={shlex.quote(running.base_url)}")
        print(f"export TOGETHER_API_KEY={shlex.quote(_KEY)}", flush=True)
        say(f"the emulator runs with {number(arguments.jobs)} jobs until Ctrl-C; use it from another shell")
        await anyio.sleep_forever()


def _limit(arguments: Arguments) -> RateLimit | None:
    rate = arguments.rate_limit
    if rate is None:
        return None
    # The limit is one of real seconds, while the emulator counts its own: advice in these would be wrong.
    is_real = arguments.speed == 1
    return RateLimit(rate / arguments.speed, arguments.burst or math.ceil(rate), retry_after=is_real)


def _clock(speed: float) -> Callable[[], float]:
    began = time.time()
    return lambda: began + (time.time() - began) * speed


def _fault(text: str) -> Fault:
    """A fault of ``OPERATION,NAME=VALUE,…``."""
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


def _log(request: Received) -> None:
    # Without the query, which holds the signature of a presigned address.
    path = request.path.partition("?")[0]
    say(escape(f"{request.status or 'no answer'} {request.operation}: {request.method} {path}"))
