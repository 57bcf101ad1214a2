"""The members of a JSON object, cut from its text by the grammar alone.

For JSON that msgspec rejects: half of a surrogate pair, and more levels than a recursion has. It takes a hundred
times the time.
"""

from __future__ import annotations

import json
import re

_TOKEN = re.compile(
    rb"[ \t\r\n]*+(?:(?P<mark>[{}\[\],:])"
    rb'|(?P<text>"[^"\\\x00-\x1f]*+(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*+)*+")'
    rb"|(?P<plain>-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?|true|false|null))[ \t\r\n]*+"
)
_LEVELS = 2
_ROUGH_TOKEN = re.compile(
    rb'(?P<open>[{\[])|(?P<close>[}\]])|(?P<text>"[^"\\]*+(?:\\.[^"\\]*+)*+")(?P<colon>[ \t\r]*+:[ \t\r]*+)?',
    re.DOTALL,
)


def members(line: bytes) -> dict[tuple[str, ...], bytes]:
    """Return the text of each member of the object in ``line``, and of each object directly in it, by path of names.

    Raises ValueError if the line is not a JSON object in UTF-8. Of two members with one name the last counts, with
    its content.
    """
    line.decode()
    found: dict[tuple[str, ...], bytes] = {}
    opened: list[bytes] = []
    names, begins = [""] * _LEVELS, [0] * _LEVELS
    place, awaited = 0, "value"
    while place < len(line):
        token = _TOKEN.match(line, place)
        if token is None:
            break
        kind, place = str(token.lastgroup), token.end()
        level = len(opened)
        mark = token["mark"] or b""
        named = level <= _LEVELS and opened == [b"{"] * level
        if kind == "text" and awaited in {"name", "name or end"}:
            if named:
                names[level - 1] = str(json.loads(token["text"]))
            awaited = ":"
            continue
        if mark in {b",", b":"}:
            if mark.decode() != (":" if awaited == ":" else "," if awaited == "end" and opened else ""):
                break
            awaited = "value" if mark == b":" or opened[-1] == b"[" else "name"
            continue
        if mark in {b"}", b"]"}:
            if not opened or awaited not in {"end", "name or end" if mark == b"}" else "value or end"}:
                break
            if opened.pop() != (b"{" if mark == b"}" else b"["):
                break
            level -= 1
            named = level <= _LEVELS and opened == [b"{"] * level
        elif awaited not in {"value", "value or end"} or (level == 0 and mark != b"{"):
            break
        else:
            if named and level:
                begins[level - 1] = token.start(kind)
                for path in [path for path in found if path[:level] == tuple(names[:level])]:
                    del found[path]
            if mark:
                opened.append(mark)
                awaited = "name or end" if mark == b"{" else "value or end"
                continue
        awaited = "end"
        if named and level:
            found[tuple(names[:level])] = line[begins[level - 1] : token.end(kind)]
    else:
        if awaited == "end" and not opened:
            return found
    message = f"invalid JSON object: byte {place}"
    raise ValueError(message)


def salvaged_id(line: bytes) -> str | None:
    """Return the ``custom_id`` directly in the object of a line that no decoder reads; None if there is none.

    Of several the last counts. A deeper one may be part of an answer, and says nothing about the line.
    """
    found: str | None = None
    level, awaited_at = 0, -1
    if not line.lstrip().startswith(b"{"):
        return None
    for token in _ROUGH_TOKEN.finditer(line):
        if token["open"]:
            level += 1
        elif token["close"]:
            level -= 1
            if level <= 0:
                break
        elif level == 1 and token["colon"]:
            if _text_of(token["text"]) == "custom_id":
                found, awaited_at = None, token.end()
        elif level == 1 and token.start() == awaited_at:
            found = _text_of(token["text"])
    return found or None


def _text_of(text: bytes) -> str | None:
    try:
        return str(json.loads(text.decode("utf-8", "replace"), strict=False))
    except ValueError:
        return None
