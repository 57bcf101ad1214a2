"""Errors of the libraries that read answers, in one line."""

from __future__ import annotations

from typing import Any

from together_batches._protocol.json_codec import WireError
from together_batches._text import escape

_MOST_CHARACTERS = 300
_MOST_PROBLEMS = 5


def reason_of(error: Exception) -> str:
    """Return an error of any library in one line of bounded length."""
    reason = _problems_of(error)
    if not reason:
        text = error.reason if isinstance(error, WireError) else getattr(error, "message", None) or error
        reason = str(text).partition("\n")[0].strip() or type(error).__name__
    if isinstance(error, AttributeError | KeyError | NameError):
        reason = f"{type(error).__name__}: {reason}"
    reason = escape(reason)
    return reason if len(reason) <= _MOST_CHARACTERS else reason[:_MOST_CHARACTERS] + "…"


def _problems_of(error: Any) -> str:
    """Return the problems that an error of pydantic lists: its text has a line for each, with input and address."""
    try:
        problems: Any = error.errors(include_url=False, include_context=False, include_input=False)
        return "; ".join(
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" if problem["loc"] else str(problem["msg"])
            for problem in problems[:_MOST_PROBLEMS]
        )
    except Exception:  # noqa: BLE001  # an error of another library, whose attributes mean something else
        return ""
