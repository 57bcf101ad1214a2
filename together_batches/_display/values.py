"""Values as IPython shows them: plain text, and small HTML in the colours of the page, with every text escaped."""

from __future__ import annotations

import html
from collections import Counter
from typing import TYPE_CHECKING

from together_batches._text import count_of, escape, format_count, lasted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from together_batches.jsonl import Validation
    from together_batches.models import BatchJob
    from together_batches.outcomes import CancelReport
    from together_batches.runs import RunReport, RunView

_MOST_ROWS = 20
_MOST_CHARACTERS = 300
_MOST_OF_A_PICTURE = 400_000
"""Characters of a picture, which is saved with the notebook: that of about 400 shards."""

# The text has the colour of the page. Only signs and bars have their own, distinguishable on white and on black
# (Okabe and Ito).
_GREEN, _BLUE, _YELLOW, _ORANGE, _PINK, _GREY = "#009e73", "#56b4e9", "#f0e442", "#d55e00", "#cc79a7", "#8a9199"
_OF_STATUS = {
    "COMPLETED": _GREEN,
    "IN_PROGRESS": _BLUE,
    "VALIDATING": _BLUE,
    "CANCELING": _PINK,
    "FAILED": _ORANGE,
    "EXPIRED": _ORANGE,
}
_OF_RESULT = {"cancelled": _GREEN, "canceling": _BLUE, "already_finished": _GREY, "not_attempted": _PINK}

_STYLE = (
    ".tb-value{font-size:13px;overflow-x:auto}.tb-value code,.tb-lines td{white-space:nowrap!important}"
    ".tb-value table{border-collapse:collapse;margin:.4em 0 0;border:0}"
    # Against the rules of notebooks for all tables.
    ".tb-value th,.tb-value td{text-align:left!important;vertical-align:top!important}"
    ".tb-value th,.tb-value td{padding:.15em 1em .15em 0;border:0;overflow-wrap:break-word;max-width:40em}"
    ".tb-bar{display:flex;height:8px;max-width:480px;margin:.4em 0 0;border-radius:2px;overflow:hidden}"
)
_PICTURE_STYLE = (
    ".tb-value .tb-paper{fill:none}.tb-value .tb-on{stroke:none}"
    ".tb-value :is(.tb-ink,.tb-faint){fill:currentColor}.tb-value .tb-faint{opacity:.7}"
    ".tb-value :is(.tb-grid,.tb-mark,.tb-found){stroke:currentColor}.tb-value .tb-grid{opacity:.2}"
    ".tb-value .tb-found{fill:none}"
)
"""The picture of a run in the colours of the page, whose theme need not be that of the system."""


def job(job: BatchJob) -> dict[str, str]:
    """Return a job: its status, and the fields that it has."""
    facts = [
        ("endpoint", job.endpoint),
        ("model", job.model_id),
        ("input file", job.input_file_id),
        ("output file", job.output_file_id),
        ("error file", job.error_file_id),
        ("created (UTC)", _time(job.created_at)),
        ("completed (UTC)", _time(job.completed_at)),
        ("deadline (UTC)", _time(job.job_deadline)),
        ("error", job.error),
        ("warning", job.warning),
    ]
    done = "" if job.progress is None else f", {job.progress:.0f} %"
    heading = f"{_status(job)}{done} {_code(job.id)}"
    return _bundle(escape(repr(job)), heading, _table((), [(name, text) for name, text in facts if text]))


def jobs(jobs: Sequence[BatchJob]) -> dict[str, str]:
    """Return a list of jobs: their number by status, and the first of them."""
    shown = jobs[:_MOST_ROWS]
    head = ("status", "", "id", "model", "created (UTC)")
    rows = [
        (_status(job), _percent(job), _code(job.id), _text(job.model_id), _time(job.created_at) or "")
        for job in shown
    ]
    table = f'<div class="tb-lines">{_raw_table(head, rows)}</div>'
    return _bundle(jobs_text(jobs), _text(_summary(jobs)), table, _more(len(jobs)))


def jobs_text(jobs: Sequence[BatchJob]) -> str:
    """Return a list of jobs as lines of text, in columns."""
    shown = [
        [escape(text or "-") for text in (job.status, _percent(job) or " ", job.id, job.model_id, created)]
        for job in jobs[:_MOST_ROWS]
        for created in [job.created_at and f"{_time(job.created_at)}Z"]
    ]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in shown]
    return "\n".join(filter(None, (escape(_summary(jobs)), *map(str.rstrip, lines), _more(len(jobs)))))


def cancel_report(report: CancelReport) -> dict[str, str]:
    """Return the outcomes of a bulk cancel: their number by result, and the failures."""
    parts = [(result.words, count, _OF_RESULT.get(result, _ORANGE)) for result, count in report.counts.items()]
    failures = report.failures[:_MOST_ROWS]
    rows = [(_code(item.job_id), _text(item.result.words), _text(str(item.error or ""))) for item in failures]
    table = _raw_table(("job", "result", "error"), rows)
    return _bundle(escape(repr(report)), _text(str(report)), _bar(parts), table, _more(len(report.failures)))


