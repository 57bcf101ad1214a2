"""The application of docs/how-to/use-in-a-service.md, as a server, against the emulator."""

from __future__ import annotations

import asyncio
import json
import socket
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from contracts.run_page import blocks
from wires import KEY

from together_batches.emulator import Emulator, Fault, Timing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

httpx = pytest.importorskip("httpx")
uvicorn = pytest.importorskip("uvicorn")
pytest.importorskip("fastapi")

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "use-in-a-service.md"
REQUESTS = [{"custom_id": f"row-{number}", "body": {"model": "m", "messages": []}} for number in range(3)]


@pytest.fixture(scope="module")
def app() -> Any:
    """The application, from the blocks of the page."""
    namespace: dict[str, Any] = {"__name__": "service"}
    for block in blocks(PAGE.read_text("utf-8")):
        if block.needs == "fastapi":
            exec(compile(block.text, str(PAGE), "exec", dont_inherit=True), namespace)
    return namespace["app"]


@pytest.fixture
async def service(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Emulator]:
    async with Emulator(api_key=KEY, timing=Timing(validating=3600, running=3600, canceling=3600)) as running:
        monkeypatch.setenv("TOGETHER_BASE_URL", running.base_url)
        monkeypatch.setenv("TOGETHER_API_KEY", KEY)
        yield running


@asynccontextmanager
async def serving(app: Any, **options: Any) -> AsyncIterator[tuple[Any, Any]]:
    """Run the application on a port; yield its server and a client of it."""
    server = uvicorn.Server(uvicorn.Config(app, lifespan="on", log_level="critical", **options))
    server.capture_signals = nullcontext  # it would put the handlers of an earlier loop back
    with socket.create_server(
        ("127.0.0.1", 0)
    ) as listening:  # a call waits in its queue until the server has started
        async with (
            asyncio.TaskGroup() as tasks,
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{listening.getsockname()[1]}", timeout=20) as client,
        ):
            tasks.create_task(server.serve(sockets=[listening]))
            yield server, client
            server.should_exit = True


@pytest.fixture
async def client(app: Any, service: Emulator) -> AsyncIterator[Any]:
    async with serving(app) as (_, client):
        yield client


async def test_the_life_of_a_job(client: Any, service: Emulator) -> None:
    """A job is submitted, read, cancelled, and refuses its results until it has ended."""
    answer = await client.post("/jobs", json=REQUESTS)
    job = answer.json()
    assert (answer.status_code, job["status"]) == (201, "VALIDATING")
    assert (await client.get(f"/jobs/{job['id']}")).json()["id"] == job["id"]
    early = await client.get(f"/jobs/{job['id']}/results")
    assert (early.status_code, early.headers["Retry-After"]) == (409, "60")
    answer = await client.post(f"/jobs/{job['id']}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (202, "CANCELING")
    assert [found["id"] for found in service.jobs] == [job["id"]]


async def test_results_are_lines(client: Any, service: Emulator) -> None:
    """The rows of a finished job come as JSON, one a line."""
    lines = b'{"custom_id": "a", "response": {"status_code": 200, "body": {"text": "hello"}}}\n'
    job_id = service.add_job(status="COMPLETED", output_file_id=service.add_file(lines))
    answer = await client.get(f"/jobs/{job_id}/results")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/jsonl")
    assert [json.loads(line) for line in answer.text.splitlines()] == [
        {"custom_id": "a", "result": "success", "body": {"text": "hello"}, "status_code": 200}
    ]
    assert (await client.post(f"/jobs/{job_id}/cancel")).status_code == 200


async def test_a_bulk_cancel_is_streamed(client: Any, service: Emulator) -> None:
    """Each id has its outcome, also one that does not exist."""
    ids = [service.add_job(), "none"]
    answer = await client.post("/cancellations", json=ids)
    outcomes = {outcome["job_id"]: outcome for outcome in map(json.loads, answer.text.splitlines())}
    assert {name: outcomes[name]["result"] for name in ids} == {ids[0]: "canceling", "none": "not_found"}


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (Fault(on="retrieve", status=400, body={"error": "no"}), 400),
        (Fault(on="retrieve", status=401, times=None), 502),
        (Fault(on="retrieve", status=404), 404),
        (Fault(on="retrieve", status=403), 502),
    ],
)
async def test_errors_have_status_codes(client: Any, service: Emulator, fault: Fault, code: int) -> None:
    """An error of the service becomes the status code that is right for the caller, with a sentence and no key."""
    service.fail(fault)
    answer = await client.get(f"/jobs/{service.add_job()}")
    assert answer.status_code == code
    assert "the service answered" in answer.json()["detail"]
    assert KEY not in answer.text


@pytest.mark.parametrize(
    ("requests", "code", "reason"),
    [
        ([{"custom_id": "a"}], 422, "body is missing"),
        ([REQUESTS[0], REQUESTS[0]], 422, "row-0"),
        ([], 400, "nothing to upload"),
    ],
)
async def test_invalid_requests(client: Any, requests: object, code: int, reason: str) -> None:
    """Requests that a batch does not accept are refused with the reason."""
    answer = await client.post("/jobs", json=requests)
    assert answer.status_code == code
    assert reason in answer.text


async def test_results_that_do_not_exist(client: Any) -> None:
    """An error before the first row is a status code, not a stream that breaks off."""
    answer = await client.get("/jobs/none/results")
    assert answer.status_code == 404


async def test_the_page_of_the_interface(client: Any) -> None:
    """OpenAPI describes jobs, requests, and the lines of streams."""
    api = (await client.get("/openapi.json")).json()
    assert {"BatchJob", "BatchRequest", "BatchSuccess", "CancelOutcome"} <= api["components"]["schemas"].keys()
    made = api["paths"]["/jobs"]["post"]["responses"]["201"]["content"]["application/json"]["schema"]
    assert made == {"$ref": "#/components/schemas/BatchJob"}


async def test_a_shutdown_during_a_bulk(app: Any, service: Emulator) -> None:
    """A shutdown ends a bulk cancel: the caller has each outcome until then, and no further cancel is sent."""
    ids = [service.add_job() for _ in range(200)]
    service.fail(Fault(on="cancel", delay=0.02, times=None))
    outcomes = list[dict[str, Any]]()

    async def stop_after_the_first(server: Any, client: Any) -> None:
        async with client.stream("POST", "/cancellations", json=ids) as answer:
            async for line in answer.aiter_lines():
                outcomes.append(json.loads(line))
                server.should_exit = True

    async with serving(app, timeout_graceful_shutdown=0) as (server, client):
        with pytest.raises(httpx.RemoteProtocolError):
            await stop_after_the_first(server, client)
    stopped = {job["id"] for job in service.jobs if job["status"] == "CANCELING"}
    assert 0 < len(outcomes) < len(ids)
    assert {outcome["job_id"] for outcome in outcomes} <= stopped
    assert len(stopped) < len(ids)
