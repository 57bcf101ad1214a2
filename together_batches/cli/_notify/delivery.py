"""Delivery of notifications by ``--exec`` and ``--webhook``: in the background, each of them once."""

from __future__ import annotations

import math
import os
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime
from functools import partial, update_wrapper
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

from together_batches._text import lasted
from together_batches.cli._inputs.local_files import has_run
from together_batches.cli._notify.notifications import WEBHOOK_SECRET, WEBHOOK_URL, job_stuck
from together_batches.cli._terminal.commands import option
from together_batches.cli._terminal.exits import CommandError, Exit
from together_batches.cli._terminal.numbers import duration
from together_batches.cli._terminal.text import PROGRAM, count_of, print_err
from together_batches.config import Secret
from together_batches.errors import BatchesError, UsageError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
    from datetime import timedelta
    from pathlib import Path

    from together_batches.cli._account.options import Common
    from together_batches.cli._listing.labels import Labels
    from together_batches.cli._notify.notifications import Notification
    from together_batches.client import AsyncBatches
    from together_batches.models import BatchJob
    from together_batches.runs import RunReport
    from together_batches.runs._records import Delivery, LedgerSnapshot

    Channel = Callable[[Notification], Awaitable[str | None]]
    """Function that delivers a notification, and returns why it failed, or None."""

_AT_ONCE = 4
"""Maximum deliveries of a channel at once."""
_LONGEST_WAIT_SECONDS = 150.0
"""Maximum seconds without a delivery that a command, its work done, waits for the rest: more than one takes."""
_QUIET_SECONDS = 2.0
"""Seconds after which that is said."""


# --- options


class NotifyOptions(NamedTuple):
    """How the user is notified."""

    command: str | None
    webhook: Secret | None
    stuck_after: timedelta | None


NOWHERE = NotifyOptions(None, None, None)
"""No option was given; a receiver may still be in the environment."""


def notify_options(
    stuck_after: str = "notify also of a job that has not moved for so long, as 30m",
) -> Callable[[Callable[..., Exit]], Callable[..., Exit]]:
    """Add the options of notifications, which the function takes as ``notify``.

    ``stuck_after`` is the help of ``--stuck-after``.
    """
    options = (
        option(
            "--exec COMMAND",
            "run by the shell at each end; facts: $TOGETHER_BATCHES_EVENT, ..._JOB_ID, ..._STATUS, "
            "and JSON on its input",
            "command",
        ),
        option("--webhook URL", "post this JSON there, signed with TOGETHER_BATCHES_WEBHOOK_SECRET", type=Secret),
        option("--stuck-after D", stuck_after, type=duration),
    )

    def add(function: Callable[..., Exit]) -> Callable[..., Exit]:
        def with_notify(*args: Any, **given: Any) -> Exit:
            notify = NotifyOptions(*(given.pop(name) for name in NotifyOptions._fields))
            return function(*args, notify=notify, **given)

        decorated: Callable[..., Exit] = update_wrapper(with_notify, function)
        for each in reversed(options):
            decorated = each(decorated)
        return decorated

    return add


# --- delivery


@asynccontextmanager
async def notifying(
    common: Common, options: NotifyOptions, *, run: Path | None = None, labels: Labels | None = None
) -> AsyncGenerator[Notifier]:
    """Yield a notifier, and deliver what is pending when the block ends, unless it is cancelled.

    ``run`` is the directory of a run, whose ledger notes the deliveries; ``labels`` are those of jobs.
    """
    from together_batches._jobs.tasks import plain_group

    async with AsyncExitStack() as stack:
        ledger = None if run is None else _RunLedger(run)
        channels = await _channels(options, stack)
        notifier = Notifier(channels, ledger, labels=labels, stuck_after=options.stuck_after)
        stack.callback(notifier.report_pending)
        async with plain_group() as group:
            workers = [group.create_task(notifier.work(name)) for name in notifier.channels for _ in range(_AT_ONCE)]
            try:
                yield notifier
            except Exception:  # what happened before the error is still delivered
                await notifier.finish(common.note)
                raise
            else:
                await notifier.finish(common.note)
            finally:
                for worker in workers:
                    worker.cancel()


async def _channels(options: NotifyOptions, stack: AsyncExitStack) -> dict[str, Channel]:
    found: dict[str, Channel] = {}
    if options.command is not None:
        from together_batches.cli._notify.exec import execute

        if not options.command.strip():
            message = "--exec takes a command"
            raise CommandError(message)
        found["exec"] = partial(execute, options.command)
    url = options.webhook if options.webhook is not None else Secret(os.environ.get(WEBHOOK_URL, "").strip())
    if options.webhook is not None or url:
        from together_batches._http.webhook import Webhook, opened

        try:
            webhook = Webhook.of(url, Secret.of(os.environ.get(WEBHOOK_SECRET)))
        except UsageError as error:
            raise CommandError(str(error)) from None
        sender = await stack.enter_async_context(opened(webhook))
        found["webhook"] = lambda each: sender.send(each.id, each.body)
    return found


