"""HTML page of a run: its picture, and all its data in tables. It loads nothing, and contains no script."""

from __future__ import annotations

from typing import TYPE_CHECKING

from together_batches._text import count_of, format_count
from together_batches.runs._picture.svg import to_narrow_svg, to_svg, written
from together_batches.runs._picture.timeline import buckets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from datetime import datetime

    from together_batches.runs._values import AttemptView, RunView, ShardView

_STYLE = """\
:root{color-scheme:light dark}
body{margin:0 auto;padding:0 32px 3rem;max-width:75rem;background:#fff;color:#1f2328;
font:15px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif}
.wide svg{margin-left:-24px}
.narrow{display:none}
h2{margin:2rem 0 .5rem;font-size:1.15rem}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-size:13px;font-variant-numeric:tabular-nums}
th,td{padding:.3rem .8rem .3rem 0;border-bottom:1px solid #d8dee4;text-align:left;vertical-align:top}
td{white-space:nowrap}
td.number,th.number{text-align:right}
td.long{white-space:normal;overflow-wrap:anywhere;min-width:min(16rem,45vw)}
@media(max-width:640px){body{padding:0 16px 2rem}.wide{display:none}.narrow{display:block}
th:first-child,td:first-child{position:sticky;left:0;background:inherit}tr{background:#fff}}
@media(prefers-color-scheme:dark){body,tr{background:#0d1117}body{color:#e6edf3}th,td{border-color:#30363d}}"""


_JOBS: tuple[tuple[str, str, Callable[[ShardView, AttemptView], str]], ...] = (
    ("shard", "number", lambda shard, _: str(shard.number)),
    ("attempt", "number", lambda _, job: str(job.number)),
    ("lines", "", lambda shard, _: f"{shard.first_line}–{shard.first_line + shard.rows - 1}"),
    ("rows", "number", lambda _, job: format_count(job.rows)),
    ("state", "", lambda _, job: f"{job.state} ({job.status})" if job.status else job.state),
    ("answered", "number", lambda _, job: format_count(job.succeeded)),
    ("not fitting", "number", lambda _, job: format_count(job.invalid_answers)),
    ("failed", "number", lambda _, job: format_count(job.failed)),
    ("to send again", "number", lambda _, job: format_count(job.again)),
    ("missing", "number", lambda _, job: format_count(job.missing)),
    ("tokens in", "number", lambda _, job: format_count(job.usage.prompt_tokens)),
    ("tokens out", "number", lambda _, job: format_count(job.usage.completion_tokens)),
    ("job", "", lambda _, job: job.job_id or "–"),
    ("input file", "", lambda _, job: job.file_id or "–"),
    ("output file", "", lambda _, job: job.output_file_id or "–"),
    ("error file", "", lambda _, job: job.error_file_id or "–"),
    ("planned", "", lambda _, job: _moment(job.planned_at)),
    ("uploaded", "", lambda _, job: _moment(job.uploaded_at)),
    ("created", "", lambda _, job: _moment(job.created_at)),
    ("running", "", lambda _, job: _moment(job.running_at)),
    ("ended", "", lambda _, job: _moment(job.ended_at)),
    ("collected", "", lambda _, job: _moment(job.collected_at)),
    ("what was said", "long", lambda _, job: _said(job)),
)
"""Columns of the table of jobs: name, CSS class, text."""


def to_html(view: RunView, *, now: datetime | None = None) -> str:
    """Return a run as a self-contained HTML page: :func:`to_svg`, and tables of its rows, settings and jobs."""
    parts = [
        f'<div class="wide">{to_svg(view, now=now)}</div>',
        f'<div class="narrow">{to_narrow_svg(view, now=now)}</div>',
        "<h2>Rows</h2>",
        _table((("", ""), ("rows", "number")), [[word, format_count(many)] for _, word, many in buckets(view)]),
        "<h2>Jobs</h2>",
        _table(
            [(name, css) for name, css, _ in _JOBS],
            [[text(shard, job) for _, _, text in _JOBS] for shard in view.shards for job in shard.attempts],
        ),
        "<h2>Run</h2>",
        _table((("", ""), ("", "long")), _facts(view)),
    ]
    if view.warnings:
        warnings = [f"<li>{written(text)}</li>" for text in view.warnings]
        parts += ["<h2>Warnings of the service</h2>", "<ul>", *warnings, "</ul>"]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{written(view.input_name)}: {view.state}</title>\n<style>\n{_STYLE}\n</style>\n</head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )


def _table(columns: Sequence[tuple[str, str]], rows: Iterable[Sequence[str]]) -> str:
    """Return a table with the given columns (name, CSS class); without a head if no column has a name."""

    def line(cell: str, texts: Iterable[str]) -> str:
        attributes = (f' class="{css}"' if css else "" for _, css in columns)
        cells = (f"<{cell}{css}>{written(text)}</{cell}>" for css, text in zip(attributes, texts, strict=True))
        return f"<tr>{''.join(cells)}</tr>"

    head = line("th", [name for name, _ in columns]) + "\n" if any(name for name, _ in columns) else ""
    body = "\n".join(line("td", row) for row in rows)
    return f'<div class="scroll"><table>\n{head}{body}\n</table></div>'


def _said(job: AttemptView) -> str:
    texts = (job.error, job.warning, "found again after a crash" if job.found else None)
    return "; ".join(filter(None, texts)) or "–"


def _facts(view: RunView) -> Iterator[tuple[str, str]]:
    yield "directory", str(view.directory)
    yield "input", f"{view.input_name}, {count_of(view.rows, 'row')}, {count_of(view.input_bytes, 'byte')}"
    yield "SHA-256 of the input", view.input_sha256
    yield "endpoint", view.endpoint
    if view.model_id is not None:
        yield "model", view.model_id
    if view.priority is not None:
        yield "priority", str(view.priority)
    yield "most attempts at a row", str(view.max_attempts)
    yield "began", _moment(view.started_at)
    if view.sessions:
        sessions = (f"{_moment(each.began_at)} to {_moment(each.last_at)}" for each in view.sessions)
        yield "processes at work", "; ".join(sessions)
    yield "finished", _moment(view.finished_at)
    if view.pid is not None:
        yield "process", f"{view.pid} on {view.host or 'an unknown machine'}"
    usage = view.usage
    yield "tokens", f"{format_count(usage.prompt_tokens)} in, {format_count(usage.completion_tokens)} out"


def _moment(time: datetime | None) -> str:
    return "–" if time is None else f"{time:%Y-%m-%d %H:%M:%SZ}"
