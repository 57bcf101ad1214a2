"""The notebook of the tutorial, executed: ``python tests/extras/tutorial.py`` writes the outputs that it shows."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

import nbclient
import nbformat

NOTEBOOK = Path(__file__).parents[2] / "docs" / "tutorial" / "in-a-notebook.ipynb"


def executed(path: Path, directory: Path) -> Any:
    """Return a notebook with its outputs, executed by a kernel in a directory. A cell that fails raises an error."""
    notebook: Any = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(directory)}}
    nbclient.NotebookClient(notebook, timeout=30, resources=resources, record_timing=False).execute()
    return notebook


def outline(notebook: Any) -> list[list[tuple[list[str], str]]]:
    """Return the outputs of each cell, as their formats and text, with ids, numbers and times left out."""
    return [
        [(sorted(item.get("data", {})), _masked(item)) for item in cell.get("outputs", ())] for cell in notebook.cells
    ]


def _masked(item: Any) -> str:
    text = item["text"] if item["output_type"] == "stream" else item["data"]["text/plain"]
    return re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}|[0-9a-f]{24}|[\d.:]+[dhms]*", "#", text)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        notebook = executed(NOTEBOOK, Path(scratch))
    del notebook.metadata["language_info"]["version"]
    nbformat.write(notebook, NOTEBOOK)