class Notifier:
    """Delivers notifications by each channel. ``failed`` is the number of deliveries that failed."""

    def __init__(
        self,
        channels: Mapping[str, Channel],
        ledger: _RunLedger | None = None,
        *,
        labels: Labels | None = None,
        stuck_after: timedelta | None = None,
    ) -> None:
        import asyncio

        import anyio

        self.channels = channels
        self.failed = 0
        self._ledger = ledger
        self.labels: Labels = labels or {}
        self._stuck_after = stuck_after
        self._queues = {name: asyncio.Queue["Notification"]() for name in channels}
        self._ids: set[str] = set()
        self._pending = 0
        self._idle = asyncio.Event()
        self._patience = anyio.CancelScope()

    def send(self, each: Notification) -> None:
        """Deliver a notification soon, unless one with its id was sent before."""
        if each.id in self._ids:
            return
        self._ids.add(each.id)
        if labels := self.labels.get(each.subject):
            each = each.with_labels(labels)
        for queue in self._queues.values():
            self._pending += 1
            queue.put_nowait(each)

    async def send_end(self, report: RunReport | None, code: Exit) -> None:
        """Deliver the end of a call of the run soon; without a report, an error has ended it."""
        if self.channels and self._ledger is not None:
            try:
                found = await self._ledger.ended(report, code)
            except BatchesError as error:
                self.failed += 1
                print_err(f"{PROGRAM}: warning: the end of the run was not notified: {error}")
                return
            if found is not None:
                self.send(found)

    def report_stuck(self, batches: AsyncBatches) -> None:
        """Report each job that is stuck, once, of those that the waits of this client read."""
        if self._stuck_after is None:
            return
        from together_batches._jobs.progress_tracker import JobProgressTracker

        tracker = JobProgressTracker(self._stuck_after.total_seconds())

        def see(job: BatchJob, seen_at: datetime | None) -> None:
            # By the clock of the service: if that of this machine is ahead, a new job would seem old.
            quiet = tracker.see(job, monotonic(), seen_at or datetime.now(UTC))
            if quiet is not None:
                print_err(f"{job.id}: no progress for {lasted(int(quiet))}")
                self.send(job_stuck(job, quiet))

        batches.__add_reader__(see)

    def exit(self, code: Exit) -> Exit:
        """Return the exit code of the command, which succeeds only if its notifications did."""
        return Exit.FAILED if code is Exit.DONE and self.failed else code

    async def work(self, name: str) -> None:
        """Deliver by one channel until cancelled."""
        while True:
            each = await self._queues[name].get()
            problem = await self._deliver(name, each)
            self._pending -= 1
            if not self._pending:
                self._idle.set()
            if problem is None:
                self._extend()
            else:
                self.failed += 1
                print_err(f"{PROGRAM}: warning: {each.kind} of {each.subject}: {problem}")

    async def _deliver(self, name: str, each: Notification) -> str | None:
        if self._ledger is not None and await self._ledger.has(each.id, name):
            return None
        try:
            problem = await self.channels[name](each)
        except Exception as error:  # noqa: BLE001  # even a defect here must not end a run
            problem = f"{name} failed: {type(error).__name__}"
        if problem is None and self._ledger is not None:
            await self._ledger.note(each.id, name)
        return problem

    def _extend(self) -> None:
        """Wait for the rest, now that there was a delivery."""
        if self._patience.deadline < math.inf:
            from anyio import current_time

            self._patience.deadline = current_time() + _LONGEST_WAIT_SECONDS

    async def finish(self, note: Callable[[str], None]) -> None:
        """Wait until nothing is pending, or nothing was delivered for too long; say so if it takes long."""
        from anyio import current_time, move_on_after

        if not self._pending:
            return
        self._idle.clear()
        self._patience.deadline = current_time() + _LONGEST_WAIT_SECONDS
        with self._patience:
            with move_on_after(_QUIET_SECONDS):
                await self._idle.wait()
            if self._pending:
                note(f"delivering {count_of(self._pending, 'notification')}; Ctrl-C gives up")
                await self._idle.wait()

    def report_pending(self) -> None:
        """Say what was not delivered, and count it as failed."""
        if self._pending:
            self.failed += self._pending
            print_err(f"{PROGRAM}: warning: {count_of(self._pending, 'notification')} not delivered")


class _RunLedger:
    """The ledger of a run, as far as notifications are concerned. Its errors are warnings: the work is done."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._noted: set[tuple[str, str]] | None = None

    async def ended(self, report: RunReport | None, code: Exit) -> Notification | None:
        """Return the notification of the end of a call; None if there is no run yet."""
        from together_batches.cli._notify.notifications import run_ended
        from together_batches.runs._reading import view_of

        if not has_run(self._directory):
            return None
        snapshot = await self._read()
        found = view_of(self._directory, snapshot, None) if report is None else report
        return run_ended(snapshot.run.id, found, attempts=len(snapshot.attempts), exit_code=code)

    async def has(self, message_id: str, channel: str) -> bool:
        """Return whether a delivery is noted."""
        if self._noted is None:
            noted: Sequence[Delivery] = ()
            with suppress(BatchesError):  # then what was delivered may be delivered again
                noted = (await self._read()).deliveries
            self._noted = {(each.message_id, each.channel) for each in noted}
        return (message_id, channel) in self._noted

    async def note(self, message_id: str, channel: str) -> None:
        """Note a delivery."""
        from anyio import to_thread

        from together_batches.runs import _ledger
        from together_batches.runs._records import Delivery

        delivery = Delivery(message_id=message_id, channel=channel, at=datetime.now(UTC))
        try:
            await to_thread.run_sync(_ledger.note_delivery, self._directory, delivery)
        except BatchesError as error:
            print_err(f"{PROGRAM}: warning: a notification was delivered, and may be again: {error}")

    async def _read(self) -> LedgerSnapshot:
        from anyio import to_thread

        from together_batches.runs import _ledger

        return await to_thread.run_sync(_ledger.read, self._directory)
