"""The HTML page of a run."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING

from hypothesis import given

from runs.views import JOB, any_run, at, attempt, moments, run, shard
from together_batches.rows import Usage
from together_batches.runs import to_html, to_svg

if TYPE_CHECKING:
    from datetime import datetime

    from together_batches.runs import RunView

VOID = {"meta"}


class Page(HTMLParser):
    """The visible text of a page; unclosed and unopened elements are recorded."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.seen: set[str] = set()
        self.rows: list[list[str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in {"td", "th"}:
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in {"td", "th"}:
            self.rows[-1][-1] += data


def page_of(view: RunView, now: datetime) -> Page:
    return Page(to_html(view, now=now))


def test_all_that_is_known() -> None:
    """The page has a line for each bucket, each attempt and each fact, with full ids."""
    done = attempt(
        1,
        3,
        10,
        40,
        42,
        succeeded=7,
        failed=1,
        again=2,
        usage=Usage(700, 9, 709),
        output_file_id="file-out",
        error_file_id="file-err",
        status="COMPLETED",
        created_at=at(4),
        warning="busy",
        found=True,
    )
    page = page_of(run(shard(3, done), model_id="m", priority=-2, warnings=("busy",)), at(50))
    assert ["answered", "7"] in page.rows
    (line,) = [row for row in page.rows if row[:2] == ["3", "1"]]
    assert line == [
        "3",
        "1",
        "21–30",
        "10",
        "collected (COMPLETED)",
        "7",
        "0",
        "1",
        "2",
        "0",
        "700",
        "9",
        JOB,
        "file-1",
        "file-out",
        "file-err",
        "2026-09-14 10:20:31Z",
        "2026-09-14 10:20:33Z",
        "2026-09-14 10:20:34Z",
        "2026-09-14 10:20:40Z",
        "2026-09-14 10:21:10Z",
        "2026-09-14 10:21:12Z",
        "busy; found again after a crash",
    ]
    facts = {row[0]: row[1] for row in page.rows if len(row) == 2}
    assert facts["directory"] == "answers.jsonl.run"
    assert facts["input"] == "requests.jsonl, 10 rows, 1 000 bytes"
    assert (facts["model"], facts["priority"], facts["process"]) == ("m", "-2", "4711 on worker-3")


def test_with_the_picture() -> None:
    """The page consists of the image and the tables."""
    view = run(shard(1, attempt(1, 2, 3)))
    assert to_svg(view, now=at(9)) in to_html(view, now=at(9))


def test_alone() -> None:
    """The page loads nothing, and its security policy forbids it to."""
    text = to_html(run(shard(1, attempt(1, 2, 3))), now=at(9))
    assert "default-src 'none'" in text
    assert set(re.findall(r"https?://[^\"]+", text)) == {"http://www.w3.org/2000/svg"}


def test_any_text_is_text() -> None:
    """Names and messages are escaped."""
    view = run(
        shard(1, attempt(1, 2, 3, error="<script>alert(1)</script>\x1b")), input_name="<h1>", warnings=("<b>\u202e",)
    )
    text = to_html(view, now=at(9))
    assert Page(text).seen.isdisjoint({"script", "h1", "b"})
    assert "&lt;script&gt;alert(1)&lt;/script&gt;\\x1b" in text
    assert "<li>&lt;b&gt;\\u202e</li>" in text


@given(any_run(), moments)
def test_any_run(view: RunView, now: datetime) -> None:
    """Any run gives a page with balanced elements that can be written to a file."""
    text = to_html(view, now=now)
    page = Page(text)
    assert (page.open, page.wrong) == ([], [])
    text.encode()
