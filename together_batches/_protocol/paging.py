"""Signs that a list is only a part of one.

The service documents no paging of its lists, and none was seen. But a partial list that is taken for the whole hides
jobs and files: a hidden job is created again, or not cancelled. So a list with a sign that there is more is refused.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def _says_so(value: object, _: int) -> bool:
    """Return whether a flag, or the name of a next page, is set: any value that does not mean no."""
    return value not in (None, False, 0, "", "false") and value != {} and value != []


def _is_more(value: object, entries: int) -> bool:
    return isinstance(value, int | float) and value > entries


def _is_several(value: object, _: int) -> bool:
    return _is_more(value, 1)


_SIGNS: dict[str, Callable[[object, int], bool]] = {
    "hasmore": _says_so,
    "hasnext": _says_so,
    "hasnextpage": _says_so,
    "truncated": _says_so,
    "istruncated": _says_so,
    "next": _says_so,
    "nextpage": _says_so,
    "nextpagetoken": _says_so,
    "nexttoken": _says_so,
    "nextcursor": _says_so,
    "nexturl": _says_so,
    "nextlink": _says_so,
    "continuationtoken": _says_so,
    "total": _is_more,
    "totalcount": _is_more,
    "totalitems": _is_more,
    "totalpages": _is_several,
}
"""For each sign, without case and underscores, whether its value means that there is more than the given entries."""
_NESTED_IN = frozenset({"pagination", "paging", "pageinfo", "meta", "metadata", "links"})


def sign_of_more(page: Mapping[str, object], entries: int) -> str | None:
    """Return the path of a sign, within an object of ``entries``, that there are more; None if there is none."""
    for name, value in page.items():
        plain = name.replace("_", "").replace("-", "").lower()
        says_more = _SIGNS.get(plain)
        if says_more is not None and says_more(value, entries):
            return name
        if plain in _NESTED_IN and isinstance(value, dict):
            inner = sign_of_more(cast("dict[str, object]", value), entries)
            if inner is not None:
                return f"{name}.{inner}"
    return None


def sign_in_headers(headers: Mapping[str, str]) -> str | None:
    """Return the header that names a next page (https://www.rfc-editor.org/rfc/rfc8288), or None."""
    for name, value in headers.items():
        if name.lower() == "link" and re.search(r";\s*rel\s*=\s*\"?[^\",;]*\bnext\b", value, re.IGNORECASE):
            return name
    return None
