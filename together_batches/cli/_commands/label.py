"""The command ``together-batches label``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from together_batches.cli._account.options import json_option
from together_batches.cli._inputs.ids import ids_argument, ids_or_input
from together_batches.cli._listing.labels import change_labels, complete_label, label_of
from together_batches.cli._terminal.commands import command, option
from together_batches.cli._terminal.exits import CommandError, Exit
from together_batches.cli._terminal.text import as_json, columns, print_lines
from together_batches.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from together_batches.cli._listing.labels import Labels


@command("label")
@ids_argument("ids of jobs; or - alone, to read them from standard input", required=True)
@option("--label L", "add this label; may be repeated", "add", type=label_of, multiple=True)
@option("--remove L", "take this label off; may be repeated", complete=complete_label, type=label_of, multiple=True)
@json_option
def label(ids: tuple[str, ...], add: tuple[str, ...], remove: tuple[str, ...], json: bool) -> Exit:
    """Label jobs, or take labels off. The service knows no labels: they are kept in a
    file of this machine, shown wherever a job is, and chosen by `list --label`.
    It needs no key and no network, and does not look whether there is such a job.

    examples:
      together-batches label ID --label nightly
      together-batches label ID --label nightly --label v2 --remove v1
      together-batches list --model M | together-batches label - --label nightly
    """
    if not (add or remove):
        message = "there is nothing to change; give --label, --remove, or both"
        raise CommandError(message)
    job_ids = ids_or_input(ids)
    try:
        after = change_labels(job_ids, add=add, remove=remove)
    except UsageError as error:
        raise CommandError(str(error), Exit.FAILED) from error
    print_lines(_changed(job_ids, after, json=json))
    return Exit.DONE


def _changed(job_ids: Sequence[str], after: Labels, *, json: bool) -> Iterator[str]:
    for job_id in job_ids:
        labels = after[job_id.lower()]
        if json:
            yield as_json({"job_id": job_id, "labels": [*labels]})
        else:
            yield "\t".join(columns((job_id, ", ".join(labels))))