def run_report(report: RunReport) -> dict[str, str]:
    """Return the result of a run: its rows by outcome, and its files."""
    parts = [*_outcomes(report), ("not sent", report.not_sent, _GREY)]
    files = [
        ("output", report.output),
        ("failures", report.failures),
        ("invalid lines", report.invalid_lines),
        ("directory", report.directory),
    ]
    rows = [(name, str(path)) for name, path in files if path is not None]
    usage = report.usage
    tokens = f"{format_count(usage.prompt_tokens)} in, {format_count(usage.completion_tokens)} out"
    rows += [("tokens", tokens), ("took", lasted((report.finished_at - report.started_at).total_seconds()))]
    return _bundle(escape(str(report)), _text(str(report)), _bar(parts), _table((), rows))


def _outcomes(of: RunReport | RunView) -> list[tuple[str, int, str]]:
    return [
        ("answered", of.succeeded, _GREEN),
        ("answered, not fitting", of.invalid_answers, _YELLOW),
        ("failed", of.failed, _ORANGE),
        ("missing", of.missing, _PINK),
        ("invalid", of.invalid, _PINK),
    ]


def run_view(view: RunView, summary: str, picture: str) -> dict[str, str]:
    """Return a run as its picture, or if that is too large, as its rows by outcome."""
    plain = escape(f"{view.input_name}: {view.state}; {summary}")
    if len(picture) > _MOST_OF_A_PICTURE:
        parts = [*_outcomes(view), ("under way", view.in_flight, _BLUE), ("not sent", view.not_sent, _GREY)]
        return _bundle(plain, html.escape(plain), _bar(parts), "<code>runs.to_svg(view)</code> draws its shards")
    page = f'<style>{_PICTURE_STYLE}</style><div class="tb-value">{picture}</div>'
    return {"text/plain": plain, "text/html": page}


def validation(validation: Validation) -> dict[str, str]:
    """Return the result of a check: its summary, and the problems."""
    problems = validation.problems[:_MOST_ROWS]
    rows = [("" if item.line is None else str(item.line), item.custom_id or "", item.message) for item in problems]
    mark = _sign(_ORANGE if validation.problem_count else _GREEN)
    table = _table(("line", "custom_id", "problem"), rows)
    return _bundle(
        escape(str(validation)), f"{mark} {_text(str(validation))}", table, _more(validation.problem_count)
    )


# --- the parts


def _bundle(plain: str, heading: str, *parts: str) -> dict[str, str]:
    body = "".join(parts)
    return {
        "text/plain": plain,
        "text/html": f'<style>{_STYLE}</style><div class="tb-value"><div>{heading}</div>{body}</div>',
    }


def _text(text: str | None) -> str:
    """Return external text, shortened and escaped."""
    text = text or ""
    if len(text) > _MOST_CHARACTERS:
        text = f"{text[:_MOST_CHARACTERS]}…"
    return html.escape(escape(text))


def _code(text: str) -> str:
    return f"<code>{_text(text)}</code>"


def _sign(colour: str) -> str:
    return f'<span style="color:{colour}">●</span>'


def _status(job: BatchJob) -> str:
    return f"{_sign(_OF_STATUS.get(job.status, _GREY))}&nbsp;{_text(str(job.status or 'without a status'))}"


def _percent(job: BatchJob) -> str:
    return "" if job.progress is None else f"{job.progress:.0f} %"


def _time(time: datetime | None) -> str | None:
    return None if time is None else f"{time:%Y-%m-%d %H:%M:%S}"


def _summary(jobs: Iterable[BatchJob]) -> str:
    counts = Counter(str(job.status or "without a status") for job in jobs)
    parts = ", ".join(f"{format_count(count)} {status}" for status, count in counts.most_common())
    return f"{count_of(counts.total(), 'job')}{parts and ': '}{parts}"


def _more(count: int) -> str:
    return f"and {format_count(count - _MOST_ROWS)} more" if count > _MOST_ROWS else ""


def _table(head: Sequence[str], rows: Sequence[Sequence[str | None]]) -> str:
    return _raw_table(head, [[_text(cell) for cell in row] for row in rows])


def _raw_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of cells that are HTML; without a head, the first cell of each row is its name."""
    if not rows:
        return ""
    lines = [f"<tr>{''.join(f'<th>{name}</th>' for name in head)}</tr>"] if head else []
    for first, *rest in rows:
        cells = "".join(f"<td>{cell}</td>" for cell in rest)
        lines.append(f"<tr><td>{first}</td>{cells}</tr>" if head else f"<tr><th>{first}</th>{cells}</tr>")
    return f"<table>{''.join(lines)}</table>"


def _bar(parts: Iterable[tuple[str, int, str]]) -> str:
    """Return counts as one bar, with a tooltip for each part."""
    drawn = [
        f'<span style="flex:{count};min-width:2px;background:{colour}" title="{format_count(count)} {name}"></span>'
        for name, count, colour in parts
        if count
    ]
    return f'<div class="tb-bar">{"".join(drawn)}</div>' if drawn else ""
