"""The command ``together-batches results``."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import click

from together_batches.cli._account.client import connected
from together_batches.cli._account.options import Common, patience_option, service_options
from together_batches.cli._commands.runs.answers_table import is_parquet
from together_batches.cli._inputs.local_files import (
    ensure_writable,
    open_atomic,
    output_options,
    schema_in,
    schema_option,
    spooled,
)
from together_batches.cli._listing.labels import labelled, labels_of
from together_batches.cli._terminal.commands import argument, command, option
from together_batches.cli._terminal.exits import Exit
from together_batches.cli._terminal.loop import in_loop
from together_batches.cli._terminal.streams import printer
from together_batches.cli._terminal.text import as_json, count_of, format_count, in_ascii, plain, print_error
from together_batches.models import BatchJobStatus
from together_batches.rows import (
    BatchFailure,
    BatchInvalid,
    BatchMissing,
    BatchResult,
    BatchStray,
    BatchSuccess,
    Usage,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator
    from pathlib import Path

    from together_batches.models import BatchJob


@command("results", Exit.NOT_FOUND, Exit.SOME_FAILED, Exit.ENDED_BADLY)
@argument("job_id", "ID", "id of a job that has finished")
@output_options
@option("--requests FILE", "the job's input: its rows that are missing are counted too", complete="file")
@option(
    "--order ORDER",
    "file, as the service wrote them, or input, as the requests stand (needs --requests)",
    type=click.Choice(("file", "input")),
    default="file",
)
@option("--text", 'add the text of each answer to its line, as "text"', "with_text")
@schema_option
@patience_option(60)
@service_options
def results(
    common: Common,
    job_id: str,
    output: str | None,
    overwrite: bool,
    requests: str | None,
    order: Literal["file", "input"],
    with_text: bool,
    schema: str | None,
    patience: float,
) -> Exit:
    """Write what became of each row of a finished job, one JSON object a line: those
    of its output and of its error file, and with --requests those in neither. With
    --schema, answers that do not fit it are invalid. A FILE that ends in .parquet
    becomes a table, with a column for each member of the schema.

    The result of each row:
      success  an answer
      invalid  an answer that does not fit --schema
      failure  an error
      missing  a row of --requests that is in neither file
      stray    a line that repeats an earlier row, or belongs to no request

    examples:
      together-batches results ID -o out.jsonl
      together-batches results ID -o out.parquet
      together-batches results ID -o out.jsonl --requests in.jsonl --order input
      together-batches results ID | jq 'select(.result == "failure").message'
    """
    target = None if output is None or output == "-" else ensure_writable(output, overwrite=overwrite)
    source = None if requests is None else spooled(requests)
    document = schema_in(schema)

    @in_loop
    async def write() -> tuple[BatchJob, _Tally]:
        tally = _Tally(has_schema=document is not None)
        async with connected(common) as batches:
            job = await batches.retrieve(job_id)
            read = partial(batches.results, job, requests=source, order=order, patience=patience)
            async with read() if document is None else read(schema=document) as rows:
                counted = tally.counted(rows)
                if target is not None and is_parquet(target):
                    from together_batches import tables

                    await tables.write_parquet(counted, target, schema=document, overwrite=overwrite)
                else:
                    await _write_lines(counted, target, with_text=with_text, overwrite=overwrite)
        return job, tally

    job, tally = write()
    if common.json and target is not None:
        facts = labelled(job, labels_of([job.id]).get(job.id))
        print(as_json({"job": facts, "output": str(target), **tally.to_dict()}))
    else:
        common.note(str(tally) + (f", in {target}" if target is not None else ""))
    if job.status != BatchJobStatus.COMPLETED:
        print_error(f"job {job.id} is {job.status}" + (f": {job.error}" if job.error else ""))
        return Exit.ENDED_BADLY
    bad = (BatchInvalid, BatchFailure, BatchMissing)
    return Exit.SOME_FAILED if any(tally.rows[kind] for kind in bad) else Exit.DONE


async def _write_lines(
    rows: AsyncIterable[BatchResult[object]], target: Path | None, *, with_text: bool, overwrite: bool
) -> None:
    """Write rows as lines to a file, or without one to standard output."""
    from together_batches._protocol.result_rows import with_texts
    from together_batches._protocol.to_dict import line_of

    def line(row: BatchResult[object]) -> bytes:
        text = line_of(row) + b"\n"
        return with_texts(text) if with_text else text

    if target is None:
        async with printer() as out:
            async for row in rows:
                out.line(in_ascii(line(row)[:-1]))
                await out.room()
        return
    async with open_atomic(target, overwrite=overwrite) as file:
        async for row in rows:
            await file.write(line(row))
        await file.commit()


class _Tally:
    """Number of rows of each kind, and their token usage."""

    def __init__(self, *, has_schema: bool) -> None:
        self._has_schema = has_schema
        self.rows = Counter[type]()
        self.usage = Usage()

    async def counted(self, rows: AsyncIterable[BatchResult[object]]) -> AsyncIterator[BatchResult[object]]:
        """Yield rows, and count them."""
        async for row in rows:
            self.rows[type(row)] += 1
            answer = row.answer if isinstance(row, BatchInvalid) else row
            if isinstance(answer, BatchSuccess) and (usage := answer.usage) is not None:
                self.usage += usage
            yield row

    def to_dict(self) -> dict[str, Any]:
        counts = {
            "success": self.rows[BatchSuccess],
            **({"invalid": self.rows[BatchInvalid]} if self._has_schema else {}),
            "failure": self.rows[BatchFailure],
            "missing": self.rows[BatchMissing],
            "stray": self.rows[BatchStray],
        }
        return {"counts": counts, "usage": plain(self.usage)}

    def __str__(self) -> str:
        words = {
            BatchSuccess: "answered",
            BatchInvalid: "with an invalid answer",
            BatchFailure: "failed",
            BatchMissing: "missing",
            BatchStray: "stray",
        }
        counts = [f"{format_count(self.rows[kind])} {word}" for kind, word in words.items() if self.rows[kind]]
        text = ", ".join(counts) or "no rows"
        usage = self.usage
        if usage.total_tokens:
            text += f"; {count_of(usage.total_tokens, 'token')}"
            text += f" ({format_count(usage.prompt_tokens)} in, {format_count(usage.completion_tokens)} out)"
        return text
