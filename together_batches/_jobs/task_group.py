"""A task group whose first error is raised as it is."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


@asynccontextmanager
async def plain_group() -> AsyncGenerator[asyncio.TaskGroup]:
    """Open a task group that raises its first error unchanged and not in an exception group."""
    failed: BaseException
    try:
        async with asyncio.TaskGroup() as group:
            yield group
        return
    except BaseExceptionGroup as several:
        failed = several.exceptions[0]
    raise failed
