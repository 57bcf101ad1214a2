"""Labels of jobs: names that the user gives them. The service knows none; they are kept in a file of this machine.

A line of the file has all labels of a job, and the last line of a job counts, so most changes append. A reader needs
no lock: a line that is being written has no end yet, and is skipped. A file with other content is set aside.
"""

from __future__ import annotations

import os
import stat
from collections import deque
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache, lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import attrs
import click

from together_batches._local.os_errors import explained
from together_batches._local.replace import created, resolved
from together_batches.cli._account.places import data_directory, locked
from together_batches.cli._terminal.commands import option
from together_batches.cli._terminal.text import as_json, count_of, plain, print_err
from together_batches.errors import BatchesError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from together_batches.runs import RunEvent, RunView

    Labels = Mapping[str, tuple[str, ...]]
    """The labels of each job that has any."""

NO_LABELS: Labels = MappingProxyType({})
_NAME = "labels.jsonl"
_LONGEST = 100
_MOST_BYTES = 16 << 20
"""Size from which the file is reduced to half of it: the jobs that were labelled last stay."""
_MOST_READ = 4 * _MOST_BYTES
"""Size from which the file is not ours."""
_MOST_OLD_LINES = 1_000
"""Number of lines that no longer count, beside one for each job, from which the file is written again."""
_START = b'{"job_id":'
"""The first bytes of each line, by which one that was cut off is recognised."""


# --- labels as text


def label_of(text: str) -> str:
    """Parse a label, as it is typed."""
    import unicodedata  # here, because help needs none

    label = unicodedata.normalize("NFC", text.strip())
    message = None
    if not label:
        message = "a label is not empty"
    elif len(label) > _LONGEST:
        message = f"{label[:20]!r}... is longer than {_LONGEST} characters"
    elif not label.isprintable():
        message = f"{label!r} has a character that cannot be printed"
    elif "," in label:
        message = f"{label!r} has a comma in it; give each label by an option of its own"
    if message is not None:
        raise click.BadParameter(message)
    return label


