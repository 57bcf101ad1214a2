"""The client of a command, and its logging."""

from __future__ import annotations

import logging
import sys
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from together_batches.cli._exits import CommandError, Exit
from together_batches.cli._loop import time_limit
from together_batches.cli._text import escape
from together_batches.config import Config, RetryPolicy, Timeout
from together_batches.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

    from together_batches.cli._command import Common
    from together_batches.client import AsyncBatches

__all__ = ["connected"]

RETRY = RetryPolicy()

_IN_CODE_ONLY = (", or pass api_key=", ", or say allow_insecure_http=True")
"""Advice in the library's messages that applies only to code."""


@asynccontextmanager
async def connected(common: Common, *, limited: bool = True) -> AsyncGenerator[AsyncBatches]:
    """Open a client from the options and the environment; raise :class:`CommandError` if they are invalid.

    ``--timeout`` ends the block, unless the command applies it (``limited=False``).
    """
    with _log(verbose=common.verbose, quiet=common.quiet):
        async with _client(common) as batches, time_limit(common.timeout if limited else None):
            yield batches


def _client(common: Common) -> AsyncBatches:
    from together_batches.client import AsyncBatches

    timeout = Timeout() if common.request_timeout is None else Timeout.of(common.request_timeout)
    try:
        return AsyncBatches(base_url=common.base_url, timeout=timeout, retry=RETRY)
    except UsageError as error:
        message = str(error)
    for advice in _IN_CODE_ONLY:
        message = message.removesuffix(advice)
    try:
        Config.from_env(api_key="any", base_url=common.base_url)
    except UsageError:
        raise CommandError(message) from None
    # Every other key is accepted, so the key is at fault.
    raise CommandError(message, Exit.DENIED)


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return escape(super().format(record))


@contextmanager
def _log(*, verbose: bool, quiet: bool) -> Generator[None]:
    if quiet and not verbose:
        yield
        return
    logger = logging.getLogger("together_batches")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter("%(asctime)s %(message)s"))
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if verbose else logging.WARNING)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
