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
_CLOSING = {b"}": b"{", b"]": b"["}
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

    def is_member() -> bool:
        return 0 < len(opened) <= _LEVELS and set(opened) == {b"{"}

    def begin_value(at: int) -> None:
        if is_member():
            begins[len(opened) - 1] = at
            path = tuple(names[: len(opened)])
            for repeated in [other for other in found if other[: len(path)] == path]:
                del found[repeated]

    def end_value(at: int) -> None:
        if is_member():
            found[tuple(names[: len(opened)])] = line[begins[len(opened) - 1] : at]

    place, awaited = 0, "value"
    while token := _TOKEN.match(line, place):
        kind, mark, place = str(token.lastgroup), token["mark"], token.end()
        if kind == "text" and "name" in awaited:
            if is_member():
                names[len(opened) - 1] = str(json.loads(token["text"]))
            awaited = "colon"
        elif mark == b":" and awaited == "colon":
            awaited = "value"
        elif mark == b"," and awaited == "end" and opened:
            awaited = "name" if opened[-1] == b"{" else "value"
        elif mark in _CLOSING and "end" in awaited and opened[-1:] == [_CLOSING[mark]]:
            opened.pop()
            end_value(token.end(kind))
            awaited = "end"
        elif mark in {b"{", b"["} and "value" in awaited and (opened or mark == b"{"):
            begin_value(token.start(kind))
            opened.append(mark)
            awaited = "name or end" if mark == b"{" else "value or end"
        elif mark is None and "value" in awaited and opened:
            begin_value(token.start(kind))
            end_value(token.end(kind))
            awaited = "end"
        else:
            break
    else:
        if place == len(line) and awaited == "end" and not opened:
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
