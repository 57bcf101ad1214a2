"""Content codings of HTTP: which compressions a header names, and how to undo them in pieces of bounded size."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["CodingError", "Decoder", "compressions", "decode"]

_INFLATED = frozenset({"gzip", "deflate"})
_COMPRESSIONS = _INFLATED | {"br", "zstd", "compress", "dcb", "dcz"}
_MOST_LAYERS = 4
"""Each layer multiplies what a few bytes can stand for, and the time that takes."""
_PIECE_BYTES = 1 << 20
_ANY_HEADER = zlib.MAX_WBITS | 32
"""zlib finds out by itself whether it is gzip or zlib."""
_NO_HEADER = -zlib.MAX_WBITS
_GZIP_FIRST_BYTE = 0x1F
_ZLIB_METHOD = 8


class CodingError(Exception):
    """Why bytes cannot be decoded; it never leaves the package."""


def compressions(header: str) -> tuple[str, ...]:
    """The compressions that a ``Content-Encoding`` names, in the order in which they were applied.

    Anything else in it is taken as identity, as browsers do: storages repeat what an uploader wrote there
    (``aws-chunked``, ``UTF-8``, ``none``), and the bytes are whole.
    """
    names = (name.strip().lower().removeprefix("x-") for name in header.split(","))
    return tuple(name for name in names if name in _COMPRESSIONS)


class Decoder:
    """Undoes compressions. Raises :class:`CodingError` at once for one that it does not know."""

    def __init__(self, names: Iterable[str]) -> None:
        applied = tuple(names)
        if len(applied) > _MOST_LAYERS:
            message = f"it is compressed {len(applied)} times"
            raise CodingError(message)
        for name in applied:
            if name not in _INFLATED:
                message = f"it is encoded as {name}"
                raise CodingError(message)
        self._layers = [_Inflater(name) for name in reversed(applied)]

    def pieces(self, chunk: bytes) -> Iterator[bytes]:
        """What these bytes stand for, in pieces of up to 1 MB: a few bytes may stand for very many."""
        return self._through(0, chunk)

    def _through(self, layer: int, chunk: bytes) -> Iterator[bytes]:
        if layer == len(self._layers):
            if chunk:
                yield chunk
            return
        for piece in self._layers[layer].pieces(chunk):
            yield from self._through(layer + 1, piece)

    def finish(self) -> None:
        """Raise :class:`CodingError` if a compression did not come to its end."""
        for layer in self._layers:
            layer.finish()


class _Inflater:
    def __init__(self, name: str) -> None:
        self._name = name
        self._window: int | None = None
        self._inflate = zlib.decompressobj()

    def pieces(self, chunk: bytes) -> Iterator[bytes]:
        if self._window is None:
            if not chunk:
                return
            self._window = self._window_of(chunk[0])
            self._inflate = zlib.decompressobj(self._window)
        while True:
            try:
                piece = self._inflate.decompress(chunk, _PIECE_BYTES)
            except zlib.error as error:
                message = f"it is not {self._name}"
                raise CodingError(message) from error
            if piece:
                yield piece
            chunk = self._inflate.unconsumed_tail
            if self._inflate.unused_data:  # one file may be several, one after another
                chunk = self._inflate.unused_data
                self._inflate = zlib.decompressobj(self._window)
            if not chunk and len(piece) < _PIECE_BYTES:
                return

    def _window_of(self, first_byte: int) -> int:
        # "deflate" is zlib's format by the standard, and the bare stream by some servers. Their first bytes differ:
        # the low half of a bare stream's is never 8, since the bits after an uncompressed block's head are zero.
        headed = first_byte == _GZIP_FIRST_BYTE or first_byte & 0x0F == _ZLIB_METHOD
        return _ANY_HEADER if headed or self._name == "gzip" else _NO_HEADER

    def finish(self) -> None:
        if self._window is not None and not self._inflate.eof:
            message = f"its {self._name} ends too soon"
            raise CodingError(message)


def decode(body: bytes, names: Iterable[str], most: int, *, whole: bool = True) -> bytes:
    """What ``body`` stands for, or its beginning, of more than ``most`` bytes, if it is longer than that.

    With ``whole=False`` the body may be cut, and what it stands for then is, too.
    """
    decoder = Decoder(names)
    parts: list[bytes] = []
    size = 0
    for piece in decoder.pieces(body):
        parts.append(piece)
        size += len(piece)
        if size > most:
            break
    else:
        if whole:
            decoder.finish()
    return b"".join(parts)
