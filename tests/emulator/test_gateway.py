"""The traffic on the wire, tested with a bare aiohttp client."""

from __future__ import annotations

import asyncio
import io
import re
from typing import TYPE_CHECKING, Any

import aiohttp
import msgspec
import pytest

from together_batches.emulator import Emulator, Fault, RateLimit

if TYPE_CHECKING:
    from tests.emulator.conftest import FakeClock, FakeSleep

CHAT = "/v1/chat/completions"


async def seen(call: Any) -> tuple[int, Any]:
    """Return the status and the JSON of a response."""
    async with call as response:
        return response.status, await response.json()


# The Batch API


async def test_a_job_is_created_read_and_cancelled(
    emulator: Emulator, http: aiohttp.ClientSession, clock: FakeClock
) -> None:
    """A create returns 201 with an envelope, later calls the bare job; a cancel of an ended job is a 409."""
    file_id = emulator.add_file(b'{"custom_id":"a","body":{"model":"m"}}\n')
    wanted = {"input_file_id": file_id, "endpoint": CHAT, "completion_window": "24h"}
    status, created = await seen(http.post("batches", json=wanted))
    assert (status, list(created)) == (201, ["job"])
    path = f"batches/{created['job']['id']}"
    assert await seen(http.get(path)) == (200, created["job"])
    status, canceling = await seen(http.post(f"{path}/cancel"))
    assert (status, canceling["status"]) == (200, "CANCELING")
    emulator.advance(1)
    assert (await seen(http.get(path)))[1]["status"] == "CANCELLED"
    expected = {"error": "Cannot cancel job - already in terminal state: CANCELLED"}
    assert await seen(http.post(f"{path}/cancel")) == (409, expected)
    assert clock.time + 1 == emulator.now()


async def test_the_list_is_null_or_an_array(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    """The list of an empty account is the literal null, otherwise an array."""
    async with http.get("batches") as response:
        assert (response.status, await response.read()) == (200, b"null")
    job_id = emulator.add_job()
    assert await seen(http.get("batches")) == (200, [emulator.job(job_id)])


async def test_an_unknown_job_is_404_with_the_request_id(http: aiohttp.ClientSession) -> None:
    """The 404 for an unknown job contains the request id of the header."""
    for call in (http.get("batches/no-such-job"), http.post("batches/no-such-job/cancel")):
        async with call as response:
            request_id = response.headers["x-request-id"]
            expected = {"error": "Job not found", "request_id": request_id}
            assert (response.status, await response.json()) == (404, expected)


async def test_ids_are_decoded(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    """Ids in paths are decoded, because any text may be an id."""
    emulator.add_job(id="a/b?#%é")
    path = "batches/a%2Fb%3F%23%25%C3%A9/cancel"
    url = aiohttp.client.URL(f"{emulator.base_url}/{path}", encoded=True)
    status, job = await seen(http.post(url))
    assert (status, job["id"]) == (200, "a/b?#%é")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "invalid JSON body"),
        (b"[]", "the body must be a JSON object"),
        (b"{}", "input_file_id is required"),
        (b'{"input_file_id":"file-1","endpoint":"/v1/rivers"}', "invalid endpoint"),
    ],
)
async def test_a_bad_create_is_400(http: aiohttp.ClientSession, body: bytes, message: str) -> None:
    """A bad create is a 400 with a plain text, as the Batch API words its errors."""
    assert await seen(http.post("batches", data=body)) == (400, {"error": message})


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [("HEAD", "batches/a", "GET"), ("HEAD", "files", "GET, POST"), ("PUT", "batches", "GET, POST")],
)
async def test_another_method_is_405(http: aiohttp.ClientSession, method: str, path: str, allowed: str) -> None:
    """Another method is a 405 that names the allowed ones; HEAD has no body here either."""
    async with http.request(method, path) as response:
        assert (response.status, response.headers["Allow"]) == (405, allowed)
        assert (await response.read() == b"") == (method == "HEAD")


