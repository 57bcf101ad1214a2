"""Tracebacks in IPython."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from wires import KEY

from together_batches import AsyncBatches, Batches, BatchesError, NotFoundError, RetryPolicy, Timeout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from together_batches.emulator import Emulator

ABSENT = "00000000-0000-0000-0000-000000000000"


def _frames(error: BatchesError) -> list[str]:
    """Return the functions whose frames IPython shows for an error, and the errors that it shows before it."""
    return [name for name, _ in _shown(error)]


def _files(error: BatchesError) -> list[str]:
    """Return the files of the frames that IPython shows for an error."""
    return [Path(file).name for _, file in _shown(error) if file]


def _shown(error: BatchesError) -> list[tuple[str, str]]:
    shown: list[tuple[str, str]] = []

    def structured_traceback(kind: object, value: BaseException, frames: Any) -> list[str]:
        assert kind is type(value)
        assert frames is value.__traceback__
        earlier = value.__cause__ or (None if value.__suppress_context__ else value.__context__)
        if earlier is not None:
            structured_traceback(type(earlier), earlier, earlier.__traceback__)
        shown.extend((frame.name, frame.filename) for frame in traceback.extract_tb(frames))
        shown.append((type(value).__name__, ""))
        return shown

    ipython = ModuleType("IPython")
    formatter = SimpleNamespace(structured_traceback=structured_traceback)
    vars(ipython)["get_ipython"] = lambda: SimpleNamespace(InteractiveTB=formatter)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "IPython", ipython)
        assert error._render_traceback_() is shown
    return shown


async def _error_of(call: Callable[[], Any]) -> BatchesError:
    with pytest.raises(BatchesError) as caught:
        await call()
    return caught.value


@pytest.fixture
async def batches(emulator: Emulator) -> Any:
    async with AsyncBatches(KEY, base_url=emulator.base_url, retry=RetryPolicy(max_attempts=1)) as client:
        yield client


async def test_the_users_line_and_one_of_ours(batches: AsyncBatches) -> None:
    """A refusal, which comes from many frames below, is shown at the call and in the method that was called."""

    async def cell() -> None:
        await batches.retrieve(ABSENT)

    error = await _error_of(cell)
    assert _frames(error) == ["_error_of", "cell", "retrieve", "NotFoundError"]


def test_the_sync_client_is_one_frame() -> None:
    """The thread of the client, and its event loop, are not shown, nor is the failure of the library below."""
    with Batches(KEY, base_url="http://127.0.0.1:9", retry=RetryPolicy(max_attempts=1, max_elapsed=1)) as batches:

        def cell() -> None:
            batches.files.delete("file-1")

        with pytest.raises(BatchesError) as caught:
            cell()
    assert _frames(caught.value) == ["test_the_sync_client_is_one_frame", "cell", "delete", "APIConnectionError"]
    assert _files(caught.value)[-1] == "files.py"


def test_a_call_that_does_not_begin() -> None:
    """A call that the client itself refuses, and a value that cannot be, are shown in the first frame there is."""
    batches = Batches(KEY)
    batches.close()
    for call, name in ((batches.list, "list"), (lambda: Timeout(-1), "<lambda>")):
        with pytest.raises(BatchesError) as caught:
            call()
        assert _frames(caught.value)[-2:] == [name, "UsageError"]


async def test_frames_of_the_user_in_between(batches: AsyncBatches) -> None:
    """An error of a call within an iterable of the user, which this package iterates, is shown in both calls."""

    class Ids:
        def __iter__(self) -> Iterator[str]:
            with Batches(KEY, timeout=-1) as other:
                yield from (job.id for job in other.list())

    async def cell() -> None:
        await batches.cancel_many(Ids())

    error = await _error_of(cell)
    assert _frames(error) == ["_error_of", "cell", "cancel_many", "__iter__", "__init__", "UsageError"]


async def test_errors_of_the_user_before_it(batches: AsyncBatches) -> None:
    """An error that the user was handling is shown, and one of this package is shortened as well."""

    async def cell() -> None:
        try:
            await batches.retrieve(ABSENT)
        except NotFoundError:
            await batches.retrieve("")

    error = await _error_of(cell)
    assert _frames(error) == ["cell", "retrieve", "NotFoundError", "_error_of", "cell", "retrieve", "UsageError"]


async def test_the_error_itself_stays_as_it_is() -> None:
    """Only what IPython prints is shortened: the error keeps its frames and its cause."""
    async with AsyncBatches(KEY, base_url="http://127.0.0.1:9", retry=RetryPolicy(max_attempts=1)) as unreachable:
        error = await _error_of(lambda: unreachable.retrieve(ABSENT))
    before = (error.__traceback__, error.__cause__, error.__context__, error.__suppress_context__)
    full = traceback.format_exception(error)
    assert len(_frames(error)) < len(traceback.extract_tb(error.__traceback__))
    assert (error.__traceback__, error.__cause__, error.__context__, error.__suppress_context__) == before
    assert error.__cause__ is not None
    assert traceback.format_exception(error) == full


def test_without_ipython(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program that renders errors as IPython does gets plain lines."""
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    with pytest.raises(BatchesError) as caught:
        Batches(KEY, timeout=-1)
    lines = caught.value._render_traceback_()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1].endswith("timeout must be a number, more than zero; it is -1")
