"""The client of a command, and its log."""

from __future__ import annotations

import logging
import sys
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from together_batches.cli._exits import CommandError, Exit
from together_batches.cli._text import escape
from together_batches.client import AsyncBatches
from together_batches.config import Config, RetryPolicy, Timeout
from together_batches.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

    from together_batches.cli._parser import Arguments

__all__ = ["connected"]

RETRY = RetryPolicy()

_IN_CODE_ONLY = (", or pass api_key=", ", or say allow_insecure_http=True")
"""Advice of the library that helps those who write code, and nobody here."""


@asynccontextmanager
async def connected(arguments: Arguments) -> AsyncGenerator[AsyncBatches]:
    """A client as the options and the environment say; :class:`CommandError` where there can be none."""
    with _log(verbose=arguments.verbose, quiet=arguments.quiet):
        async with _client(arguments) as batches:
            yield batches


def _client(arguments: Arguments) -> AsyncBatches:
    timeout = Timeout() if arguments.timeout is None else Timeout.of(arguments.timeout)
    try:
        return AsyncBatches(base_url=arguments.base_url, timeout=timeout, retry=RETRY)
    except UsageError as error:
        told = str(error)
    for advice in _IN_CODE_ONLY:
        told = told.removesuffix(advice)
    try:
        Config.from_env(api_key="any", base_url=arguments.base_url)
    except UsageError:
        raise CommandError(told) from None
    # With any other key it works, so it is the key.
    raise CommandError(told, Exit.DENIED)


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
