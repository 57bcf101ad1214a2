"""Submission of requests as a job in one step: checked, uploaded, created once.

The upload is exactly what was checked: both read the same opened file, and the upload rejects later changes.
"""

from __future__ import annotations

import math
import secrets
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
from anyio import to_thread

from together_batches import jsonl
from together_batches._jobs.upload_source import Source, UploadSource, open_upload
from together_batches._protocol.upload_marks import mark_of
from together_batches._schema.response_format import response_format_adder, response_format_text
from together_batches.jsonl._requests import check_endpoint, check_endpoint_of_schema

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from together_batches._schema.adapters import Adapter
    from together_batches.jsonl import Problem, Validation
    from together_batches.models import BatchJob, FileObject


async def submit(
    source: Source,
    *,
    endpoint: str,
    upload: Callable[[UploadSource], Awaitable[FileObject]],
    create: Callable[[str, bool], Awaitable[BatchJob]],
    schema: Adapter[Any] | None = None,
) -> BatchJob:
    """Check the requests, upload them, and create a job from them.

    An upload may be repeated, because it costs nothing. ``create`` receives the id of the file, and whether no other
    create can use the file: each submission uploads unique content. Requests without a ``response_format`` get that
    of the ``schema``.
    """
    change = None
    if schema is not None:
        check_endpoint(endpoint)
        check_endpoint_of_schema(endpoint)
        change = response_format_adder(response_format_text(schema))
    async with open_upload(source, None, mark=mark_of(secrets.token_hex(16)), change=change) as content:
        checked = await _check(content, endpoint)
        _with(content.lines.problems, checked).raise_for_problems()
        file = await upload(content)
        is_marked = content.is_marked
    return await create(file.id, is_marked)


async def _check(content: UploadSource, endpoint: str) -> Validation:
    check = partial(jsonl.validate, content.reader(), endpoint=endpoint)
    checked = await to_thread.run_sync(check, abandon_on_cancel=True)
    if checked.ok or not content.is_changed:
        return checked
    # The problems are those of the source, so their positions must be, too.
    check = partial(jsonl.validate, content.reader(as_given=True), endpoint=endpoint)
    given = await to_thread.run_sync(check, abandon_on_cancel=True)
    return checked if given.ok else given  # with the schema, a request may be too long


def _with(unwritable: list[Problem], checked: Validation) -> Validation:
    """Return the validation with the problems of unwritable requests instead of those of their blank lines."""
    if not unwritable:
        return checked
    blank = {problem.line for problem in unwritable}
    others = [problem for problem in checked.problems if problem.line not in blank]
    return attrs.evolve(
        checked,
        problems=tuple(sorted([*unwritable, *others], key=lambda problem: problem.line or math.inf)),
        problem_count=checked.problem_count - len(blank) + len(unwritable),
        rows=checked.rows + len(blank),
    )
