"""Tests of retries: which requests, when, and at what cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from together_batches._http import retry
from together_batches._http.retry import Budget
from together_batches._protocol.jobs import Request
from together_batches.config import RetryPolicy
from together_batches.errors import (
    APIConnectionError,
    APIError,
    APIResponseValidationError,
    APIStatusError,
    APITimeoutError,
    RateLimitError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

_READ = Request("GET", "/batches", repeatable=True)
_CREATE = Request("POST", "/batches", repeatable=False)


def _refused(status: int) -> APIStatusError:
    return RateLimitError("slow down") if status == 429 else APIStatusError("no", status=status)


def _delay(
    error: APIError,
    headers: Mapping[str, str] | None = None,
    *,
    request: Request = _READ,
    attempt: int = 1,
    policy: RetryPolicy = RetryPolicy(),
    seconds_left: float = 300.0,
    budget: Budget | None = None,
    chance: float = 1.0,
) -> float | None:
    return retry.wait_before_retry(
        request,
        error,
        headers or {},
        attempt=attempt,
        policy=policy,
        seconds_left=seconds_left,
        budget=budget or Budget(100),
        chance=lambda: chance,
    )


# --- the wait that the service requests ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "7"}, 7),
        ({"Retry-After": " 7 "}, 7),
        ({"Retry-After": "0"}, 0),
        ({"Retry-After": "1.25"}, 1.25),
        ({"Retry-After": "1e9"}, 1e9),
        ({"Retry-After": "-1"}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "inf"}, None),
        ({"Retry-After": "1e999"}, None),
        ({"Retry-After": ""}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "5 minutes"}, None),
        ({"Retry-After": "\u0000"}, None),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "250", "Retry-After": "1"}, 0.25),
        ({"retry-after-ms": "-1", "Retry-After": "1"}, 1),
        ({"retry-after-ms": "soon", "Retry-After": "1"}, 1),
    ],
    ids=str,
)
def test_a_wait_in_seconds(headers: dict[str, str], seconds: float | None) -> None:
    """The wait is a number of seconds or milliseconds, whole or not; an invalid value is None."""
    assert retry.retry_after(headers) == seconds


_DATE = "Mon, 14 Sep 2026 12:00:00 GMT"
_DATE_SECONDS = 1789387200.0


@pytest.mark.parametrize(
    ("until", "seconds"),
    [
        ("Mon, 14 Sep 2026 12:00:30 GMT", 30),
        ("Mon, 14 Sep 2026 14:00:30 +0200", 30),
        ("Mon, 14 Sep 2026 12:00:00 GMT", 0),
        ("Mon, 14 Sep 2026 11:00:00 GMT", 0),
        ("Mon, 99 Sep 2026 11:00:00 GMT", None),
        ("Mon, 14 Sep 99999 11:00:00 GMT", None),
        ("Mon, 14 Sep 2026 12:00:30 +99999999999999", None),
    ],
)
def test_a_wait_until_a_date(until: str, seconds: float | None) -> None:
    """A date is compared with the service's clock, or with ours if it sends none; a past date is a wait of zero."""
    by_its_own = {"Retry-After": until, "Date": _DATE}
    assert retry.retry_after(by_its_own, now=lambda: 0.0) == seconds
    assert retry.retry_after({"Retry-After": until}, now=lambda: _DATE_SECONDS) == seconds
    assert retry.retry_after({"Retry-After": until, "Date": "nonsense"}, now=lambda: _DATE_SECONDS) == seconds


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1.5"}, 1.5),
        ({"x-ratelimit-remaining-dynamic": "0", "x-ratelimit-reset-dynamic": "3"}, 3),
        (
            {
                "x-ratelimit-remaining": "0",
                "x-ratelimit-reset": "1",
                "x-ratelimit-remaining-dynamic": "0",
                "x-ratelimit-reset-dynamic": "2",
            },
            2,
        ),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "9", "Retry-After": "1"}, 1),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "9", "Retry-After": "soon"}, 9),
        ({"x-ratelimit-remaining": "4", "x-ratelimit-reset": "9"}, None),
        ({"x-ratelimit-reset": "9"}, None),
        ({"x-ratelimit-remaining": "0"}, None),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1789387200"}, None),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "-1"}, None),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "nan"}, None),
        ({"x-ratelimit-remaining": "none", "x-ratelimit-reset": "9"}, None),
    ],
    ids=str,
)
def test_a_limit_that_is_used_up_is_a_wait(headers: dict[str, str], seconds: float | None) -> None:
    """Without ``Retry-After`` the wait ends when the limit is reset; a timestamp instead of seconds is invalid."""
    assert retry.retry_after(headers) == seconds


