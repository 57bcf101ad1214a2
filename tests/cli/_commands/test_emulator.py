"""The commands ``demo`` and ``emulator``."""

from __future__ import annotations

import signal
from collections import Counter
from typing import TYPE_CHECKING, Any

import aiohttp
import anyio
import pytest

from together_batches import emulator as emulator_package
from together_batches.cli._commands import emulator as commands
from together_batches.cli._commands.emulator import populate
from together_batches.emulator import Emulator, Fault

if TYPE_CHECKING:
    from collections.abc import Callable

    from cli.conftest import Ran

    Run = Callable[..., Ran]
    from collections.abc import Callable, Iterable


def test_demo(run: Run, monkeypatch: pytest.MonkeyPatch, on_terminal: Callable[..., None]) -> None:
    """The demo needs no key, ignores the environment, accounts for every id, and names the next step."""
    monkeypatch.setenv("TOGETHER_API_KEY", "not a key at all")
    monkeypatch.setenv("TOGETHER_BASE_URL", "ftp://nowhere")
    monkeypatch.setenv("HTTP_PROXY", "http://192.0.2.1:1")
    on_terminal("stderr")
    ran = run("demo", "--jobs", "60")
    assert ran.code == 0
    words = [line.split() for line in ran.lines]
    counts = [next(int(word) for word in line if word.isdigit()) for line in words[2 : words.index([], 2)]]
    assert sum(counts) == 63
    assert ran.out.startswith("\nRESULT")
    assert "63 ids in" in ran.out
    assert ran.out.endswith("together-batches cancel --all --dry-run\n")
    assert "63 of 63, 2 not found, 1 failed" in ran.err
    assert "not a key" not in ran.out + ran.err


