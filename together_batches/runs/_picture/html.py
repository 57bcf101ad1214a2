"""HTML page of a run: its picture, and all its data in tables. It loads nothing, and contains no script."""

from __future__ import annotations

from typing import TYPE_CHECKING

from together_batches._text import count_of, format_count
from together_batches.runs._picture.svg import to_svg, written
from together_batches.runs._picture.timeline import buckets

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime

    from together_batches.runs._values import AttemptView, RunView, ShardView

__all__ = ["to_html"]

_STYLE = """\
:root{color-scheme:light dark}
body{margin:0 auto;padding:0 32px 3rem;max-width:75rem;background:#fff;color:#1f2328;
font:15px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif}
svg{margin-left:-24px}
h2{margin:2rem 0 .5rem;font-size:1.15rem}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-size:13px;font-variant-numeric:tabular-nums}
th,td{padding:.3rem .8rem .3rem 0;border-bottom:1px solid #d8dee4;text-align:left;vertical-align:top}
td{white-space:nowrap}
td.number,th.number{text-align:right}
td.long{white-space:normal;overflow-wrap:anywhere;min-width:16rem}
@media(prefers-color-scheme:dark){body{background:#0d1117;color:#e6edf3}th,td{border-color:#30363d}}"""

_JOBS = (
    ("shard", "number"),
    ("attempt", "number"),
    ("lines", ""),
    ("rows", "number"),
    ("state", ""),
    ("answered", "number"),
    ("failed", "number"),
    ("to send again", "number"),
    ("missing", "number"),
    ("tokens in", "number"),
    ("tokens out", "number"),
    ("job", ""),
    ("input file", ""),
    ("output file", ""),
    ("error file", ""),
    ("planned", ""),
    ("uploaded", ""),
    ("created", ""),
    ("running", ""),
    ("ended", ""),
    ("collected", ""),
    ("what was said", "long"),
)


def to_html(view: RunView, *, now: datetime | None = None) -> str:
    """Return a run as a self-contained HTML page: :func:`to_svg`, and tables of its rows, settings and jobs."""
    parts = [
        to_svg(view, now=now),
        "<h2>Rows</h2>",
        _table((("", ""), ("rows", "number")), [[word, format_count(many)] for _, word, many in buckets(view)]),
        "<h2>Jobs</h2>",
        _table(_JOBS, _attempts(view)),
        "<h2>Run</h2>",
        _table((("", ""), ("", "long")), _facts(view)),
    ]
    if view.warnings:
        parts += ["<h2>Warnings of the service</h2>", "<ul>", *_items(view.warnings), "</ul>"]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{written(view.input_name)}: {view.state}</title>\n<style>\n{_STYLE}\n</style>\n</head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )


def _items(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        yield f"<li>{written(text)}</li>"


def _table(columns: Sequence[tuple[str, str]], rows: Iterable[Sequence[str]]) -> str:
    """Return a table with the given columns (name, CSS class); without a head if no column has a name."""

    def line(cell: str, texts: Iterable[str]) -> str:
        cells = zip(texts, columns, strict=True)
        return (
            "<tr>"
            + "".join(
                f'<{cell} class="{css}">{written(text)}</{cell}>' if css else f"<{cell}>{written(text)}</{cell}>"
                for text, (_, css) in cells
            )
            + "</tr>"
        )

    head = line("th", [name for name, _ in columns]) + "\n" if any(name for name, _ in columns) else ""
    body = "\n".join(line("td", row) for row in rows)
    return f'<div class="scroll"><table>\n{head}{body}\n</table></div>'


def _attempts(view: RunView) -> Iterator[list[str]]:
    for shard in view.shards:
        for attempt in shard.attempts:
            yield _attempt(shard, attempt)


def _attempt(shard: ShardView, attempt: AttemptView) -> list[str]:
    said = [attempt.error, attempt.warning, "found again after a crash" if attempt.found else None]
    return [
        str(shard.number),
        str(attempt.number),
        f"{shard.first_line}–{shard.first_line + shard.rows - 1}",
        format_count(attempt.rows),
        f"{attempt.state} ({attempt.status})" if attempt.status else attempt.state,
        format_count(attempt.succeeded),
        format_count(attempt.failed),
        format_count(attempt.again),
        format_count(attempt.missing),
        format_count(attempt.usage.prompt_tokens),
        format_count(attempt.usage.completion_tokens),
        *(item or "–" for item in (attempt.job_id, attempt.file_id, attempt.output_file_id, attempt.error_file_id)),
        *map(
            _moment,
            (
                attempt.planned_at,
                attempt.uploaded_at,
                attempt.created_at,
                attempt.running_at,
                attempt.ended_at,
                attempt.collected_at,
            ),
        ),
        "; ".join(text for text in said if text) or "–",
    ]


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
    yield "finished", _moment(view.finished_at)
    if view.pid is not None:
        yield "process", f"{view.pid} on {view.host or 'an unknown machine'}"
    usage = view.usage
    yield "tokens", f"{format_count(usage.prompt_tokens)} in, {format_count(usage.completion_tokens)} out"


def _moment(time: datetime | None) -> str:
    return "–" if time is None else f"{time:%Y-%m-%d %H:%M:%SZ}"
