"""The report of a bulk cancel, as CSV or JSON Lines."""

from __future__ import annotations

import csv
import errno
import json
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from together_batches.cli._commands.cancel.report import FIELDS, Report
from together_batches.cli._inputs.ids import read_ids
from together_batches.cli._terminal.exits import CommandError
from together_batches.errors import APIConnectionError
from together_batches.models import BatchJob, BatchJobStatus
from together_batches.outcomes import CancelOutcome, CancelResult

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

NOW = datetime(2026, 11, 28, 9, 30, tzinfo=UTC)
JOB = BatchJob(id="job-1", status=BatchJobStatus.IN_PROGRESS, model_id="m/1")
STOPPED = CancelOutcome(
    "job-1",
    CancelResult.CANCELLED,
    BatchJob(id="job-1", status=BatchJobStatus.CANCELLED, model_id="m/1"),
    None,
    1,
    accepted=True,
    status_before=BatchJobStatus.IN_PROGRESS,
    requested_at=NOW,
)
FAILED = CancelOutcome("job-2", CancelResult.FAILED, None, APIConnectionError("it\nbroke, 100%"), 5)
ENDINGS = pytest.mark.parametrize("name", ["report.csv", "report.jsonl", "Report.NDJSON"])


def written(path: Path, jobs: Iterable[str | BatchJob], *outcomes: CancelOutcome) -> Report:
    report = Report.new(str(path))
    report.begin(jobs)
    for outcome in outcomes:
        report.add(outcome)
    report.close()
    assert report.is_complete
    return report


def rows(path: Path) -> list[dict[str, Any]]:
    with path.open(newline="") as file:
        return [*csv.DictReader(file)] if path.suffix == ".csv" else [json.loads(line) for line in file]


@ENDINGS
def test_lines(tmp_path: Path, name: str) -> None:
    """Every id is a line before anything is sent, and each outcome another one."""
    path = tmp_path / name
    report = Report(path, now=lambda: NOW)
    report.begin([JOB, "job-2"])
    before = path.read_bytes()
    assert [(row["job_id"], row["result"]) for row in rows(path)] == [("job-1", "selected"), ("job-2", "selected")]
    report.add(FAILED)
    report.add(STOPPED)
    report.close()
    report.close()
    assert path.read_bytes().startswith(before)
    first, _, failed, stopped = rows(path)
    assert (first["model"], first["status"], first["recorded_at"]) == ("m/1", "IN_PROGRESS", "2026-11-28T09:30:00Z")
    assert (failed["job_id"], failed["result"], failed["error"]) == ("job-2", "failed", "it\\nbroke, 100%")
    assert stopped == {
        "job_id": "job-1",
        "result": "cancelled",
        "status": "CANCELLED",
        "model": "m/1",
        **({"error": ""} if name.endswith("csv") else {}),
        "accepted": "true" if name.endswith("csv") else True,
        "attempts": "1" if name.endswith("csv") else 1,
        "status_before": "IN_PROGRESS",
        "requested_at": "2026-11-28T09:30:00Z",
        "recorded_at": "2026-11-28T09:30:00Z",
        **({"labels": ""} if name.endswith("csv") else {}),
    }
    assert tuple(stopped) == tuple(field for field in FIELDS if field in stopped)


@ENDINGS
def test_what_is_left(tmp_path: Path, name: str) -> None:
    """The last line of an id counts; those without a final result are left, in their order."""
    path = tmp_path / name
    outcomes = [CancelOutcome(str(result), result) for result in CancelResult]
    again = CancelOutcome("failed", CancelResult.CANCELLED)
    written(path, ["never", *CancelResult], *outcomes, again)
    report, left = Report.existing(str(path))
    assert left == ["never", "canceling", "denied", "not_attempted"]
    report.begin(left)
    report.add(CancelOutcome("never", CancelResult.NOT_FOUND))
    report.close()
    assert Report.existing(str(path))[1] == ["canceling", "denied", "not_attempted"]


@ENDINGS
@pytest.mark.parametrize(
    "job_id", ["=1+1", "+1", "-1", "@x", "\tx", "\rx", "'x", "'=x", "''-x", "a,b", 'a"b', "ä\n漢", "\udc80"]
)
def test_any_id_comes_back(tmp_path: Path, name: str, job_id: str) -> None:
    """An id is read as it was recorded; in CSV no cell begins like a formula."""
    path = tmp_path / name
    written(path, [job_id])
    assert Report.existing(str(path))[1] == [job_id]
    if path.suffix == ".csv":
        with path.open(newline="", errors="surrogatepass") as file:
            cell = [*csv.reader(file)][1][0]
        assert cell[0] not in "=+-@\t\r"
        assert cell == (f"'{job_id}" if job_id.lstrip("'")[0] in "=+-@\t\r" else job_id)