def test_interrupted(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C ends the demo with a message."""

    def interrupt(*_: object) -> list[str]:
        signal.raise_signal(signal.SIGINT)
        return ["a"]

    monkeypatch.setattr(commands, "populate", interrupt)
    ran = run("demo")
    assert (ran.code, ran.out) == (130, "")
    assert ran.err.endswith("interrupted: 0 ids answered: no jobs; the jobs were the emulator's own\n")


# --- jobs


def test_every_kind_and_the_same_again() -> None:
    """A few hundred jobs are of every kind, and equal for an equal seed."""
    statuses = {"IN_PROGRESS", "VALIDATING", "COMPLETED", "FAILED", "EXPIRED", "CANCELLED", "CANCELING"}
    emulators = [Emulator(seed=3) for _ in range(2)]
    ids = [populate(emulator, 400, 3) for emulator in emulators]
    assert ids[0] == ids[1]
    counts = Counter(job["status"] for job in emulators[0].jobs)
    assert statuses == set(counts)
    assert counts["IN_PROGRESS"] > 200
    assert populate(Emulator(), 0, 0) == []


# --- emulator


class Noted(Emulator):
    """An emulator that records the faults and prices that it is given."""

    def __init__(self, *, faults: Iterable[Fault] = (), prices: Any = None, **options: Any) -> None:
        self.planned = list(faults)
        self.priced = prices
        super().__init__(faults=self.planned, prices=prices, **options)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Noted]:
    """Return the emulators that the command starts; each is stopped by Ctrl-C as soon as it runs."""
    made: list[Noted] = []
    sleep_forever = anyio.sleep_forever

    class Kept(Noted):
        async def start(self) -> None:
            await super().start()
            made.append(self)

    async def interrupt() -> None:
        signal.raise_signal(signal.SIGINT)
        await sleep_forever()

    monkeypatch.setattr(emulator_package, "Emulator", Kept)
    monkeypatch.setattr(anyio, "sleep_forever", interrupt)
    return made


def test_exports(run: Run, started: list[Noted]) -> None:
    """The command prints the two lines that configure a shell, and Ctrl-C is a normal end."""
    ran = run("emulator", "--jobs", "7")
    (emulator,) = started
    assert ran.code == 0
    assert [
        f"export TOGETHER_BASE_URL={emulator.base_url}",
        f"export TOGETHER_API_KEY={emulator.api_key}",
    ] == ran.lines
    assert "7 jobs until Ctrl-C" in ran.err
    assert len(emulator.jobs) == 7
    assert emulator.rate_limit is None


def test_rate_limit(run: Run, started: list[Noted]) -> None:
    """A rate limit has a given burst, by default that of one second."""
    run("emulator", "--rate-limit", "2.5")
    run("emulator", "--rate-limit", "2.5", "--burst", "9")
    limits = [emulator.rate_limit for emulator in started]
    assert [(limit.per_second, limit.burst) for limit in limits if limit] == [(2.5, 3), (2.5, 9)]
    assert run("emulator", "--burst", "9").code == 2


def test_port_that_is_taken(run: Run, started: list[Noted]) -> None:
    """A port that is in use is an error in one sentence."""
    with Emulator().running_in_thread() as other:
        ran = run("emulator", "--port", str(other.port))
    assert (ran.code, ran.out) == (1, "")
    assert "in use" in ran.err
    assert ran.err.count("\n") == 1


def test_faults(run: Run, started: list[Noted]) -> None:
    """Faults have the fields of `Fault` and apply in the order in which they are given."""
    ran = run(
        "emulator",
        *("--fault", "cancel,status=503,times=always"),
        *("--fault", "*,lose=answer,chance=0.5"),
        *("--fault", "retrieve,job_id=a,status=500,acts=yes,body=oops"),
    )
    assert ran.code == 0
    (emulator,) = started
    assert emulator.planned == [
        Fault(on="cancel", status=503, times=None),
        Fault(lose="answer", chance=0.5),
        Fault(on="retrieve", job_id="a", status=500, acts=True, body="oops"),
    ]


def test_prices(run: Run, started: list[Noted]) -> None:
    """Prices of models, of which the last counts."""
    ran = run("emulator", "--price", "a/b=0.05,0.20", "--price", "c=1,2", "--price", "c=3,4")
    assert ran.code == 0
    assert started[0].priced == {"a/b": (0.05, 0.2), "c": (3.0, 4.0)}


@pytest.mark.parametrize("price", ["a", "a=1", "a=1,2,3", "a=1,dear", "a=1,-2"])
def test_a_price_that_cannot_be(run: Run, started: list[Noted], price: str) -> None:
    """An invalid price is a usage error, and no emulator is started."""
    ran = run("emulator", "--price", price)
    assert (ran.code, ran.out, started) == (2, "", [])
    assert f"invalid --price {price!r}: it is not MODEL=IN,OUT" in ran.err


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("cancel", "the fault does nothing"),
        ("nothing,status=500", "there is no operation 'nothing'"),
        ("cancel,status", "'status' is not NAME=VALUE"),
        ("cancel,status=soon", "'status=soon' is not NAME=VALUE"),
        ("cancel,colour=red", "'colour=red' is not NAME=VALUE"),
        ("cancel,status=500,acts=maybe", "'acts=maybe' is not NAME=VALUE"),
        ("cancel,status=99", "status must be a final one"),
    ],
)
def test_a_fault_that_cannot_be(run: Run, started: list[Noted], fault: str, sentence: str) -> None:
    """An invalid fault is a usage error, and no emulator is started."""
    ran = run("emulator", "--fault", fault)
    assert (ran.code, ran.out, started) == (2, "", [])
    assert f"invalid --fault {fault!r}: " in ran.err
    assert sentence in ran.err


def test_speed(run: Run, started: list[Noted], monkeypatch: pytest.MonkeyPatch) -> None:
    """--speed makes jobs run faster; the rate limit stays in real seconds."""
    now = 1000.0
    monkeypatch.setattr(commands.time, "time", lambda: now)
    run("emulator", "--speed", "60", "--rate-limit", "30")
    (emulator,) = started
    job_id = emulator.add_job()
    now += 0.5
    assert emulator.job(job_id)["status"] == "COMPLETED"
    limit = emulator.rate_limit
    assert limit is not None
    assert (limit.per_second, limit.burst, limit.retry_after) == (0.5, 30, False)
    assert run("emulator", "--speed", "0").code == 2


@pytest.mark.parametrize("log", [True, False])
def test_log(run: Run, monkeypatch: pytest.MonkeyPatch, log: bool) -> None:
    """--log writes a line for each request, without the query, which may contain a signature."""

    async def call() -> None:
        (url,) = urls
        async with (
            aiohttp.ClientSession(headers={"Authorization": "Bearer emulator-key"}) as http,
            http.get(f"{url}/batches/a?signature=secret") as response,
        ):
            assert response.status == 404
        signal.raise_signal(signal.SIGINT)
        await forever()

    urls: list[str] = []
    forever = anyio.sleep_forever

    class Noted(Emulator):
        async def start(self) -> None:
            await super().start()
            urls.append(self.base_url)

    monkeypatch.setattr(emulator_package, "Emulator", Noted)
    monkeypatch.setattr(anyio, "sleep_forever", call)
    ran = run("emulator", *(["--log"] if log else []))
    assert ("404 retrieve: GET /v1/batches/a\n" in ran.err) == log
    assert "secret" not in ran.err
