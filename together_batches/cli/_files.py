"""``together-batches files …``."""

from __future__ import annotations

import asyncio
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar, cast

import anyio

from together_batches._plain import to_dict
from together_batches.cli import _loop
from together_batches.cli._client import connected
from together_batches.cli._exits import CommandError, Exit, code_of_many
from together_batches.cli._printing import printer
from together_batches.cli._progress import file_bar
from together_batches.cli._requests import spooled
from together_batches.cli._text import (
    as_json,
    block,
    complain,
    escape,
    is_terminal,
    moment,
    number,
    print_lines,
    say,
    table,
)
from together_batches.errors import BatchesError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import BinaryIO

    from together_batches.cli._parser import Arguments
    from together_batches.files import AsyncFiles
    from together_batches.models import FileObject

__all__ = ["delete", "download", "get", "list_files", "upload"]

T = TypeVar("T")


def upload(arguments: Arguments) -> Exit:
    """Upload a file, and print its id."""
    with ExitStack() as stack:
        file = _loop.run(_uploaded, arguments, spooled(arguments.path, stack))
    print(as_json(to_dict(file)) if arguments.json else escape(file.id))
    return Exit.DONE


async def _uploaded(arguments: Arguments, source: str | BinaryIO) -> FileObject:
    name = arguments.name
    if name is None and not isinstance(source, str):
        # A copy of a pipe has no name; that of the pipe says of which type the content is, if it has a suffix.
        name = Path(arguments.path).name if Path(arguments.path).suffix else None
    via = cast("Literal['storage', 'api']", arguments.via)
    async with connected(arguments) as batches:
        with file_bar("Uploading", quiet=arguments.quiet or arguments.verbose) as show:
            return await batches.files.upload(
                source, filename=name, purpose=arguments.purpose, via=via, on_progress=show
            )


def list_files(arguments: Arguments) -> Exit:
    """Print the files of the account, newest first."""
    files = _loop.run(_listed, arguments)
    if arguments.json:
        print("[" + ",\n".join(as_json(to_dict(file)) for file in files) + "]")
    elif not files:
        _tell(arguments, "there are no files")
    elif is_terminal(sys.stdout):
        rows = [(*row[:1], row[1] if row[1] == "-" else number(int(row[1])), *row[2:]) for row in map(_row, files)]
        print_lines(table(("ID", "BYTES", "CREATED", "PURPOSE", "NAME"), rows))
    else:
        print_lines("\t".join(_row(file)) for file in files)
    return Exit.DONE


async def _listed(arguments: Arguments) -> list[FileObject]:
    async with connected(arguments) as batches:
        return await batches.files.list()


def _row(file: FileObject) -> tuple[str, ...]:
    """The columns that the reference names; what is absent is ``-``, so that every line has as many."""
    size = "-" if file.bytes is None else str(file.bytes)
    return escape(file.id), size, moment(file.created_at), escape(file.purpose or "-"), escape(file.filename or "-")


def get(arguments: Arguments) -> Exit:
    """Print what the service knows of these files, in the order in which they were named."""

    def shown(_: str, file: FileObject) -> str:
        return as_json(to_dict(file)) + "\n" if arguments.json else block(to_dict(file))

    return _of_each(arguments, lambda files, file_id: files.retrieve(file_id), shown, "" if arguments.json else "\n")


def delete(arguments: Arguments) -> Exit:
    """Delete these files, and print the ids of those that are gone."""

    def shown(file_id: str, _: None) -> str:
        return (as_json({"id": file_id, "deleted": True}) if arguments.json else escape(file_id)) + "\n"

    return _of_each(arguments, lambda files, file_id: files.delete(file_id), shown, "")


def _of_each(
    arguments: Arguments,
    verb: Callable[[AsyncFiles, str], Awaitable[T]],
    shown: Callable[[str, T], str],
    between: str,
) -> Exit:
    ids = list(dict.fromkeys(arguments.ids))

    async def one(files: AsyncFiles, file_id: str) -> str | BatchesError:
        try:
            return shown(file_id, await verb(files, file_id))
        except BatchesError as error:
            return error

    async def run() -> list[str | BatchesError]:
        async with connected(arguments) as batches, asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(batches.files, file_id)) for file_id in ids]
        return [task.result() for task in tasks]

    done = _loop.run(run)
    errors: list[BatchesError | None] = []
    for file_id, outcome in zip(ids, done, strict=True):
        if isinstance(outcome, BatchesError):
            errors.append(outcome)
            complain(f"{file_id}: {outcome}" if len(ids) > 1 else str(outcome))
    print(between.join(outcome for outcome in done if isinstance(outcome, str)), end="")
    return code_of_many(errors, len(ids))


def download(arguments: Arguments) -> Exit:
    """Write the content of a file to where it was asked for."""
    if arguments.output is None or arguments.output == "-":
        _loop.run(_printed, arguments)
        return Exit.DONE
    size = _loop.run(_downloaded, arguments, arguments.output)
    if arguments.json:
        print(as_json({"id": arguments.id, "output": arguments.output, "bytes": size}))
    else:
        _tell(arguments, f"{number(size)} bytes in {arguments.output}")
    return Exit.DONE


async def _downloaded(arguments: Arguments, output: str) -> int:
    if not arguments.force and await anyio.Path(output).is_file():
        message = f"{output} exists already; --force replaces it"
        raise CommandError(message)
    async with connected(arguments) as batches:
        with file_bar("Downloading", quiet=arguments.quiet or arguments.verbose) as show:
            path = await batches.files.download(
                arguments.id,
                output,
                force=arguments.force,
                patience=arguments.patience or 0,
                on_progress=show,
            )
        return (await anyio.Path(path).stat()).st_size


async def _printed(arguments: Arguments) -> None:
    async with connected(arguments) as batches, batches.files.content(arguments.id) as pieces, printer() as out:
        async for piece in pieces:
            out.piece(piece)
            await out.room()


def _tell(arguments: Arguments, text: str) -> None:
    if not arguments.quiet:
        say(text)
