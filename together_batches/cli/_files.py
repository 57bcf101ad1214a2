"""The commands ``together-batches files …``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from together_batches.cli._command import Common, argument, command, option, patience_option, service_options
from together_batches.cli._exits import Exit
from together_batches.cli._ids import ids_argument
from together_batches.cli._jobs import print_each, print_list, print_values
from together_batches.cli._local_files import ensure_writable, output_options, spooled
from together_batches.cli._loop import connected, in_loop
from together_batches.cli._progress import file_bar
from together_batches.cli._streams import printer
from together_batches.cli._text import as_json, columns, count_of, escape, format_count, format_time

if TYPE_CHECKING:
    from collections.abc import Callable

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
@service_options
@in_loop
async def list_files(common: Common) -> Exit:
    """List the files of the account, newest first: inputs, outputs and errors.

    examples:
      together-batches files list
      together-batches files list --json | jq -r '.[].id'
    """

    def fields(file: FileObject, written: Callable[[int], str]) -> tuple[str, ...]:
        size = None if file.bytes is None else written(file.bytes)
        return columns((file.id, size, format_time(file.created_at), file.purpose, file.filename))

    async with connected(common) as batches:
        files = await batches.files.list()
    print_list(
        common,
        files,
        none="there are no files",
        header=("ID", "BYTES", "CREATED", "PURPOSE", "NAME"),
        row=lambda file: fields(file, format_count),
        fields=lambda file: fields(file, str),
    )
    return Exit.DONE


@command("get")
@ids_argument("ids of files", required=True)
@service_options
def get(common: Common, ids: tuple[str, ...]) -> Exit:
    """Show what the service knows of files.

    examples:
      together-batches files get ID
      together-batches files get ID ID --json     one JSON object a line
    """
    return print_values(common, list(dict.fromkeys(ids)), lambda batches, file_id: batches.files.retrieve(file_id))


@command("delete")
@ids_argument("ids of files", required=True)
@service_options
def delete(common: Common, ids: tuple[str, ...]) -> Exit:
    """Delete files, for good, and print the ids of those that are gone.

    examples:
      together-batches files delete ID ID
    """

    def shown(file_id: str, _: None) -> str:
        return (as_json({"id": file_id, "deleted": True}) if common.json else escape(file_id)) + "\n"

    return print_each(common, list(dict.fromkeys(ids)), lambda batches, file_id: batches.files.delete(file_id), shown)


@command("download")
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
