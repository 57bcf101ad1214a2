"""Notebooks, in a kernel of this environment, against the emulator."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from wires import KEY

from together_batches.emulator import Emulator, Timing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel")


@pytest.fixture
def execute(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[list[dict[str, Any]]]]]:
    """A function that runs cells in a new kernel, for which there is an emulator, and returns the outputs of each."""

    def run(*cells: str) -> list[list[dict[str, Any]]]:
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        nbclient.NotebookClient(notebook, timeout=30, kernel_name="python3", allow_errors=True).execute()
        return [cell.outputs for cell in notebook.cells]

    with Emulator(api_key=KEY, timing=Timing(validating=0.1, running=0.5)).running_in_thread() as running:
        running.add_job(status="FAILED")
        monkeypatch.setenv("TOGETHER_BASE_URL", running.base_url)
        monkeypatch.setenv("TOGETHER_API_KEY", KEY)
        yield run


def test_the_tutorial(tmp_path: Path) -> None:
    """The notebook of the tutorial runs, and its saved outputs are those of this version, but for ids and numbers.

    ``python tests/extras/tutorial.py`` saves them again.
    """
    from tests.extras.tutorial import NOTEBOOK, executed, outline

    saved = nbformat.read(NOTEBOOK, as_version=4)
    assert outline(executed(NOTEBOOK, tmp_path)) == outline(saved), (
        "to save them again: python tests/extras/tutorial.py"
    )


def test_values_and_bars(execute: Callable[..., list[list[dict[str, Any]]]]) -> None:
    """Both clients work in a notebook, whose cells run in a loop: values are HTML beside text, and bars are displays.

    IPython, which prints lists by a printer of its own, prints a list of jobs as lines wherever it is.
    """
    client, listed, nested, bar, awaited, closed = execute(
        "from together_batches import AsyncBatches, Batches\nbatches = Batches()",
        "batches.list()",
        "(batches.list()[:1],)",
        "job = batches.cancel_many(batches.list(), progress=True)",
        "async with AsyncBatches() as others:\n    await others.cancel_many(['absent'], progress=True)",
        "batches.close()",
    )
    assert client == closed == []
    assert listed[0]["data"]["text/plain"].startswith("1 job: 1 FAILED\n")
    assert "<table>" in listed[0]["data"]["text/html"]
    assert nested[0]["data"]["text/plain"].startswith("(1 job: 1 FAILED\n")
    shown = [output["data"]["text/plain"] for output in (*bar, *awaited)]
    assert [line.rpartition(",")[0] for line in shown] == ["Cancelling: 1 of 1", "Cancelling: 1 of 1, 1 not found"]


def test_tracebacks(execute: Callable[..., list[list[dict[str, Any]]]]) -> None:
    """In each of IPython's modes, the traceback of an error has the user's line and one of ours, and no key."""
    calls = {
        "batches.files.retrieve('absent')": "files.py",
        "async with AsyncBatches() as others:\n    await others.retrieve('absent')": "client.py",
    }
    modes = ("Context", "Verbose", "Plain", "Minimal")
    _, *outputs = execute(
        "from together_batches import AsyncBatches, Batches\nbatches = Batches()",
        *(cell for mode in modes for cell in (f"%xmode {mode}", *calls)),
    )
    for number, mode in enumerate(modes):
        for cell, (output,) in zip(calls, outputs[3 * number + 1 :][:2], strict=True):
            assert output["ename"] == "NotFoundError"
            text = re.sub(r"\x1b\[[\d;]*m", "", "\n".join(output["traceback"]))
            assert KEY not in text
            assert "the service answered 404" in text
            if mode != "Minimal":
                assert cell.splitlines()[-1] in text
                files = re.findall(r"^ *File (\S+\.py)", text, flags=re.MULTILINE)
                assert [file.rpartition("/")[2] for file in files] == [calls[cell]]
