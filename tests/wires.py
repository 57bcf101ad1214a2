"""Test doubles for the client's connections: raw sockets, virtual time, and a search for leaked secrets."""

from __future__ import annotations

import asyncio
import functools
import heapq
import pickle
import re
import selectors
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import anyio.to_thread
import msgspec

from together_batches import AsyncBatches, BatchJob, BatchJobStatus, RetryPolicy
from together_batches._http.client_state import ClientState
from together_batches._http.transport import Transport
from together_batches.config import Config

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable, Iterator

    from together_batches.emulator import Emulator

HERE = Path(__file__).parent
KEY = "tgp_v1_never-to-be-seen-0123456789abcdef"
ONCE = RetryPolicy(max_attempts=1)
AT_ONCE = RetryPolicy(base_delay=0, max_delay=0)
"""The default retries, without pauses."""


# --- virtual time for real sockets ------------------------


_QUIET_ROUNDS = 3
"""In each of them the loop looks for what came from a socket."""


class VirtualTime:
    """A clock for clients and their emulator that advances to the next due timer once everything waits.

    Before each step a moment of real time passes, and every call and thread under way is awaited. ``slept`` contains
    the pauses that were begun, in order.
    """

    def __init__(self, emulator: Emulator) -> None:
        self.seconds = 0.0
        self.slept: list[float] = []
        self._timers: list[tuple[float, int, asyncio.Event]] = []
        self._emulator = emulator
        self._connections: list[ClientState] = []
        self._running: set[asyncio.Future[Any]] = set()

    def client(self, **options: Any) -> AsyncBatches:
        """A client of the emulator that uses this clock."""
        config = Config.from_env({}, api_key=KEY, base_url=self._emulator.base_url, retry=AT_ONCE, **options)
        connection = ClientState(None, max_concurrency=config.max_concurrency, clock=self.clock)
        connection.sleep = self.sleep
        self._connections.append(connection)
        return AsyncBatches._over(Transport(config, connection))

    def clock(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        over = asyncio.Event()
        self.slept.append(seconds)
        timer = self.seconds + max(0.0, seconds), len(self.slept), over
        heapq.heappush(self._timers, timer)
        try:
            await over.wait()
        except asyncio.CancelledError:
            if timer in self._timers:
                self._timers.remove(timer)
                heapq.heapify(self._timers)
            raise

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        run_in_executor = loop.run_in_executor

        def counted(*call: Any) -> asyncio.Future[Any]:
            running = run_in_executor(*call)
            self._running.add(running)
            running.add_done_callback(self._running.discard)
            return running

        loop.run_in_executor = counted  # type: ignore[assignment,method-assign]
        self._task = asyncio.create_task(self._pass())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])

    def _is_busy(self) -> bool:
        threads = anyio.to_thread.current_default_thread_limiter().borrowed_tokens
        return bool(threads or self._running or any(each.timeouts.under_way for each in self._connections))

    async def _pass(self) -> None:
        while True:
            await asyncio.sleep(0.001)
            if self._timers and await self._is_quiet():
                due, _, over = heapq.heappop(self._timers)
                self._emulator.advance(due - self.seconds)
                self.seconds = due
                over.set()

    async def _is_quiet(self) -> bool:
        """Return if no task is ready for so many rounds of the loop."""
        begun = len(self.slept)
        ready = asyncio.get_running_loop()._ready  # type: ignore[attr-defined]
        for _ in range(_QUIET_ROUNDS):
            await asyncio.sleep(0)
            if ready or self._is_busy() or len(self.slept) != begun:
                return False
        return True


def stable(value: object) -> str:
    """Return the text of a value, without addresses."""
    return re.sub(r" at 0x[0-9a-f]+", "", ascii(value))


# --- a server with scripted replies, byte for byte -------

Step = bytes | str | float | asyncio.Event
Reply = bytes | tuple[Step, ...]


def http(
    status: int, body: object = b"", *, headers: dict[str, str] | None = None, length: int | None = None
) -> bytes:
    """Return one response, the last of its connection; ``body`` is bytes, text, or a value to send as JSON."""
    content = (
        body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else msgspec.json.encode(body)
    )
    fields = {
        "Content-Type": "application/json",
        "Content-Length": str(len(content) if length is None else length),
        "Connection": "close",
        **(headers or {}),
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} Whatever\r\n{head}\r\n".encode("latin-1") + content


def job(job_id: str = "job-1", status: str = "CANCELING", **fields: object) -> dict[str, object]:
    return {"id": job_id, "status": status, **fields}


