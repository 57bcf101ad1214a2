"""Fixtures for every test: an empty environment, an emulator with a known key, a fix for aioresponses."""

from __future__ import annotations

import asyncio
import os
import pkgutil
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import warnings
from contextlib import contextmanager, suppress
from importlib import import_module
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import aioresponses.core
import pytest
from aiohttp import ClientResponse
from coverage import Coverage
from coverage.exceptions import CoverageWarning
from hypothesis import settings
from wires import KEY

import together_batches
from together_batches._http import sockets
from together_batches.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterator
    from contextlib import AbstractContextManager

_ROOT = Path(__file__).parents[1]
WARM = Path(__file__).with_name("warm.py")
_UNMEASURED = {"contracts", "process"}

# No deadline: a busy machine is not a failure. Fewer examples than Hypothesis's 100: every run draws others.
settings.register_profile("suite", deadline=None, max_examples=50, print_blob=True)
settings.register_profile("thorough", settings.get_profile("suite"), max_examples=1_000)
settings.load_profile("suite")


def _without_stacks(_loop: asyncio.AbstractEventLoop) -> bool:
    """Return the value of ``loop.get_debug()``, which decides if each future and handle keeps its creation stack.

    The tests use debug mode to check that a loop is used from its own thread only, and that check does not call this
    method. The stacks make a test take three times as long.
    """
    return False


def pytest_configure(config: pytest.Config) -> None:
    """Disable what debug loops do for developers, and restore the signals that a shell disables in background jobs.

    Child processes import the package from this tree too, because it need not be installed.
    """
    if (measuring := Coverage.current()) and config.pluginmanager.has_plugin("dsession"):
        measuring.stop()  # the tests run in the workers of pytest-xdist
    if hasattr(config, "workerinput"):  # the workers of pytest-xdist are measured, and not what they start
        os.environ.pop("COVERAGE_PROCESS_CONFIG", None)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    asyncio.BaseEventLoop.get_debug = _without_stacks  # type: ignore[method-assign]
    asyncio.BaseEventLoop._check_callback = lambda *_: None  # type: ignore[attr-defined]  # types say it, at no cost
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Return the same id in every worker: no object address, and no bytes of compressed data."""
    if isinstance(val, bytes) and not val.isascii():
        return argname
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that coverage would only slow down.

    These are tests of files and of processes, and those of Hypothesis, which run what others cover for each example.
    """
    for item in items:
        if _UNMEASURED & {*item.path.relative_to(_ROOT).parts} or item.get_closest_marker("hypothesis"):
            item.add_marker("unmeasured")


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """Import the package with coverage, and then the tests without it."""
    measuring = Coverage.current()
    if measuring is None or session.config.pluginmanager.has_plugin("dsession"):  # its workers collect the tests
        return (yield)
    for module in pkgutil.walk_packages(together_batches.__path__, "together_batches."):
        if module.name != "together_batches.__main__":  # which runs the command
            with suppress(ImportError):  # of an optional library that is not installed
                import_module(module.name)
    with _paused(measuring):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Switch coverage off for tests marked ``unmeasured``."""
    measuring = Coverage.current()
    if measuring is None or not item.get_closest_marker("unmeasured"):
        return (yield)
    with _paused(measuring):
        return (yield)


@contextmanager
def _paused(measuring: Coverage) -> Generator[None]:
    measuring.stop()
    try:
        yield
    finally:
        # Without pytest-xdist it would warn that the package is imported already.
        with warnings.catch_warnings(action="ignore", category=CoverageWarning):
            measuring.start()


class _RecordedSocket(sockets.PatientSocket):
    """A socket of a client, which the test that opened it must have closed by its end."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        _sockets.append(self)


_sockets: list[_RecordedSocket] = []
sockets.PatientSocket = _RecordedSocket  # type: ignore[misc]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Generator[None, object, object]:
    """Fail a test that leaves a socket of a client open, also if the collector closes it in a later test."""
    result = yield
    still_open = [each for each in _sockets if each.fileno() != -1]
    _sockets.clear()
    assert not still_open
    return result


@pytest.fixture
def client_sockets() -> list[_RecordedSocket]:
    """The sockets that clients have opened since the test began."""
    return _sockets


_numbers = count()


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Hide the keys, proxies, settings and labels of this machine from every test."""
    # Not tmp_path, which would make a directory for each test.
    home = str(tmp_path_factory.getbasetemp() / f"home-{next(_numbers)}")
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, home)
    for name in list(os.environ):
        if name.startswith("TOGETHER_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    """A running emulator that accepts :data:`wires.KEY` and no other key."""
    async with Emulator(api_key=KEY) as running:
        yield running


@pytest.fixture(scope="session")
def warm_python() -> Iterator[list[str]]:
    """The command of a Python that has imported the package, of which tests start many processes (``warm.py``)."""
    with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX) as listener:
        address = str(Path(directory, "socket"))
        listener.bind(address)
        listener.listen()
        command = [sys.executable, str(WARM), str(listener.fileno())]
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
        server = subprocess.Popen(command, pass_fds=[listener.fileno()], start_new_session=True, **streams)
        yield [sys.executable, "-IS", str(WARM), address]
        os.killpg(server.pid, signal.SIGKILL)  # with those of its processes that a failed test has left
        server.wait()


@pytest.fixture
def aioresponses_for_aiohttp_3_14(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give aioresponses 0.7.9 the ``stream_writer`` that aiohttp requires for each response since 3.14.

    Delete this once a release closes https://github.com/pnuckowski/aioresponses/issues/289.
    """

    class Response(ClientResponse):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, stream_writer=SimpleNamespace(output_size=0), **kwargs)

    monkeypatch.setattr(aioresponses.core, "ClientResponse", Response)


@pytest.fixture
def answers(aioresponses_for_aiohttp_3_14: None) -> Iterator[aioresponses.core.aioresponses]:
    """Canned responses for requests that are never sent: only for the shape of requests and sequences of replies.

    No sockets are involved, so it cannot test redirects, time limits or broken connections.
    """
    with aioresponses.core.aioresponses() as canned:
        yield canned


@pytest.fixture
def as_nobody() -> Callable[[], AbstractContextManager[None]]:
    """Return a context without the permissions of root, which include everything."""
    return _as_nobody


@contextmanager
def _as_nobody() -> Generator[None]:
    if os.geteuid() != 0:
        yield
        return
    with TemporaryDirectory(prefix="together_batches-test-") as scratch, pytest.MonkeyPatch.context() as patch:
        Path(scratch).chmod(0o777)  # the usual one may be of root alone
        patch.setattr(tempfile, "tempdir", scratch)
        os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(0)


@pytest.fixture
def sealed() -> Generator[Path]:
    """Return a directory that other users can reach, to be filled and perhaps made read-only."""
    path = Path(tempfile.mkdtemp(prefix="together_batches-test-"))
    path.chmod(0o755)
    yield path
    path.chmod(0o755)
    shutil.rmtree(path)
