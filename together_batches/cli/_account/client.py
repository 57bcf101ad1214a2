"""The client of a command, and its log."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from together_batches.cli._terminal.exits import CommandError, Exit, Interrupted
from together_batches.cli._terminal.loop import raised_by_signals, time_limit
from together_batches.cli._terminal.text import print_err
from together_batches.config import Config, RetryPolicy, Timeout
from together_batches.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

    from together_batches.cli._account.options import Common
    from together_batches.client import AsyncBatches
    from together_batches.config import Secret

RETRY = RetryPolicy()


@asynccontextmanager
async def connected(
    common: Common, *, limited: bool = True, key: Secret | None = None
) -> AsyncGenerator[AsyncBatches]:
    """Open a client from the options and the environment; raise :class:`CommandError` if they are invalid.

    ``--timeout`` ends the block, unless the command applies it (``limited=False``). A ``key`` is one that is not kept
    yet, and goes to the base URL of the options.
    """
    with _log(verbose=common.verbose, quiet=common.quiet):
        async with _client(common, key) as batches, time_limit(common.timeout if limited else None):
            yield batches


def _client(common: Common, key: Secret | None) -> AsyncBatches:
    from together_batches.cli._account.profiles import as_command
    from together_batches.client import AsyncBatches

    timeout = Timeout() if common.request_timeout is None else Timeout.of(common.request_timeout)
    found, url = (key, common.base_url) if key else _credentials(common)
    try:
        return AsyncBatches(found, base_url=url, timeout=timeout, retry=RETRY)
    except UsageError as error:
        message = as_command(error)
    try:
        Config.from_env(api_key="any", base_url=url)
    except UsageError:
        raise CommandError(message) from None
    # Every other key is accepted, so the key is at fault.
    raise CommandError(message, Exit.DENIED)


def _credentials(common: Common) -> tuple[Secret | None, str | None]:
    from together_batches.cli._account.profiles import credentials

    try:
        with raised_by_signals(in_task=True):  # the keyring may wait until its user unlocks it
            return credentials(common.profile, common.base_url)
    except KeyboardInterrupt:
        raise Interrupted from None


class _LogHandler(logging.Handler):
    """A handler for standard error as it is at each line: a live table is drawn below what is printed there."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print the line."""
        try:
            print_err(self.format(record))
        except Exception:  # noqa: BLE001  # as the handlers of the standard library do
            self.handleError(record)


@contextmanager
def _log(*, verbose: bool, quiet: bool) -> Generator[None]:
    if quiet and not verbose:
        yield
        return
    logger = logging.getLogger("together_batches")
    handler = _LogHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if verbose else logging.WARNING)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
