"""The command ``together-batches run``."""

from __future__ import annotations

import shlex
import sys
from contextlib import suppress
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from together_batches._display.progress import Meter, rows, terminal_bar
from together_batches._display.tallies import RunTally
from together_batches._text import format_usd, lasted
from together_batches.cli._account.client import connected
from together_batches.cli._account.options import (
    Common,
    endpoint_option,
    patience_option,
    priority_option,
    service_options,
)
from together_batches.cli._commands.cancel.command import cancel_run
from together_batches.cli._commands.runs.answers_table import RunTable, is_parquet
from together_batches.cli._inputs.local_files import (
    existing_run,
    has_run,
    refuse_dashes,
    schema_in,
    schema_option,
    spooled,
)
from together_batches.cli._inputs.prices import DISCOUNT, given_price, list_prices, price_options
from together_batches.cli._inputs.table_options import as_options, requests_of, table_options, taken
from together_batches.cli._listing.labels import Labeller, label_option, labelled, labels_in_thread
from together_batches.cli._notify.delivery import NotifyOptions, notify_options, notifying
from together_batches.cli._terminal.commands import argument, command, option
from together_batches.cli._terminal.exits import CommandError, Exit, Interrupted, code_of
from together_batches.cli._terminal.loop import confirmed, in_loop, report_early_end
from together_batches.cli._terminal.numbers import above_zero, at_least_one, delays, zero_or_above
from together_batches.cli._terminal.text import (
    PROGRAM,
    as_json,
    can_redraw,
    count_of,
    format_count,
    print_err,
    print_error,
)
from together_batches.errors import BatchesError, RunInUseError, ValidationError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import BinaryIO

    from together_batches.cli._notify.delivery import Notifier
    from together_batches.jsonl import TableRequests
    from together_batches.runs import RunEvent, RunReport

_MOST_PROBLEMS = 20
_NOT_PRINTED = {"trouble", "gone", "progressed"}
"""Events that are logged anyway, or that may occur thousands of times; on a terminal they update the bar."""


