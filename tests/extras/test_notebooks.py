"""Notebooks, in a kernel of this environment, against the emulator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from wires import KEY

from together_batches.emulator import Emulator, Timing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel")


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """An emulator in a thread, whose address and key a kernel inherits."""
    with Emulator(api_key=KEY, timing=Timing(validating=0.1, running=0.5)).running_in_thread() as running:
        monkeypatch.setenv("TOGETHER_BASE_URL", running.base_url)
        monkeypatch.setenv("TOGETHER_API_KEY", KEY)
        yield running


@pytest.fixture
def execute(service: Emulator) -> Callable[..., list[list[dict[str, Any]]]]:
    """A function that runs cells in a new kernel, and returns the outputs of each."""

    def run(*cells: str) -> list[list[dict[str, Any]]]:
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        nbclient.NotebookClient(notebook, timeout=30, kernel_name="python3", allow_errors=True).execute()
        return [cell.outputs for cell in notebook.cells]

    return run


def test_the_sync_client_works_where_a_loop_runs(execute: Callable[..., list[list[dict[str, Any]]]]) -> None:
    """A notebook runs its cells in an event loop; a call of ``Batches`` returns there all the same."""
    outputs = execute(
        "from together_batches import Batches\nbatches = Batches()\nlen(batches.list())", "batches.close()"
    )
    assert outputs[0][0]["data"]["text/plain"] == "0"
    assert outputs[1] == []
