"""Answers of the service, made and recorded."""

from __future__ import annotations

from pathlib import Path

from together_batches._protocol.jobs import Answer, Request

SAMPLES = Path(__file__).parents[1] / "samples"
ID = "5b0c2d6e-8f14-4a7b-9c33-0e5d7a61f2b8"
FILE = "file-3e9d1c70-52af-4f0e-8a5b-7c1b90d4e6f2"
URL = "https://api.together.ai/v1/batches"


def answer(body: bytes | str, status: int = 200, headers: dict[str, str] | None = None) -> Answer:
    """Return an answer to a read."""
    body = body.encode() if isinstance(body, str) else body
    return Answer(Request("GET", "/batches", repeatable=True), URL, status, headers or {}, body)


def sample(case: str, headers: dict[str, str] | None = None) -> Answer:
    """Return a recorded response: ``samples/<case>/<status>.json`` (or ``.txt``)."""
    (file,) = (SAMPLES / case).iterdir()
    return answer(file.read_bytes(), int(file.stem), headers)