async def test_an_unknown_path_is_404_in_the_other_shape(http: aiohttp.ClientSession) -> None:
    """The 404 for an unknown path has an object as its error, like the rest of the service."""
    status, body = await seen(http.get("rivers?x=1"))
    assert (status, body["error"]["type"]) == (404, "not_found")
    assert "GET /v1/rivers?x=1" in body["error"]["message"]


async def test_the_key_belongs_to_the_project_of_the_jobs(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    """The key belongs to the project of the jobs, which the official command requests before anything else."""
    job = emulator.job(emulator.add_job())
    status, owner = await seen(http.get(f"http://127.0.0.1:{emulator.port}/v3/whoami"))
    assert (status, owner["type"]) == (200, "project_api_key")
    ids = (owner["organization"]["id"], owner["project"]["id"])
    assert ids == (job["organization_id"], job["project_id"])


async def test_models_are_listed_with_their_prices(http: aiohttp.ClientSession) -> None:
    """The list of models has those with a price; without a key it is refused."""
    async with Emulator(prices={"m": (0.05, 0.2)}) as emulator:
        url = f"http://127.0.0.1:{emulator.port}/v2/supported-models"
        status, page = await seen(http.get(url))
        pricing = {"input": 0.05, "output": 0.2}
        model = {"id": "m", "name": "m", "products": ["PRODUCT_SERVERLESS"], "pricing": pricing}
        assert (status, page) == (200, {"data": [model], "next_cursor": None})
        assert (await seen(http.get(url, headers={"Authorization": ""})))[0] == 401


# Access


@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic emulator-key"}, {"Authorization": ""}],
)
async def test_a_wrong_or_missing_key_is_401(emulator: Emulator, headers: dict[str, str]) -> None:
    """A wrong or missing key is a 401, in the wording of the API in question."""
    job_id = emulator.add_job()
    async with aiohttp.ClientSession(f"{emulator.base_url}/", headers=headers) as http:
        assert await seen(http.post(f"batches/{job_id}/cancel")) == (401, {"error": "Unauthorized"})
        status, body = await seen(http.get("files"))
    assert (status, body["error"]["message"]) == (401, "Unauthorized")
    assert emulator.job(job_id)["status"] == "IN_PROGRESS"


async def test_without_a_key_of_its_own_it_takes_any() -> None:
    """An emulator without an API key of its own accepts any key, but requires one."""
    async with Emulator(api_key=None) as emulator, aiohttp.ClientSession(f"{emulator.base_url}/") as http:
        assert (await seen(http.get("batches", headers={"Authorization": "Bearer x"})))[0] == 200
        assert (await seen(http.get("batches")))[0] == 401
        assert (await seen(http.get("batches", headers={"Authorization": "Bearer "})))[0] == 401


@pytest.mark.parametrize("agent", ["Python-urllib/3.11", ""])
async def test_the_network_in_front_refuses_some_agents(http: aiohttp.ClientSession, agent: str) -> None:
    """The network in front refuses some user agents with a 403 without JSON."""
    async with http.get("batches", headers={"User-Agent": agent}) as response:
        assert (response.status, response.content_type) == (403, "text/plain")
        assert await response.text() == "error code: 1010"


async def test_every_answer_has_the_emulators_date_and_its_own_request_id(
    emulator: Emulator, http: aiohttp.ClientSession
) -> None:
    """Every response has the emulator's date, which follows ``advance``, and a request id that never repeats."""
    dates: list[str] = []
    ids: set[str] = set()
    for path in ("batches", "batches/no-such-job", "rivers"):
        async with http.get(path) as response:
            dates.append(response.headers["Date"])
            ids.add(response.headers["x-request-id"])
        emulator.advance(60)
    assert dates == [f"Mon, 14 Sep 2026 10:2{minute}:30 GMT" for minute in range(3)]
    assert len(ids) == 3


