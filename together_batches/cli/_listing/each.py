"""What is called for each id concurrently, and printed in the order of the ids."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from together_batches.cli._account.client import connected
from together_batches.cli._listing.labels import NO_LABELS, labelled
from together_batches.cli._terminal.exits import Exit, code_of_many
from together_batches.cli._terminal.loop import in_loop
from together_batches.cli._terminal.streams import printer
from together_batches.cli._terminal.text import as_json, block, print_error
from together_batches.errors import BatchesError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from together_batches.cli._account.options import Common
    from together_batches.cli._listing.labels import Labels
    from together_batches.client import AsyncBatches

T = TypeVar("T")


@in_loop
async def print_each(
    common: Common,
    ids: Sequence[str],
    verb: Callable[[AsyncBatches, str], Awaitable[T]],
    shown: Callable[[str, T], str],
    *,
    between: str = "",
) -> Exit:
    """Call a verb for each id concurrently; print each result, or error, as soon as those of the ids before it are.

    If the command is ended early, all that is known by then is printed: what was deleted cannot be found out later.
    """
    from together_batches._jobs.tasks import plain_group

    answers: dict[str, T | BatchesError] = {}
    errors: list[BatchesError] = []
    count = 0

    async def call(batches: AsyncBatches, job_id: str) -> None:
        try:
            answers[job_id] = await verb(batches, job_id)
        except BatchesError as error:
            answers[job_id] = error

    def show(job_id: str) -> None:
        nonlocal count
        answer = answers.pop(job_id)
        if isinstance(answer, BatchesError):
            errors.append(answer)
            print_error(f"{job_id}: {answer}" if len(ids) > 1 else str(answer))
        else:
            print(f"{between if count else ''}{shown(job_id, answer)}", end="")
            count += 1

    async with connected(common) as batches, printer() as out:
        try:
            async with plain_group() as group:
                tasks = [group.create_task(call(batches, job_id)) for job_id in ids]
                for job_id, task in zip(ids, tasks, strict=True):
                    await task
                    show(job_id)
                    await out.room()
        finally:
            for job_id in filter(answers.__contains__, ids):
                show(job_id)
    return code_of_many(errors, len(ids))


def print_values(
    common: Common,
    ids: Sequence[str],
    verb: Callable[[AsyncBatches, str], Awaitable[object]],
    labels: Labels = NO_LABELS,
) -> Exit:
    """Read the value of each id and print it: a block of lines, or with ``--json`` one object a line."""

    def shown(value_id: str, value: object) -> str:
        own = labels.get(value_id)
        if common.json:
            return f"{as_json(labelled(value, own))}\n"
        return block(value, labels=", ".join(own)) if own else block(value)

    return print_each(common, ids, verb, shown, between="" if common.json else "\n")
