"""Whole programs that use the clients: Ctrl-C during a call, a client that is never closed, a fork.

Each script runs in an interpreter of its own against an emulator in this one. It prints what happened, and must
print nothing on stderr.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from wires import KEY

from together_batches.emulator import Emulator, Fault

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]

posix = pytest.mark.skipif(sys.platform == "win32", reason="uses POSIX signals or fork")

PRELUDE = """
import asyncio, logging, os, signal, sys, time
from together_batches import AsyncBatches, Batches, CancelResult, UsageError


def say(*words):
    print(*words, flush=True)


struck_at = []


def noting_when(handler):
    def strike(number, frame):
        struck_at.append(time.monotonic())
        handler(number, frame)

    return strike


def say_how_it_ended():
    passed = time.monotonic() - struck_at[0]
    say("interrupted", "at once" if passed < 5 else f"after {passed} s")  # it takes less than 1 s if no CPU is busy


logging.getLogger("asyncio").setLevel(logging.ERROR)  # in dev mode it warns of a machine that is slow
signal.signal(signal.SIGINT, noting_when(signal.default_int_handler))
many = [f"job-{number}" for number in range(10_000)]
"""


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with Emulator(api_key=KEY).running_in_thread() as running:
        yield running


def start(emulator: Emulator, script: str, *options: str) -> subprocess.Popen[str]:
    ignored = ("PYTHONWARNINGS", "PYTHONASYNCIODEBUG", "PYTHONDEVMODE")
    environment = {name: value for name, value in os.environ.items() if name not in ignored}
    return subprocess.Popen(
        [sys.executable, *options, "-c", PRELUDE + textwrap.dedent(script)],
        cwd=ROOT,
        env={**environment, "TOGETHER_API_KEY": KEY, "TOGETHER_BASE_URL": emulator.base_url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process: subprocess.Popen[str], *, code: int = 0) -> list[str]:
    with process:
        try:
            said, complained = process.communicate(timeout=20)
        finally:
            process.kill()
    assert (process.returncode, complained) == (code, ""), said
    return said.splitlines()


def run(emulator: Emulator, script: str, *options: str) -> list[str]:
    return end(start(emulator, script, *options))


def interrupted(emulator: Emulator, script: str, *options: str, code: int = 0) -> list[str]:
    """Interrupt the program while a hundred of its cancels are in flight, at a service that takes a minute."""
    emulator.fail(Fault(on="cancel", delay=60, status=503, times=None))
    process = start(emulator, script, *options)
    limit = time.monotonic() + 15
    while emulator.count("cancel") < 100 and process.poll() is None and time.monotonic() < limit:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    return end(process, code=code)


DEVELOPING = ("-X", "dev", "-W", "error")
FORKING = ("-W", "ignore:This process:DeprecationWarning")  # Python 3.12 warns about any fork beside a thread


# --- Ctrl-C ---------------------------------------------------------------------------------------------------


@posix
@pytest.mark.parametrize("options", [(), DEVELOPING], ids=["plain", "dev mode"])
def test_ctrl_c_in_a_sync_bulk_of_ten_thousand(emulator: Emulator, options: tuple[str, ...]) -> None:
    """Ctrl-C returns in under a second with nothing but ``KeyboardInterrupt``; the client can still be used."""
    lines = interrupted(
        emulator,
        """
        with Batches() as batches:
            try:
                batches.cancel_many(many)
            except KeyboardInterrupt:
                say_how_it_ended()
            say(len(batches.list()))
        """,
        *options,
    )
    assert lines == ["interrupted at once", "0"]
    assert emulator.count("cancel") == 100


@posix
def test_ctrl_c_that_nobody_catches_ends_the_program(emulator: Emulator) -> None:
    """An uncaught Ctrl-C ends the program by SIGINT, with its own traceback and no other."""
    lines = interrupted(
        emulator,
        """
        sys.excepthook = lambda kind, error, trace: (say(kind.__name__), say_how_it_ended())
        with Batches() as batches:
            batches.cancel_many(many)
        """,
        code=-signal.SIGINT,
    )
    assert lines == ["KeyboardInterrupt", "interrupted at once"]


@posix
def test_ctrl_c_in_a_sync_iteration(emulator: Emulator) -> None:
    """Ctrl-C during an iteration over outcomes returns in under a second, and the client can still be used."""
    lines = interrupted(
        emulator,
        """
        with Batches() as batches:
            try:
                with batches.iter_cancel(many) as outcomes:
                    for outcome in outcomes:
                        say(outcome)
            except KeyboardInterrupt:
                say_how_it_ended()
        """,
        *DEVELOPING,
    )
    assert lines == ["interrupted at once"]


@posix
@pytest.mark.parametrize("way", ["cancel_many", "iter_cancel"])
def test_ctrl_c_in_async_code(emulator: Emulator, way: str) -> None:
    """``asyncio.run`` cancels the main task, and nothing that remains prints an error.

    It does so with a handler of its own, which replaces Python's and no other.
    """
    call = {
        "cancel_many": "await batches.cancel_many(many)",
        "iter_cancel": "print([outcome async for outcome in batches.iter_cancel(many)])",
    }
    lines = interrupted(
        emulator,
        f"""
        async def main():
            signal.signal(signal.SIGINT, noting_when(signal.getsignal(signal.SIGINT)))
            async with AsyncBatches() as batches:
                {call[way]}

        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            asyncio.run(main())
        except KeyboardInterrupt:
            say_how_it_ended()
        """,
        *DEVELOPING,
    )
    assert lines == ["interrupted at once"]


# --- the end of a program -------------------------------------------------------------------------------------


def test_a_plain_script(emulator: Emulator) -> None:
    """A plain script causes no warning of any kind, with all of them enabled."""
    ids = [emulator.add_job() for _ in range(50)]
    lines = run(
        emulator,
        f"""
        with Batches() as batches:
            say(batches.cancel_many({ids!r}))
            say(sum(1 for _ in batches.iter_cancel({ids!r})))
        """,
        *DEVELOPING,
    )
    assert lines == ["50 canceling", "50"]


@pytest.mark.parametrize("kept", ["global", "local", "in a cycle", "with an iterator half way"])
def test_a_forgotten_client_does_not_keep_the_program(emulator: Emulator, kept: str) -> None:
    """A program with a client that was never closed ends silently."""
    emulator.add_job(id="job-1")
    scripts = {
        "global": "batches = Batches(); batches.list()",
        "local": "(lambda: Batches().list())()",
        "in a cycle": "held = [Batches()]; held.append(held); held[0].list(); del held",
        "with an iterator half way": "batches = Batches(); it = batches.iter_cancel(['job-1'] * 9); next(it)",
    }
    assert run(emulator, f"{scripts[kept]}\nsay('the end')") == ["the end"]


def test_a_forgotten_async_client_does_not_keep_the_program(emulator: Emulator) -> None:
    """A program with an async client that was never closed ends; aiohttp warns, as for any session."""
    process = start(
        emulator,
        """
        async def main():
            say(await AsyncBatches().list())

        asyncio.run(main())
        """,
    )
    said, complained = process.communicate(timeout=20)
    assert (process.returncode, said) == (0, "[]\n")
    assert KEY not in complained


def test_a_client_that_is_closed_after_its_loop(emulator: Emulator) -> None:
    """A client may be closed although the loop of its connections is closed already."""
    lines = run(
        emulator,
        """
        batches = AsyncBatches()
        say(asyncio.run(batches.list()))
        asyncio.run(batches.close())
        asyncio.run(batches.close())
        say("closed")
        """,
    )
    assert lines == ["[]", "closed"]


def test_a_program_that_ends_while_a_thread_downloads(emulator: Emulator, tmp_path: Path) -> None:
    """The end of the interpreter, which starts no more threads, leaves no incomplete file."""
    emulator.fail(Fault(on="content", drip=0.002, times=None))
    file_id = emulator.add_file(b"x" * 1_000_000)
    lines = run(
        emulator,
        f"""
        import threading

        folder = {str(tmp_path)!r}
        batches = Batches()

        def download():
            try:
                batches.files.download({file_id!r}, os.path.join(folder, "out"))
            except BaseException:
                pass

        threading.Thread(target=download, daemon=True).start()
        while not os.listdir(folder):
            time.sleep(0.005)
        say("the end")
        """,
    )
    assert lines == ["the end"]
    assert list(tmp_path.iterdir()) == []


# --- fork -----------------------------------------------------------------------------------------------------


@posix
def test_a_client_in_a_forked_child_says_so(emulator: Emulator) -> None:
    """Each verb of a parent's client fails at once in a forked child; a new one works, and so does the parent's."""
    lines = run(
        emulator,
        """
        batches = Batches()
        batches.list()
        child = os.fork()
        if not child:
            for call in (batches.list, lambda: batches.cancel_many(many), lambda: next(batches.iter_cancel(many))):
                try:
                    call()
                except UsageError as error:
                    say(error)
            batches.close()
            with Batches() as own:
                say("child", own.list())
            sys.exit()
        os.waitpid(child, 0)
        say("parent", batches.list())
        batches.close()
        """,
        *FORKING,
    )
    message = "this client belongs to another process, and a fork does not copy its thread: make a new one here"
    assert lines == [message, message, message, "child []", "parent []"]
    assert emulator.count("cancel") == 0


@posix
@pytest.mark.parametrize("where", ["beside the loop", "within the loop"])
def test_an_async_client_in_a_forked_child_says_so(emulator: Emulator, where: str) -> None:
    """A client fails in the child, whether it runs a loop of its own or the fork happened within a coroutine."""
    scripts = {
        "beside the loop": """
        with asyncio.Runner() as runner:
            runner.run(batches.list())
            if not os.fork():
                asyncio.run(look())
                os._exit(0)
            os.wait()
            say("parent", runner.run(batches.list()))
            runner.run(batches.close())
        """,
        "within the loop": """
        async def use():
            await batches.list()
            if not os.fork():
                await look()
                os._exit(0)
            os.wait()
            say("parent", await batches.list())
            await batches.close()

        asyncio.run(use())
        """,
    }
    lines = run(
        emulator,
        """
        batches = AsyncBatches()

        async def look():
            for call in (batches.list, lambda: batches.cancel_many(many)):
                try:
                    await call()
                except UsageError as error:
                    say(error)
            await batches.close()
        """
        + scripts[where],
        *FORKING,
    )
    message = "this client was made in another process; make a new one after a fork"
    assert lines == [message, message, "parent []"]
