"""The files of an account: upload, metadata, list, download, deletion."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Literal, Never

from together_batches._display import watched
from together_batches._http.client_state import CallState
from together_batches._jobs.job_filter import newest_first
from together_batches._jobs.patience import Absence, say_how_long
from together_batches._jobs.upload_source import open_upload
from together_batches._local.async_atomic_file import open_atomic
from together_batches._protocol import files as file_protocol
from together_batches._protocol.files import Uploaded
from together_batches._stream import Stream
from together_batches._text import count_of, format_count, short
from together_batches._validation import check_callback, path_of, positive_number, refuse_renamed
from together_batches.errors import (
    APIError,
    APIStatusError,
    ConflictError,
    NotFoundError,
    ResultsUnavailableError,
    UsageError,
)
from together_batches.models import FileObject

if TYPE_CHECKING:
    import builtins
    import os
    from collections.abc import Awaitable, Callable, Coroutine
    from pathlib import Path

    from together_batches._http.streaming import Streaming
    from together_batches._jobs.known_jobs import KnownJobs
    from together_batches._jobs.upload_source import Source
    from together_batches._protocol.files import UploadContent
    from together_batches._protocol.jobs import Answer, Request

__all__ = ["AsyncFiles", "Transfers"]

_NO_PREPROCESSING = frozenset({404, 405})


class Transfers:
    """Uploads and downloads, each as a single attempt, and the metadata of files."""

    def __init__(
        self,
        send: Callable[[Request, CallState], Coroutine[Any, Any, Answer]],
        streaming: Streaming,
        known: KnownJobs,
    ) -> None:
        self.send = send
        self.known = known
        self.streaming = streaming

    async def retrieve(self, file_id: str) -> FileObject:
        """Return the metadata of a file."""
        answer = await self.send(file_protocol.retrieve_file(file_id), CallState())
        file = file_protocol.read_file(answer, file_id)
        self.known.note_files(file.id)
        return file

    async def upload(
        self,
        content: UploadContent,
        purpose: str,
        via: Literal["storage", "api"],
        on_progress: Callable[[int, int], None] | None,
    ) -> Uploaded:
        """Upload an opened source. Content that the service already has is not sent again."""
        known_id = None
        try:
            if via == "storage":
                file = await self._upload_to_storage(content, purpose, content.sha256, on_progress)
            else:
                answer = await self.streaming.send(file_protocol.upload(content, purpose), on_sent=on_progress)
                file = file_protocol.read_file(answer)
        except ConflictError as error:
            known_id = file_protocol.read_known(error)
            known = await self._existing(known_id, content.size)
            # If the service knows the hash but does not have the content, an earlier upload was begun and never
            # completed. A form always leads to the hash.
            if known is None and via == "api":
                error.message += f"; but {known_id} does not have it: upload it with via='storage'"
                raise
            file = known or await self._upload_to_storage(content, purpose, None, on_progress)
        self.known.note_files(file.id)
        return Uploaded(file, known_id)

    async def _upload_to_storage(
        self,
        content: UploadContent,
        purpose: str,
        checksum: str | None,
        on_progress: Callable[[int, int], None] | None,
    ) -> FileObject:
        form = file_protocol.begin_upload(content.name, purpose, checksum)
        answer = await self.streaming.send(form, redirect_is_answer=True)
        file_id, target = file_protocol.read_target(answer)
        await self.streaming.send(file_protocol.put(content, target), on_sent=on_progress)
        try:
            answer = await self.send(file_protocol.preprocess(file_id), CallState())
        except APIStatusError as error:
            # The official TypeScript SDK omits this step, so a service without it works as well.
            if error.status not in _NO_PREPROCESSING:
                raise
            return await self._uploaded(file_id, content)
        return file_protocol.read_file(answer, file_id)

    async def _uploaded(self, file_id: str, content: UploadContent) -> FileObject:
        """Return the metadata of a file that was just uploaded, which the service may not show yet."""
        try:
            return await self.retrieve(file_id)
        except NotFoundError:
            return FileObject(id=file_id, filename=content.name, bytes=content.size)

    async def _existing(self, file_id: str, size: int) -> FileObject | None:
        try:
            file = await self.retrieve(file_id)
        except NotFoundError:
            return None
        return file if file.bytes in {None, size} else None

    async def fetch(
        self,
        file_id: str,
        path: Path,
        *,
        overwrite: bool,
        on_progress: Callable[[int, int | None], None] | None = None,
        check_size: bool = False,
    ) -> Path:
        """Download once, without retries; raise :class:`ResultsUnavailableError` if ``check_size`` finds it short."""
        request = file_protocol.file_content(file_id)
        total: int | None = None
        done = 0

        def on_length(length: int | None) -> None:
            nonlocal total
            total = length

        async with (
            open_atomic(path, replace=overwrite) as target,
            Stream(self.streaming.receive(request, on_length)) as pieces,
        ):
            async for piece in pieces:
                await target.write(piece)
                done += len(piece)
                if on_progress is not None:
                    on_progress(done, total)
            if check_size:
                await self._check_size(file_id, done)
            await target.commit()
        return target.path

    async def _check_size(self, file_id: str, size: int) -> None:
        """Compare a download with the metadata of its file. Metadata that cannot be read proves nothing."""
        try:
            file = await self.retrieve(file_id)
        except APIError:
            return
        expected = file.bytes or 0
        if expected > size:
            message = (
                f"file {file_id} is incomplete: {count_of(size, 'byte')} received, and its metadata says "
                f"{format_count(expected)}; download it again later"
            )
            raise ResultsUnavailableError(message, file_ids=[file_id])


class AsyncFiles:
    """The files of the account, as ``files`` of an :class:`AsyncBatches`.

    Files are streamed: neither their size nor a slow disk blocks the loop or fills the memory.
    """

    def __init__(self, transfers: Transfers, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._transfers = transfers
        self._sleep = sleep

    async def upload(
        self,
        source: Source,
        *,
        filename: str | None = None,
        purpose: str = "batch-api",
        via: Literal["storage", "api"] = "storage",
        progress: bool = False,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> FileObject:
        """Upload a file; content that the account already has is recognised, and not sent again.

        The source is read twice, for its hash and for the transfer. A step that fails is retried like any other call,
        because an upload costs nothing. Only the time without progress is limited, not the total.
        See https://docs.together.ai/reference/upload-file.

        Parameters:
            source: a path; bytes; a file opened in binary mode, read from its current position; or an iterable or
                async iterable of :class:`BatchRequest`. A plain iterable is consumed in a worker thread.
            filename: the name at the service; by default the file's own name, or ``requests.jsonl``. The suffix
                determines the type: ``.csv``, ``.parquet``, anything else is JSONL.
            purpose: the purpose of the file.
            via: ``"storage"`` requests an address from the service and sends the file there, as the official SDKs
                do; ``"api"`` sends it through the service, in a form.
            progress: draw a bar, with an estimate of the time left, on a terminal or in a notebook.
            on_progress: called in the event loop with the bytes sent and their total; not a coroutine function. It
                restarts when a step is retried. An exception from it aborts the call.

        Raises:
            UsageError: the file is missing, empty or unreadable, or changed during the upload.
            ValidationError: requests that cannot be written as JSON; ``problems`` contains all of them.
            APIError: the upload failed after retries.
        """
        given: object = via
        if not isinstance(given, str) or given not in {"storage", "api"}:
            message = f"via must be 'storage' or 'api'; it is {short(via)}"
            raise UsageError(message)
        check_callback("on_progress", on_progress)
        async with open_upload(source, filename) as content:
            content.lines.raise_for_problems()
            with watched(progress, "transfer", on_progress, f"Uploading {content.name}") as on_progress:
                return (await self._transfers.upload(content, purpose, via, on_progress)).file

    async def retrieve(self, file_id: str | FileObject) -> FileObject:
        """Return the metadata of a file.

        See https://docs.together.ai/reference/get-files-id.

        Parameters:
            file_id: an id or a file.

        Raises:
            NotFoundError: the file does not exist.
            APIError: the request failed after retries.
        """
        return await self._transfers.retrieve(file_protocol.file_id(file_id))

    async def list(self) -> builtins.list[FileObject]:
        """Return all files of the account, inputs, outputs and errors, newest first.

        See https://docs.together.ai/reference/get-files.

        Raises:
            APIError: the request failed after retries.
        """
        files = file_protocol.read_files(await self._transfers.send(file_protocol.list_files(), CallState()))
        self._transfers.known.note_files(*(file.id for file in files))
        return newest_first(files)

    async def delete(self, file_id: str | FileObject) -> None:
        """Delete a file. The service does not document the effect on a job that is using it.

        See https://docs.together.ai/reference/delete-files-id.

        Parameters:
            file_id: an id or a file.

        Raises:
            NotFoundError: the file does not exist.
            APIError: the request failed after retries.
        """
        wanted = file_protocol.file_id(file_id)
        call = CallState()
        try:
            answer = await self._transfers.send(file_protocol.delete_file(wanted), call)
        except NotFoundError:
            if not call.may_have_been_taken:
                raise
            # An earlier attempt has deleted it, and its response was lost.
        else:
            file_protocol.read_deleted(answer, wanted)
        self._transfers.known.forget_file(wanted)

    def content(self, file_id: str | FileObject) -> Stream[bytes]:
        """Iterate over the content of a file in pieces of up to 1 MB: all of it, or an error at the end.

        A download that breaks off is resumed where it stopped. Exhaust the iterator or use it with ``async with``, so
        that the connection is released. See https://docs.together.ai/reference/get-files-id-content.

        Parameters:
            file_id: an id or a file.

        Raises:
            NotFoundError: the file does not exist; raised during iteration, like the following errors.
            APIConnectionError: the rest could not be downloaded.
            APIResponseValidationError: the rest belongs to different content.
        """
        return Stream(self._transfers.streaming.receive(file_protocol.file_content(file_protocol.file_id(file_id))))

    async def download(
        self,
        file_id: str | FileObject,
        path: str | os.PathLike[str],
        *,
        overwrite: bool = False,
        patience: float = 60,
        progress: bool = False,
        on_progress: Callable[[int, int | None], None] | None = None,
        **renamed: Never,
    ) -> Path:
        """Write the content of a file to ``path``, which appears when it is complete and its length is verified.

        Until then the content is in a temporary file in the same directory, which is removed if the download fails or
        is cancelled. Even if this process is killed, no partial file appears under the name. A loss of power may
        leave one: the download does not wait until the data is on the disk (``os.fsync`` does).
        The service's own name for the file is never used, because the output of every job has the same.

        Parameters:
            file_id: the file.
            path: the file to write, not a directory.
            overwrite: replace an existing file.
            patience: seconds for which the download is retried if a file that exists (it is passed as a
                :class:`FileObject`, was uploaded by this client, or is named by a job that this client has seen)
                answers 404, or has fewer bytes than its metadata says. They restart when the file has grown. With 0
                there is one attempt.
            progress: draw a bar, as for :meth:`upload`.
            on_progress: called in the event loop with the bytes received and the total, or None if that is unknown;
                not a coroutine function. An exception from it aborts the call.
            renamed: no further keywords; ``force`` is now ``overwrite``.

        Raises:
            UsageError: the file exists, or cannot be written, for example because the disk is full.
            ResultsUnavailableError: the file stayed shorter than its metadata says.
            APIError: the download failed, as for :meth:`content`.
        """
        refuse_renamed("download", renamed, force="overwrite")
        positive_number("patience", patience, zero=True)
        target = path_of("path", path)
        check_callback("on_progress", on_progress)
        with watched(progress, "transfer", on_progress, f"Downloading {target.name}") as on_progress:
            return await self._download(file_id, target, overwrite, patience, on_progress)

    async def _download(
        self,
        file_id: str | FileObject,
        path: Path,
        overwrite: bool,
        patience: float,
        on_progress: Callable[[int, int | None], None] | None,
    ) -> Path:
        wanted = file_protocol.file_id(file_id)
        exists = isinstance(file_id, FileObject) or self._transfers.known.knows_file(wanted)
        absence = Absence(patience)
        size = largest = 0

        def note_size(done: int, total: int | None) -> None:
            nonlocal size
            size = done
            if on_progress is not None:
                on_progress(done, total)

        while True:
            size = 0
            try:
                return await self._transfers.fetch(
                    wanted, path, overwrite=overwrite, on_progress=note_size, check_size=True
                )
            except NotFoundError as error:
                pause = absence.pause() if exists else None
                if pause is None:
                    if exists:
                        say_how_long(error, patience)
                    raise
            except ResultsUnavailableError:
                if size > largest:  # the file is still being written
                    largest = size
                    absence.over()
                pause = absence.pause()
                if pause is None:
                    raise
            await self._sleep(pause)
