"""Types in the signatures of the clients other than values, for annotations in user code.

>>> from together_batches.typing import Ids, Stream
"""

from __future__ import annotations

from together_batches._jobs.follower import AsyncFollower
from together_batches._jobs.job_ids import Ids
from together_batches._jobs.results import Order, Requests
from together_batches._jobs.upload_source import Source
from together_batches._loop_thread import LoopIterator
from together_batches._schema.adapters import Schema, SchemaAdapter
from together_batches._stream import Stream
from together_batches.events import ClientEvent
from together_batches.jsonl._estimate import Prices
from together_batches.runs._options import Requests as RunRequests
from together_batches.sync import Follower

__all__ = [
    "AsyncFollower",
    "ClientEvent",
    "Follower",
    "Ids",
    "LoopIterator",
    "Order",
    "Prices",
    "Requests",
    "RunRequests",
    "Schema",
    "SchemaAdapter",
    "Source",
    "Stream",
]