@command("run", Exit.SOME_FAILED)
@argument("source", "[INPUT]", "a file of requests, of any size; - is standard input", required=False)
@option(
    "-o, --output FILE",
    "where the answers go, in the order of the input: JSON Lines, and if it is a .parquet, a table beside them",
    complete="file",
)
@option("--cancel DIR", "cancel the jobs of the run in this directory instead", complete="dir")
@option("--run-dir DIR", "where the run is kept (FILE.run)", "directory", complete="dir")
@table_options
@option("--failures FILE", "a file for the rows without an answer", complete="file")
@endpoint_option
@option("--model M", "with --prompt: the model of the requests; otherwise the jobs' model_id", "model_id")
@priority_option
@schema_option
@label_option
@option("--retry-invalid", "send rows again whose answers do not fit the schema")
@option("--max-rows-per-job N", "maximum requests in a job (50000)", type=at_least_one, default=50_000)
@option("--max-jobs N", "maximum jobs at once (100)", type=at_least_one, default=100)
@option("--max-enqueued-rows N", "maximum rows in jobs at once", type=at_least_one)
@option("--max-attempts N", "maximum attempts for a row (3)", type=at_least_one, default=3)
@option("--stop-after-rows N", "send no more rows than this", type=at_least_one)
@option("--stop-after-tokens N", "create no more jobs after so many tokens", type=at_least_one)
@option("--stop-after-cost USD", "create no more jobs after tokens of this cost, at list prices", type=zero_or_above)
@price_options
@option("--sample N", "send the first N rows, and prompt before the others are sent", type=at_least_one)
@option("--yes", "with --sample: send the others without a prompt")
@option("--skip-invalid", "skip invalid lines, and save them; otherwise nothing is sent")
@option("--overwrite", "replace the file of the answers if it exists")
@option("--text", 'add the text of each answer to its line, as "text"', "with_text")
@option("--poll-interval SECONDS", "how often jobs are looked at", type=above_zero)
@patience_option(900)
@option(
    "--give-up ID",
    "a job whose results are gone, or an input file that never became a job: what is missing may be sent again",
    multiple=True,
)
@option(
    "--retry-delays SECONDS",
    "pauses before rows go again, with commas between several (30,120,600)",
    type=delays,
    default="30,120,600",
)
@option("--shared-files", "upload the rows as they are, without white space of their own")
@option("--dedupe", "send equal requests once; each row gets its answer")
@option("--cancel-on-interrupt", "Ctrl-C cancels the jobs; otherwise they are left alone")
@option("--wait", "with --cancel: until each job has really stopped")
@notify_options()
@service_options
def run(
    common: Common,
    source: str | None,
    output: str | None,
    cancel: str | None,
    labels: tuple[str, ...],
    notify: NotifyOptions,
    **options: Any,
) -> Exit:
    """Process a file of any size in as many jobs as needed, and write every answer in
    the order of the file. If it is interrupted in any way, the same command resumes
    it. What fails on the way is sent again.

    The result of each row is success, invalid (an answer that does not fit
    --schema), failure (an error), or missing (no result came).

    examples:
      together-batches run requests.jsonl -o answers.jsonl
      together-batches run requests.jsonl -o answers.jsonl --skip-invalid
      together-batches run requests.jsonl -o answers.jsonl --sample 20
      together-batches run cities.csv --prompt "Which river flows through {city}?"
          --model openai/gpt-oss-20b -o answers.jsonl
      together-batches run --cancel answers.jsonl.run
    """
    wait, yes = options.pop("wait"), options.pop("yes")
    if cancel is not None:
        if _given() - {"cancel", "wait", *Common._fields}:
            message = "--cancel takes the directory of a run, and beside it only --wait and the common options"
            raise CommandError(message)
        return cancel_run(common, existing_run(cancel), wait=wait)
    if source is None or output is None:
        message = "a run takes a file of requests and, with -o, the file for the answers"
        raise CommandError(message)
    directory, sample = options.pop("directory"), options.pop("sample")
    refuse_dashes(
        "a run writes files, so that it can be resumed", o=output, failures=options["failures"], run_dir=directory
    )
    if wait:
        message = "--wait is for --cancel: a run waits for its jobs in any case"
        raise CommandError(message)
    if yes and sample is None:
        message = "--yes is for --sample, the only prompt of a run"
        raise CommandError(message)
    requests = _requests(source, options)
    cancels, overwrite = options["cancel_on_interrupt"], options["overwrite"]
    work = _Run(common, Path(output), directory, notify, cancels=cancels, overwrite=overwrite, labels=labels)
    options["unique_files"] = not options.pop("shared_files")
    needs_prices = sample is not None or options["stop_after_cost"] is not None
    price = given_price(options.pop("price_in"), options.pop("price_out"))
    options["prices"] = (list_prices(common) or {}) if price is None and needs_prices else price
    with report_early_end(work.state):
        if sample is not None:
            code = work.run(requests, sample=sample, **options)
            if not work.is_at_the_sample:
                return code
            if not work.goes_on(yes=yes):
                common.note(f"nothing more is sent; the run is kept in {work.directory}")
                return Exit.FAILED
        return work.run(requests, **options)


def _requests(source: str, options: dict[str, Any]) -> str | BinaryIO | TableRequests:
    """Return the requests of a run, of which those of a table need some of its options; read the schema."""
    options["schema"] = schema_in(options["schema"])
    try:
        table = requests_of(source, options["model_id"], taken(options), options["schema"])
    except BatchesError as error:
        raise CommandError(as_options(str(error)), code_of(error)) from error
    if table is None:
        return spooled(source)
    options["model_id"] = None  # that of the requests, not of the jobs
    return table


