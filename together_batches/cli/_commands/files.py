"""The commands ``together-batches files …``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from together_batches.cli._account.client import connected
from together_batches.cli._account.options import Common, patience_option, service_options
from together_batches.cli._inputs.ids import ids_argument, ids_or_input
from together_batches.cli._inputs.local_files import ensure_writable, output_options, spooled
from together_batches.cli._listing.columns import FILE_COLUMNS, View, list_options, print_files
from together_batches.cli._listing.each import print_each, print_values
from together_batches.cli._terminal.commands import argument, command, option
from together_batches.cli._terminal.exits import Exit
from together_batches.cli._terminal.loop import in_loop
from together_batches.cli._terminal.progress import file_bar
from together_batches.cli._terminal.streams import printer
from together_batches.cli._terminal.text import as_json, count_of, escape

if TYPE_CHECKING:
    from together_batches.models import FileObject


@command("upload")
@argument("path", "FILE", "the file to upload, or - for standard input", complete="file")
@option("--name NAME", "the name of the file at the service; otherwise its own name")
@option("--purpose P", "the purpose of the file (batch-api)", default="batch-api")
@option(
    "--via WAY",
    "storage, to where the service says, or api, through the service itself (storage)",
    type=click.Choice(("storage", "api")),
    default="storage",
)
@service_options
def upload(common: Common, path: str, name: str | None, purpose: str, via: Literal["storage", "api"]) -> Exit:
    """Upload a file and print its id. Content that the account already has is
    recognised, and not sent again.

    examples:
      together-batches files upload requests.jsonl
      id=$(together-batches files upload requests.jsonl)
    """
    source = spooled(path)
    if name is None and not isinstance(source, str) and Path(path).suffix:
        # A copy of a pipe has no name; the suffix of the pipe's path gives the type of the content.
        name = Path(path).name

    @in_loop
    async def send() -> FileObject:
        async with connected(common) as batches:
            with file_bar("Uploading", shown=common.shows_progress) as show:
                return await batches.files.upload(source, filename=name, purpose=purpose, via=via, on_progress=show)

    file = send()
    print(as_json(file) if common.json else escape(file.id))
    return Exit.DONE


@command("list")
@list_options(FILE_COLUMNS)
@service_options
@in_loop
async def list_files(common: Common, **options: Any) -> Exit:
    """List the files of the account, newest first: inputs, outputs and errors.

    examples:
      together-batches files list
      together-batches files list --sort -bytes --limit 10
      together-batches files list --json | jq -r '.[].id'
    """
    view = View.of(options, json=common.json)
    async with connected(common) as batches:
        files = await batches.files.list()
    if not files and not common.json:
        common.note("there are no files")
    print_files(common, files, view)
    return Exit.DONE


@command("get", Exit.NOT_FOUND, Exit.SOME_FAILED)
@ids_argument("ids of files; or - alone, to read them from standard input", required=True)
@service_options
def get(common: Common, ids: tuple[str, ...]) -> Exit:
    """Show what the service knows of files.

    examples:
      together-batches files get ID
      together-batches files get ID ID --json     one JSON object a line
    """
    return print_values(common, ids_or_input(ids), lambda batches, file_id: batches.files.retrieve(file_id))


@command("delete", Exit.NOT_FOUND, Exit.SOME_FAILED)
@ids_argument("ids of files; or - alone, to read them from standard input", required=True)
@service_options
def delete(common: Common, ids: tuple[str, ...]) -> Exit:
    """Delete files, for good, and print the ids of those that are gone. There is no
    prompt.

    examples:
      together-batches files delete ID ID
      together-batches files delete - < ids.txt     what a file names, an id a line
    """

    def shown(file_id: str, _: None) -> str:
        return (as_json({"id": file_id, "deleted": True}) if common.json else escape(file_id)) + "\n"

    return print_each(common, ids_or_input(ids), lambda batches, file_id: batches.files.delete(file_id), shown)


@command("download", Exit.NOT_FOUND)
@argument("file_id", "ID", "id of a file")
@output_options
@patience_option(60)
@service_options
@in_loop
async def download(common: Common, file_id: str, output: str | None, overwrite: bool, patience: float) -> Exit:
    """Download the content of a file. It appears under the given name when it is
    whole.

    examples:
      together-batches files download ID -o output.jsonl
      together-batches files download ID | head -1
    """
    if output is None or output == "-":
        async with connected(common) as batches, batches.files.content(file_id) as pieces, printer() as out:
            async for piece in pieces:
                out.piece(piece)
                await out.room()
        return Exit.DONE
    path = ensure_writable(output, overwrite=overwrite)
    async with connected(common) as batches:
        with file_bar("Downloading", shown=common.shows_progress) as show:
            await batches.files.download(file_id, path, overwrite=overwrite, patience=patience, on_progress=show)
    size = path.stat().st_size
    if common.json:
        print(as_json({"id": file_id, "output": output, "bytes": size}))
    else:
        common.note(f"{count_of(size, 'byte')} in {output}")
    return Exit.DONE