def complete_label(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return the labels that begin like this."""
    with suppress(UsageError):
        known = {label for labels in _File.read(_path()).jobs.values() for label in labels}
        return sorted(label for label in known if label.startswith(incomplete))
    return []


label_option = option(
    "--label L", "a name for the job, kept on this machine; may be repeated", "labels", type=label_of, multiple=True
)


def label_cells(labels: Labels, job_id: str) -> list[str | None]:
    """Return the last column of a line about a job; none if no job of the lines has a label."""
    return [label_text(labels, job_id)] if labels else []


def label_text(labels: Labels, job_id: str) -> str | None:
    """Return the labels of a job with commas between them; None if it has none."""
    return ", ".join(labels.get(job_id, ())) or None


def labelled(value: object, labels: Sequence[str] | None) -> dict[str, Any]:
    """Return a value as plain data, with its labels if it has any."""
    return {**plain(value), "labels": [*labels]} if labels else plain(value)


# --- the file


@attrs.frozen
class _Line:
    job_id: str
    labels: tuple[str, ...]


class _File(NamedTuple):
    """What is in the file: the labels by ids in lower case, those of the latest change last."""

    jobs: dict[str, tuple[str, ...]]
    lines: int
    size: int
    damaged: int
    """Number of lines that are not ours."""
    ends_well: bool
    """Whether the last line is complete."""

    @property
    def is_usual(self) -> bool:
        """Whether lines may be appended."""
        return not self.damaged and self.ends_well and self.lines <= 2 * len(self.jobs) + _MOST_OLD_LINES

    @classmethod
    def read(cls, path: Path) -> _File:
        """Read the file; one that is absent is empty. Raise :class:`UsageError` if it cannot be read."""
        with explained("read", path):
            try:
                found = path.stat()
            except FileNotFoundError:
                return cls.parse(b"")
            if not stat.S_ISREG(found.st_mode):  # opening a pipe would wait for its other end
                message = f"cannot read {path}: it is not a file"
                raise UsageError(message)
            return _read(path, found.st_ino, found.st_size, found.st_mtime_ns)

    @classmethod
    def parse(cls, content: bytes) -> _File:
        """Return what this content has."""
        from together_batches._protocol import json_codec

        jobs: dict[str, tuple[str, ...]] = {}
        damaged = 0
        decode = json_codec.reader_of(_Line)
        lines = content.split(b"\n")
        for number, line in enumerate(lines, start=1):
            try:
                found: _Line = decode(line)
            except json_codec.UNREADABLE:
                damaged += bool(line.strip()) and not (number == len(lines) and _is_cut_off(line))
                continue
            job_id = found.job_id.lower()
            jobs.pop(job_id, None)
            if found.labels:
                jobs[job_id] = found.labels
        return cls(jobs, len(lines), len(content), damaged, ends_well=not lines[-1])


def _is_cut_off(line: bytes) -> bool:
    """Return whether this is the beginning of a line of ours."""
    return _START.startswith(line[: len(_START)]) and not line.endswith(b"}")


def _path() -> Path:
    """Return the file, through links, which stay."""
    return resolved(data_directory() / _NAME)


@lru_cache(maxsize=1)  # a command that shows labels needs them more than once, and `watch` at each look
def _read(path: Path, *_state: int) -> _File:
    """Read the file in this state: its inode, size and time, of which each change changes one."""
    with path.open("rb") as file:
        content = file.read(_MOST_READ + 1)
    return _File.parse(content if len(content) <= _MOST_READ else b"not ours")


def change_labels(job_ids: Iterable[str], *, add: Sequence[str] = (), remove: Sequence[str] = ()) -> Labels:
    """Add and remove labels of jobs, and return those that each has then.

    Raises :class:`UsageError` if that cannot be kept.
    """
    with locked(data_directory()):
        path = _path()
        file = _File.read(path)
        after: dict[str, tuple[str, ...]] = {}
        for job_id in job_ids:
            kept = (*file.jobs.get(job_id.lower(), ()), *add)
            after[job_id.lower()] = tuple(label for label in dict.fromkeys(kept) if label not in remove)
        new = {job_id: labels for job_id, labels in after.items() if labels != file.jobs.get(job_id, ())}
        added = b"".join(map(_line, new.items()))
        if 2 * len(added) > _MOST_BYTES:
            message = f"cannot label {count_of(len(new), 'job')} at once: the labels of the last ones alone are kept"
            raise UsageError(message)
        if not file.is_usual or file.size + len(added) > _MOST_BYTES:
            _write(path, file, new)
        elif added:
            _append(path, added)
    return after


def _line(item: tuple[str, Sequence[str]]) -> bytes:
    job_id, labels = item
    return as_json({"job_id": job_id, "labels": [*labels]}).encode() + b"\n"


def _append(path: Path, added: bytes) -> None:
    """Append all lines or, if that fails, none."""
    with explained("write", path), created(path, "ab", buffering=0) as file:
        before = file.seek(0, os.SEEK_END)
        left = memoryview(added)
        try:
            while left:
                left = left[file.write(left) :]
        except OSError:
            file.truncate(before)
            raise


def _write(path: Path, file: _File, new: Labels) -> None:
    """Write the file again, with one line for each job; set aside what is not ours."""
    from together_batches._local.atomic_file import AtomicFile

    jobs = {job_id: labels for job_id, labels in file.jobs.items() if job_id not in new} | dict(new)
    lines = [_line(item) for item in jobs.items() if item[1]]
    room = _MOST_BYTES // 2
    first = len(lines)
    while first and room >= len(lines[first - 1]):
        first -= 1
        room -= len(lines[first])
    with AtomicFile(path) as rewritten:
        for line in lines[first:]:
            rewritten.write(line)
        rewritten.finish()
        if file.damaged:
            aside = path.with_name(f"{path.name}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}")
            with explained("set aside", path):
                path.replace(aside)
            lost = f"{count_of(file.damaged, 'line')} of {path} cannot be read as labels"
            _say_once(f"warning: {lost}: the file was set aside as {aside}, and all other labels are kept")
        rewritten.commit()


@cache  # of several commands in one process, which only tests have, the first alone prints a text
def _say_once(text: str) -> None:
    print_err(text)


# --- for the commands


def labels_of(job_ids: Iterable[str], *, needed: bool = False) -> Labels:
    """Return the labels of those of the jobs that have any.

    A file that cannot be read is a note, but an error if labels are ``needed``.
    """
    try:
        file = _File.read(_path())
    except UsageError as error:
        if needed:
            raise
        _say_once(f"note: labels are not shown: {error}")
        return {}
    if file.damaged:
        keep_labels((), ())
    return {job_id: labels for job_id in job_ids if (labels := file.jobs.get(job_id.lower()))}


async def labels_in_thread(job_ids: Iterable[str]) -> Labels:
    """Return the labels of jobs, as :func:`labels_of`, without blocking the event loop."""
    from anyio import to_thread

    return await to_thread.run_sync(labels_of, list(job_ids))


def keep_labels(job_ids: Iterable[str], labels: Sequence[str]) -> None:
    """Add labels to jobs; that it is impossible is printed once, and stops nothing."""
    try:
        change_labels(job_ids, add=labels)
    except UsageError as error:
        _say_once(f"warning: labels are not kept: {error}")


class Labeller:
    """Labels the jobs of a run as they appear, in a thread, because a run does not wait for the lock of a file."""

    def __init__(self, labels: Sequence[str], directory: Path) -> None:
        from concurrent.futures import ThreadPoolExecutor  # here, because help needs none

        self._labels = labels
        self._directory = directory
        self._left = deque[str]()
        self._thread = ThreadPoolExecutor(1, "labels")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        from anyio import CancelScope, to_thread

        with CancelScope(shield=True):
            await to_thread.run_sync(self._thread.shutdown)

    def note(self, event: RunEvent) -> None:
        """Label a new job soon, and those of earlier processes when a run is resumed."""
        if event.kind == "resumed" and self._labels:
            self._thread.submit(self._add_earlier)
        elif event.kind in {"created", "found"} and event.job_id is not None:
            self.add([event.job_id])

    def add(self, job_ids: Sequence[str]) -> None:
        """Label these jobs soon."""
        if self._labels:
            self._left.extend(job_ids)
            self._thread.submit(self._keep)

    def _keep(self) -> None:
        """Label all jobs that are left, at once: for each alone, a lock that is held would be waited for again."""
        job_ids = [self._left.popleft() for _ in range(len(self._left))]
        if job_ids:
            keep_labels(job_ids, self._labels)

    def _add_earlier(self) -> None:
        from together_batches import runs

        with suppress(BatchesError):  # which the run reports
            self._left.extend(jobs_of(runs.read(self._directory)))
        self._keep()


def jobs_of(view: RunView) -> list[str]:
    """Return the ids of the jobs of a run."""
    from together_batches.runs._values import attempts_of

    return [attempt.job_id for attempt in attempts_of(view) if attempt.job_id is not None]