def _given() -> set[str]:
    """Return the names of the parameters that the command line sets."""
    context = click.get_current_context()
    typed = click.core.ParameterSource.COMMANDLINE
    return {name for name in context.params if context.get_parameter_source(name) is typed}


class _Run:
    """One run of the command, and the state to report if it ends early."""

    def __init__(
        self,
        common: Common,
        output: Path,
        directory: str | None,
        notify: NotifyOptions,
        *,
        cancels: bool,
        overwrite: bool,
        labels: tuple[str, ...],
    ) -> None:
        self._common = common
        self._notify = notify
        self.directory = output.parent / f"{output.name}.run" if directory is None else Path(directory)
        self._table = RunTable(output, self.directory, overwrite=overwrite) if is_parquet(output) else None
        self._output = output if self._table is None else self._table.lines
        self._cancels = cancels
        self._labels = labels
        self._report: RunReport | None = None

    @property
    def is_at_the_sample(self) -> bool:
        """Whether the run stopped after a sample, of which rows were answered."""
        from together_batches.runs._admission import AFTER_THE_SAMPLE

        report = self._report
        return report is not None and report.stopped == AFTER_THE_SAMPLE and report.succeeded > 0

    def goes_on(self, *, yes: bool) -> bool:
        """Return whether to send the other rows; prompt, with what all rows are expected to need, unless ``yes``."""
        report = self._report
        assert report is not None  # noqa: S101  # it is at the sample
        left = f"{count_of(report.not_sent, 'row')} left"
        if report.expected_usage is not None:
            left += f"; all rows need about {count_of(report.expected_usage.total_tokens, 'token')}"
        if report.expected_cost is not None:
            left += f", {format_usd(report.expected_cost)} at list prices"
            self._common.note(DISCOUNT)
        if yes:
            self._common.note(left)
        is_wanted = False
        try:
            is_wanted = confirmed(f"{left}. Send them?", f"{left}; they are sent only with --yes", yes=yes)
        except Interrupted:
            raise KeyboardInterrupt from None  # outside the loop, where it ends with the state of the run
        finally:
            if self._common.json and not is_wanted:
                print(as_json(report))
        return is_wanted

    @in_loop
    async def run(self, source: str | BinaryIO | TableRequests, **options: Any) -> Exit:
        """Run, and notify of the end; ``options`` are those of :meth:`AsyncBatches.run`."""
        async with notifying(self._common, self._notify, run=self.directory) as notifier:
            try:
                code = await self._shown(source, options, notifier)
            except CommandError as error:
                # Another process that is at the run will notify of its end.
                if error.code is not Exit.USAGE and not isinstance(error.__cause__, RunInUseError):
                    await notifier.send_end(None, error.code)
                raise
            if self._report is not None and not self.is_at_the_sample:
                await notifier.send_end(self._report, code)
        return notifier.exit(code)

    async def _shown(
        self, source: str | BinaryIO | TableRequests, options: dict[str, Any], notifier: Notifier
    ) -> Exit:
        """Run, show the progress, and print the result."""
        from anyio import to_thread

        from together_batches import jsonl

        common = self._common
        shown = common.shows_progress and can_redraw(sys.stderr)
        elapsed = await to_thread.run_sync(self._elapsed) if shown else 0.0
        try:
            requests = source if isinstance(source, jsonl.TableRequests) else None
            if self._table is not None:
                self._table.check(requests, options["schema"])
            # The bar first, so that log lines appear above it.
            meter = Meter("Running", rows, text="Reading the input", elapsed=elapsed)
            with terminal_bar(meter, shown=shown) as show:
                tally = RunTally(show, by_status=True)
                async with Labeller(self._labels, self.directory) as labeller, connected(common) as batches:

                    def on_event(event: RunEvent) -> None:
                        labeller.note(event)
                        (tally.note if shown else self._print_event)(event)

                    notifier.report_stuck(batches)
                    if shown:
                        batches.__add_reader__(tally.see)
                    report = await batches.run(
                        source, self._output, directory=self.directory, on_event=on_event, **options
                    )
                    labeller.add(report.job_ids)
            if self._table is not None and report.output is not None:
                await self._table.write(requests, options["schema"])
        except ValidationError as error:
            print_error(as_options(str(error)))
            _print_problems(error)
            return Exit.FAILED
        except BatchesError as error:
            raise CommandError(as_options(str(error)), code_of(error)) from error
        self._report = report
        labels = tuple(dict.fromkeys(chain(*(await labels_in_thread(report.job_ids)).values())))
        if common.json and not self.is_at_the_sample:
            print(as_json(labelled(report, labels)))
        for line in [_summary(report)] if self.is_at_the_sample else _report_lines(report, labels):
            common.note(line)
        if self._table is not None and report.output is not None:
            common.note(f"table: {self._table.path}")
        return Exit.DONE if report.ok else Exit.SOME_FAILED

    def _elapsed(self) -> float:
        """Return the seconds since the first start of the run, which may have been days ago; 0 if it is new."""
        from together_batches import runs

        with suppress(BatchesError):
            return (datetime.now(UTC) - runs.read(self.directory).started_at).total_seconds()
        return 0.0

    def _print_event(self, event: RunEvent) -> None:
        if event.kind in _NOT_PRINTED:
            return
        place = "" if event.shard is None else f"shard {event.shard}: "
        if event.attempt is not None and event.attempt > 1:
            place = f"shard {event.shard}, attempt {event.attempt}: "
        self._common.note(f"{place}{event.message}")

    def state(self) -> str:
        """Return what is left at the service, and what the user can do about it."""
        from together_batches import runs
        from together_batches.runs._values import attempts_of

        try:
            if not has_run(self.directory):
                return "nothing was sent; run the same command again to start over"
            view = runs.read(self.directory)
        except BatchesError as error:
            return f"{error}; run the same command again to resume"
        done = view.rows - view.in_flight - view.not_sent
        text = (
            f"{format_count(done)} of {format_count(view.rows)} rows are done; run the same command again to resume"
        )
        # Those whose create got no response are included.
        jobs = sum(attempt.creating_at is not None and attempt.ended_at is None for attempt in attempts_of(view))
        if jobs:
            command = f"{PROGRAM} run --cancel {shlex.quote(str(self.directory))}"
            those = count_of(jobs, "job")
            if self._cancels:
                text += f"\n{those} had to be cancelled; to make sure: {command}"
            else:
                text += f"\n{those} still {'runs' if jobs == 1 else 'run'} at the service; to cancel: {command}"
        return text


