"""File transfers: bodies that are read while they are sent, responses that are read as they arrive.

Only the differences from an ordinary request are here; retries, the rate limiter and the wording of failures are
those of :mod:`together_batches._http.transport`. The duration of a transfer has no limit; only a stall ends it.
"""

from __future__ import annotations

import asyncio
import re
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import aiohttp
import attrs
from yarl import URL

from together_batches._http import content_coding, redirects
from together_batches._http.client_state import CallState
from together_batches._http.exchange import AGENT, RequestFailure
from together_batches._http.network_errors import NETWORK_ERRORS
from together_batches._http.redaction import Redactor
from together_batches._protocol import jobs as job_protocol
from together_batches._protocol.file_targets import safe_target
from together_batches._protocol.jobs import Answer
from together_batches.errors import APIConnectionError, APIError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
    from types import TracebackType

    from together_batches._http.exchange import Exchange
    from together_batches._http.timeouts import AttemptTimer
    from together_batches._http.transport import Transport
    from together_batches._protocol.files import Transfer

    OnSent = Callable[[int, int], None]

_FOREVER = float("inf")
_PIECE_BYTES = 1 << 16
"""Bytes passed to the connection at a time: on a slow line each piece sent counts as progress."""
_AS_IT_ARRIVES: dict[str, Any] = {"auto_decompress": False, "read_bufsize": 1 << 18}
"""aiohttp reads twice this buffer ahead: a smaller one stops and restarts a fast download all the time."""