@pytest.mark.parametrize(
    ("headers", "limit"),
    [
        ({}, None),
        ({"x-ratelimit-limit": "60"}, 60),
        ({"x-ratelimit-limit": "60", "x-ratelimit-limit-dynamic": "20"}, 20),
        ({"x-ratelimit-limit": "60", "x-ratelimit-limit-dynamic": "plenty"}, 60),
        ({"x-ratelimit-limit": "0"}, None),
        ({"x-ratelimit-limit": "-5"}, None),
        ({"x-ratelimit-limit": "inf"}, None),
        ({"x-ratelimit-limit": "60, 60;w=1"}, None),
    ],
    ids=str,
)
def test_a_limit_that_is_stated(headers: dict[str, str], limit: float | None) -> None:
    """The lower of the two limits in the headers counts; an invalid one is ignored."""
    assert retry.limit(headers) == limit


_HEADERS = (
    "Retry-After",
    "retry-after-ms",
    "Date",
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
    "x-ratelimit-reset-dynamic",
)


@given(st.dictionaries(st.sampled_from(_HEADERS), st.text() | st.floats().map(str)))
def test_no_header_crashes_the_reader(headers: dict[str, str]) -> None:
    """Any headers give a wait of zero or more, or None; and a limit above zero, or None."""
    seconds = retry.retry_after(headers, now=lambda: 0.0)
    assert seconds is None or seconds >= 0
    limit = retry.limit(headers)
    assert limit is None or limit > 0


# --- which requests are retried -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "read", "create"),
    [
        (400, False, False),
        (401, False, False),
        (402, False, False),
        (403, False, False),
        (404, False, False),
        (408, True, False),
        (409, False, False),
        (410, False, False),
        (422, False, False),
        (425, False, False),
        (429, True, True),
        (500, True, False),
        (502, True, False),
        (503, True, False),
        (504, True, False),
        (524, True, False),
    ],
)
def test_a_status_is_repeated_where_that_may_help(status: int, *, read: bool, create: bool) -> None:
    """408, 429 and 5xx are retried; a create only after a 429, because nothing was done with it."""
    assert (_delay(_refused(status)) is not None) is read
    assert (_delay(_refused(status), request=_CREATE) is not None) is create


@pytest.mark.parametrize("kind", [APIConnectionError, APITimeoutError])
def test_a_lost_connection(kind: type[APIConnectionError]) -> None:
    """A repeatable request is sent again; a create only if it certainly did not arrive."""
    assert _delay(kind("no answer", request_sent=True)) is not None
    assert _delay(kind("no connection", request_sent=False)) is not None
    assert _delay(kind("no answer", request_sent=True), request=_CREATE) is None
    assert _delay(kind("no connection", request_sent=False), request=_CREATE) is not None


def test_an_answer_that_is_none_is_not_asked_for_again() -> None:
    """An invalid response is not requested again, because it would be the same."""
    assert _delay(APIResponseValidationError("no JSON", expected="a job", status=200)) is None


@pytest.mark.parametrize(
    ("status", "advice", "read", "create"),
    [
        (503, "false", False, False),
        (429, "false", False, False),
        (408, "FALSE", False, False),
        (400, "true", True, False),
        (404, " True ", True, False),
        (429, "true", True, True),
        (503, "true", True, False),
        (409, "true", False, False),
        (503, "maybe", True, False),
        (400, "", False, False),
    ],
)
def test_the_service_advises(status: int, advice: str, *, read: bool, create: bool) -> None:
    """``x-should-retry`` decides for repeatable requests, except for a conflict, which is an answer."""
    headers = {"x-should-retry": advice}
    assert (_delay(_refused(status), headers) is not None) is read
    assert (_delay(_refused(status), headers, request=_CREATE) is not None) is create


# --- the wait before a retry --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("attempt", "most"), [(1, 0.5), (2, 1), (3, 2), (4, 4), (5, 8), (6, 8), (5_000, 8)])
def test_the_wait_doubles_and_is_drawn_by_lot(attempt: int, most: float) -> None:
    """The wait is random, from zero to the maximum of the attempt, so that many callers do not return at once."""
    policy = RetryPolicy(max_attempts=10_000)
    assert _delay(_refused(503), attempt=attempt, policy=policy, chance=1.0) == most
    assert _delay(_refused(503), attempt=attempt, policy=policy, chance=0.5) == most / 2
    assert _delay(_refused(503), attempt=attempt, policy=policy, chance=0.0) == 0


