"""Values as notebooks show them."""

from __future__ import annotations

import copy
import pickle
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.runs.views import attempt, run, shard
from together_batches import BatchesError, BatchJob, CancelOutcome, CancelReport, CancelResult, Usage, jsonl
from together_batches._jobs.job_filter import JobList
from together_batches._text import escape
from together_batches.runs import RunReport

NOW = datetime(2026, 9, 14, 10, 20, 30, tzinfo=UTC)
EVIL = '<script>alert("1")</script>\x1b[31m'
SHOWN = '<script>alert("1")</script>\\x1b[31m'


class _Page(HTMLParser):
    """The texts and the elements of an HTML fragment, whose elements must be closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.texts)


def _shown(value: Any) -> tuple[str, _Page]:
    """Return what IPython shows of a value: the plain text, and the HTML."""
    bundle = value._repr_mimebundle_(include=None, exclude=None)
    assert bundle.keys() == {"text/plain", "text/html"}
    return bundle["text/plain"], _Page(bundle["text/html"])


def _report(**fields: Any) -> RunReport:
    usual: dict[str, Any] = {
        "directory": Path("answers.jsonl.run"),
        "output": Path("answers.jsonl"),
        "failures": None,
        "invalid_lines": None,
        "succeeded": 995,
        "failed": 5,
        "missing": 0,
        "invalid": 0,
        "not_sent": 0,
        "usage": Usage(prompt_tokens=2_000, completion_tokens=1_000, total_tokens=3_000),
        "job_ids": ("a", "b"),
        "started_at": NOW,
        "finished_at": NOW.replace(minute=22),
    }
    return RunReport(**{**usual, **fields})


JOB = BatchJob(id="job-1", status="IN_PROGRESS", progress=41.7, model_id="openai/gpt-oss-20b", created_at=NOW)
EVIL_VALUES = {
    "job": BatchJob(id=EVIL, status=EVIL, model_id=EVIL, error=EVIL, endpoint=EVIL),
    "list": JobList([BatchJob(id=EVIL, status=EVIL, model_id=EVIL)]),
    "cancel": CancelReport([CancelOutcome(EVIL, CancelResult.FAILED, error=BatchesError(EVIL))]),
    "run": _report(output=Path(EVIL), stopped=EVIL),
    "view": run(shard(1, attempt(1, 2, 3, status=EVIL, error=EVIL)), input_name=EVIL),
    "validation": jsonl.Validation(
        source=EVIL, problems=(jsonl.Problem(EVIL, 1, 0, EVIL),), problem_count=1, models={}, rows=1, bytes=1
    ),
}


@pytest.mark.parametrize("value", EVIL_VALUES.values(), ids=EVIL_VALUES.keys())
def test_texts_are_escaped(value: Any) -> None:
    """Text from outside is text in the HTML, with its control characters visible; nothing runs, and nothing loads."""
    plain, page = _shown(value)
    assert SHOWN.replace("/", "") in page.text.replace("/", "")  # a path has its own idea of slashes
    assert "script" not in {tag for tag, _ in page.elements}
    attributes = {name for _, attributes in page.elements for name in attributes}
    assert {name for name in attributes if name.startswith("on")} | attributes & {"src", "href"} == set()
    assert "\x1b" not in plain
    assert "\x1b" not in page.text


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=200))
def test_any_text_is_shown_as_it_is(text: str) -> None:
    """Whatever the error of a job is, the HTML shows it."""
    _, page = _shown(BatchJob(id="job-1", status="FAILED", error=text))
    assert escape(text) in page.texts


def test_a_job() -> None:
    """A job is shown with its status, its progress, its id and the fields that it has."""
    plain, page = _shown(JOB)
    assert plain == repr(JOB)
    assert "IN_PROGRESS, 42 % job-1 model openai/gpt-oss-20b created (UTC) 2026-09-14 10:20:30" in " ".join(
        page.text.split()
    )
    assert "error" not in page.text


def test_a_list_of_jobs() -> None:
    """A list is shown as its number of jobs by status, and a table."""
    plain, page = _shown(JobList([JOB, BatchJob(id="job-2", status="FAILED"), BatchJob(id="job-3")]))
    assert plain.splitlines() == [
        "3 jobs: 1 IN_PROGRESS, 1 FAILED, 1 without a status",
        "IN_PROGRESS  42 %  job-1  openai/gpt-oss-20b  2026-09-14 10:20:30Z",
        "FAILED             job-2  -                   -",
        "-                  job-3  -                   -",
    ]
    assert page.texts[0] == plain.splitlines()[0]
    assert [tag for tag, _ in page.elements].count("tr") == 4


def test_a_long_list_is_cut() -> None:
    """Of many jobs, the first twenty are shown, in text and in HTML, which stays small."""
    jobs = JobList([BatchJob(id=f"job-{number}", status="COMPLETED") for number in range(5_000)])
    plain, page = _shown(jobs)
    assert plain.splitlines()[0] == "5 000 jobs: 5 000 COMPLETED"
    assert plain.splitlines()[-1] == page.texts[-1] == "and 4 980 more"
    assert len(jobs._repr_mimebundle_()["text/html"]) < 5_000


def test_an_empty_list() -> None:
    """An empty list shows that there are no jobs."""
    plain, page = _shown(JobList())
    assert plain == page.text == "0 jobs"


def test_a_list_of_jobs_is_a_list() -> None:
    """The list behaves as any list; its slices and copies are shown like the list."""
    jobs = JobList([JOB, BatchJob(id="job-2")])
    assert jobs == [JOB, BatchJob(id="job-2")]
    assert repr(jobs) == repr(list(jobs))
    assert jobs[0] is JOB
    parts = (jobs[:1], jobs[::-1], copy.copy(jobs), pickle.loads(pickle.dumps(jobs)))
    assert [type(part) for part in parts] == [JobList] * 4
    assert jobs[:1] == [JOB]


def test_a_list_is_printed_as_text_by_ipython() -> None:
    """IPython, which prints lists by a printer of its own, prints the lines of text."""

    class Printer:
        printed = ""

        def text(self, text: str) -> None:
            self.printed += text

    printer = Printer()
    JobList([JOB])._repr_pretty_(printer, False)
    assert printer.printed.startswith("1 job: 1 IN_PROGRESS\n")


def test_a_report_of_a_cancel() -> None:
    """A report is shown as its summary, a bar and its failures."""
    outcomes = [CancelOutcome(f"job-{number}", CancelResult.CANCELLED) for number in range(9)]
    report = CancelReport([*outcomes, CancelOutcome("job-9", CancelResult.NOT_FOUND, error=BatchesError("no such"))])
    plain, page = _shown(report)
    assert plain == "<CancelReport: 9 cancelled, 1 not found>"
    assert page.texts[0] == "9 cancelled, 1 not found"
    assert page.texts[-3:] == ["job-9", "not found", "no such"]
    assert [attributes.get("title") for _, attributes in page.elements if "title" in attributes] == [
        "9 cancelled",
        "1 not found",
    ]


def test_a_report_of_a_run() -> None:
    """A report is shown as its summary, a bar, its files, tokens and duration."""
    plain, page = _shown(_report())
    assert plain == "995 answered, 5 failed; 2 jobs, 3 000 tokens"
    rest = "output answers.jsonl directory answers.jsonl.run tokens 2 000 in, 1 000 out took 2m"
    assert page.text.split() == [*plain.split(), *rest.split()]


def test_a_view_of_a_run() -> None:
    """A view is shown as its picture, in the colours of the page."""
    view = run(shard(1, attempt(1, 2, 3, 4, 5, succeeded=10)), state="finished", finished_at=NOW)
    plain, page = _shown(view)
    assert plain == "requests.jsonl: finished; 10 rows, 1 shard, 1 job, 5s"
    assert "svg" in {tag for tag, _ in page.elements}


def test_a_view_of_many_shards() -> None:
    """A picture that would be too large is left out, and the rows by outcome are shown in its place."""
    shards = [shard(number, attempt(1, 2, 3, 4, 5, succeeded=10)) for number in range(1, 1_001)]
    plain, page = _shown(run(*shards, state="finished", input_name="<b>"))
    assert page.texts[0] == plain == "<b>: finished; 10 000 rows, 1 000 shards, 1 000 jobs, 5s"
    assert "svg" not in {tag for tag, _ in page.elements}
    assert "10 000 answered" in {attributes.get("title") for _, attributes in page.elements}


def test_a_validation() -> None:
    """The result of a check is shown as its summary and its problems."""
    plain, page = _shown(jsonl.validate([{"custom_id": "a", "body": {}}]))
    assert plain == "the requests: 1 row, 28 bytes, 1 problem"
    assert page.texts[-3:] == ["1", "a", "body.model is missing"]


def test_long_texts_are_cut() -> None:
    """A long error is cut, because the output is saved with the notebook."""
    _, page = _shown(BatchJob(id="job-1", status="FAILED", error="x" * 100_000))
    assert page.texts[-1] == "x" * 300 + "…"
