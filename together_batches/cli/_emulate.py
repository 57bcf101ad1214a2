"""``together-batches emulator``."""

from __future__ import annotations

import math
import shlex
from typing import TYPE_CHECKING

import anyio

from together_batches.cli import _loop
from together_batches.cli._exits import CommandError, Exit
from together_batches.cli._population import populate
from together_batches.cli._text import number, say
from together_batches.emulator import Emulator, RateLimit

if TYPE_CHECKING:
    from together_batches.cli._parser import Arguments

__all__ = ["emulator"]

_KEY = "emulator-key"


def emulator(arguments: Arguments) -> Exit:
    """Serve until Ctrl-C, which is how this command is meant to end, and so no failure."""
    if arguments.burst is not None and arguments.rate_limit is None:
        message = "--burst belongs to --rate-limit; give both"
        raise CommandError(message)
    try:
        _loop.run(_serve, arguments)
    except KeyboardInterrupt:
        say("the emulator has stopped, and its jobs are gone")
    return Exit.DONE


async def _serve(arguments: Arguments) -> None:
    rate = arguments.rate_limit
    limit = None if rate is None else RateLimit(rate, arguments.burst or math.ceil(rate))
    async with Emulator(api_key=_KEY, seed=arguments.seed, port=arguments.port, rate_limit=limit) as running:
        populate(running, arguments.jobs, arguments.seed)
        print(f"export TOGETHER_BASE_URL={shlex.quote(running.base_url)}")
        print(f"export TOGETHER_API_KEY={shlex.quote(_KEY)}", flush=True)
        say(f"the emulator runs with {number(arguments.jobs)} jobs until Ctrl-C; use it from another shell")
        await anyio.sleep_forever()
