"""Display for people: values as HTML, progress bars, tracebacks in notebooks. Each part is loaded on first use."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Literal, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

Callback = TypeVar("Callback", bound="Callable[..., None] | None")


def watched(
    progress: bool, verb: Literal["cancel", "wait", "run", "transfer"], callback: Callback, subject: Any
) -> AbstractContextManager[Callback]:
    """Return a context with the callback to pass to a verb: if ``progress`` is true, one that draws a bar, too."""
    if not progress:
        return nullcontext(callback)
    from together_batches._display import watching

    drawn: AbstractContextManager[Callback] = getattr(watching, verb)(callback, subject)
    return drawn
