"""The files of an account: uploaded, looked up, listed, downloaded, deleted."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, Protocol

from together_batches import _file_protocol
from together_batches._disk import content_of, target_at
from together_batches._stream import Stream
from together_batches._transport import Call
from together_batches.errors import APIStatusError, ConflictError, NotFoundError, UsageError

if TYPE_CHECKING:
    import builtins
    import os
    from collections.abc import AsyncGenerator, Callable, Coroutine
    from pathlib import Path

    from together_batches._disk import Content, Source
    from together_batches._file_protocol import Transfer
    from together_batches._protocol import Answer, Request
    from together_batches.models import FileObject

__all__ = ["AsyncFiles"]

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


class AsyncFiles:
    """The files of the account: what ``files`` of an :class:`AsyncBatches` is.

    Files are streamed: neither their size nor a slow disk blocks the loop or fills the memory.
    """

    def __init__(
        self, send: Callable[[Request, Call], Coroutine[Any, Any, Answer]], transmit: _Transmit, receive: _Receive
    ) -> None:
        self._send = send
        self._transmit = transmit
        self._receive = receive

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
        if given not in {"storage", "api"}:
            message = f"via must be 'storage' or 'api'; it is {via!r}"
            raise UsageError(message)
        async with content_of(source, filename) as content:
            content.raise_for_unwritable()
            file = _file_protocol.Upload(content.name, purpose, content)
            if via == "storage":
                return await self._upload_to_storage(file, content, on_progress)
            try:
                answer = await self._transmit(_file_protocol.upload(file), on_sent=on_progress)
            except ConflictError as error:
                return await self.retrieve(_file_protocol.read_known(error))
            return _file_protocol.read_file(answer)

    async def _upload_to_storage(
        self, file: _file_protocol.Upload, content: Content, on_progress: Callable[[int, int], None] | None
    ) -> FileObject:
        try:
            answer = await self._transmit(_file_protocol.begin_upload(file, content.sha256), redirect_is_answer=True)
        except ConflictError as error:
            known = await self._known(_file_protocol.read_known(error), content.size)
            if known is not None:
                return known
            # The service knows the hash and has not the content: an upload that was begun and never came to its end.
            answer = await self._transmit(_file_protocol.begin_upload(file, None), redirect_is_answer=True)
        file_id, target = _file_protocol.read_target(answer)
        await self._transmit(_file_protocol.put(content, target), on_sent=on_progress)
        try:
            answer = await self._send(_file_protocol.preprocess(file_id), Call())
        except APIStatusError as error:
            # The official TypeScript SDK does without it, so a service without it is none the worse.
            if error.status not in _NO_PREPROCESSING:
                raise
            return await self.retrieve(file_id)
        return _file_protocol.read_file(answer, file_id)

    async def _known(self, file_id: str, size: int) -> FileObject | None:
        try:
            file = await self.retrieve(file_id)
        except NotFoundError:
            return None
        return file if file.bytes in {None, size} else None

    async def retrieve(self, file_id: str | FileObject) -> FileObject:
        """What the service knows of a file.

        See https://docs.together.ai/reference/get-files-id.

        Raises:
            NotFoundError: the service knows no such file.
            APIError: no good answer came.
        """
        wanted = _file_protocol.file_id(file_id)
        return _file_protocol.read_file(await self._send(_file_protocol.retrieve_file(wanted), Call()), wanted)

    async def list(self) -> builtins.list[FileObject]:
        """All files of the account, inputs, outputs and errors, newest first.

        See https://docs.together.ai/reference/get-files.

        Raises:
            APIError: no good answer came.
        """
        files = _file_protocol.read_files(await self._send(_file_protocol.list_files(), Call()))
        return sorted(files, key=lambda file: file.created_at or _LONG_AGO, reverse=True)

    async def delete(self, file_id: str | FileObject) -> None:
        """Delete a file. What that does to a job that is using it, the service does not tell.

        See https://docs.together.ai/reference/delete-files-id.

        Raises:
            NotFoundError: the service knows no such file.
            APIError: no good answer came.
        """
        wanted = _file_protocol.file_id(file_id)
        call = Call()
        try:
            answer = await self._send(_file_protocol.delete_file(wanted), call)
        except NotFoundError:
            if call.attempts == 1:
                raise
            return  # an attempt before this one had deleted it, and its answer was lost
        _file_protocol.read_deleted(answer, wanted)

    def content(self, file_id: str | FileObject) -> Stream[bytes]:
        """The content of a file, in pieces of up to 1 MB as they come: all of it, or an error at the end.

        A download that breaks off is taken up again where it stopped. Leave the iterator by its end or use it with
        ``async with``, so that the connection is let go. See https://docs.together.ai/reference/get-files-id-content.

        Raises:
            NotFoundError: the service knows no such file; raised with the first piece, as all that follow.
            APIConnectionError: the rest did not come.
            APIResponseValidationError: the rest is that of another file.
        """
        return Stream(self._receive(_file_protocol.file_content(_file_protocol.file_id(file_id))))

    async def download(
        self,
        file_id: str | FileObject,
        path: str | os.PathLike[str],
        *,
        force: bool = False,
        on_progress: Callable[[int, int | None], None] | None = None,
    ) -> Path:
        """Write the content of a file to ``path``, which appears when all of it has come and its length is right.

        Until then it is in a temporary file beside it, which is removed where the download fails or is cancelled.
        The end of this process, however sudden, leaves no half file under the name. A loss of power may: like other
        downloads this one does not wait until the disk has all of it (``os.fsync`` does).
        The name that the service has for the file is never used: every job's output has the same.

        Parameters:
            file_id: the file.
            path: the file to write, not a directory.
            force: replace a file that is there already.
            on_progress: a plain function that is called on the loop with the bytes that came, and how many there
                are, or None where that is not known. What it raises ends the call.

        Raises:
            UsageError: the file exists, or cannot be written, such as on a full disk.
            APIError: it could not be downloaded, as :meth:`content` tells.
        """
        request = _file_protocol.file_content(_file_protocol.file_id(file_id))
        total: int | None = None
        done = 0

        def on_length(length: int | None) -> None:
            nonlocal total
            total = length

        async with target_at(path, replace=force) as target, Stream(self._receive(request, on_length)) as pieces:
            async for piece in pieces:
                await target.write(piece)
                done += len(piece)
                if on_progress is not None:
                    on_progress(done, total)
            await target.keep()
        return target.path
