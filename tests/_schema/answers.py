"""Answers for tests of schemas, and a class that they fit."""

from __future__ import annotations

import json
from dataclasses import dataclass

from together_batches._protocol.carried_body import Body
from together_batches.rows import BatchSuccess

FITTING = '{"name": "Prague", "population": 1357326}'


@dataclass
class City:
    """What most answers are about."""

    name: str
    population: int


def answer(text: str | None, *, finish_reason: str = "stop", custom_id: str = "row-1") -> BatchSuccess:
    """Return a row as it is read from a file of results."""
    choice = {"index": 0, "finish_reason": finish_reason, "message": {"role": "assistant", "content": text}}
    return BatchSuccess(custom_id, Body(json.dumps({"choices": [choice], "usage": {"total_tokens": 3}}).encode()))
