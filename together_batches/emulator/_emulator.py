"""The emulator as its users hold it: starting, stopping, and the handles to turn while it runs."""

from __future__ import annotations

import asyncio
import ipaddress
import threading
import time
from concurrent.futures import Future
from contextlib import contextmanager
from random import Random
from typing import TYPE_CHECKING

from together_batches.emulator._app import Gateway, RecordedRequest, Serving
from together_batches.emulator._faults import OPERATIONS, Fault, FaultPlan
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

    from together_batches.emulator._jobs import Timing
    from together_batches.emulator._limits import RateLimit
    from together_batches.emulator._rows import Answer, Failure, Missing

__all__ = ["Emulator"]


class Emulator:
    """The Batch API, and what it needs of the Files API, on a loopback port and in memory.

    `async with Emulator() as emulator` serves on the running loop; `with Emulator().running_in_thread() as
    emulator` on a loop of its own. Everything else may be called from any thread at any time, also before the
    start and after the end: the jobs stay, and a second start serves them again on the same port.

    - `api_key`: the key that is accepted; None for any. A request without a key is refused in either case.
    - `seed`: decides ids, the order of lists and the chances of faults.
    - `clock`: gives Unix seconds; `advance` adds to it. Every date in an answer, `Date` included, comes from
      it.
    - `sleep`: waits for so many seconds; used by faults with `delay` or `drip`, and by nothing else.
    - `host`, `port`: a loopback address, and 0 for any free port.
    - `timing`: how long jobs stay in their phases.
    - `rate_limit`, `faults`: what is to go wrong from the start; see also the attribute and `fail`.
    - `answer`: decides about each row of a job: an `Answer`, a `Failure`, `Missing`, or None for the usual
      way. It must depend on the row alone, since it may be asked again. Then `missing_rows` and `fail_rows`
      are the shares of rows that get lost and that fail, by the seed.
    - `ends_as`: where jobs end that clients create; FAILED means on the way, with the rows done by then.
    - `ranges`, `gzip`: whether content is served in parts, and compressed to those who accept it.
    - `content_from_storage`: whether content is a redirect to the storage.
    - `on_request`: called on the emulator's loop with each request, once it has been answered.

    Raises ValueError for a host that is not loopback, since this is no server for others, and for shares that
    are none.
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
        on_request: Callable[[RecordedRequest], None] | None = None,
    ) -> None:
        self._host = _loopback(host)
        self._port = port
        self._storage_port = 0
        self._clock = clock
        self._offset = 0.0
        answering = RowBehaviour(answer=answer, fail_rows=fail_rows, missing_rows=missing_rows, seed=seed)
        self._service = Service(now=self.now, seed=seed, timing=timing, answering=answering, ends_as=ends_as)
        # Chances are drawn from a source of their own, so that one more fault does not change the ids.
        plan = FaultPlan(faults, Random(f"{seed} faults"))  # noqa: S311 - repeatable on purpose
        serving = Serving(ranges=ranges, gzip=gzip, from_storage=content_from_storage)
        self._gateway = Gateway(
            self._service,
            plan,
            api_key=api_key,
            now=self.now,
            sleep=sleep,
            serving=serving,
            on_request=on_request,
        )
        self._lock = self._gateway.lock
        self._doors: tuple[LoopbackServer, ...] = ()
        self.rate_limit = rate_limit

    def __repr__(self) -> str:
        where = self.base_url if self._doors else "not running"
        return f"<Emulator {where}>"

    # Starting and stopping

    async def start(self) -> None:
        """Listen. Raises OSError if the port is taken and RuntimeError if the emulator runs already."""
        if self._doors:
            raise RuntimeError("The emulator is running already.")
        api = await LoopbackServer.open(self._gateway, self._host, self._port)
        try:
            storage = await LoopbackServer.open(self._gateway.storage, self._host, self._storage_port)
        except OSError:
            await api.close()
            raise
        self._doors = (api, storage)
        self._port, self._storage_port = api.port, storage.port
        self._gateway.storage_origin = self.storage_origin

    async def close(self) -> None:
        """Stop at once: what is in flight is dropped. Closing twice is fine.

        Raises RuntimeError on another loop than the one it was started on.
        """
        if any(door.loop is not asyncio.get_running_loop() for door in self._doors):
            raise RuntimeError("The emulator runs on another loop; close it there.")
        doors, self._doors = self._doors, ()
        for door in doors:
            await door.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    @contextmanager
    def running_in_thread(self) -> Generator[Self]:
        """Serve on a loop in a thread of its own while the block runs: for tests of synchronous code.

        Raises what `start` raises.
        """
        started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()

        async def serve() -> None:
            stop = asyncio.Event()
            try:
                await self.start()
            except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits for it
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
        """The port it listens on. Raises RuntimeError before the first start, unless one was asked for."""
        if not self._port:
            raise RuntimeError("The emulator has no port before it is started.")
        return self._port

    @property
    def base_url(self) -> str:
        """What a client takes as its base URL, `/v1` included."""
        return f"{self._origin(self.port)}/v1"

    @property
    def storage_origin(self) -> str:
        """Where presigned addresses lead: another port, and so another origin than the API's.

        Raises RuntimeError before the first start.
        """
        if not self._storage_port:
            raise RuntimeError("The emulator has no storage before it is started.")
        return self._origin(self._storage_port)

    def _origin(self, port: int) -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{port}"

    @property
    def api_key(self) -> str | None:
        """The key that is accepted; None for any."""
        return self._gateway.api_key

    # Time

    def now(self) -> float:
        """The emulator's own time, in Unix seconds."""
        return self._clock() + self._offset

    def advance(self, seconds: float) -> None:
        """Move its time forward: jobs move on and rate limits refill. Raises ValueError for a step back."""
        if seconds < 0:
            raise ValueError("Time only moves forward.")
        with self._lock:
            self._offset += seconds

    # Jobs and files

    def add_job(
        self,
        *,
        id: str | None = None,  # noqa: A002 - the field's own name
        status: str = "IN_PROGRESS",
        age_seconds: float = 0,
        model_id: str | None = DEFAULT_MODEL,
        input_file_id: str | None = None,
        endpoint: str = ENDPOINTS[0],
        ends_as: str | None = None,
        cancels_as: str = "CANCELLED",
        **fields: object,
    ) -> str:
        """Put a job there that was created `age_seconds` ago and enters `status` now; gives its id.

        From there it goes on by itself and stops changing at `ends_as`: COMPLETED if not said otherwise, at
        once where the status is an ended or an unknown one. `ends_as` may be a status on the way, for a job
        that stays there for ever. `cancels_as` is where it ends once cancelled: COMPLETED for a job that
        outruns its cancellation. Without an `input_file_id`, it has an input file of a few good lines, and runs
        them. `fields` are sent as they are, on top of the rest; output and error files, `error` and `completed_at`
        only once the job has ended. A job without an input file of the caller's that is given an `output_file_id`
        or `error_file_id`, None included, has no results but these.

        Raises ValueError for an id that is taken or empty, and for an end that cannot follow.
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

    def add_file(
        self,
        content: bytes | os.PathLike[str] | Callable[[], Iterable[bytes]] = b"",
        *,
        size: int | None = None,
        filename: str = "requests.jsonl",
        purpose: str = "batch-api",
    ) -> str:
        """Store a file; gives its id.

        `content` may be bytes, the path of a file, which is read when it is asked for, or a function that
        gives its chunks anew on each call: with its `size` in bytes, for content that nobody wants to hold.
        Raises ValueError for such a function without a size, and OSError for a path that leads nowhere.
        """
        with self._lock:
            return self._service.files.add(content, size=size, filename=filename, purpose=purpose).id

    @property
    def files(self) -> list[dict[str, object]]:
        """Every file as the service would describe it now, oldest first, the results of ended jobs included."""
        with self._lock:
            return self._service.files.listing()

    def content(self, file_id: str) -> bytes:
        """What is in a file. Raises KeyError if there is none."""
        with self._lock:
            file = self._service.files.find(file_id)
        if file is None:
            raise KeyError(file_id)
        return file.content.read()

    def job(self, job_id: str) -> dict[str, object]:
        """The job as the service would send it now. Raises KeyError if there is none."""
        with self._lock:
            try:
                return self._service.retrieve(job_id)
            except Refusal:
                raise KeyError(job_id) from None

    @property
    def jobs(self) -> list[dict[str, object]]:
        """Every job as the service would send it now, in the order in which they came."""
        with self._lock:
            return self._service.jobs()

    # What was asked, and what goes wrong

    @property
    def requests(self) -> deque[RecordedRequest]:
        """The last 100,000 requests, oldest first, with their bodies."""
        return self._gateway.requests

    def count(self, operation: str) -> int:
        """How many requests for this operation have come since the emulator was made.

        The operations are create, retrieve, list, cancel; upload (direct), begin_upload, store, preprocess; file,
        files, content, fetch (from the storage), delete; whoami and other. Raises ValueError for another name.
        """
        if operation not in OPERATIONS:
            raise ValueError(f"There is no operation {operation!r}; choose one of {OPERATIONS}.")
        return self._gateway.counts[operation]

    @property
    def rate_limit(self) -> RateLimit | None:
        """The limit in force. Setting one, starts it with a full bucket; None lifts it."""
        return self._rate_limit

    @rate_limit.setter
    def rate_limit(self, limit: RateLimit | None) -> None:
        with self._lock:
            self._rate_limit = limit
            self._gateway.limit(limit)

    @property
    def timing(self) -> Timing:
        """How long jobs stay in their phases; setting it holds for what clients create and cancel later."""
        return self._service.timing

    @timing.setter
    def timing(self, timing: Timing) -> None:
        with self._lock:
            self._service.timing = timing

    @property
    def ends_as(self) -> str | None:
        """Where jobs end that clients create from good files from now on; None for COMPLETED."""
        return self._service.ends_as

    @ends_as.setter
    def ends_as(self, status: str | None) -> None:
        with self._lock:
            self._service.ends_as = status

    def fail(self, fault: Fault) -> None:
        """Plan a fault, after those already planned."""
        with self._lock:
            self._gateway.faults.add(fault)

    def clear_faults(self) -> None:
        """Forget every fault that is still to come."""
        with self._lock:
            self._gateway.faults.clear()


def _loopback(host: str) -> str:
    if host == "localhost":
        return "127.0.0.1"  # the name may stand for two addresses, and two sockets would get two ports
    try:
        if ipaddress.ip_address(host).is_loopback:
            return host
    except ValueError:
        pass
    raise ValueError(f"The emulator listens on loopback addresses only, not on {host!r}.")