class Streaming:
    """Sends and receives files under one configuration, over the connection of a transport."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def send(
        self, request: Transfer, *, redirect_is_answer: bool = False, on_sent: OnSent | None = None
    ) -> Coroutine[Any, Any, Answer]:
        """Send ``request`` and return its successful response; each attempt reads the body again.

        With ``redirect_is_answer`` a redirect also counts as success, and is never followed. ``on_sent`` is called
        with the bytes of the content sent so far, and their total. Raises the errors of an ordinary request, and
        those of reading the content and of ``on_sent``.
        """
        good = range(200, 400) if redirect_is_answer else range(200, 300)
        exchange = partial(self._exchange, request, follow=not redirect_is_answer, on_sent=on_sent)
        return self._transport.send_alone(request, CallState(), exchange, good)

    async def receive(
        self, request: Transfer, on_length: Callable[[int | None], None] | None = None
    ) -> AsyncGenerator[bytes]:
        """Yield the content that ``request`` names in pieces of up to 1 MB: all of it, or an error at the end.

        A broken connection is opened again, and the rest is requested; if the server sends the whole file instead,
        the bytes already received are skipped, provided that it is still the same file. ``on_length`` is called with
        the total bytes, or None if unknown.
        """
        reception = await self._open(request)
        version = _FileIdentity.of(reception)
        decoder: content_coding.Decoder | None = None
        if on_length is not None:
            on_length(None if version.compressions else version.size)
        at = broke_at = failures = 0
        while True:
            try:
                # Some storages compress although it was not requested, perhaps in a way that cannot be decoded.
                decoder = decoder or content_coding.Decoder(version.compressions)
                skip = version.to_skip(reception, at)
                async for chunk in reception:
                    rest = chunk[skip:]
                    skip -= len(chunk) - len(rest)
                    at += len(rest)
                    for piece in decoder.pieces(rest):
                        yield piece
                if version.size in {None, at}:
                    decoder.finish()
                    return
                error = reception.broke_off()
            except APIConnectionError as broke:
                error = broke
            except content_coding.CodingError as odd:
                raise job_protocol.invalid_response(reception, "a file that can be read", str(odd)) from odd
            finally:
                reception.close()
            failures = failures + 1 if at == broke_at else 1
            broke_at = at
            error.message += f", after {at} bytes" + ("" if version.size is None else f" of {version.size}")
            await self._pause(request, error, version, attempt=failures)
            reception = await self._open(request, version.range_from(at))

    async def _pause(
        self, request: Transfer, error: APIConnectionError, version: _FileIdentity, *, attempt: int
    ) -> None:
        """Wait until the rest of a file may be requested; raise ``error`` if it may not."""
        if not version.is_known:
            error.message += "; it has neither a length nor an ETag, so the rest was not requested"
            raise error
        deadline = self._transport.state.clock() + self._transport.config.retry.max_elapsed
        await self._transport.pause(request, error, {}, attempt=attempt, deadline=deadline)

    async def _open(self, request: Transfer, headers: Mapping[str, str] | None = None) -> StreamedResponse:
        ranged = attrs.evolve(request, headers={**request.headers, **(headers or {})})
        exchange = partial(self._exchange, ranged, follow=True, streamed=True)
        answer = await self._transport.send_alone(ranged, CallState(), exchange)
        assert isinstance(answer, StreamedResponse)  # noqa: S101  # what a good answer to it is
        return answer

    # --- one attempt ----------------------------------------------------------------------------------------------

    async def _exchange(
        self,
        transfer: Transfer,
        session: aiohttp.ClientSession,
        request: job_protocol.Request,
        *,
        follow: bool,
        streamed: bool = False,
        on_sent: OnSent | None = None,
    ) -> Answer | RequestFailure[APIError]:
        body = _Body(transfer, on_sent) if transfer.length else None

        exchange = self._transport.exchange
        total = _FOREVER if streamed or transfer.content else exchange.config.timeout.total
        answer: Answer | RequestFailure[APIError] | None = None
        with exchange.begin(total) as timer:
            answer = await self._hops(session, transfer, timer, body, follow=follow, streamed=streamed)
        if body is not None and body.failure is not None:
            # An error of this package or of the caller, and not of the network: aiohttp replaced it. Raised without
            # aiohttp's frames, and without the replacement, which both hold the URL.
            timer.error = None
            raise body.failure.with_traceback(body.failure_traceback) from None
        if answer is not None:
            return answer
        return exchange.failure(timer.error, request, timer)

    async def _hops(
        self,
        session: aiohttp.ClientSession,
        transfer: Transfer,
        timer: AttemptTimer,
        body: _Body | None,
        *,
        follow: bool,
        streamed: bool,
    ) -> Answer | RequestFailure[APIError]:
        base_url = self._transport.config.base_url
        url = transfer.target or base_url + transfer.path
        keyed = transfer.target is None

        async def follow_to_storage(redirect: Answer, location: str) -> Answer | RequestFailure[APIError]:
            nonlocal url, keyed
            try:
                target = safe_target(url, location, base_url)
            except ValueError as error:
                return RequestFailure(
                    job_protocol.invalid_response(redirect, "a redirect that can be followed", str(error))
                )
            # Within its own origin the key goes along, elsewhere never, and it does not come back.
            keyed = keyed and URL(target, encoded=True).origin() == URL(url, encoded=True).origin()
            url = target
            return await self._send_to(session, transfer, url, timer, body, keyed=keyed, streamed=streamed)

        answer = await self._send_to(session, transfer, url, timer, body, keyed=keyed, streamed=streamed)
        return await redirects.follow(answer, follow_to_storage) if follow else answer

    async def _send_to(
        self,
        session: aiohttp.ClientSession,
        transfer: Transfer,
        url: str,
        timer: AttemptTimer,
        body: _Body | None,
        *,
        keyed: bool,
        streamed: bool,
    ) -> Answer | RequestFailure[APIError]:
        exchange = self._transport.exchange
        place = URL(url, encoded=True)  # unchanged: quoted again, it would not match the signature
        headers = dict(transfer.headers)
        if keyed:
            headers = {**(exchange.headers_to_add or {}), **headers}
        else:
            session = exchange.state.keyless_session()
            headers = {"User-Agent": AGENT, **({} if place.scheme == "https" else exchange.proxy_login), **headers}
        if not keyed or place.query_string:
            timer.place = str(place.origin())
        if body is not None:
            headers["Content-Length"] = str(transfer.length)  # without it the body would be sent in chunks
            timer.progress = body
        shown = str(place.with_query(None))  # a query may be a signature
        response = await exchange.request(
            session,
            transfer.method,
            place,
            timer,
            headers,
            body,
            **(_AS_IT_ARRIVES if streamed else {}),
        )
        if streamed and 200 <= response.status < 300:
            return StreamedResponse(
                request=transfer,
                url=shown,
                status=response.status,
                headers=response.headers,
                body=b"",
                response=response,
                redact=exchange.redact,
                exchange=exchange,
                timer=timer,
            )
        async with response:
            timer.progress = response.content
            content = await exchange.read(response, transfer)
            if place.query_string and response.status >= 300:
                # A storage quotes the signature that it refuses.
                content = Redactor(
                    "", {str(number): value for number, value in enumerate(place.query.values())}
                ).error_body(content)
            return exchange.answer(transfer, shown, response, content)


class _Body:
    """The body that aiohttp sends: an async iterable of pieces that counts the bytes sent and keeps an error."""

    def __init__(self, transfer: Transfer, on_sent: OnSent | None) -> None:
        self._transfer = transfer
        self._on_sent = on_sent
        self.failure: Exception | None = None
        self.failure_traceback: TracebackType | None = None
        self.total_bytes = 0
        self._at: int = 0
        self._reported_at = -1
        self._block = memoryview(b"")
        self._tail = b""

    def __aiter__(self) -> Self:
        # From the beginning: aiohttp itself sends a PUT once more if a kept connection turns out to be closed.
        self.total_bytes = self._at = 0
        self._reported_at = -1
        self._block = memoryview(self._transfer.head)
        self._tail = self._transfer.tail
        return self

    async def __anext__(self) -> memoryview:
        try:
            if not self._block:
                self._block = memoryview(await self._next_block())
        except Exception as error:
            self.failure, self.failure_traceback = error, error.__traceback__
            raise
        if not self._block:
            raise StopAsyncIteration
        piece, self._block = self._block[:_PIECE_BYTES], self._block[_PIECE_BYTES:]
        self.total_bytes += len(piece)
        return piece

    async def _next_block(self) -> bytes:
        content = self._transfer.content
        if content is not None:
            if self._on_sent is not None and self._reported_at != self._at:
                self._reported_at = self._at
                self._on_sent(self._at, content.size)
            if self._at < content.size:
                block = await content.block(self._at)
                self._at += len(block)
                return block
        tail, self._tail = self._tail, b""
        return tail


# --- responses ------------------------------------------------------------------------------------------------


@attrs.define(eq=False, kw_only=True)
class StreamedResponse(Answer):
    """A successful response whose body has not arrived yet. It must be closed, however it ends."""

    response: aiohttp.ClientResponse = attrs.field(repr=False)
    exchange: Exchange = attrs.field(repr=False)
    timer: AttemptTimer = attrs.field(repr=False)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """Return the bytes that have arrived; raise :class:`APIConnectionError` if the connection fails or stalls."""
        limit = self.exchange.config.timeout.read
        try:
            async with asyncio.timeout(limit):
                chunk = await self.response.content.readany()
        except NETWORK_ERRORS as error:
            trouble: Exception = error
        else:
            if chunk:
                return chunk
            raise StopAsyncIteration
        raise self.broke_off(trouble)

    def broke_off(self, error: Exception | None = None) -> APIConnectionError:
        """Return why the body ended early. Without an ``error`` HTTP considered it complete, and it was not."""
        if isinstance(error, TimeoutError):
            self.timer.expired, error = "read", None
        else:
            error = error or aiohttp.ClientPayloadError()
        return self.exchange.failure(error, self.request, self.timer).error

    def close(self) -> None:
        """Release the connection, without waiting for the rest of the body."""
        self.response.close()


@attrs.frozen
class _FileIdentity:
    """The properties that identify a file when the rest of it is requested."""

    size: int | None
    etag: str | None
    compressions: tuple[str, ...]

    @classmethod
    def of(cls, answer: StreamedResponse) -> _FileIdentity:
        if answer.status == 206:
            whole = re.fullmatch(r"bytes [0-9]+-[0-9]+/([0-9]+)", answer.headers.get("Content-Range", ""))
            length = whole[1] if whole else ""
        else:
            # The standard says to ignore a length beside chunks.
            length = "" if "Transfer-Encoding" in answer.headers else answer.headers.get("Content-Length", "")
        return cls(
            int(length) if _LENGTH(length) else None,
            answer.headers.get("ETag"),
            content_coding.compressions(", ".join(answer.response.headers.getall("Content-Encoding", ()))),
        )

    @property
    def is_known(self) -> bool:
        return self.size is not None or self.etag is not None

    def range_from(self, at: int) -> dict[str, str]:
        """Return the headers that request the bytes from this one on, of this file and no other."""
        strong = self.etag is not None and not self.etag.startswith("W/")
        return {"Range": f"bytes={at}-", **({"If-Range": self.etag or ""} if strong else {})} if at else {}

    def to_skip(self, answer: StreamedResponse, at: int) -> int:
        """Return how many bytes at the start of this answer are known already; raise if it is another file."""
        now = _FileIdentity.of(answer)
        for name, value, before in (("size", now.size, self.size), ("ETag", now.etag, self.etag)):
            if None not in {value, before} and value != before:
                raise _other(answer, f"its {name} is {value}, and was {before}: the file changed meanwhile")
        if now.compressions != self.compressions:
            names = [", ".join(names) or "identity" for names in (now.compressions, self.compressions)]
            raise _other(answer, f"its encoding is {names[0]}, and was {names[1]}")
        if answer.status != 206:
            return at
        begin = re.match(r"bytes ([0-9]+)-", answer.headers.get("Content-Range", ""))
        if begin is None or not _LENGTH(begin[1]) or int(begin[1]) != at:
            raise _other(answer, f"byte {at} was to be its first")
        if at == 0 and self.size is None:
            # A part that was not requested: without a size, nothing shows whether it is complete.
            raise _other(answer, "it is a part, and does not say of how much")
        return 0


_LENGTH = re.compile("[0-9]{1,18}").fullmatch
"""Match a number of bytes that a file can have: Python refuses to parse one of thousands of digits."""


def _other(answer: StreamedResponse, problem: str) -> APIError:
    return job_protocol.invalid_response(answer, "the rest of the file", problem)