def _print_problems(error: ValidationError) -> None:
    problems = error.problems
    for problem in problems[:_MOST_PROBLEMS] if len(problems) > 1 else ():
        print_err(as_options(str(problem)))
    if len(problems) > _MOST_PROBLEMS:
        print_err(f"and {format_count(len(problems) - _MOST_PROBLEMS)} more")
    print_err("nothing was sent")


def _summary(report: RunReport) -> str:
    return f"{report}; took {lasted((report.finished_at - report.started_at).total_seconds())}"


def _report_lines(report: RunReport, labels: Sequence[str]) -> list[str]:
    """Return the result of the run, and the location of each file."""
    from together_batches.runs._admission import AFTER_THE_SAMPLE

    lines = [_summary(report)]
    if report.output is not None:
        lines.append(f"answers: {report.output}")
    else:
        sampled = report.stopped == AFTER_THE_SAMPLE
        how = "the command without --sample to send the other rows" if sampled else "the same command again to resume"
        lines.append(f"not finished: run {how}; the run is kept in {report.directory}")
    if report.failures is not None:
        lines.append(f"rows that were not answered: {report.failures}")
    if report.invalid_lines is not None:
        lines.append(f"bad lines: {report.invalid_lines}")
    if labels:
        lines.append(f"labels of its jobs: {', '.join(labels)}")
    return lines
