"""The report of a bulk cancel: a file of CSV or JSON Lines, which a later ``cancel --resume`` continues.

Every id is recorded before the first request is sent, and again with each outcome: the last line of an id counts. So
no id is lost, whatever ends the command. Lines are only added, by a thread, so a slow disk delays no cancel.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from together_batches._local.os_errors import explained
from together_batches.cli._inputs.report_lines import ENCODING, csv_line, results_in
from together_batches.cli._listing.labels import NO_LABELS
from together_batches.cli._terminal.exits import CommandError
from together_batches.cli._terminal.streams import Unblocked
from together_batches.cli._terminal.text import as_json, escape, format_time, print_error
from together_batches.errors import UsageError
from together_batches.outcomes import CancelResult

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import BinaryIO

    from together_batches.models import BatchJob
    from together_batches.outcomes import CancelOutcome

SELECTED = "selected"
"""The result of an id whose outcome is not known: its cancel may have been sent."""
FINAL = frozenset({CancelResult.CANCELLED, CancelResult.ALREADY_FINISHED, CancelResult.NOT_FOUND})
"""Results that another cancel would not change."""
FIELDS = (
    *("job_id", "result", "status", "model", "error", "accepted", "attempts"),
    *("status_before", "requested_at", "recorded_at", "labels"),
)
_ENDINGS = {".csv": True, ".jsonl": False, ".ndjson": False}
"""Endings of names, and whether they are those of CSV."""


class Report:
    """The report of one bulk cancel. ``now`` is the clock of its ``recorded_at``."""

    def __init__(self, path: Path, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        if path.suffix.lower() not in _ENDINGS:
            message = f"the name of a report ends in {', '.join(_ENDINGS)}, and that of {path} does not"
            raise CommandError(message)
        self.path = path
        self.labels = NO_LABELS
        self.is_complete = True
        """False if a line could not be written."""
        self._is_csv = _ENDINGS[path.suffix.lower()]
        self._now = now
        self._size: int | None = None
        """The bytes of an existing report that are kept: all but a line that was cut off."""
        self._file: BinaryIO | None = None
        self._stream: Unblocked | None = None

    @classmethod
    def new(cls, path: str) -> Self:
        """Return a report that will be a new file."""
        report = cls(Path(path))
        if os.path.lexists(report.path):  # a link that leads nowhere would be replaced
            message = f"{path} exists already; choose another name, or continue it with --resume {path}"
            raise CommandError(message)
        if not report.path.parent.is_dir():
            message = f"cannot write {path}: there is no directory {report.path.parent}"
            raise CommandError(message)
        return report

    @classmethod
    def existing(cls, path: str) -> tuple[Self, list[str]]:
        """Return the report in a file, which is added to, and the ids whose results are not final."""
        report = cls(Path(path))
        try:
            content = report.path.read_bytes()
        except OSError as error:
            message = f"cannot read {path}: {error.strerror or error}"
            raise CommandError(message) from error
        report._size = content.rfind(b"\n") + 1
        results = dict(results_in(content[: report._size], path, is_csv=report._is_csv))
        return report, [job_id for job_id, result in results.items() if result not in FINAL]

    # --- writing

    def begin(self, jobs: Iterable[str | BatchJob]) -> None:
        """Record every job, on the disk, before anything is sent; a new file is there only if it has all of them."""
        try:
            if self._size is None:
                self._create(jobs)
            with explained("write", self.path):
                if self._size is not None:
                    os.truncate(self.path, self._size)
                self._file = self.path.open("ab", buffering=0)
        except UsageError as error:
            message = f"{error}; nothing was cancelled"
            raise CommandError(message) from error
        self._stream = Unblocked(self._file, lossy=False)

    def _create(self, jobs: Iterable[str | BatchJob]) -> None:
        from together_batches._local.atomic_file import AtomicFile

        header = [csv_line(FIELDS)] if self._is_csv else []
        content = "".join([*header, *map(self._line, map(_selected, jobs))]).encode(*ENCODING)
        with AtomicFile(self.path, replace=False, follow_links=False, fsync=True, private=False) as new:
            new.write(content)
            new.commit()

    def add(self, outcome: CancelOutcome) -> None:
        """Record an outcome, soon. An error in writing it stops no cancel, and is printed at the end."""
        if self._stream is not None and self.is_complete:
            try:
                self._stream.write(self._line(_ended(outcome)).encode(*ENCODING))
            except OSError as error:
                self._note(error)

    def close(self) -> None:
        """Wait until everything is written; may be called again."""
        file, self._file = self._file, None
        if file is None:
            return
        try:
            if self._stream is not None:
                self._stream.drain(None)
                self._stream.end()
                self._stream.check()
            os.fsync(file.fileno())
        except OSError as error:
            self._note(error)
        finally:
            self._stream = None
            file.close()

    def _note(self, error: OSError) -> None:
        if self.is_complete:
            self.is_complete = False
            print_error(f"the report in {self.path} is incomplete: {error.strerror or error}; the cancel went on")

    # --- lines

    def _line(self, facts: Mapping[str, Any]) -> str:
        labels = self.labels.get(facts["job_id"], ())
        facts = {**facts, "recorded_at": format_time(self._now())}
        if labels:
            facts["labels"] = ", ".join(labels) if self._is_csv else [*labels]
        if not self._is_csv:
            return as_json({name: facts[name] for name in FIELDS if facts.get(name) is not None}) + "\n"
        return csv_line(facts.get(name) for name in FIELDS)


def _selected(job: str | BatchJob) -> dict[str, Any]:
    if isinstance(job, str):
        return {"job_id": job, "result": SELECTED}
    status = _text(job.status)
    return {
        "job_id": job.id,
        "result": SELECTED,
        "status": status,
        "model": _text(job.model_id),
        "status_before": status,
    }


def _ended(outcome: CancelOutcome) -> dict[str, Any]:
    job = outcome.job
    return {
        "job_id": outcome.job_id,
        "result": str(outcome.result),
        "status": _text(job.status) if job else None,
        "model": _text(job.model_id) if job else None,
        "error": _text(str(outcome.error)) if outcome.error else None,
        "accepted": outcome.accepted,
        "attempts": outcome.attempts,
        "status_before": _text(outcome.status_before),
        "requested_at": format_time(outcome.requested_at) if outcome.requested_at else None,
    }


def _text(text: str | None) -> str | None:
    """Return a text of the service on one line, so that a line of the file is a line of the report."""
    return None if text is None else escape(text)
