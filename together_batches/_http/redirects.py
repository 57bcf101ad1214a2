"""Redirects: which of them are followed, and how many. Where one may lead is decided by who follows it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeVar

from together_batches._protocol.jobs import Answer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_MOST_REDIRECTS = 5
_OF_ANY_METHOD = frozenset({307, 308})
_OF_A_GET = frozenset({301, 302, 303}) | _OF_ANY_METHOD
"""The statuses of redirects that keep a request unchanged."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

T = TypeVar("T")


async def follow(answer: Answer | T, hop: Callable[[Answer, str], Awaitable[Answer | T | None]]) -> Answer | T:
    """Return the answer at the end of the redirects that begin with ``answer``.

    ``hop`` sends the request to the location that a redirect names, relative to the URL of the redirect; it returns
    None if that location must not be followed. A redirect that is not followed is the answer itself.
    """
    for _ in range(_MOST_REDIRECTS):
        if not isinstance(answer, Answer):
            break
        location = _location(answer)
        further = None if location is None else await hop(answer, location)
        if further is None:
            break
        answer = further
    return answer


def _location(answer: Answer) -> str | None:
    """Return where a redirect leads; None if it changes the request, or repeats one that must not be repeated."""
    request = answer.request
    same = _OF_A_GET if request.method == "GET" else _OF_ANY_METHOD
    if answer.status not in same or not request.repeatable:
        return None
    location = answer.headers.get("Location") or None
    # Without this check aiohttp would connect, and then refuse a control character by an error of its own.
    return None if location is None or _CONTROL.search(location) else location
