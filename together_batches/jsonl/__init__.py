"""Files of requests: made, read, checked, and cut to the size that the service takes.

One request a line, as JSON, split at the byte ``\\n`` and nothing else: U+2028 and its like may stand in a text.
What the service asks of a file is told at https://docs.together.ai/docs/inference/batch/overview. Everything here is
synchronous and holds one row at a time; async code calls it in a thread.
"""

from together_batches.jsonl._checks import MAX_BYTES, MAX_ROWS, Problem, Validation, validate
from together_batches.jsonl._files import read, split, write
from together_batches.jsonl._lines import MAX_LINE_BYTES, Line, LineSplitter, split_lines
from together_batches.jsonl._requests import MAX_CUSTOM_ID, RequestLike, audio_request, chat_request, decode, encode
from together_batches.jsonl._sources import Readable, Source

__all__ = [
    "MAX_BYTES",
    "MAX_CUSTOM_ID",
    "MAX_LINE_BYTES",
    "MAX_ROWS",
    "Line",
    "LineSplitter",
    "Problem",
    "Readable",
    "RequestLike",
    "Source",
    "Validation",
    "audio_request",
    "chat_request",
    "decode",
    "encode",
    "read",
    "split",
    "split_lines",
    "validate",
    "write",
]
