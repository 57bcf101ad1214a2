"""The loop thread in a whole process: Ctrl-C, clients that are never closed, exit and fork.

Each script runs in an interpreter of its own, under a time limit; it prints what happened.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

posix = pytest.mark.skipif(sys.platform == "win32", reason="uses POSIX signals or fork")

PRELUDE = """
import asyncio, contextlib, os, random, signal, sys, threading, time
from together_batches._loop_thread import LoopThread
from together_batches.errors import UsageError

signal.signal(signal.SIGINT, signal.default_int_handler)  # the process that started this one may ignore it


def say(*words):
    print(*words, flush=True)


def interrupt_main(after=0.0):
    threading.Timer(after, os.kill, (os.getpid(), signal.SIGINT)).start()


@contextlib.asynccontextmanager
async def resource():
    try:
        yield
    finally:
        await asyncio.sleep(0)
        say("left")


async def nothing():
    return "something"


async def work(first=lambda: None):
    try:
        first()
        await asyncio.sleep(30)
    except asyncio.CancelledError:
        say("cancelled")
        await asyncio.sleep(0.05)
        say("cleaned up")
        raise
    say("ran on")
"""


def run(script: str, *options: str, code: int = 0, traced: bool = True) -> list[str]:
    """Run the script as `python script.py` would, and return its lines; it must print nothing on stderr.

    ``traced=False`` disables coverage, which works in callbacks, where an interrupt is lost.
    """
    ignored = ("PYTHONWARNINGS", "PYTHONASYNCIODEBUG", "PYTHONDEVMODE") + (() if traced else ("COVERAGE",))
    done = subprocess.run(
        [sys.executable, *options, "-c", PRELUDE + textwrap.dedent(script)],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith(ignored)},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, done.stderr) == (code, ""), done.stdout
    return done.stdout.splitlines()


@posix
def test_ctrl_c_during_a_call() -> None:
    """The coroutine is cancelled and cleans up, then the caller is interrupted, all within a second."""
    lines = run(
        """
        times = []
        thread = LoopThread(resource)
        try:
            thread.call(work, lambda: (times.append(time.monotonic()), interrupt_main()))
        except KeyboardInterrupt:
            say("interrupted", "promptly" if time.monotonic() - times[0] < 1 else time.monotonic() - times[0])
        say(thread.call(nothing))
        thread.close()
    """
    )
    assert lines == ["cancelled", "cleaned up", "interrupted promptly", "something", "left"]


@posix
def test_ctrl_c_that_nobody_catches_ends_the_program() -> None:
    """A program interrupted during a call dies of SIGINT, with its own traceback and nothing else."""
    lines = run(
        """
        def excepthook(kind, error, trace):
            say(kind.__name__)

        sys.excepthook = excepthook
        thread = LoopThread(resource)
        thread.call(work, interrupt_main)
    """,
        code=-2,
    )
    assert lines == ["cancelled", "cleaned up", "KeyboardInterrupt", "left"]


@posix
def test_ctrl_c_at_any_moment_of_a_call() -> None:
    """An interrupt at any moment of a call leaves nothing running, and nothing hangs."""
    lines = run(
        """
        random.seed(7)
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        thread = LoopThread(resource)
        running = 0

        async def short():
            global running
            running += 1
            try:
                await asyncio.sleep(0.002)
                await asyncio.sleep(0)
            finally:
                running -= 1

        ran_on = late = 0
        for number in range(300):
            began = time.monotonic()
            try:
                # Every other one is aimed at the first moments, where most of the races are.
                signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-6, 0.0004 if number % 2 else 0.004))
                thread.call(short)
                while True:
                    time.sleep(1)
            except KeyboardInterrupt:
                ran_on += running
                late += time.monotonic() - began > 2
        say("ran on:", ran_on, "late:", late)
        say(thread.call(nothing))
        thread.close()
    """,
        traced=False,
    )
    assert lines == ["ran on: 0 late: 0", "something", "left"]


@posix
def test_ctrl_c_at_any_moment_of_an_iteration() -> None:
    """An interrupt at any moment of an iteration leaves nothing running, and nothing hangs."""
    lines = run(
        """
        random.seed(8)
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        thread = LoopThread(resource)
        running = 0

        async def endless():
            global running
            running += 1
            try:
                while True:
                    await asyncio.sleep(0)
                    yield 1
            finally:
                await asyncio.sleep(0)
                running -= 1

        late = 0
        for number in range(100):
            began = time.monotonic()
            try:
                signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-6, 0.003))
                for _ in thread.iterate(endless, limit=16):
                    pass
            except KeyboardInterrupt:
                late += time.monotonic() - began > 2
        limit = time.monotonic() + 10
        while running and time.monotonic() < limit:  # one struck in the loop's body is dropped, not waited for
            time.sleep(0.001)
        say("running:", running, "late:", late)
        thread.close()
    """,
        traced=False,
    )
    assert lines == ["running: 0 late: 0", "left"]


@posix
def test_ctrl_c_at_any_moment_of_the_start() -> None:
    """An interrupted constructor leaves no thread and no hanging process, and exits the context manager."""
    lines = run(
        """
        import gc, warnings
        warnings.simplefilter("ignore", ResourceWarning)
        random.seed(9)
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        entered = left = 0

        @contextlib.asynccontextmanager
        async def counted():
            global entered, left
            entered += 1
            try:
                await asyncio.sleep(0)
                yield
            finally:
                left += 1

        for number in range(100):
            thread = None
            try:
                signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-5, 0.001))
                thread = LoopThread(counted)
                while True:
                    time.sleep(1)
            except KeyboardInterrupt:
                pass
            except RuntimeError as error:  # one that strikes deep within Thread.start() breaks the lock there
                if not isinstance(error.__context__, KeyboardInterrupt):
                    raise
            if thread is not None:
                thread.close()
        del thread
        gc.collect()
        limit = time.monotonic() + 10
        while left < entered and time.monotonic() < limit:
            time.sleep(0.001)
        say(left == entered > 0)
    """,
        traced=False,
    )
    assert lines == ["True"]


@pytest.mark.parametrize(
    "script",
    [
        pytest.param("thread = LoopThread(resource)", id="in a global"),
        pytest.param(
            """
            class Holder:
                def __init__(self):
                    self.itself, self.thread = self, LoopThread(resource)

            Holder()
            """,
            id="in a cycle",
        ),
        pytest.param(
            """
            async def endless():
                while True:
                    await asyncio.sleep(0)
                    yield 1

            rows = LoopThread(resource).iterate(endless)
            next(rows)
            """,
            id="by an iterator",
        ),
        pytest.param(
            """
            async def to_thread():
                await asyncio.to_thread(time.sleep, 0)  # asyncio ends such threads by starting one, at exit in vain

            thread = LoopThread(resource)
            thread.call(to_thread)
            """,
            id="with an executor",
        ),
        pytest.param(
            """
            begun = threading.Event()

            async def long():
                begun.set()
                await asyncio.sleep(30)

            def call():
                try:
                    thread.call(long)
                except UsageError:
                    pass

            thread = LoopThread(resource)
            threading.Thread(target=call, daemon=True).start()
            begun.wait()
            """,
            id="in the middle of a call",
        ),
    ],
)
def test_a_forgotten_client_lets_the_interpreter_end(script: str) -> None:
    """A client that is never closed exits its context manager, prints nothing, and lets the program end."""
    assert run(textwrap.dedent(script)) == ["left"]


def test_a_collected_client_is_left_before_the_end_of_the_program() -> None:
    """A client that goes out of scope is closed at once."""
    assert run("LoopThread(resource)\nsay('next')") == ["left", "next"]


def test_a_forgotten_client_warns_those_who_asked_for_it() -> None:
    """Under -W always the ResourceWarning is shown, at exit too, and states what to do."""
    lines = run("sys.stderr = sys.stdout\nthread = LoopThread(resource)", "-W", "always::ResourceWarning")
    assert lines[0] == "left"
    assert "ResourceWarning: a client was forgotten without being closed" in lines[1]


def test_development_mode_has_nothing_to_say() -> None:
    """Under -X dev, with its warnings and asyncio's debug mode, a closed client causes no warning."""
    lines = run(
        """
        with contextlib.closing(LoopThread(resource)) as thread:
            say(thread.call(nothing))

            async def rows():
                yield 1

            say(*thread.iterate(rows))
        """,
        "-X",
        "dev",
    )
    assert lines == ["something", "1", "left"]


