"""The command ``estimate``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from together_batches import jsonl
from together_batches.emulator import Emulator, Fault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cli.conftest import Ran

    Run = Callable[..., Ran]


@pytest.fixture
def requests(tmp_path: Path) -> str:
    """Return a file of two requests."""
    rows = (jsonl.chat_request(name, model="m", messages=[], max_tokens=1_000) for name in "ab")
    jsonl.write(rows, tmp_path / "requests.jsonl")
    return str(tmp_path / "requests.jsonl")


@pytest.fixture
def priced(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """Return an emulator that knows the price of the model."""
    with Emulator(prices={"m": (1, 10)}).running_in_thread() as emulator:
        monkeypatch.setenv("TOGETHER_API_KEY", str(emulator.api_key))
        monkeypatch.setenv("TOGETHER_BASE_URL", emulator.base_url)
        yield emulator


def test_estimate(run: Run, priced: Emulator, requests: str) -> None:
    """The figures are on standard output, with the rule of each; that the discount is unknown beside them."""
    ran = run("estimate", requests)
    assert ran.code == 0
    assert ran.lines == [
        "2 rows, 142 bytes",
        "requests: about 22 tokens, one for each 4 bytes",
        "answers: at most 2 000 tokens, the sum of max_tokens",
        "cost of the requests: about $0.000022",
        "cost with the answers: at most $0.020022",
    ]
    assert ran.err == "batches may cost less than list prices: the service names no discount\n"


def test_json(run: Run, priced: Emulator, requests: str) -> None:
    """--json prints one object."""
    found = json.loads(run("estimate", requests, "--json", "--quiet").out)
    assert (found["rows"], found["max_cost"], found["unpriced"]) == (2, pytest.approx(0.020022), [])


def test_given_prices(run: Run, requests: str) -> None:
    """Prices in the options need no key, and nothing is requested; they go together."""
    assert "at most $0.02" in run("estimate", requests, "--price-in", "0", "--price-out", "10").out
    ran = run("estimate", requests, "--price-in", "1")
    assert (ran.code, ran.err) == (2, "together-batches: error: --price-in and --price-out go together\n")


def test_a_table(run: Run, priced: Emulator, tmp_path: Path) -> None:
    """The requests that run would make of a table are estimated, with their parameters."""
    table = tmp_path / "cities.csv"
    table.write_text("id,city\n1,Paris\n2,Rome\n")
    options = [str(table), "--prompt", "Describe {city}.", "--model", "m", "--parameter", "max_tokens=1000"]
    ran = run("estimate", *options)
    assert (ran.code, ran.lines[0][:6]) == (0, "2 rows")
    assert "answers: at most 2 000 tokens, the sum of max_tokens" in ran.lines
    requests = jsonl.requests(table, prompt="Describe {city}.", model="m", max_tokens=1000)
    found = jsonl.estimate(requests)
    assert json.loads(run("estimate", *options, "--json").out)["prompt_tokens"] == found.prompt_tokens


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ((), 2, "is a table: --prompt, with its columns in braces, makes a request of each row"),
        (("--model", "m"), 2, "is a table: --prompt"),
        (("--prompt", "{town}", "--model", "m"), 2, "has no column 'town'; its columns are 'id', 'city'"),
        (("--prompt", "{city}"), 2, "--prompt makes requests: name their model with --model"),
        (("--prompt", "{city}", "--model", "m", "--custom-id", "city"), 1, "row 2, column 'city': the id must be"),
    ],
)
def test_tables_that_cannot_be(
    run: Run, priced: Emulator, tmp_path: Path, options: tuple[str, ...], code: int, message: str
) -> None:
    """The error is the one of run."""
    (tmp_path / "cities.csv").write_text("id,city\n1,Paris\n2,Paris\n")
    ran = run("estimate", str(tmp_path / "cities.csv"), *options)
    assert (ran.code, ran.out) == (code, "")
    assert message in ran.err


def test_a_model_is_for_a_table(run: Run, priced: Emulator, requests: str) -> None:
    """A file of requests has its models, and its schemas."""
    ran = run("estimate", requests, "--model", "m")
    assert (ran.code, ran.err) == (2, "together-batches: error: --model is for a table: add --prompt\n")


def test_no_prices(run: Run, priced: Emulator, requests: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without access to the prices, or without a key, the tokens are estimated, and the reason is printed."""
    priced.fail(Fault(on="models", status=403, times=None))
    ran = run("estimate", requests)
    assert (ran.code, len(ran.lines)) == (0, 3)
    assert ran.err.startswith("the list prices cannot be read: the service answered 403")
    assert ran.err.endswith("to have the costs, pass --price-in and --price-out\n")
    monkeypatch.delenv("TOGETHER_API_KEY")
    assert run("estimate", requests).err.startswith("the list prices cannot be read: no API key")


def test_a_model_without_a_price(run: Run, priced: Emulator, tmp_path: Path) -> None:
    """A model without a price is named, as are lines that are not counted and answers without a limit."""
    (tmp_path / "in.jsonl").write_text('{"custom_id": "a", "body": {"model": "new"}}\n{}\n')
    ran = run("estimate", str(tmp_path / "in.jsonl"))
    assert ran.lines[-1].endswith("; 1 row without it can have more")
    assert ran.err.splitlines() == [
        "1 line not counted, because it is not a request: see validate",
        "no price is known of new: pass --price-in and --price-out",
    ]


def test_a_narrow_terminal(
    run: Run, requests: str, on_terminal: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines are broken between words on a terminal, and whole in a pipe."""
    monkeypatch.setenv("COLUMNS", "40")
    estimate = ("estimate", requests, "--price-in", "1", "--price-out", "10")
    whole = run(*estimate).lines
    on_terminal("stdout")
    ran = run(*estimate)
    assert max(map(len, ran.lines)) <= 40 < max(map(len, whole))
    assert " ".join(" ".join(ran.lines).split()) == " ".join(whole)
