"""The public emulator: start, stop, and controls while it runs."""

from __future__ import annotations

import asyncio
import ipaddress
import threading
import time
from concurrent.futures import Future
from contextlib import contextmanager
from random import Random
from typing import TYPE_CHECKING, Any

from attrs import evolve

from together_batches.emulator._faults import OPERATIONS, Fault, FaultPlan
from together_batches.emulator._gateway import Gateway, RecordedRequest, Serving
from together_batches.emulator._jobs import DEFAULT_TIMING
from together_batches.emulator._loopback_server import LoopbackServer
from together_batches.emulator._replies import Refusal
from together_batches.emulator._rows import RowBehaviour
from together_batches.emulator._state import DEFAULT_MODEL, ENDPOINTS, Service

if TYPE_CHECKING:
    import os
    from collections import deque
    from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping
    from types import TracebackType
    from typing import Self

    from together_batches.emulator._faults import RateLimit
    from together_batches.emulator._jobs import Timing
    from together_batches.emulator._replies import Reply
    from together_batches.emulator._rows import Answer, Failure, Missing


class Emulator:
    """An emulator of the Batch API, and of the Files API as far as it needs it, on a loopback port and in memory.

    ``async with Emulator() as emulator`` serves on the running loop; ``with Emulator().running_in_thread() as
    emulator`` on a loop of its own. All other methods may be called from any thread at any time, also before the
    start and after the end: the jobs are kept, and a second start serves them again on the same port.

    Parameters:
        api_key: the key that is accepted; None for any. A request without a key is refused in either case.
        seed: determines ids, the order of lists and the chances of faults.
        clock: returns Unix seconds; ``advance`` adds to it. Every date in a response, ``Date`` included, is from it.
        sleep: waits for a number of seconds; used only by faults with ``delay`` or ``drip``.
        host, port: a loopback address, and 0 for any free port.
        timing: the length of each phase of a job.
        rate_limit, faults: what fails from the start; see also the attribute and ``fail``.
        answer: decides about each row of a job: an ``Answer``, a ``Failure``, ``Missing``, or None for the default.
            It must depend on the row alone, because it may be called again for the same row.
        fail_rows, missing_rows: shares of the other rows that fail and that are lost, by the seed.
        ends_as: the final status of jobs that clients create; FAILED means during the run, with the rows completed by
            then.
        ranges, gzip: whether content is served in parts, and compressed for clients that accept it.
        content_from_storage: whether content is a redirect to the storage.
        prices: the list prices of models, each in USD per million tokens of requests and of answers.
        respond: called on the emulator's loop with each request, and a function that carries it out and returns the
            usual ``Reply``; the reply that it returns is sent. It must not wait. Faults come first.
        on_request: called on the emulator's loop with each request, after its response.

    Raises ValueError for a host that is not loopback, because this is not a public server, and for invalid shares.
    """

    def __init__(
        self,
        *,
        api_key: str | None = "emulator-key",
        seed: int = 0,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        host: str = "127.0.0.1",
        port: int = 0,
        timing: Timing = DEFAULT_TIMING,
        rate_limit: RateLimit | None = None,
        faults: Iterable[Fault] = (),
        answer: Callable[[Mapping[str, object]], Answer | Failure | Missing | None] | None = None,
        fail_rows: float = 0.0,
        missing_rows: float = 0.0,
        ends_as: str | None = None,
        ranges: bool = True,
        gzip: bool = False,
        content_from_storage: bool = False,
        prices: Mapping[str, tuple[float, float]] | None = None,
        respond: Callable[[RecordedRequest, Callable[[], Reply]], Reply] | None = None,
        on_request: Callable[[RecordedRequest], None] | None = None,
    ) -> None:
        self._host = _loopback(host)
        self._port = port
        self._storage_port = 0
        self._clock = clock
        self._offset = 0.0
        answering = RowBehaviour(answer=answer, fail_rows=fail_rows, missing_rows=missing_rows, seed=seed)
        self._service = Service(now=self.now, seed=seed, timing=timing, answering=answering, ends_as=ends_as)
        # Chances have a random source of their own, so that an additional fault does not change the ids.
        plan = FaultPlan(faults, Random(f"{seed} faults"))  # noqa: S311  # repeatable on purpose
        serving = Serving(ranges=ranges, gzip=gzip, from_storage=content_from_storage)
        self._gateway = Gateway(
            self._service,
            plan,
            api_key=api_key,
            now=self.now,
            sleep=sleep,
            serving=serving,
            prices=prices or {},
            respond=respond,
            on_request=on_request,
        )
        self._lock = self._gateway.lock
        self._servers: tuple[LoopbackServer, ...] = ()
        self.rate_limit = rate_limit

    def __repr__(self) -> str:
        where = self.base_url if self._servers else "not running"
        return f"<Emulator {where}>"

    # --- starting and stopping

    async def start(self) -> None:
        """Start to listen. Raises OSError if the port is taken and RuntimeError if it is already running."""
        if self._servers:
            raise RuntimeError("the emulator is running already")
        api = await LoopbackServer.open(self._gateway, self._host, self._port)
        try:
            storage = await LoopbackServer.open(self._gateway.storage, self._host, self._storage_port)
        except BaseException:  # also a cancellation
            await api.close()
            raise
        self._servers = (api, storage)
        self._port, self._storage_port = api.port, storage.port
        self._gateway.storage_origin = self.storage_origin

    async def close(self) -> None:
        """Stop at once, and drop requests in flight. Closing again does nothing.

        A cancellation is raised only when both ports are closed. Raises RuntimeError on another loop than the one it
        was started on.
        """
        if any(server.loop is not asyncio.get_running_loop() for server in self._servers):
            raise RuntimeError("the emulator runs on another loop; close it there")
        servers, self._servers = self._servers, ()
        closing = asyncio.gather(*(server.close() for server in servers))
        cancellation: asyncio.CancelledError | None = None
        while not closing.done():
            try:
                await asyncio.wait([closing])
            except asyncio.CancelledError as error:
                cancellation = error
        closing.result()
        if cancellation is not None:
            raise cancellation

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    @contextmanager
    def running_in_thread(self) -> Generator[Self]:
        """Serve on a loop in a thread of its own during the block, for tests of synchronous code.

        Raises the errors of ``start``.
        """
        started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()

        async def serve() -> None:
            stop = asyncio.Event()
            try:
                await self.start()
            except BaseException as error:  # noqa: BLE001  # raised again in the thread that waits for it
                started.set_exception(error)
                return
            started.set_result((asyncio.get_running_loop(), stop))
            await stop.wait()
            await self.close()

        thread = threading.Thread(target=lambda: asyncio.run(serve()), name="together_batches emulator", daemon=True)
        thread.start()
        try:
            loop, stop = started.result()
            try:
                yield self
            finally:
                loop.call_soon_threadsafe(stop.set)
        finally:
            thread.join()

    @property
    def port(self) -> int:
        """The port it listens on. Raises RuntimeError before the first start, unless a port was passed in."""
        if not self._port:
            raise RuntimeError("the emulator has no port before it is started")
        return self._port

    @property
    def base_url(self) -> str:
        """The base URL for a client, ``/v1`` included."""
        return f"{self._origin(self.port)}/v1"

    @property
    def storage_origin(self) -> str:
        """The origin of presigned URLs: another port, and so another origin than that of the API.

        Raises RuntimeError before the first start.
        """
        if not self._storage_port:
            raise RuntimeError("the emulator has no storage before it is started")
        return self._origin(self._storage_port)

    def _origin(self, port: int) -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{port}"

    @property
    def api_key(self) -> str | None:
        """The key that is accepted; None for any."""
        return self._gateway.api_key

    # --- time

    def now(self) -> float:
        """Return the emulator's own time, in Unix seconds."""
        return self._clock() + self._offset

    def advance(self, seconds: float) -> None:
        """Move its time forward: jobs progress and rate limits refill. Raises ValueError for negative seconds."""
        if seconds < 0:
            raise ValueError("time only moves forward")
        with self._lock:
            self._offset += seconds

    # --- jobs and files

    def add_job(
        self,
        *,
        id: str | None = None,  # noqa: A002  # the field's own name
        status: str = "IN_PROGRESS",
        age_seconds: float = 0,
        model_id: str | None = DEFAULT_MODEL,
        input_file_id: str | None = None,
        endpoint: str = ENDPOINTS[0],
        ends_as: str | None = None,
        cancels_as: str = "CANCELLED",
        **fields: object,
    ) -> str:
        """Add a job that was created ``age_seconds`` ago and enters ``status`` now; return its id.

        It progresses from then on and stops changing at ``ends_as``: COMPLETED by default, or at once if ``status``
        is final or unknown. ``ends_as`` may be an intermediate status, for a job that keeps it permanently.
        ``cancels_as`` is its final status after a cancel: COMPLETED for a job that completes before its cancellation.
        Without an ``input_file_id``, it has an input file of a few valid lines, and runs them. ``fields`` are sent
        unchanged, and replace the defaults; output and error files, ``error`` and ``completed_at`` only once the job
        has ended. A job without an ``input_file_id`` that is given an ``output_file_id`` or ``error_file_id``, None
        included, has only these results.

        Raises ValueError for an id that is taken or empty, and for an impossible final status.
        """
        with self._lock:
            return self._service.add_job(
                id=id,
                status=status,
                age_seconds=age_seconds,
                model_id=model_id,
                input_file_id=input_file_id,
                endpoint=endpoint,
                ends_as=ends_as,
                cancels_as=cancels_as,
                extra_fields=fields,
            )

    def create_job(self, **fields: object) -> str:
        """Create a job as ``POST /v1/batches`` with these fields would; return its id.

        Raises ValueError if the service would refuse it.
        """
        with self._lock:
            try:
                job: Any = self._service.create(fields)["job"]
            except Refusal as no:
                raise ValueError(no.message) from None
        return str(job["id"])

    def add_file(
        self,
        content: bytes | os.PathLike[str] | Callable[[], Iterable[bytes]] = b"",
        *,
        size: int | None = None,
        filename: str = "requests.jsonl",
        purpose: str = "batch-api",
    ) -> str:
        """Add a file; return its id.

        ``content`` may be bytes, the path of a file, which is read on demand, or a function that returns new chunks
        on each call: with its ``size`` in bytes, for content that is too large for memory. Raises ValueError for
        such a function without a size, and OSError for a path that cannot be accessed.
        """
        with self._lock:
            return self._service.files.add(content, size=size, filename=filename, purpose=purpose).id

    @property
    def files(self) -> list[dict[str, object]]:
        """Every file as the service would describe it now, oldest first, the results of ended jobs included."""
        with self._lock:
            return self._service.files.listing()

    def content(self, file_id: str) -> bytes:
        """Return the content of a file. Raises KeyError if the file does not exist."""
        with self._existing(file_id):
            file = self._service.files.get(file_id)
        return file.content.read()

    def change_file(self, file_id: str, content: bytes) -> None:
        """Replace the content of a file, and its ETag. Raises KeyError if the file does not exist."""
        with self._existing(file_id):
            self._service.files.change(file_id, content)

    def delete_file(self, file_id: str) -> None:
        """Delete a file, as a client would. Raises KeyError if the file does not exist."""
        with self._existing(file_id):
            self._service.files.delete(file_id)

    def job(self, job_id: str) -> dict[str, object]:
        """Return the job as the service would send it now. Raises KeyError if the job does not exist."""
        with self._existing(job_id):
            return self._service.retrieve(job_id)

    def phases(self, job_id: str) -> list[tuple[float, str]]:
        """Return when the job gets each status, in Unix seconds, past and planned; a cancel changes the plan.

        Raises KeyError if the job does not exist.
        """
        with self._existing(job_id):
            return [(phase.begins, phase.status) for phase in self._service.job(job_id).phases]

    def change_job(self, job_id: str, **fields: object) -> None:
        """Send these fields of the job from now on, as those of ``add_job``; without any, its own again.

        Raises KeyError if the job does not exist.
        """
        with self._existing(job_id):
            self._service.job(job_id).extra_fields = fields

    def delete_job(self, job_id: str) -> None:
        """Delete the job but not its files, which no client can do. Raises KeyError if the job does not exist."""
        with self._existing(job_id):
            self._service.delete_job(job_id)

    @contextmanager
    def _existing(self, name: str) -> Generator[None]:
        """Hold the lock, and raise KeyError if the service knows no job or file of this name."""
        with self._lock:
            try:
                yield
            except Refusal:
                raise KeyError(name) from None

    @property
    def jobs(self) -> list[dict[str, object]]:
        """Every job as the service would send it now, in the order of their creation."""
        with self._lock:
            return self._service.jobs()

    # --- requests, limits and faults

    @property
    def requests(self) -> deque[RecordedRequest]:
        """The last 100,000 requests, oldest first, with their bodies."""
        return self._gateway.requests

    def count(self, operation: str) -> int:
        """Return the number of requests for this operation since the emulator was created.

        The operations are create, retrieve, list, cancel; upload (direct), begin_upload, store, preprocess; file,
        files, content, fetch (from the storage), delete; models, whoami and other.

        Raises ValueError for another name.
        """
        if operation not in OPERATIONS:
            raise ValueError(f"there is no operation {operation!r}; choose one of {OPERATIONS}")
        return self._gateway.counts[operation]

    @property
    def rate_limit(self) -> RateLimit | None:
        """The current limit. Setting one starts it with a full bucket; None removes it."""
        return self._rate_limit

    @rate_limit.setter
    def rate_limit(self, limit: RateLimit | None) -> None:
        with self._lock:
            self._rate_limit = limit
            self._gateway.limit(limit)

    @property
    def timing(self) -> Timing:
        """The length of each phase of a job; a new value applies to later creates and cancels by clients."""
        return self._service.timing

    @timing.setter
    def timing(self, timing: Timing) -> None:
        with self._lock:
            self._service.timing = timing

    @property
    def ends_as(self) -> str | None:
        """The final status of jobs that clients create from valid files from now on; None for COMPLETED."""
        return self._service.ends_as

    @ends_as.setter
    def ends_as(self, status: str | None) -> None:
        with self._lock:
            self._service.ends_as = status

    @property
    def answer(self) -> Callable[[Mapping[str, object]], Answer | Failure | Missing | None] | None:
        """What decides about each row; a new value applies to the rows of later jobs."""
        return self._service.answering.answer

    @answer.setter
    def answer(self, answer: Callable[[Mapping[str, object]], Answer | Failure | Missing | None] | None) -> None:
        with self._lock:
            self._service.answering = evolve(self._service.answering, answer=answer)

    def fail(self, fault: Fault) -> None:
        """Plan a fault, after those already planned."""
        with self._lock:
            self._gateway.faults.add(fault)

    def clear_faults(self) -> None:
        """Remove every planned fault."""
        with self._lock:
            self._gateway.faults.clear()


def _loopback(host: str) -> str:
    if host == "localhost":
        return "127.0.0.1"  # the name may have two addresses, and two sockets would get two ports
    try:
        if ipaddress.ip_address(host).is_loopback:
            return host
    except ValueError:
        pass
    raise ValueError(f"the emulator listens on loopback addresses only, not on {host!r}")
