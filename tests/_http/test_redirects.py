"""Tests of the redirects that are followed, over hops that are scripted."""

from __future__ import annotations

import pytest

from together_batches._http.redirects import follow
from together_batches._protocol.jobs import Answer, Request

GET = Request("GET", "/batches", repeatable=True)
CANCEL = Request("POST", "/batches/job-1/cancel", repeatable=True)
CREATE = Request("POST", "/batches", repeatable=False)


def answer(request: Request, status: int, location: str | None = None) -> Answer:
    headers = {} if location is None else {"Location": location}
    return Answer(request, f"https://service.test{request.path}", status, headers, b"")


@pytest.mark.parametrize(
    ("request_", "followed"),
    [(GET, {301, 302, 303, 307, 308}), (CANCEL, {307, 308}), (CREATE, set())],
    ids=["GET", "POST", "a create"],
)
async def test_a_redirect_keeps_the_request_or_is_the_answer(request_: Request, followed: set[int]) -> None:
    """Only redirects that keep method and body are followed, and none that would repeat a create."""

    async def hop(_: Answer, location: str) -> Answer:
        return answer(request_, 200, location)

    found = set[int]()
    for status in (300, 301, 302, 303, 304, 305, 307, 308):
        end = await follow(answer(request_, status, "/elsewhere"), hop)
        if end.status == 200:
            found.add(status)
    assert found == followed


async def test_at_most_five_are_followed() -> None:
    """A loop of redirects ends with the sixth one as the answer."""
    hops: list[str] = []

    async def hop(redirect: Answer, location: str) -> Answer:
        hops.append(location)
        return answer(redirect.request, 302, f"/{len(hops)}")

    end = await follow(answer(GET, 302, "/0"), hop)
    assert (end.status, end.headers["Location"]) == (302, "/5")
    assert hops == ["/0", "/1", "/2", "/3", "/4"]


@pytest.mark.parametrize("location", [None, "", "/a\x01", "/a\tb", "/\x7f"])
async def test_a_redirect_to_nowhere_is_the_answer(location: str | None) -> None:
    """Without a location nothing is sent, nor to one with a control character, which no URL has."""

    async def hop(_: Answer, __: str) -> Answer:
        raise AssertionError

    first = answer(GET, 302, location)
    assert await follow(first, hop) is first


async def test_the_caller_decides_where_a_redirect_may_lead() -> None:
    """A location that is not followed leaves the redirect as the answer; a failure of a hop is the result."""

    async def refuse(_: Answer, __: str) -> None:
        return None

    async def fail(_: Answer, __: str) -> str:
        return "the reason"

    first = answer(GET, 302, "https://elsewhere.test/")
    assert await follow(first, refuse) is first
    assert await follow(first, fail) == "the reason"
