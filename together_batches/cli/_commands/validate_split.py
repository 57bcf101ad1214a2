"""The commands ``together-batches validate`` and ``split``, which need no key and no network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from together_batches.cli._account.options import endpoint_option, json_option
from together_batches.cli._inputs.local_files import refuse_dashes, requests_argument, requests_in
from together_batches.cli._terminal.commands import command, option
from together_batches.cli._terminal.exits import Exit
from together_batches.cli._terminal.loop import raised_by_signals
from together_batches.cli._terminal.numbers import at_least_one
from together_batches.cli._terminal.text import (
    as_json,
    columns,
    count_of,
    escape,
    format_count,
    print_err,
    print_lines,
)

if TYPE_CHECKING:
    from together_batches.jsonl import Problem


@command("validate")
@requests_argument
@endpoint_option
@json_option
def validate(source: str, endpoint: str, json: bool) -> Exit:
    """Find every problem of a file of requests before it is sent. It needs no key and
    no network.

    examples:
      together-batches validate requests.jsonl
      together-batches validate clips.jsonl --endpoint /v1/audio/transcriptions
      together-batches validate - < requests.jsonl
    """
    from together_batches import jsonl

    with raised_by_signals():
        found = jsonl.validate(requests_in(source), endpoint=endpoint)
    if json:
        print(as_json({**attrs.asdict(found), "ok": found.ok}))
        return Exit.DONE if found.ok else Exit.FAILED
    print_lines(map(_line, found.problems))
    left_out = found.problem_count - len(found.problems)
    print_err(f"{found}; the first {format_count(len(found.problems))} are listed" if left_out else str(found))
    return Exit.DONE if found.ok else Exit.FAILED


def _line(problem: Problem) -> str:
    """Return the columns that the reference names."""
    line = None if problem.line is None else str(problem.line)
    return "\t".join(columns((line, problem.custom_id, problem.message)))


@command("split")
@requests_argument
@endpoint_option
@option("-o, --output DIR", "where the files go (here)", "directory", default=".", complete="dir")
@option("--max-rows N", "most requests in a file (50000)", type=at_least_one, default=50_000)
@option("--max-bytes N", "most bytes in a file (100000000)", type=at_least_one, default=100_000_000)
@json_option
def split(source: str, endpoint: str, directory: str, max_rows: int, max_bytes: int, json: bool) -> Exit:
    """Cut any number of requests into as few files as the service's limits allow, and
    print their paths. If there is a problem, nothing is written. It needs no key
    and no network.

    examples:
      together-batches split requests.jsonl -o pieces
      together-batches split requests.jsonl -o pieces --max-rows 10000
      together-batches split requests.jsonl | xargs -n 1 together-batches submit
    """
    from together_batches import jsonl

    refuse_dashes("the files go to a directory", o=directory)
    with raised_by_signals():
        paths = jsonl.split(requests_in(source), directory, endpoint=endpoint, max_rows=max_rows, max_bytes=max_bytes)
    if json:
        print_lines(as_json({"path": str(path), "bytes": path.stat().st_size}) for path in paths)
    else:
        print_lines(escape(str(path)) for path in paths)
        print_err(f"{count_of(len(paths), 'file')} in {directory}")
    return Exit.DONE