@pytest.mark.parametrize("status", [429, 503])
def test_the_service_s_wait_is_the_least(status: int) -> None:
    """The wait is never shorter than the one that the service requests."""
    assert _delay(_refused(status), {"Retry-After": "7"}, chance=0.0) == 7
    assert _delay(_refused(status), {"Retry-After": "0"}, chance=1.0) == 0.5


@given(st.floats(0, 1), st.integers(1, 4), st.floats(0, 100))
def test_any_wait_is_within_its_bounds(chance: float, attempt: int, requested: float) -> None:
    """The wait is at least the requested one, and at most that or the policy's maximum."""
    wait = _delay(_refused(503), {"Retry-After": str(requested)}, attempt=attempt, chance=chance)
    assert wait is not None
    assert requested <= wait <= max(requested, 8.0)


def test_a_policy_without_delay() -> None:
    """A policy without delay retries at once."""
    assert _delay(_refused(503), policy=RetryPolicy(base_delay=0)) == 0


# --- the end of retries -------------------------------------------------------------------------------------------


def test_the_attempts_are_used_up() -> None:
    """The error after the last attempt contains the number of attempts."""
    error = _refused(503)
    assert _delay(error, attempt=4) is not None
    assert _delay(error, attempt=5) is None
    assert error.message == "no; given up after 5 attempts"


def test_who_asked_for_no_repeating_is_not_told_of_it() -> None:
    """With one attempt allowed the error does not mention retries."""
    error = _refused(503)
    assert _delay(error, policy=RetryPolicy(max_attempts=1)) is None
    assert error.message == "no"


def test_what_is_not_to_be_repeated_is_not_explained() -> None:
    """A 404 is not retried, and its error does not explain why."""
    error = _refused(404)
    assert _delay(error, attempt=5, seconds_left=0) is None
    assert error.message == "no"


def test_the_time_is_over() -> None:
    """A wait beyond the call's time is not begun, and the error says so."""
    error = _refused(503)
    assert _delay(error, seconds_left=0.4) is None
    assert error.message == (
        "no; not retried: the next attempt is 0.5 s away, more than is left of max_elapsed (300 s)"
    )


@pytest.mark.parametrize("requested", ["301", "86400", "1e300"])
def test_the_service_asks_for_more_time_than_there_is(requested: str) -> None:
    """The call ends at once if the requested wait is too long, and the error contains that wait."""
    error = _refused(429)
    assert _delay(error, {"Retry-After": requested}) is None
    assert f"not retried: the service asks for {float(requested):g} s, more than is left" in str(error)


# --- the budget of the whole client -------------------------------------------------------------------------------


def test_a_budget_is_spent_and_refilled() -> None:
    """Each retry costs one token, each success returns a fifth, and the budget never exceeds its initial size."""
    budget = Budget(2)
    assert [budget.spend() for _ in range(3)] == [True, True, False]
    for _ in range(4):
        budget.succeeded()
    assert budget.spend() is False
    budget.succeeded()
    assert [budget.spend(), budget.spend()] == [True, False]
    for _ in range(1_000):
        budget.succeeded()
    assert [budget.spend() for _ in range(3)] == [True, True, False]


def test_an_outage_is_not_met_with_five_times_the_load() -> None:
    """An exhausted budget stops retries, and the error says why."""
    budget = Budget(3)
    errors: list[APIError] = [APIConnectionError("no answer") for _ in range(10)]
    assert [_delay(error, budget=budget) is not None for error in errors] == [True] * 3 + [False] * 7
    assert str(errors[-1]) == (
        "no answer; not retried: the retry budget of this client is used up, because too many requests fail"
    )


def test_what_was_refused_for_its_rate_costs_nothing() -> None:
    """A 429 costs nothing of the budget, because the rate limiter handles it."""
    budget = Budget(1)
    assert [_delay(_refused(429), budget=budget) is not None for _ in range(10)] == [True] * 10
    assert budget.spend() is True


def test_only_what_is_repeated_is_paid_for() -> None:
    """A request that is not retried, or too late, costs nothing of the budget."""
    budget = Budget(1)
    _delay(_refused(404), budget=budget)
    _delay(_refused(503), budget=budget, attempt=5)
    _delay(_refused(503), budget=budget, seconds_left=0)
    assert budget.spend() is True
