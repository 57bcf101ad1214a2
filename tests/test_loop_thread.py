"""An event loop in its own thread: the guarantees for callers of the synchronous client."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
import gc
import os
import signal
import sys
import threading
import time
import traceback
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from together_batches._loop_thread import LoopThread, _Loop
from together_batches.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

posix = pytest.mark.skipif(sys.platform == "win32", reason="sends itself a POSIX signal")


class Resource:
    """An async context manager that records where it was entered and left."""

    def __init__(self, enter: Exception | None = None, leave: Exception | None = None) -> None:
        self.errors = enter, leave
        self.entered: list[object] = []
        self.left: list[object] = []

    def where(self) -> object:
        return threading.get_ident(), asyncio.current_task()

    async def __aenter__(self) -> Resource:
        self.entered.append(self.where())
        if self.errors[0]:
            raise self.errors[0]
        return self

    async def __aexit__(self, kind: object, *_: object) -> None:
        assert kind is None
        await asyncio.sleep(0)
        self.left.append(self.where())
        if self.errors[1]:
            raise self.errors[1]


class Work:
    """A coroutine function that runs until it is cancelled, and whose clean-up takes a moment."""

    def __init__(self, when_running: Callable[[], object] = lambda: None) -> None:
        self.when_running = when_running
        self.running = threading.Event()
        self.cleaned_up = threading.Event()

    async def __call__(self) -> None:
        self.running.set()
        self.when_running()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            self.cleaned_up.set()


def eventually(condition: Callable[[], object], seconds: float = 10) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "this never came true"
        time.sleep(0.001)


def loop_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "together-batches"]


def outcome(func: Callable[[], object]) -> Any:
    try:
        return func()
    except BaseException as error:  # noqa: BLE001 - it is what the caller looks at
        return error


def in_thread(func: Callable[[], object]) -> concurrent.futures.Future[Any]:
    future: concurrent.futures.Future[Any] = concurrent.futures.Future()
    threading.Thread(target=lambda: future.set_result(outcome(func)), daemon=True).start()
    return future


async def echo(*args: object, **kwargs: object) -> tuple[object, ...]:
    return args, kwargs


def loop_of(thread: LoopThread[Any]) -> asyncio.AbstractEventLoop:
    async def running() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    return thread.call(running)


async def fail(error: BaseException) -> None:
    await asyncio.sleep(0)
    raise error


@pytest.fixture
def thread() -> Iterator[LoopThread[Resource]]:
    with contextlib.closing(LoopThread(Resource)) as thread:
        yield thread


@pytest.fixture
def interrupt(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Send Ctrl-C to this process, which may have been started with Ctrl-C ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield lambda: os.kill(os.getpid(), signal.SIGINT)
    signal.signal(signal.SIGINT, before)


class TestStartAndEnd:
    def test_the_context_manager_lives_in_one_task_of_another_thread(self) -> None:
        """The context manager is entered and left by the same task, in a thread that is not the caller's."""
        thread = LoopThread(Resource)
        thread.close()
        assert thread.value.entered == thread.value.left
        assert thread.value.entered != []
        assert thread.value.entered[0][0] != threading.get_ident()  # type: ignore[index]

    def test_closing_again_is_harmless(self) -> None:
        """close() leaves the context manager once, however often it is called."""
        thread = LoopThread(Resource)
        thread.close()
        thread.close()
        assert len(thread.value.left) == 1

    def test_no_thread_is_left(self) -> None:
        """Fifty clients made and closed leave nothing behind."""
        before = threading.active_count()
        for _ in range(50):
            LoopThread(Resource).close()
        assert threading.active_count() == before

    @pytest.mark.parametrize("broken", ["make", "enter"])
    def test_what_goes_wrong_at_the_start_is_raised_by_the_constructor(self, broken: str) -> None:
        """An error of the factory or of entering is raised unchanged, and no thread remains."""

        def factory() -> Resource:
            if broken == "make":
                raise LookupError("nothing there")
            return Resource(enter=LookupError("nothing there"))

        with pytest.raises(LookupError, match="nothing there"):
            LoopThread(factory)
        assert loop_threads() == []

    def test_a_thread_that_cannot_have_a_loop_says_why(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """If the system provides no loop (too many open files), its own error is raised."""

        def no_loop() -> None:
            raise OSError(24, "Too many open files")

        monkeypatch.setattr(asyncio.events, "new_event_loop", no_loop)
        with pytest.raises(OSError, match="Too many open files"):
            LoopThread(Resource)
        assert loop_threads() == []

    def test_what_goes_wrong_at_the_end_is_raised_by_close(self) -> None:
        """An error of leaving is raised once, by the first close()."""
        thread = LoopThread(lambda: Resource(leave=LookupError("too late")))
        with pytest.raises(LookupError, match="too late"):
            thread.close()
        thread.close()

    def test_a_forgotten_client_is_closed_and_complained_about(self) -> None:
        """Collection of a client leaves the context manager, ends the thread, and warns."""
        thread = LoopThread(Resource)
        resource = thread.value
        with pytest.warns(ResourceWarning, match="forgotten without being closed"):
            del thread
        assert len(resource.left) == 1
        assert loop_threads() == []

    def test_a_client_forgotten_in_a_cycle_is_closed_by_the_collector(self) -> None:
        """A reference from the factory to the client does not keep the client alive."""

        class Client:
            def __init__(self) -> None:
                self.thread = LoopThread(self.make)
                self.itself = self

            def make(self) -> Resource:
                return Resource()

        client = Client()
        gone = weakref.ref(client)
        del client
        with pytest.warns(ResourceWarning):
            gc.collect()
        assert gone() is None
        assert loop_threads() == []

    def test_collection_on_the_loop_itself_does_not_wait_for_the_loop(self) -> None:
        """The collector may run in any thread; on the loop's own it starts the end without waiting for it."""
        holder = [LoopThread(Resource)]
        resource, loop = holder[0].value, loop_of(holder[0])
        begun = time.monotonic()
        with pytest.warns(ResourceWarning):  # noqa: PT031 - it comes from the other thread
            loop.call_soon_threadsafe(holder.clear)
            eventually(lambda: resource.left and not loop_threads())
        assert time.monotonic() - begun < 4

    @posix
    def test_ctrl_c_in_the_constructor_leaves_no_thread(self, interrupt: Callable[[], None]) -> None:
        """An interrupt while the context manager is being entered cancels the entering, and no thread remains."""
        work = Work(interrupt)

        @contextlib.asynccontextmanager
        async def slow() -> AsyncIterator[None]:
            await work()
            yield

        with pytest.raises(KeyboardInterrupt):
            LoopThread(slow)
        assert work.cleaned_up.is_set()
        assert loop_threads() == []

    @posix
    def test_ctrl_c_before_there_is_a_loop_leaves_no_thread(
        self, interrupt: Callable[[], None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An interrupt before the loop exists is handled by the loop once it starts."""
        interrupted = threading.Event()
        new_event_loop = asyncio.events.new_event_loop
        entered: list[Resource] = []

        def slow_loop() -> asyncio.AbstractEventLoop:
            interrupt()
            time.sleep(0.05)  # the interrupted constructor already waits for the end
            interrupted.set()
            return new_event_loop()

        def factory() -> Resource:
            entered.append(Resource())
            return entered[0]

        monkeypatch.setattr(asyncio.events, "new_event_loop", slow_loop)
        with pytest.raises(KeyboardInterrupt):
            LoopThread(factory)
        assert interrupted.is_set()
        assert entered == []
        assert loop_threads() == []


class TestCall:
    def test_arguments_go_in_and_the_result_comes_back(self, thread: LoopThread[Resource]) -> None:
        """Positional and keyword arguments reach the coroutine unchanged, and its result is returned."""
        assert thread.call(echo, 1, two=2) == ((1,), {"two": 2})

    def test_context_variables_go_in(self, thread: LoopThread[Resource]) -> None:
        """A call runs in a copy of the caller's context at the time of the call."""
        variable = contextvars.ContextVar("variable", default="outside")

        async def read_and_set() -> str:
            seen = variable.get()
            variable.set("changed in there")
            return seen

        assert thread.call(read_and_set) == "outside"
        variable.set("now")
        assert thread.call(read_and_set) == "now"
        assert variable.get() == "now"

    def test_an_exception_comes_with_type_cause_and_a_short_traceback(self, thread: LoopThread[Resource]) -> None:
        """An exception has its type and cause, and two frames of the package between the caller and the coroutine."""
        error = LookupError("not here")
        error.__cause__ = ValueError("the reason")
        with pytest.raises(LookupError) as caught:
            thread.call(fail, error)
        assert caught.value is error
        assert isinstance(error.__cause__, ValueError)
        frames = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
        assert frames[1:] == ["call", "_open", "fail"]

    def test_an_exception_is_gone_when_the_caller_lets_go_of_it(self, thread: LoopThread[Resource]) -> None:
        """No reference cycle keeps an error and its frames alive once the caller drops it."""

        class Special(Exception):  # noqa: N818 - a stand-in
            pass

        async def call() -> None:
            raise Special

        async def rows() -> AsyncIterator[int]:
            yield 1
            raise Special

        gc.disable()
        try:
            try:
                thread.call(call)
            except Special as error:
                gone = weakref.ref(error)
            eventually(lambda: gone() is None)
            iterator = thread.iterate(rows)
            try:
                list(iterator)
            except Special as error:
                gone = weakref.ref(error)
            eventually(lambda: gone() is None)
        finally:
            gc.enable()

    @pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
    def test_the_loop_survives_what_a_coroutine_raises(
        self, thread: LoopThread[Resource], kind: type[BaseException]
    ) -> None:
        """An exception that ends programs is raised to the caller, and the loop survives it."""
        with pytest.raises(kind):
            thread.call(fail, kind())
        assert thread.call(echo) == ((), {})

    @pytest.mark.parametrize("kind", [asyncio.CancelledError, concurrent.futures.CancelledError])
    def test_a_cancellation_from_within_is_put_in_words(
        self, thread: LoopThread[Resource], kind: type[BaseException]
    ) -> None:
        """A cancellation inside a coroutine is not raised as a bare CancelledError, of which two classes exist."""
        with pytest.raises(UsageError, match="cancelled on the client's own loop"):
            thread.call(fail, kind())

    def test_several_threads_call_at_once(self, thread: LoopThread[Resource]) -> None:
        """Calls of different threads run concurrently: each of these ends only when all have begun."""
        barrier = asyncio.Barrier(8)

        async def meet(number: int) -> int:
            await barrier.wait()
            return number

        calls = [in_thread(lambda number=number: thread.call(meet, number)) for number in range(8)]  # type: ignore[misc]
        assert [call.result(10) for call in calls] == list(range(8))

    async def test_a_thread_with_a_running_loop_may_call(self) -> None:
        """A thread with a running loop, such as a notebook's, may call; its loop is blocked meanwhile."""
        with contextlib.closing(LoopThread(Resource)) as thread:
            assert thread.call(echo, "here") == (("here",), {})
            assert list(thread.iterate(lambda: items(3))) == [0, 1, 2]

    def test_the_loop_itself_may_not_call(self, thread: LoopThread[Resource]) -> None:
        """A call from the loop's own thread is refused, because it would wait for itself."""

        async def again() -> object:
            return thread.call(echo)

        with pytest.raises(UsageError, match="called from its own loop"):
            thread.call(again)

    def test_a_closed_client_says_so(self) -> None:
        """After close() no call or iteration begins, and one that had begun does not continue."""
        thread = LoopThread(Resource)
        rows = thread.iterate(lambda: items(1000), limit=2)
        assert next(rows) == 0
        thread.close()
        for refused in (lambda: thread.call(echo), lambda: thread.iterate(lambda: items(1)), lambda: list(rows)):
            with pytest.raises(UsageError, match="this client is closed"):
                refused()

    def test_closing_during_a_call_ends_the_call(self) -> None:
        """A call in another thread fails because the client was closed, after its clean-up has finished."""
        thread = LoopThread(Resource)
        work = Work()
        call = in_thread(lambda: thread.call(work))
        assert work.running.wait(10)
        thread.close()
        assert work.cleaned_up.is_set()
        assert len(thread.value.left) == 1
        error = call.result(10)
        assert isinstance(error, UsageError)
        assert "closed" in str(error)

    @pytest.mark.parametrize("moment", ["while the loop stops", "after it has stopped"])
    def test_a_call_that_meets_the_end_is_answered(self, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
        """A call made just before the end that reaches the loop too late gets the error of a closed client."""
        thread = LoopThread(Resource)
        loop = loop_of(thread)
        schedule = loop.call_soon_threadsafe
        running, made, go_on = threading.Event(), threading.Event(), threading.Event()

        async def last_minute() -> None:
            running.set()
            try:
                await asyncio.Event().wait()
            finally:
                if moment == "while the loop stops":
                    go_on.set()
                    while not late.done():  # noqa: ASYNC110 - another thread ends it
                        await asyncio.sleep(0.001)

        def held_up(*args: Any, **kwargs: Any) -> asyncio.Handle:
            if threading.current_thread() is not threading.main_thread():
                made.set()
                assert go_on.wait(10)
            return schedule(*args, **kwargs)

        call = in_thread(lambda: thread.call(last_minute))
        assert running.wait(10)
        monkeypatch.setattr(loop, "call_soon_threadsafe", held_up)
        late = in_thread(lambda: thread.call(echo))
        assert made.wait(10)
        thread.close()
        go_on.set()
        errors = [call.result(10), late.result(10)]
        assert [(type(error), str(error)) for error in errors] == [
            (UsageError, "this client is closed: make a new one")
        ] * 2

    def test_work_that_cancels_everything_closes_the_client(self) -> None:
        """If a coroutine cancels all tasks of the loop, the client closes in order and says that it is closed."""
        thread = LoopThread(Resource)

        async def cancel_all() -> None:
            for task in asyncio.all_tasks():
                task.cancel()
            await asyncio.sleep(0)

        with pytest.raises(UsageError):
            thread.call(cancel_all)
        eventually(lambda: len(thread.value.left) == 1)
        with pytest.raises(UsageError, match="this client is closed"):
            thread.call(echo)
        thread.close()

    def test_the_cost_of_a_call(
        self, thread: LoopThread[Resource], record_property: Callable[[str, object], None]
    ) -> None:
        """The cost of a call is printed, not asserted: it is that of waking a thread, and varies with the machine."""
        costs = []
        for _ in range(300):
            begun = time.perf_counter()
            thread.call(echo)
            costs.append(time.perf_counter() - begun)
        median = sorted(costs)[len(costs) // 2] * 1e6
        record_property("microseconds per call", median)
        print(f"a call costs {median:.0f} microseconds (median of {len(costs)})")


@posix
class TestCtrlC:
    def test_the_work_is_cancelled_and_cleaned_up_first(
        self, thread: LoopThread[Resource], interrupt: Callable[[], None]
    ) -> None:
        """KeyboardInterrupt is raised when the coroutine has finished its clean-up, and the client remains usable."""
        work = Work(interrupt)
        with pytest.raises(KeyboardInterrupt):
            thread.call(work)
        assert work.cleaned_up.is_set()
        assert thread.call(echo) == ((), {})

    def test_a_second_one_does_not_wait(self, thread: LoopThread[Resource], interrupt: Callable[[], None]) -> None:
        """A second interrupt returns at once, without waiting for the clean-up."""
        cleaning_up = asyncio.Event()
        done = threading.Event()

        async def stubborn() -> None:
            interrupt()
            try:
                await asyncio.Event().wait()
            finally:
                interrupt()
                await cleaning_up.wait()
                done.set()

        begun = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            thread.call(stubborn)
        assert time.monotonic() - begun < 4
        assert not done.is_set()
        loop_of(thread).call_soon_threadsafe(cleaning_up.set)
        assert done.wait(10)

    def test_work_that_will_not_end_is_not_waited_for_for_ever(
        self, thread: LoopThread[Resource], interrupt: Callable[[], None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A coroutine that swallows its cancellation delays the caller for a limited time only."""
        monkeypatch.setattr("together_batches._loop_thread._PATIENCE", 0.01)
        enough = asyncio.Event()
        done = threading.Event()

        async def deaf() -> None:
            interrupt()
            while not enough.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await enough.wait()
            done.set()

        with pytest.raises(KeyboardInterrupt):
            thread.call(deaf)
        assert not done.is_set()
        loop_of(thread).call_soon_threadsafe(enough.set)
        assert done.wait(10)

    @pytest.mark.parametrize("moment", ["before the start is posted", "after the answer is taken"])
    def test_the_odd_moments(
        self, thread: LoopThread[Resource], monkeypatch: pytest.MonkeyPatch, moment: str
    ) -> None:
        """An interrupt at either edge of the wait finds nothing to cancel, and does not wait for an end."""
        loop = loop_of(thread)
        schedule, take = loop.call_soon_threadsafe, _Loop.take
        scheduled: list[object] = []

        def early(*args: Any, **kwargs: Any) -> asyncio.Handle:
            scheduled.append(args)
            if len(scheduled) == 1:
                raise KeyboardInterrupt
            return schedule(*args, **kwargs)

        def late(*args: Any) -> Any:
            take(*args)
            raise KeyboardInterrupt

        if moment.startswith("before"):
            monkeypatch.setattr(loop, "call_soon_threadsafe", early)
        else:
            monkeypatch.setattr(_Loop, "take", late)
        begun = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            thread.call(echo)
        assert time.monotonic() - begun < 2

    def test_a_page_in_the_hand_is_no_way_out(
        self, thread: LoopThread[Resource], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An interrupt between taking a page and storing it ends the iteration, so that the page is not skipped."""

        def interrupted(answer: object) -> None:
            raise KeyboardInterrupt

        work = Work()

        async def slow() -> AsyncIterator[int]:
            yield 1
            await work()

        rows = thread.iterate(slow)
        monkeypatch.setattr("together_batches._loop_thread._open", interrupted)
        with pytest.raises(KeyboardInterrupt):
            next(rows)
        assert work.cleaned_up.is_set()
        assert list(rows) == []

    def test_it_ends_an_iteration(self, thread: LoopThread[Resource], interrupt: Callable[[], None]) -> None:
        """An interrupt while waiting for an item cancels the iterator, runs its clean-up and is raised."""
        work = Work(interrupt)

        async def slow() -> AsyncIterator[int]:
            await work()
            yield 1

        rows = thread.iterate(slow)
        with pytest.raises(KeyboardInterrupt):
            next(rows)
        assert work.cleaned_up.is_set()
        assert list(rows) == []


async def items(
    count: int, *, then: BaseException | None = None, made: list[int] | None = None
) -> AsyncIterator[int]:
    """Count without ever suspending, and record how far it got."""
    for number in range(count):
        if made is not None:
            made.append(number)
        yield number
    if then:
        raise then


class TestIterate:
    @pytest.mark.parametrize("limit", [1, 2, 256])
    def test_all_items_come_in_order(self, thread: LoopThread[Resource], limit: int) -> None:
        """All items of the async iterator are yielded in order, and then the iterator stays exhausted."""
        rows = thread.iterate(lambda: items(1000), limit=limit)
        assert iter(rows) is rows
        assert list(rows) == list(range(1000))
        assert list(rows) == []

    def test_an_item_does_not_wait_for_a_page_to_fill(self, thread: LoopThread[Resource]) -> None:
        """Each item is yielded as soon as it is made, although the next one is made only after that."""
        seen, loop = asyncio.Semaphore(1), loop_of(thread)

        async def one_by_one() -> AsyncIterator[int]:
            for number in range(5):
                await seen.acquire()
                yield number

        numbers = []
        for number in thread.iterate(one_by_one):
            numbers.append(number)
            loop.call_soon_threadsafe(seen.release)
        assert numbers == [0, 1, 2, 3, 4]

    def test_what_is_ready_crosses_in_one_hand_over(
        self, thread: LoopThread[Resource], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A thousand ready items take four hand-overs at the default limit, instead of a thousand."""
        loop = loop_of(thread)
        schedule = loop.call_soon_threadsafe
        requested: list[object] = []

        def counted(*args: Any, **kwargs: Any) -> asyncio.Handle:
            requested.append(args)
            return schedule(*args, **kwargs)

        rows = thread.iterate(lambda: items(1000))
        monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
        assert len(list(rows)) == 1000
        assert len(requested) == 5  # and once for the end

    def test_the_number_of_items_made_ahead_is_bounded(self, thread: LoopThread[Resource]) -> None:
        """An endless iterator that never suspends neither fills the memory nor blocks other calls."""
        made: list[int] = []
        rows = thread.iterate(lambda: items(10**9, made=made), limit=10)
        assert made == []
        assert next(rows) == 0
        assert thread.call(echo) == ((), {})
        assert len(made) <= 21
        assert [next(rows) for _ in range(100)] == list(range(1, 101))
        assert thread.call(echo) == ((), {})
        assert len(made) <= 121
        rows.close()

    def test_an_error_comes_after_the_items_before_it(self, thread: LoopThread[Resource]) -> None:
        """All items before an error are yielded, then the error is raised, and then the iterator is exhausted."""
        rows = thread.iterate(lambda: items(600, then=LookupError("row 600")))
        assert [next(rows) for _ in range(600)] == list(range(600))
        with pytest.raises(LookupError, match="row 600"):
            next(rows)
        assert list(rows) == []

    def test_what_goes_wrong_in_making_the_iterator_is_raised_at_once(self, thread: LoopThread[Resource]) -> None:
        """An error of making the iterator, such as a bad argument, is raised by the call, not the first item."""

        def make() -> AsyncIterator[int]:
            raise TypeError("a bare str is not a list of ids")

        with pytest.raises(TypeError, match="bare str"):
            thread.iterate(make)

    @pytest.mark.parametrize("way", ["with", "close", "break"])
    def test_leaving_early_stops_the_work(self, thread: LoopThread[Resource], way: str) -> None:
        """Leaving a block, or close(), waits for the clean-up; leaving a broken loop does not."""
        cleaned_up = threading.Event()

        async def endless() -> AsyncIterator[int]:
            try:
                while True:
                    yield 1
            finally:
                await asyncio.sleep(0.01)
                cleaned_up.set()

        if way == "with":
            with thread.iterate(endless) as rows:
                assert next(rows) == 1
            assert list(rows) == []
        elif way == "close":
            rows = thread.iterate(endless)
            assert next(rows) == 1
            rows.close()
            rows.close()
        else:
            for _ in thread.iterate(endless):
                break
            assert cleaned_up.wait(10)
        assert cleaned_up.is_set()

    def test_an_iteration_that_never_began_has_nothing_to_stop(self, thread: LoopThread[Resource]) -> None:
        """Closing an iteration before its first item runs nothing of the iterator."""
        made: list[int] = []
        rows = thread.iterate(lambda: items(3, made=made))
        rows.close()
        assert made == []

    def test_a_time_limit_around_a_yield_is_kept(self, thread: LoopThread[Resource]) -> None:
        """The whole iterator runs in one task, so that timeouts and cancel scopes around its yields work."""

        async def limited() -> AsyncIterator[object]:
            async with asyncio.timeout(0.02):
                yield asyncio.current_task()
                yield asyncio.current_task()
                await asyncio.Event().wait()

        rows = thread.iterate(limited)
        assert next(rows) is next(rows)
        with pytest.raises(TimeoutError):
            next(rows)

    def test_any_async_iterator_will_do(self, thread: LoopThread[Resource]) -> None:
        """Any object with ``__anext__`` is iterated, and closed if it has a method for that."""

        class Countdown:
            left = 3
            closed = False

            def __aiter__(self) -> Countdown:
                return self

            async def __anext__(self) -> int:
                if not self.left:
                    raise StopAsyncIteration
                self.left -= 1
                return self.left

        class Closing(Countdown):
            async def aclose(self) -> None:
                self.closed = True

        plain, closing = Countdown(), Closing()
        assert list(thread.iterate(lambda: plain)) == [2, 1, 0]
        assert list(thread.iterate(lambda: closing)) == [2, 1, 0]
        assert closing.closed

    def test_two_threads_iterate_at_once(self, thread: LoopThread[Resource]) -> None:
        """Two threads can iterate at once, each over its own iterator."""

        def total(step: int) -> int:
            return sum(thread.iterate(lambda: stepped(step)))

        async def stepped(step: int) -> AsyncIterator[int]:
            for number in range(500):
                if number % 7 == 0:
                    await asyncio.sleep(0)
                yield number * step

        totals = [in_thread(lambda step=step: total(step)) for step in (1, 2, 3)]  # type: ignore[misc]
        assert [done.result(10) for done in totals] == [124750, 249500, 374250]

    def test_two_threads_do_not_share_an_iterator(self, thread: LoopThread[Resource]) -> None:
        """A second thread is refused by a running iterator, like by a running generator, but may close it."""
        work = Work()

        async def slow() -> AsyncIterator[int]:
            await work()
            yield 1

        rows = thread.iterate(slow)
        waiting = in_thread(lambda: next(rows))
        assert work.running.wait(10)
        with pytest.raises(UsageError, match="another thread is waiting"):
            next(rows)
        rows.close()
        assert work.cleaned_up.is_set()
        assert isinstance(waiting.result(10), UsageError)

    def test_an_iterator_keeps_its_client(self) -> None:
        """An iterator keeps its client alive; the warning about an unclosed client appears once it is collected."""
        thread = LoopThread(Resource)
        rows = thread.iterate(lambda: items(1000), limit=2)
        del thread
        gc.collect()
        assert list(rows) == list(range(1000))
        with pytest.warns(ResourceWarning):
            del rows
        assert loop_threads() == []

    def test_an_iterator_closed_on_the_loop_itself_does_not_wait(self, thread: LoopThread[Resource]) -> None:
        """A callback on the loop may close an iterator without waiting, because it would wait for itself."""
        rows: Any = thread.iterate(lambda: items(1000), limit=2)
        assert next(rows) == 0

        async def close() -> None:
            rows.close()

        begun = time.monotonic()
        thread.call(close)
        assert time.monotonic() - begun < 4
        assert list(rows) == []


def test_pending_work_that_will_not_end_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The context manager is left, and close() returns, although a coroutine swallowed its cancellation."""
    monkeypatch.setattr("together_batches._loop_thread._PATIENCE", 0.2)
    thread = LoopThread(Resource)
    running = threading.Event()
    cancelled: list[object] = []

    async def deaf() -> None:
        running.set()
        while len(cancelled) < 2:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError as error:
                cancelled.append(type(error))

    call = in_thread(lambda: thread.call(deaf))
    assert running.wait(10)
    thread.close()
    assert len(thread.value.left) == 1
    eventually(call.done)
    eventually(lambda: not loop_threads())
