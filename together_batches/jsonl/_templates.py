"""Templates of prompts: texts with the names of columns in braces.

Not :meth:`str.format`, whose fields reach the attributes and items of a value, and no language such as Jinja, because
a prompt may contain any text. A brace that is written twice is a brace.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from together_batches.errors import UsageError
from together_batches.jsonl._columns import text_in

if TYPE_CHECKING:
    from together_batches.jsonl._columns import Row

_PIECE = re.compile(r"\{\{|\}\}|\{([^}]*)\}|[{}]")


class Template:
    """A text in which names of columns in braces are replaced by values; ``columns`` has each name once."""

    def __init__(self, text: str) -> None:
        literals, names, end = [""], list[str](), 0
        for found in _PIECE.finditer(text):
            literals[-1] += text[end : found.start()]
            end = found.end()
            piece, name = found[0], found[1]
            if name:
                names.append(name)
                literals.append("")
            elif piece in {"{{", "}}"}:
                literals[-1] += piece[0]
            else:
                what = "no name within the braces" if piece == "{}" else f"a single {piece}"
                message = (
                    f"invalid prompt: {what} at character {found.start() + 1}; write a column as {{its name}}, and a "
                    "brace of the text twice"
                )
                raise UsageError(message)
        literals[-1] += text[end:]
        self.columns: tuple[str, ...] = tuple(dict.fromkeys(names))
        self._first = literals[0]
        self._rest = tuple(zip(names, literals[1:], strict=True))

    def fill(self, row: Row) -> str:
        """Return the text of a row; raise :class:`BadCellError` for a value that cannot be written."""
        parts = [self._first]
        for name, literal in self._rest:
            parts += text_in(row, name), literal
        return "".join(parts)
