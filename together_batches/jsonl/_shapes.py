"""Detection of files in other formats, and how to convert them.

One sentence about the file is more useful than a problem for each of its lines. Only the beginning is examined, and
two rows have to agree, so that one odd row in a valid file remains a problem of its line.
"""

from __future__ import annotations

import ast
import json
import re
from typing import cast

from together_batches._protocol import json_codec, request_codec

_BINARY = {
    b"\x1f\x8b": "the file is compressed with gzip: unpack it, for example with gunzip",
    b"\x28\xb5\x2f\xfd": "the file is compressed with zstd: unpack it, for example with unzstd",
    b"BZh": "the file is compressed with bzip2: unpack it, for example with bunzip2",
    b"PK\x03\x04": "the file is a zip archive or a spreadsheet: unpack it, or export it as JSON Lines or CSV",
    b"PAR1": "the file is Parquet: make requests of it, with jsonl.requests or --prompt",
}
_UTF_16 = "the file is UTF-16: save it as UTF-8, for example with iconv -f UTF-16 -t UTF-8"
_ZEROS = "the file holds zero bytes: it is binary, compressed or UTF-16, and not text in UTF-8"
_ARRAY = "the file is one JSON array, and must have one request a line: convert it, for example with jq -c '.[]'"
_PRETTY = (
    "the file is JSON over several lines, and must have one request a line: convert it, for example with jq -c ."
)
_PYTHON = (
    "the lines are Python dicts, and not JSON: write them with json.dumps, or read them with ast.literal_eval first"
)
_QUOTED = "the lines are JSON within quotes, encoded twice: convert them, for example with jq -c fromjson"
_CSV = "the file is CSV, and must have one JSON object a line: make requests of it, with jsonl.requests or --prompt"
_ANTHROPIC = (
    "the lines are in Anthropic's format, with params instead of body: convert them, for example with "
    "jq -c '{custom_id, body: .params}', and set body.model"
)
_GEMINI = (
    "the lines are in Gemini's format, with request instead of body: write custom_id from key, and a body with "
    "model and messages from request.contents"
)
_HEADER = re.compile(r'\s*"?[A-Za-z_][\w .-]*"?(\s*[,;\t]\s*"?[A-Za-z_][\w .-]*"?)+\s*')
_ROWS = 2


def other_shape(beginning: bytes) -> str | None:
    """Return the format of a file by its beginning, and how to convert it; None if it may be a file of requests."""
    binary = binary_format(beginning)
    if binary is not None:
        return binary
    text = beginning.decode("utf-8-sig", "replace").lstrip()
    if re.match(r"\[\s*\{", text):
        # A file of one array per line is not such a file.
        return None if _is_json(text.partition("\n")[0]) and "\n" in text.strip() else _ARRAY
    lines = [line.strip() for line in text.split("\n", 64) if line.strip()][:_ROWS]
    if not lines:
        return None
    if text.startswith("{") and not _is_json(lines[0]) and _starts_with_json(text):
        return _PRETTY
    if _HEADER.fullmatch(lines[0]) and len(lines) > 1 and not lines[1].startswith("{"):
        return _CSV
    shapes = {_shape_of(line) for line in _whole(lines, beginning)}
    return shapes.pop() if len(shapes) == 1 else None


def binary_format(beginning: bytes) -> str | None:
    """Return the format of a file that is not text in UTF-8, and how to convert it; otherwise None."""
    for magic, sentence in _BINARY.items():
        if beginning.startswith(magic):
            return sentence
    if beginning.startswith((b"\xff\xfe", b"\xfe\xff")) or _alternates(beginning):
        return _UTF_16
    return _ZEROS if b"\0" in beginning else None


def _whole(lines: list[str], beginning: bytes) -> list[str]:
    """Return the lines without the last one if the beginning may end within it."""
    return lines[:1] if len(lines) > 1 and beginning.count(b"\n") < len(lines) and not _is_json(lines[-1]) else lines


def _shape_of(line: str) -> str | None:
    if line.startswith(('"', "'")):
        return _QUOTED if _is_quoted(line) else None
    if not line.startswith("{"):
        return None
    try:
        row = request_codec.request(line.encode())
    except json_codec.WireError:
        return _PYTHON if _is_python(line) else None
    if not isinstance(row, dict):
        return None
    fields = cast("dict[str, object]", row)
    if "body" in fields:
        return None
    if isinstance(fields.get("params"), dict):
        return _ANTHROPIC
    return _GEMINI if isinstance(fields.get("request"), dict) else None


def _is_quoted(line: str) -> bool:
    """Return whether this is a JSON string that contains an object, or an object in the quotes of CSV or Python."""
    try:
        inner = json.loads(line)
    except ValueError:
        quote = line[0]
        inner = line[1:].removesuffix(quote).replace(quote * 2, quote)
    return isinstance(inner, str) and inner.lstrip().startswith("{") and _is_json(inner)


def _is_python(line: str) -> bool:
    try:
        return isinstance(ast.literal_eval(line), dict)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return False


def _is_json(text: str) -> bool:
    try:
        request_codec.request(text.encode())
    except json_codec.WireError:
        return False
    return True


def _starts_with_json(text: str) -> bool:
    """Return whether the text begins with an object over several lines, or with the beginning of a long one."""
    first, _, rest = text.partition("\n")
    if not re.fullmatch(r'\{\s*("([^"\\]|\\.)*"\s*:.*)?', first.rstrip()) or not rest.strip():
        return False
    try:
        json.JSONDecoder().raw_decode(text)
    except json.JSONDecodeError as error:
        # An error before the end of the text is a fault; one at the end may only be where reading stopped.
        return error.msg.startswith("Unterminated") or error.pos >= len(text.rstrip()) - 1
    except RecursionError:
        return False
    return True


def _alternates(beginning: bytes) -> bool:
    """Return whether every other byte is zero, as in UTF-16 of Latin letters without a byte order mark."""
    return len(beginning) > 3 and (not any(beginning[:64:2]) or not any(beginning[1:64:2]))