@posix
def test_a_forked_child() -> None:
    """In a forked child a call is refused at once, close() does nothing, and the child exits normally."""
    lines = run("""
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 on: a fork with threads may deadlock

        async def endless():
            while True:
                yield 1

        thread = LoopThread(resource)
        forgotten = LoopThread(resource)
        rows = thread.iterate(endless, limit=1)
        next(rows)
        thread.call(nothing)
        child = os.fork()
        if child == 0:
            for call in (lambda: thread.call(nothing), lambda: next(rows), lambda: thread.iterate(endless)):
                try:
                    call()
                except UsageError as error:
                    say(error)
            rows.close()
            thread.close()
            del forgotten
            with contextlib.closing(LoopThread(resource)) as fresh:
                say(fresh.call(nothing))
            sys.exit(3)
        say("child:", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        say("parent:", thread.call(nothing), next(rows))
        rows.close()
        thread.close()
        forgotten.close()
    """)
    refusal = "this client belongs to another process, and a fork does not copy its thread: make a new one here"
    assert lines == [
        *[refusal] * 3,
        *["something", "left"],  # a client made in the child
        "child: 3",
        "parent: something 1",
        *["left"] * 2,
    ]


@posix
def test_a_forked_child_that_merely_exits() -> None:
    """A child that never uses its copy of the client exits as if there were none."""
    lines = run("""
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        thread = LoopThread(resource)
        child = os.fork()
        if child == 0:
            sys.exit(3)
        say("child:", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """)
    assert lines == ["child: 3", "left"]


def test_a_client_may_be_closed_by_an_exit_function() -> None:
    """A close() registered with atexit runs in either order with our own exit function."""
    lines = run("""
        import atexit

        async def to_thread():
            await asyncio.to_thread(time.sleep, 0)

        atexit.register(lambda: say("early"))
        thread = LoopThread(resource)
        thread.call(to_thread)
        atexit.register(thread.close)
    """)
    assert lines == ["left", "early"]
