"""``progress=True``: what the bars of the verbs show, in a notebook."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from wires import KEY

from together_batches import AsyncBatches, Batches
from together_batches.emulator import Emulator, Timing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests._display.conftest import Notebook
    from together_batches import CancelOutcome

BODY = {"model": "openai/gpt-oss-20b", "messages": [{"role": "user", "content": "Name a river."}]}
REQUESTS = [{"custom_id": f"row-{number}", "body": BODY} for number in range(10)]


@pytest.fixture
async def swift() -> AsyncIterator[Emulator]:
    """An emulator whose jobs end at once."""
    async with Emulator(api_key=KEY, timing=Timing(validating=0, running=0, canceling=0.1)) as running:
        yield running


@pytest.fixture
async def batches(swift: Emulator) -> AsyncIterator[AsyncBatches]:
    async with AsyncBatches(KEY, base_url=swift.base_url) as client:
        yield client


def _last(notebook: Notebook) -> str:
    """Return the last line of the only bar, without the time that it took."""
    (lines,) = notebook.lines
    return lines[-1].rpartition(", 0:00:0")[0]


async def test_a_cancel(batches: AsyncBatches, swift: Emulator, notebook: Notebook) -> None:
    """The bar shows the jobs that are done and those that failed, and ends full although an id was repeated."""
    job_id = swift.add_job(status="IN_PROGRESS")
    seen: list[str] = []
    await batches.cancel_many(
        [job_id, job_id, "absent"], progress=True, on_outcome=lambda outcome: seen.append(outcome.job_id)
    )
    assert _last(notebook) == "Cancelling: 2 of 2, 1 not found"
    assert sorted(seen) == sorted([job_id, "absent"])


async def test_a_cancel_that_waits(batches: AsyncBatches, swift: Emulator, notebook: Notebook) -> None:
    """A job that is followed is done when it has stopped; ids without a number have no total until the end."""
    swift.timing = Timing(running=3600, canceling=0.05)
    ids = [swift.add_job(status="IN_PROGRESS") for _ in range(3)]
    done: list[CancelOutcome] = []
    await batches.cancel_many(iter(ids), wait=True, progress=True, on_outcome=done.append)
    assert len(done) == 6
    assert _last(notebook) == "Cancelling: 3 of 3"


async def test_a_wait(batches: AsyncBatches, swift: Emulator, notebook: Notebook) -> None:
    """The bar shows the progress and the status of the job."""
    job = await batches.submit(REQUESTS)
    updates: list[str] = []
    await batches.wait(job, poll_interval=0.01, progress=True, on_update=lambda job: updates.append(job.status))
    assert _last(notebook) == f"{job.id}: 100 %, completed"
    assert updates[-1] == "COMPLETED"


async def test_a_run(batches: AsyncBatches, tmp_path: Path, notebook: Notebook) -> None:
    """The bar shows the rows that are answered, named by the file that they will be in."""
    kinds: list[str] = []
    await batches.run(
        REQUESTS,
        tmp_path / "answers.jsonl",
        poll_interval=0.01,
        progress=True,
        on_event=lambda event: kinds.append(event.kind),
    )
    assert notebook.lines[0][0] == "answers.jsonl: reading the input, 0:00:00"
    assert _last(notebook) == "answers.jsonl: 10 of 10 rows"
    assert (kinds[0], kinds[-1]) == ("begun", "finished")


async def test_transfers(batches: AsyncBatches, tmp_path: Path, notebook: Notebook) -> None:
    """The bars show the bytes that are transferred, and the name of the file."""
    (tmp_path / "requests.jsonl").write_bytes(b'{"a": "' + b"x" * 2_000_000 + b'"}\n')
    done: list[int] = []
    file = await batches.files.upload(
        tmp_path / "requests.jsonl", progress=True, on_progress=lambda sent, _: done.append(sent)
    )
    await batches.files.download(
        file, tmp_path / "copy.jsonl", progress=True, on_progress=lambda received, _: done.append(received)
    )
    upload, download = (lines[-1] for lines in notebook.lines)
    assert upload.startswith("Uploading requests.jsonl: 2.0 of 2.0 MB")
    assert download.startswith("Downloading copy.jsonl: 2.0 of 2.0 MB")
    assert done.count(2_000_010) == 2


async def test_callbacks_are_checked_before_a_bar_is_drawn(
    batches: AsyncBatches, tmp_path: Path, notebook: Notebook
) -> None:
    """A coroutine function as a callback is refused with ``progress``, too."""

    async def callback(*_: object) -> None: ...

    wrong: Any = callback
    for call in (
        batches.cancel_many(["a"], progress=True, on_outcome=wrong),
        batches.wait("a", progress=True, on_update=wrong),
        batches.run(REQUESTS, tmp_path / "answers.jsonl", progress=True, on_event=wrong),
        batches.files.upload(b"{}", progress=True, on_progress=wrong),
        batches.files.download("file-1", tmp_path / "copy", progress=True, on_progress=wrong),
    ):
        with pytest.raises(TypeError, match="must be a plain function"):
            await call
    assert notebook.lines == []


async def test_an_error_ends_the_bar(batches: AsyncBatches, notebook: Notebook) -> None:
    """A call that fails leaves its bar as it was, and raises its error; so does a callback."""

    def callback(*_: object) -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await batches.cancel_many(["absent"], progress=True, on_outcome=callback)
    assert _last(notebook) == "Cancelling: 1 of 1, 1 not found"


async def test_no_bar_unless_it_is_wanted(batches: AsyncBatches, notebook: Notebook) -> None:
    """Without ``progress``, nothing is drawn."""
    await batches.cancel_many(["absent"])
    assert notebook.lines == []


def test_the_sync_client_draws_bars_too(notebook: Notebook) -> None:
    """A call of ``Batches``, which runs in a thread of its own, draws the same bar."""
    with (
        Emulator(api_key=KEY).running_in_thread() as running,
        Batches(KEY, base_url=running.base_url) as batches,
    ):
        batches.cancel_many([running.add_job(status="IN_PROGRESS")], progress=True)
    assert _last(notebook) == "Cancelling: 1 of 1"