async def test_over_the_rate_is_429_until_time_has_passed(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    """Requests over the rate are 429 until the emulator's clock advances; a refused cancel has no effect."""
    job_id = emulator.add_job()
    emulator.rate_limit = RateLimit(0.5, 1)
    assert (await seen(http.get("batches")))[0] == 200
    async with http.post(f"batches/{job_id}/cancel") as response:
        assert (response.status, await response.json()) == (429, {"error": "too many requests"})
        assert response.headers["Retry-After"] == "2"
        assert response.headers["x-ratelimit-limit"] == "0.5"
        assert response.headers["x-ratelimit-remaining"] == "0"
        assert response.headers["x-ratelimit-reset"] == "2.000"
    assert emulator.job(job_id)["status"] == "IN_PROGRESS"
    emulator.advance(2)
    assert (await seen(http.post(f"batches/{job_id}/cancel")))[0] == 200
    status, body = await seen(http.get("files"))
    assert (status, body["error"]["type"]) == (429, "rate_limit")


async def test_a_silent_limit_gives_no_advice_and_can_be_lifted(
    emulator: Emulator, http: aiohttp.ClientSession
) -> None:
    """A silent limit gives a 429 without headers about it, and can be removed."""
    emulator.rate_limit = RateLimit(1, 1, retry_after=False)
    assert emulator.rate_limit == RateLimit(1, 1, retry_after=False)
    assert (await seen(http.get("batches")))[0] == 200
    async with http.get("batches") as response:
        assert response.status == 429
        assert not [name for name in response.headers if "retry" in name.lower() or "ratelimit" in name.lower()]
    emulator.rate_limit = None
    assert (await seen(http.get("batches")))[0] == 200


# Files


def upload_form(content: bytes, **fields: str) -> aiohttp.FormData:
    form = aiohttp.FormData(fields)
    form.add_field("file", io.BytesIO(content), filename="ignored.jsonl", content_type="application/octet-stream")
    return form


async def test_a_file_is_uploaded_read_and_deleted(http: aiohttp.ClientSession) -> None:
    """A file is uploaded, read and deleted, byte for byte, also beyond a mebibyte."""
    content = b'{"custom_id":"a"}\r\n\xff' * 100_000
    form = upload_form(content, purpose="batch-api", file_name="in.jsonl")
    status, file = await seen(http.post("files/upload", data=form))
    assert (status, file["filename"], file["bytes"], file["purpose"], file["FileType"]) == (
        200,
        "in.jsonl",
        len(content),
        "batch-api",
        "jsonl",
    )
    assert await seen(http.get(f"files/{file['id']}")) == (200, file)
    assert await seen(http.get("files")) == (200, {"data": [file]})
    async with http.get(f"files/{file['id']}/content") as response:
        assert (response.status, await response.read()) == (200, content)
    deleted = {"id": file["id"], "object": "file", "deleted": True}
    assert await seen(http.delete(f"files/{file['id']}")) == (200, deleted)
    for call in (
        http.get(f"files/{file['id']}"),
        http.get(f"files/{file['id']}/content"),
        http.delete(f"files/{file['id']}"),
    ):
        status, body = await seen(call)
        assert (status, body["error"]["type"]) == (404, "not_found")
        assert body["error"]["message"] == f"File {file['id']} not found"


@pytest.mark.parametrize("missing", ["purpose", "file_name"])
async def test_an_upload_needs_its_fields(http: aiohttp.ClientSession, missing: str) -> None:
    """An upload with a missing field is an error that names the field."""
    fields = {"purpose": "batch-api", "file_name": "in.jsonl"}
    del fields[missing]
    status, body = await seen(http.post("files/upload", data=upload_form(b"{}", **fields)))
    assert (status, body["error"]["message"]) == (400, f"The form field {missing} is required.")


async def test_an_upload_is_a_form(http: aiohttp.ClientSession) -> None:
    """An upload that is not a form is refused."""
    status, body = await seen(http.post("files/upload", json={}))
    assert (status, body["error"]["type"]) == (400, "invalid_request_error")


async def test_who_asks_first_is_told_to_go_on(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    """``Expect: 100-continue`` is answered, because curl sends it before a large body."""
    form = upload_form(b"{}", purpose="batch-api", file_name="in.jsonl")
    assert (await seen(http.post("files/upload", data=form, expect100=True)))[0] == 200


async def test_an_upload_that_breaks_off_harms_nobody(emulator: Emulator) -> None:
    """An upload that breaks off has no effect: the emulator keeps running, and records nothing."""
    reader, writer = await asyncio.open_connection("127.0.0.1", emulator.port)
    writer.write(b"POST /v1/batches HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    await writer.drain()
    await asyncio.sleep(0.01)
    writer.transport.abort()
    assert await reader.read() == b""
    await asyncio.sleep(0.01)
    assert emulator.count("create") == 0
    assert emulator.requests == emulator.requests.__class__()


# Faults


async def test_a_status_instead_of_acting(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    """A fault with a status replaces the effect, in the service's own wording; the next request succeeds."""
    job_id = emulator.add_job()
    emulator.fail(Fault(on="cancel", status=500))
    emulator.fail(Fault(on="files", status=503))
    assert await seen(http.post(f"batches/{job_id}/cancel")) == (500, {"error": "internal error"})
    assert emulator.job(job_id)["status"] == "IN_PROGRESS"
    status, body = await seen(http.get("files"))
    assert (status, body["error"]["type"]) == (503, "server_error")
    assert (await seen(http.post(f"batches/{job_id}/cancel")))[0] == 200


async def test_a_status_after_acting(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    """A fault with a status after the effect returns an error although the request has taken effect."""
    job_id = emulator.add_job()
    page = "<html>bad gateway</html>"
    emulator.fail(Fault(status=502, acts=True, body=page, content_type="text/html", headers={"cf-ray": "1"}))
    async with http.post(f"batches/{job_id}/cancel") as response:
        assert (response.status, await response.text()) == (502, page)
        assert (response.content_type, response.headers["CF-RAY"]) == ("text/html", "1")
    assert emulator.job(job_id)["status"] == "CANCELING"


async def test_an_answer_can_be_altered(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    """A fault without a status alters the response after the effect; headers are replaced, not repeated."""
    job_id = emulator.add_job()
    emulator.fail(Fault(body={"id": "somebody-else"}, headers={"date": "never"}))
    async with http.post(f"batches/{job_id}/cancel") as response:
        assert (response.status, await response.json()) == (200, {"id": "somebody-else"})
        assert response.headers.getall("Date") == ["never"]
    assert emulator.job(job_id)["status"] == "CANCELING"


async def test_a_job_that_was_not_created(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    """A fault with a status below 400 and a body replaces the response to a create, and no job is created."""
    answer = {"job": None, "warning": "no room"}
    emulator.fail(Fault(on="create", status=201, body=answer))
    emulator.fail(Fault(on="create", status=204))
    assert await seen(http.post("batches", json={})) == (201, answer)
    async with http.post("batches", json={}) as response:
        assert (response.status, await response.read()) == (204, b"")


async def test_a_delay_comes_before_acting(emulator: Emulator, http: aiohttp.ClientSession, sleep: FakeSleep) -> None:
    """A delay precedes the effect, and uses the sleep that was passed in."""
    emulator.fail(Fault(on="list", delay=7.5))
    assert (await seen(http.get("batches")))[0] == 200
    assert sleep.naps == [7.5]


@pytest.mark.parametrize(("lose", "status"), [("request", "IN_PROGRESS"), ("answer", "CANCELING")])
async def test_a_lost_request_was_not_acted_upon_and_a_lost_answer_was(
    emulator: Emulator, http: aiohttp.ClientSession, lose: Any, status: str
) -> None:
    """A lost request has no effect and a lost response has one; the client cannot tell them apart."""
    job_id = emulator.add_job()
    emulator.fail(Fault(lose=lose))
    with pytest.raises(aiohttp.ClientConnectionError):
        await http.post(f"batches/{job_id}/cancel")
    assert emulator.job(job_id)["status"] == status
    assert emulator.requests[-1].status is None
    assert emulator.count("cancel") == 1


@pytest.mark.parametrize("cut_after", [0, 20])
async def test_a_cut_answer_promises_more_than_it_gives(
    emulator: Emulator, http: aiohttp.ClientSession, cut_after: int
) -> None:
    """A cut response announces the whole length in the headers, and stops after the first bytes."""
    job_id = emulator.add_job()
    emulator.fail(Fault(cut_after=cut_after))
    async with http.post(f"batches/{job_id}/cancel") as response:
        assert (response.status, response.content_length) == (200, len(msgspec.json.encode(emulator.job(job_id))))
        if cut_after:
            assert await response.content.readany() == msgspec.json.encode(emulator.job(job_id))[:cut_after]
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.content.read()
    assert emulator.job(job_id)["status"] == "CANCELING"


async def test_a_dripping_answer_comes_byte_by_byte(
    emulator: Emulator, http: aiohttp.ClientSession, sleep: FakeSleep
) -> None:
    """A dripping response comes byte by byte, and is complete in the end."""
    emulator.fail(Fault(drip=0.5))
    assert await seen(http.get("batches")) == (200, None)
    assert sleep.naps == [0.5] * len("null")


async def test_who_hangs_up_during_a_drip_is_let_go() -> None:
    """A client that disconnects during a drip is dropped without a log message."""
    endless = asyncio.Event()

    async def sleep(seconds: float) -> None:
        await asyncio.wait_for(endless.wait(), 5)

    async with Emulator(sleep=sleep, faults=[Fault(drip=60)]) as emulator:
        headers = {"Authorization": "Bearer emulator-key"}
        async with aiohttp.ClientSession(f"{emulator.base_url}/", headers=headers) as http:
            response = await http.get("batches")
            assert await response.content.read(1) == b"n"
            response.close()
            await asyncio.sleep(0.01)
            endless.set()
            assert (await seen(http.get("batches")))[0] == 200


async def test_chance_and_heal(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    """A fault with a probability hits some of many requests until the faults are cleared."""
    emulator.fail(Fault(on="list", status=500, times=None, chance=0.5))
    statuses = [(await seen(http.get("batches")))[0] for _ in range(30)]
    assert set(statuses) == {200, 500}
    emulator.clear_faults()
    assert {(await seen(http.get("batches")))[0] for _ in range(10)} == {200}


# The records


async def test_requests_are_recorded_as_they_came(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    """A request is recorded with method, path, headers, body, time and outcome; ``repr`` omits the headers."""
    await seen(http.post("batches", data=b'{"a":1}', headers={"X-Odd": "1"}))
    await seen(http.get("rivers?a=%20"))
    first, second = emulator.requests
    assert (first.method, first.path, first.body, first.status) == ("POST", "/v1/batches", b'{"a":1}', 400)
    assert (first.headers["x-odd"], first.at) == ("1", emulator.now())
    assert (second.method, second.path, second.body, second.status) == ("GET", "/v1/rivers?a=%20", b"", 404)
    assert not re.search("emulator-key|Authorization", repr(first))


async def test_operations_are_counted(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    """Operations are counted, also failed ones; an unknown operation is an error."""
    for path in ("batches", "batches", "batches/a", "files", "files/a", "files/a/content", "rivers"):
        await seen(http.get(path))
    names = ("list", "retrieve", "files", "file", "content", "other", "cancel")
    assert [emulator.count(name) for name in names] == [2, 1, 1, 1, 1, 1, 0]
    with pytest.raises(ValueError, match="no operation 'get'"):
        emulator.count("get")


async def test_records_share_headers_up_to_a_bound(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    """Ten thousand equal requests share one copy of the headers; ever-changing headers do not pile up."""
    for number in range(-1, 300):
        await seen(http.get("batches", headers={"X-Number": str(max(0, number))}))
    first, second, *_, last = emulator.requests
    assert first.headers is second.headers
    assert (first.headers["X-Number"], last.headers["X-Number"]) == ("0", "299")
