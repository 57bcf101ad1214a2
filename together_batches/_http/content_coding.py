"""Content codings of HTTP: the compressions that a header names, and their decoding in pieces of bounded size."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_INFLATED = frozenset({"gzip", "deflate"})
_COMPRESSIONS = _INFLATED | {"br", "zstd", "compress", "dcb", "dcz"}
_MOST_LAYERS = 4
"""Maximum number of nested compressions: each multiplies the size that a few bytes can expand to, and the time."""
_PIECE_BYTES = 1 << 20
_ANY_HEADER = zlib.MAX_WBITS | 32
"""zlib detects by itself whether the data is gzip or zlib."""
_NO_HEADER = -zlib.MAX_WBITS
_GZIP_FIRST_BYTE = 0x1F
_ZLIB_METHOD = 8


class CodingError(Exception):
    """The reason why bytes cannot be decoded; it never leaves the package."""


def compressions(header: str) -> tuple[str, ...]:
    """Return the compressions that a ``Content-Encoding`` names, in the order in which they were applied.

    Any other name counts as identity, as in browsers: storages repeat the label that an uploader wrote
    (``aws-chunked``, ``UTF-8``, ``none``), and the bytes are unchanged.
    """
    names = (name.strip().lower().removeprefix("x-") for name in header.split(","))
    return tuple(name for name in names if name in _COMPRESSIONS)


class Decoder:
    """A decoder of nested compressions; an unknown one raises :class:`CodingError` at once."""

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
        """Yield the decoded bytes in pieces of up to 1 MB, because a few bytes may expand to very many."""
        return self._through(0, chunk)

    def _through(self, layer: int, chunk: bytes) -> Iterator[bytes]:
        if layer == len(self._layers):
            if chunk:
                yield chunk
            return
        for piece in self._layers[layer].pieces(chunk):
            yield from self._through(layer + 1, piece)

    def finish(self) -> None:
        """Raise :class:`CodingError` if a compressed stream is incomplete."""
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
            if self._inflate.unused_data:  # one file may be several streams, one after another
                chunk = self._inflate.unused_data
                self._inflate = zlib.decompressobj(self._window)
            if not chunk and len(piece) < _PIECE_BYTES:
                return

    def _window_of(self, first_byte: int) -> int:
        # "deflate" is zlib's format by the standard, and the bare stream on some servers. Their first bytes differ:
        # the low half of a bare stream's is never 8, because the bits after an uncompressed block's head are zero.
        headed = first_byte == _GZIP_FIRST_BYTE or first_byte & 0x0F == _ZLIB_METHOD
        return _ANY_HEADER if headed or self._name == "gzip" else _NO_HEADER

    def finish(self) -> None:
        if self._window is not None and not self._inflate.eof:
            message = f"its {self._name} ends too soon"
            raise CodingError(message)


def decode(body: bytes, names: Iterable[str], most: int, *, whole: bool = True) -> bytes:
    """Return ``body`` decoded, or only its beginning, of more than ``most`` bytes, if it is longer.

    With ``whole=False`` the body may be truncated, and so may the result.
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