@ENDINGS
def test_report_as_ids(tmp_path: Path, name: str) -> None:
    """The ids of a report are read as those of any other file of ids, with the file as it is."""
    path = tmp_path / name
    written(path, ["-a", "b"], CancelOutcome("b", CancelResult.CANCELLED))
    with path.open("rb") as file:
        assert list(read_ids(file)) == ["-a", "b", "b"]


def test_formulas_of_others(tmp_path: Path) -> None:
    """Texts of the service cannot be formulas either."""
    path = tmp_path / "report.csv"
    written(path, [BatchJob(id="a", model_id="=cmd()", status=BatchJobStatus("@SUM"))])
    assert (rows(path)[0]["model"], rows(path)[0]["status"]) == ("'=cmd()", "'@SUM")


@ENDINGS
@pytest.mark.parametrize("lost", range(1, 30, 4))
def test_line_that_was_cut_off(tmp_path: Path, name: str, lost: int) -> None:
    """A line that was not written to its end does not count, and lines that are added begin on a new one."""
    path = tmp_path / name
    written(path, ["a", "b"], CancelOutcome("a", CancelResult.CANCELLED), CancelOutcome("b", CancelResult.CANCELLED))
    path.write_bytes(path.read_bytes()[:-lost])
    report, left = Report.existing(str(path))
    assert left == ["b"]
    report.begin(left)
    report.add(CancelOutcome("b", CancelResult.ALREADY_FINISHED))
    report.close()
    assert [row["result"] for row in rows(path)] == ["selected", "selected", "cancelled", "already_finished"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"id,status\na,b\n", "not the report of a cancel"),
        (b'job_id,result\n"a,b\nc', "not the report of a cancel"),
        (b"\xff\xfe\n", "not the report of a cancel"),
    ],
)
def test_file_that_is_no_report(tmp_path: Path, content: bytes, reason: str) -> None:
    """Another file is refused, and not changed."""
    for name in ("report.csv", "report.jsonl"):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(CommandError, match=reason):
            Report.existing(str(path))
        assert path.read_bytes() == content


def test_paths_that_cannot_be(tmp_path: Path) -> None:
    """A report is a new file with an ending that tells its format; what is wrong is known before any request."""
    (tmp_path / "old.csv").touch()
    with pytest.raises(CommandError, match=r"old\.csv exists already; .* --resume"):
        Report.new(str(tmp_path / "old.csv"))
    with pytest.raises(CommandError, match=r"ends in \.csv, \.jsonl, \.ndjson"):
        Report.new(str(tmp_path / "report.txt"))
    with pytest.raises(CommandError, match="there is no directory"):
        Report.new(str(tmp_path / "none" / "report.csv"))
    with pytest.raises(CommandError, match="cannot read"):
        Report.existing(str(tmp_path / "none.csv"))


def test_link_that_leads_nowhere(tmp_path: Path) -> None:
    """A link at the place of a new report is left as it is, also if its target does not exist."""
    link = tmp_path / "report.csv"
    link.symlink_to(tmp_path / "absent.csv")
    with pytest.raises(CommandError, match="exists already"):
        Report.new(str(link))
    assert link.is_symlink()


def test_file_that_cannot_be_made(tmp_path: Path) -> None:
    """If the ids cannot be recorded, nothing is cancelled."""
    report = Report.new(str(tmp_path / "report.csv"))
    report.path.mkdir()
    with pytest.raises(CommandError, match="nothing was cancelled"):
        report.begin(["a"])


def test_disk_without_room_for_the_ids(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If not all ids can be recorded, there is no report of some of them, with which --resume would cancel those."""
    report = Report.new(str(tmp_path / "report.csv"))

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(CommandError, match="nothing was cancelled"):
            report.begin(["a", "b"])
        report.close()
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().err == ""
    written(tmp_path / "report.csv", ["a", "b"])


def test_disk_that_is_full(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An outcome that cannot be recorded raises nothing, and is reported once."""
    report = Report.new(str(tmp_path / "report.csv"))
    report.begin(["a"])

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    for _ in range(3):
        report.add(CancelOutcome("a", CancelResult.CANCELLED))
    report.close()
    assert not report.is_complete
    assert capsys.readouterr().err == (
        f"together-batches: error: the report in {report.path} is incomplete: No space left on device; "
        "the cancel went on\n"
    )