class RawServer:
    """A listening socket. Each connection gets the next of the replies, the last one again and again.

    A reply is the bytes to send after the request was read, or a sequence of steps: bytes to send; ``"unread"``, as
    the first, to respond before anything was read; ``"reset"`` to break the connection off; an event to wait for, or
    for the client to leave; seconds to wait. After its reply the connection is closed.
    """

    def __init__(self, *replies: Reply, tls: ssl.SSLContext | None = None) -> None:
        self.replies = list(replies)
        self._tls = tls
        self.requests: list[bytes] = []
        self.times: list[float] = []
        self.connections = 0
        self.open = 0
        self.most_open = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=1000, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        self.origin = f"http{'s' if self._tls else ''}://127.0.0.1:{self.port}"
        self.base_url = f"{self.origin}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await _rounds_of_the_loop()  # a connection that was just accepted begins
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        for writer in self._writers:
            writer.transport.abort()  # TLS would wait for the client's word
        await _rounds_of_the_loop()

    @property
    def lines(self) -> list[str]:
        """The first lines of the requests, without the protocol."""
        return [request.split(b"\r\n")[0].decode().removesuffix(" HTTP/1.1") for request in self.requests]

    def headers(self, number: int = -1) -> dict[str, str]:
        """Return the headers of one request, with names in lower case."""
        lines = self.requests[number].partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")[1:]
        return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.append(writer)
        self.connections += 1
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        steps = (reply,) if isinstance(reply, bytes) else reply
        try:
            await self._answer(steps, reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self.open -= 1
            writer.transport.abort() if "reset" in steps else writer.close()
            self._tasks.discard(task)

    async def _answer(
        self, steps: tuple[Step, ...], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if "unread" not in steps:
            try:
                self.requests.append(await _read_request(reader))
                self.times.append(asyncio.get_running_loop().time())
            except asyncio.IncompleteReadError:
                return  # the client disconnected
        for step in steps:
            match step:
                case bytes():
                    writer.write(step)
                    await writer.drain()
                case float() | int():
                    await asyncio.sleep(step)
                case asyncio.Event():
                    either = {asyncio.create_task(reader.read()), asyncio.create_task(step.wait())}
                    try:
                        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                    finally:
                        for one in either:
                            one.cancel()
                        await asyncio.wait(either)


async def _rounds_of_the_loop() -> None:
    """Let the loop do what it has begun: a connection is accepted, and closed, in several rounds."""
    for _ in range(5):
        await asyncio.sleep(0)


async def _read_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
    )
    return head + await reader.readexactly(length)


# --- virtual time in the loop itself ---


class _Selector(selectors.DefaultSelector):
    """A selector that advances time to the next timer at once if nothing else is ready."""

    passed = 0.0
    patience = 0.002

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        # Bytes may be in transit within this machine; without a timer only bytes can wake the loop.
        ready = super().select(self.patience if timeout is not None else 10)
        if not ready:
            assert timeout is not None, "everybody waits, and nothing will ever come"
            self.passed += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop on which waiting for an hour takes no time, with working sockets."""

    def __init__(self) -> None:
        self._own_selector = _Selector()
        super().__init__(self._own_selector)

    def time(self) -> float:
        return self._own_selector.passed


class WirelessLoop(VirtualLoop):
    """A loop for tests without sockets: a day passes in a fraction of a second."""

    def __init__(self) -> None:
        super().__init__()
        self._own_selector.patience = 0


def in_virtual_time(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run a test, whose fixtures are synchronous, on a :class:`VirtualLoop`."""
    return _on(VirtualLoop, test, debug=True)


def without_wires(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run a test, whose fixtures are synchronous, on a :class:`WirelessLoop`."""
    return _on(WirelessLoop, test, debug=False)  # it takes five times as long for every step


def _on(loop: type[VirtualLoop], test: Callable[..., Awaitable[None]], *, debug: bool) -> Callable[..., None]:
    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        with asyncio.Runner(debug=debug, loop_factory=loop) as runner:
            runner.run(_call(test, args, kwargs))

    return run


async def _call(test: Callable[..., Awaitable[None]], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    await test(*args, **kwargs)
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not left, f"tasks were left behind: {left}"


def transport(base_url: str, *, chance: float = 1.0, **options: Any) -> Transport:
    """A transport that waits by the running loop's clock. With ``chance`` 1 each back-off is the longest possible."""
    config = Config.from_env({}, api_key=KEY, base_url=base_url, **options)
    return Transport(
        config,
        ClientState(
            None,
            max_concurrency=config.max_concurrency,
            clock=asyncio.get_running_loop().time,
            chance=lambda: chance,
        ),
    )


def clocked(base_url: str, *, chance: float = 1.0, **options: Any) -> AsyncBatches:
    """A client with such a :func:`transport`."""
    return AsyncBatches._over(transport(base_url, chance=chance, **options))


# --- leaked secrets ---


def shown_text(error: BaseException) -> str:
    """Return everything that an error shows, in one text."""
    return "\n".join(shown_texts(error))


def shown_texts(error: BaseException) -> Iterator[str]:
    """Return all texts by which an error may be shown, logged or stored, those of its causes included."""
    seen: set[int] = set()
    errors = [error]
    while errors:
        found = errors.pop()
        if id(found) in seen:
            continue
        seen.add(id(found))
        yield from (repr(found), str(found), repr(found.args), repr(vars(found)))
        yield "".join(traceback.format_exception(found))
        frames = traceback.TracebackException.from_exception(found, capture_locals=True)
        # The tests' own frames know the secrets, as they must.
        frames.stack = traceback.StackSummary.from_list(
            [frame for frame in frames.stack if not Path(frame.filename).is_relative_to(HERE)]
        )
        yield "".join(frames.format(chain=False))
        if isinstance(found, BaseExceptionGroup):
            errors += found.exceptions
        errors += [link for link in (found.__cause__, found.__context__) if link is not None]
        try:
            yield pickle.dumps(found, protocol=0).decode("latin-1")
        except (TypeError, AttributeError, pickle.PicklingError):
            assert not type(found).__module__.startswith("together_batches"), f"{found!r} cannot be pickled"


# --- small fakes --------


def a_job(job_id: str, status: str = "CANCELING") -> BatchJob:
    return BatchJob(id=job_id, status=BatchJobStatus(status))
