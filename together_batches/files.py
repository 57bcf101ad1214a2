"""The files of an account: uploaded, looked up, listed, downloaded, deleted."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Never, Protocol

from together_batches._http.transport import CallState
from together_batches._jobs.patience import Absence, say_how_long
from together_batches._jobs.upload_source import open_upload
from together_batches._local.atomic_file import open_atomic
from together_batches._protocol import files as file_protocol
from together_batches._stream import Stream
from together_batches._text import count_of, format_count
from together_batches._validation import is_plain, path_of, positive_number, refuse_renamed
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
    from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
    from pathlib import Path

    from together_batches._jobs.upload_source import Source, UploadSource
    from together_batches._protocol.files import Transfer
    from together_batches._protocol.jobs import Answer, Request

__all__ = ["AsyncFiles", "Transfers", "Uploaded"]

_LONG_AGO = datetime.min.replace(tzinfo=UTC)
_NO_PREPROCESSING = frozenset({404, 405})


class _Transmit(Protocol):
    """Sends a request with a file in it, or one that prepares such a request."""

    def __call__(
        self,
        request: Transfer,
        *,
        redirect_is_answer: bool = False,
        on_sent: Callable[[int, int], None] | None = None,
    ) -> Coroutine[Any, Any, Answer]: ...


class _Receive(Protocol):
    """Gives the content that a request asks for, whole or with an error at its end, and its length beforehand."""

    def __call__(
        self, request: Transfer, on_length: Callable[[int | None], None] | None = None
    ) -> AsyncGenerator[bytes]: ...


class _Known(Protocol):
    """Remembers which files exist."""

    def note_files(self, *file_ids: str | None) -> None: ...

    def forget_file(self, file_id: str) -> None: ...

    def knows_file(self, file_id: str) -> bool: ...


class Uploaded(NamedTuple):
    """A file that is at the service; ``known_id`` is the id under which it had that content before, if it had."""

    file: FileObject
    known_id: str | None = None


class Transfers:
    """Uploads and downloads, each as a single try, and the metadata of files."""

    def __init__(
        self,
        send: Callable[[Request, CallState], Coroutine[Any, Any, Answer]],
        transmit: _Transmit,
        receive: _Receive,
        known: _Known,
    ) -> None:
        self.send = send
        self.receive = receive
        self.known = known
        self._transmit = transmit

    async def retrieve(self, file_id: str) -> tuple[FileObject, datetime | None]:
        """What the service knows of a file, and its own clock when it answered (None if it did not say)."""
        answer = await self.send(file_protocol.retrieve_file(file_id), CallState())
        file = file_protocol.read_file(answer, file_id)
        self.known.note_files(file.id)
        return file, answer.date

    async def upload(
        self,
        content: UploadSource,
        purpose: str,
        via: Literal["storage", "api"],
        on_progress: Callable[[int, int], None] | None,
    ) -> Uploaded:
        """Upload what was opened. Content that the service has already is not sent again."""
        content.raise_for_unwritable()
        upload = file_protocol.Upload(content.name, purpose, content)
        if via == "storage":
            uploaded = await self._upload_to_storage(upload, content, on_progress)
        else:
            try:
                answer = await self._transmit(file_protocol.upload(upload), on_sent=on_progress)
                uploaded = Uploaded(file_protocol.read_file(answer))
            except ConflictError as error:
                file, _ = await self.retrieve(file_protocol.read_known(error))
                uploaded = Uploaded(file, file.id)
        self.known.note_files(uploaded.file.id)
        return uploaded

    async def _upload_to_storage(
        self, file: file_protocol.Upload, content: UploadSource, on_progress: Callable[[int, int], None] | None
    ) -> Uploaded:
        known_id = None
        try:
            answer = await self._transmit(file_protocol.begin_upload(file, content.sha256), redirect_is_answer=True)
        except ConflictError as error:
            known_id = file_protocol.read_known(error)
            known = await self._existing(known_id, content.size)
            if known is not None:
                return Uploaded(known, known_id)
            # The service knows the hash and has not the content: an upload that was begun and never came to its end.
            answer = await self._transmit(file_protocol.begin_upload(file, None), redirect_is_answer=True)
        file_id, target = file_protocol.read_target(answer)
        await self._transmit(file_protocol.put(content, target), on_sent=on_progress)
        try:
            answer = await self.send(file_protocol.preprocess(file_id), CallState())
        except APIStatusError as error:
            # The official TypeScript SDK does without it, so a service without it is none the worse.
            if error.status not in _NO_PREPROCESSING:
                raise
            return Uploaded(await self._uploaded(file_id, content), known_id)
        return Uploaded(file_protocol.read_file(answer, file_id), known_id)

    async def _uploaded(self, file_id: str, content: UploadSource) -> FileObject:
        """What the service knows of a file that was just uploaded. That may be nothing yet."""
        try:
            return (await self.retrieve(file_id))[0]
        except NotFoundError:
            return FileObject(id=file_id, filename=content.name, bytes=content.size)

    async def _existing(self, file_id: str, size: int) -> FileObject | None:
        try:
            file, _ = await self.retrieve(file_id)
        except NotFoundError:
            return None
        return file if file.bytes in {None, size} else None

    async def fetch(
        self,
        file_id: str,
        path: str | os.PathLike[str],
        *,
        overwrite: bool,
        on_progress: Callable[[int, int | None], None] | None = None,
        check_size: bool = False,
    ) -> Path:
        """One download, as it is at the moment; :class:`ResultsUnavailableError` if ``check_size`` finds it short."""
        request = file_protocol.file_content(file_id)
        total: int | None = None
        done = 0

        def on_length(length: int | None) -> None:
            nonlocal total
            total = length

        async with open_atomic(path, replace=overwrite) as target, Stream(self.receive(request, on_length)) as pieces:
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
        """Compare a download with the metadata of its file. Metadata that cannot be read says nothing."""
        try:
            file, _ = await self.retrieve(file_id)
        except APIError:
            return
        expected = file.bytes or 0
        if expected > size:
            message = (
                f"file {file_id} is cut: {count_of(size, 'byte')} came, and its metadata says "
                f"{format_count(expected)}; download it again "
                "later"
            )
            raise ResultsUnavailableError(message, file_ids=[file_id])


class AsyncFiles:
    """The files of the account: what ``files`` of an :class:`AsyncBatches` is.

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
        on_progress: Callable[[int, int], None] | None = None,
    ) -> FileObject:
        """Upload a file; content that the account has already is recognised, and not sent again.

        It is read twice, for its hash and for the sending, and a step that fails is repeated like any other call:
        an upload costs nothing. Only the time without progress is limited, not the whole.
        See https://docs.together.ai/reference/upload-file.

        Parameters:
            source: a path; bytes; a file opened in binary mode, from where it stands; or an iterable or async
                iterable of :class:`BatchRequest`. A plain iterable is run through in a worker thread.
            filename: what the service calls it; otherwise its own name, or ``requests.jsonl``. The suffix tells the
                type: ``.csv``, ``.parquet``, anything else is JSONL.
            purpose: what it is for.
            via: ``"storage"`` asks the service where to put the file and sends it there, as the official SDKs do;
                ``"api"`` sends it through the service, in a form.
            on_progress: a plain function that is called on the loop with the bytes sent and their total; where a
                step is repeated it begins again. What it raises ends the call.

        Raises:
            UsageError: the file is missing, empty or unreadable, or changed while it was uploaded.
            ValidationError: requests that cannot be written as JSON; ``problems`` has all of them.
            APIError: it could not be uploaded.
        """
        given: object = via
        if not isinstance(given, str) or given not in {"storage", "api"}:
            message = f"via must be 'storage' or 'api'; it is {via!r}"
            raise UsageError(message)
        _check_callback(on_progress)
        async with open_upload(source, filename) as content:
            return (await self._transfers.upload(content, purpose, via, on_progress)).file

    async def retrieve(self, file_id: str | FileObject) -> FileObject:
        """What the service knows of a file.

        See https://docs.together.ai/reference/get-files-id.

        Parameters:
            file_id: an id or a file.

        Raises:
            NotFoundError: the service knows no such file.
            APIError: no good answer came.
        """
        file, _ = await self._transfers.retrieve(file_protocol.file_id(file_id))
        return file

    async def list(self) -> builtins.list[FileObject]:
        """All files of the account, inputs, outputs and errors, newest first.

        See https://docs.together.ai/reference/get-files.

        Raises:
            APIError: no good answer came.
        """
        files = file_protocol.read_files(await self._transfers.send(file_protocol.list_files(), CallState()))
        self._transfers.known.note_files(*(file.id for file in files))
        return sorted(files, key=lambda file: file.created_at or _LONG_AGO, reverse=True)

    async def delete(self, file_id: str | FileObject) -> None:
        """Delete a file. What that does to a job that is using it, the service does not tell.

        See https://docs.together.ai/reference/delete-files-id.

        Parameters:
            file_id: an id or a file.

        Raises:
            NotFoundError: the service knows no such file.
            APIError: no good answer came.
        """
        wanted = file_protocol.file_id(file_id)
        call = CallState()
        try:
            answer = await self._transfers.send(file_protocol.delete_file(wanted), call)
        except NotFoundError:
            if call.attempts == 1:
                raise
            # An attempt before this one had deleted it, and its answer was lost.
        else:
            file_protocol.read_deleted(answer, wanted)
        self._transfers.known.forget_file(wanted)

    def content(self, file_id: str | FileObject) -> Stream[bytes]:
        """The content of a file, in pieces of up to 1 MB as they come: all of it, or an error at the end.

        A download that breaks off is taken up again where it stopped. Leave the iterator by its end or use it with
        ``async with``, so that the connection is let go. See https://docs.together.ai/reference/get-files-id-content.

        Parameters:
            file_id: an id or a file.

        Raises:
            NotFoundError: the service knows no such file; raised with the first piece, as all that follow.
            APIConnectionError: the rest did not come.
            APIResponseValidationError: the rest is that of another file.
        """
        return Stream(self._transfers.receive(file_protocol.file_content(file_protocol.file_id(file_id))))

    async def download(
        self,
        file_id: str | FileObject,
        path: str | os.PathLike[str],
        *,
        overwrite: bool = False,
        patience: float = 60,
        on_progress: Callable[[int, int | None], None] | None = None,
        **renamed: Never,
    ) -> Path:
        """Write the content of a file to ``path``, which appears when all of it has come and its length is right.

        Until then it is in a temporary file beside it, which is removed where the download fails or is cancelled.
        The end of this process, however sudden, leaves no half file under the name. A loss of power may: like other
        downloads this one does not wait until the disk has all of it (``os.fsync`` does).
        The name that the service has for the file is never used: every job's output has the same.

        Parameters:
            file_id: the file.
            path: the file to write, not a directory.
            overwrite: replace a file that is there already.
            patience: seconds for which a file that exists (it is passed as a :class:`FileObject`, was uploaded here,
                or a job that this client has seen names it) and answers 404, or has fewer bytes than its metadata
                says, is looked at again. A file that has grown has them anew. 0 looks once.
            on_progress: a plain function that is called on the loop with the bytes that came, and how many there
                are, or None where that is not known. What it raises ends the call.
            renamed: no further keywords; ``force`` is called ``overwrite`` now.

        Raises:
            UsageError: the file exists, or cannot be written, such as on a full disk.
            ResultsUnavailableError: it stayed shorter than its metadata says.
            APIError: it could not be downloaded, as :meth:`content` tells.
        """
        refuse_renamed("download", renamed, force="overwrite")
        positive_number("patience", patience, zero=True)
        path_of("path", path)
        _check_callback(on_progress)
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
                if size > largest:  # it is being written
                    largest = size
                    absence.over()
                pause = absence.pause()
                if pause is None:
                    raise
            await self._sleep(pause)


def _check_callback(on_progress: object) -> None:
    if on_progress is not None and not is_plain(on_progress):
        message = "on_progress must be a plain function: it is called, not awaited"
        raise TypeError(message)
