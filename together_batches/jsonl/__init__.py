"""Files of requests: creation, reading, validation, and splitting to the limits of the service.

Each line is one request as JSON. Lines are split only at the byte ``\\n``, because U+2028 and similar characters may
occur in a text. The format is documented at https://docs.together.ai/docs/inference/batch/overview. All functions are
synchronous and hold one row at a time; async code calls them in a thread.
"""

from together_batches.jsonl._checks import MAX_BYTES, MAX_ROWS, Problem, Validation, validate
from together_batches.jsonl._estimate import Estimate, estimate
from together_batches.jsonl._files import read, split, write
from together_batches.jsonl._lines import MAX_LINE_BYTES, Line, LineSplitter, split_lines
from together_batches.jsonl._requests import MAX_CUSTOM_ID, RequestLike, audio_request, chat_request, decode, encode
from together_batches.jsonl._sources import Readable, Source
from together_batches.jsonl._table_requests import Prompt, TableRequests, requests
from together_batches.jsonl._tables import ArrowTable, Table

__all__ = [
    "MAX_BYTES",
    "MAX_CUSTOM_ID",
    "MAX_LINE_BYTES",
    "MAX_ROWS",
    "ArrowTable",
    "Estimate",
    "Line",
    "LineSplitter",
    "Problem",
    "Prompt",
    "Readable",
    "RequestLike",
    "Source",
    "Table",
    "TableRequests",
    "Validation",
    "audio_request",
    "chat_request",
    "decode",
    "encode",
    "estimate",
    "read",
    "requests",
    "split",
    "split_lines",
    "validate",
    "write",
]
