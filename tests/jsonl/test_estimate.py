"""``jsonl.estimate``: tokens by a stated rule, the most output, and the cost at given prices."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from together_batches import Price, UsageError, ValidationError, jsonl, to_dict

if TYPE_CHECKING:
    from pathlib import Path


def _line(name: str, **body: Any) -> bytes:
    return json.dumps({"custom_id": name, "body": {"model": "m", **body}}).encode() + b"\n"


def _tokens(*lines: bytes) -> int:
    return sum(len(json.dumps(json.loads(line)["body"])) for line in lines) // 4


def test_tokens_of_requests() -> None:
    """A token counts for each four bytes of the bodies; a limit counts once for each answer that is requested."""
    lines = _line("a", max_tokens=100), _line("b", max_completion_tokens=50, n=3), b"\n"
    found = jsonl.estimate(b"".join(lines))
    assert (found.rows, found.invalid, found.models) == (2, 0, {"m": 2})
    assert found.bytes == len(b"".join(lines))
    assert found.prompt_tokens == _tokens(*lines[:2])
    assert (found.max_completion_tokens, found.unlimited) == (250, 0)
    assert (found.prompt_cost, found.max_cost, found.unpriced) == (None, None, ("m",))


def test_the_cost() -> None:
    """One price is that of all models; the cost is an upper limit with the answers."""
    found = jsonl.estimate(_line("a", max_tokens=1_000), prices=Price(1, 2))
    assert found.prompt_cost == pytest.approx(found.prompt_tokens / 1e6)
    assert found.max_cost == pytest.approx((found.prompt_tokens + 2_000) / 1e6)
    assert str(found).endswith("; at most $0.002008 at list prices")


def test_the_cost_of_several_models() -> None:
    """Each model has its price; without one of them no cost is known, and the model is named."""
    lines = _line("a", max_tokens=1_000) + _line("b", model="dear", max_tokens=1_000)
    prices = {"m": Price(0, 1), "dear": Price(0, 100)}
    assert jsonl.estimate(lines, prices=prices).max_cost == pytest.approx(0.101)
    found = jsonl.estimate(lines, prices={"m": Price(0, 1)})
    assert (found.unpriced, found.prompt_cost, found.max_cost) == (("dear",), None, None)


@pytest.mark.parametrize("limit", [{}, {"max_tokens": None}, {"max_tokens": "many"}, {"max_tokens": True}])
def test_answers_without_a_limit(limit: dict[str, Any]) -> None:
    """A row without a limit is counted, and then the most that all can cost is not known."""
    found = jsonl.estimate(_line("a", **limit) + _line("b", max_tokens=5), prices=Price(1, 1))
    assert (found.unlimited, found.max_completion_tokens, found.max_cost) == (1, 5, None)
    assert re.search(r" and no limit in 1 row; \$0\.0000\d+ for the requests at list prices$", str(found))


def test_lines_that_are_no_requests() -> None:
    """Other lines are counted apart, and a file in another format is refused with its reason."""
    found = jsonl.estimate(_line("a", max_tokens=1) + b"{}\n" + b"no\n")
    assert (found.rows, found.invalid) == (1, 2)
    with pytest.raises(ValidationError, match="is one JSON array"):
        jsonl.estimate(b"[" + _line("a") + b"]")


def test_a_file_without_a_request() -> None:
    """A file whose lines all are no requests is refused with the reason of each line."""
    with pytest.raises(ValidationError, match=r"3 problems in lines 1, 2; the first: line 1 .*custom_id is missing"):
        jsonl.estimate(b"{}\nno\n")
    with pytest.raises(ValidationError, match="there are no rows"):
        jsonl.estimate(b"\n\n")


def test_requests_that_cannot_be_written() -> None:
    """Requests that cannot be written are counted apart, as their lines would be; alone they are refused."""
    good = jsonl.chat_request("a", model="m", messages=[])
    bad: dict[str, object] = {"custom_id": "b", "body": {"model": "m", "temperature": float("nan")}}
    found = jsonl.estimate([good, bad, {"custom_id": "c"}])
    assert (found.rows, found.invalid) == (1, 2)
    with pytest.raises(ValidationError, match=r"line 1 .*custom_id 'b': the request cannot be written as JSON"):
        jsonl.estimate([bad])


def test_sources(tmp_path: Path) -> None:
    """A path, or requests, serve as well as bytes; plain data has each figure."""
    requests = [jsonl.chat_request("a", model="m", messages=[], max_tokens=7)]
    jsonl.write(requests, tmp_path / "in.jsonl")
    found = jsonl.estimate(tmp_path / "in.jsonl")
    assert jsonl.estimate(requests).max_completion_tokens == found.max_completion_tokens == 7
    assert {"source", "rows", "bytes", "prompt_tokens", "max_completion_tokens"} <= to_dict(found).keys()
    with pytest.raises(UsageError, match="cannot read"):
        jsonl.estimate(tmp_path / "none.jsonl")
