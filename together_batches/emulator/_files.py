"""The files of the account, without I/O: existing files, and uploads in progress.

An upload through the storage takes three steps: ``begin`` returns a presigned URL, ``store`` receives the bytes,
``preprocess`` confirms that they have arrived.
"""

from __future__ import annotations

from functools import cached_property
from hashlib import sha256
from time import gmtime, strftime
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qsl, unquote_to_bytes
from zlib import crc32

from attrs import define, evolve, field

from together_batches.emulator._content import Content, Source, content_of
from together_batches.emulator._replies import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable

_PRESIGNED_FOR = 3600  # seconds


@define
class StoredFile:
    """A file. Its content is generated on first access, because most results are never read."""

    id: str
    make: Callable[[], Content] = field(repr=False)
    filename: str
    purpose: str
    file_type: str
    created_at: float
    checksum: str | None = None
    processed: bool = True
    revision: str = ""
    """The end of its ETag: differs with the content, if that was changed."""

    @cached_property
    def content(self) -> Content:
        """The content of the file."""
        return self.make()

    def to_json(self) -> dict[str, object]:
        """Return the file as the service describes it. Its dates are whole Unix seconds, unlike those of jobs."""
        return {
            "id": self.id,
            "object": "file",
            "created_at": int(self.created_at),
            "filename": self.filename,
            "bytes": self.content.size,
            "purpose": self.purpose,
            "FileType": self.file_type,
            "LineCount": 0,
            "Processed": self.processed,
            "processing_status": "COMPLETED" if self.processed else "PENDING",
        }


class Grant(NamedTuple):
    """The permission of a presigned URL, and its expiry."""

    method: str
    file_id: str
    until: float


Signed = tuple[bytes, tuple[tuple[str, str], ...]]


class Files:
    """The files, and the presigned URLs of the storage. ``new_id`` returns the next file's id."""

    def __init__(self, *, now: Callable[[], float], new_id: Callable[[], str], seed: int) -> None:
        self._now = now
        self._new_id = new_id
        self._seed = seed
        self._files: dict[str, StoredFile] = {}
        self._announced: dict[str, StoredFile] = {}
        self._grants: dict[Signed, Grant] = {}

    def get(self, file_id: str) -> StoredFile:
        """Return the file. Raises Refusal 404."""
        try:
            return self._files[file_id]
        except KeyError:
            raise Refusal(404, f"File {file_id} not found") from None

    def find(self, file_id: str) -> StoredFile | None:
        """Return the file, or None if it does not exist."""
        return self._files.get(file_id)

    def listing(self) -> list[dict[str, object]]:
        """Return every file, oldest first."""
        return [file.to_json() for file in sorted(self._files.values(), key=lambda file: file.created_at)]

    def add(
        self,
        source: Source,
        *,
        filename: str,
        size: int | None = None,
        purpose: str = "batch-api",
        file_type: str = "jsonl",
    ) -> StoredFile:
        """Add a file with a new id. Any purpose is accepted, as at the real service.

        Raises the errors of ``content_of``.
        """
        content = content_of(source, size)
        checksum = sha256(source).hexdigest() if isinstance(source, bytes) else None
        file = StoredFile(self._new_id(), lambda: content, filename, purpose, file_type, self._now(), checksum)
        self._files[file.id] = file
        return file

    def keep(
        self, file_id: str, make: Callable[[], Content], *, filename: str, purpose: str, created_at: float
    ) -> None:
        """Add a file with a known id; its content is generated when it is read."""
        self._files[file_id] = StoredFile(file_id, make, filename, purpose, "jsonl", created_at)

    def change(self, file_id: str, content: bytes) -> None:
        """Replace the content of a file. Raises Refusal 404."""
        file = self.get(file_id)
        checksum, revision = sha256(content).hexdigest(), f"-{crc32(content):08x}"
        self._files[file_id] = evolve(file, make=lambda: content_of(content), checksum=checksum, revision=revision)

    def delete(self, file_id: str) -> None:
        """Delete the file, and the record of its upload. Raises Refusal 404."""
        del self._files[self.get(file_id).id]
        self._announced.pop(file_id, None)

    # --- through the storage

    def known(self, purpose: str, checksum: str | None) -> StoredFile | None:
        """Return the file that already has this exact content for this purpose, or None."""
        for file in self._files.values():
            if checksum is not None and (file.checksum, file.purpose) == (checksum, purpose):
                return file
        return None

    def begin(self, *, filename: str, purpose: str, file_type: str, checksum: str | None) -> str:
        """Expect a file whose bytes have not yet arrived; return the id that it will have."""
        file_id, content = self._new_id(), content_of(b"")
        self._announced[file_id] = StoredFile(
            file_id, lambda: content, filename, purpose, file_type, self._now(), checksum, processed=False
        )
        return file_id

    def presigned(self, method: str, file_id: str) -> str:
        """Return a URL of the storage, from the slash on, that allows one method on one file for an hour.

        Its query contains characters that clients tend to encode differently (%2F, %7E, %2B, %3D).
        """
        now = self._now()
        day, moment = strftime("%Y%m%d", gmtime(now)), strftime("%Y%m%dT%H%M%SZ", gmtime(now))
        signature = sha256(f"{self._seed} {method} {file_id} {moment}".encode()).hexdigest()
        address = (
            f"/batch-files/{file_id}?X-Amz-Algorithm=AWS4-HMAC-SHA256"
            f"&X-Amz-Credential=emulator%2F{day}%2Flocal%2Fs3%2Faws4_request&X-Amz-Date={moment}"
            f"&X-Amz-Expires={_PRESIGNED_FOR}&X-Amz-Security-Token=a%2Bb%7Ec%2Fd%3D%3D"
            f"&X-Amz-SignedHeaders=host&X-Amz-Signature={signature}"
        )
        self._grants[_signed(address)] = Grant(method, file_id, now + _PRESIGNED_FOR)
        return address

    def granted(self, method: str, address: str) -> str:
        """Return the id of the file that this URL gives access to. Raises Refusal 403."""
        grant = self._grants.get(_signed(address))
        if grant is None or grant.method != method:
            text = "The request signature we calculated does not match the signature you provided."
            raise Refusal(403, text, "SignatureDoesNotMatch")
        if self._now() > grant.until:
            raise Refusal(403, "Request has expired", "AccessDenied")
        return grant.file_id

    def store(self, file_id: str, body: bytes, checksum: str) -> None:
        """Store the bytes of an announced file; a second time changes nothing.

        Raises Refusal 400 if they are not those that were announced, 404 if none were.
        """
        announced = self._announced.get(file_id)
        if announced is None:
            raise Refusal(404, "The specified key does not exist.", "NoSuchKey")
        if announced.checksum not in (None, checksum):
            raise Refusal(400, "The checksum you specified did not match what we received.", "BadDigest")
        if file_id not in self._files:
            content = content_of(body)
            self._files[file_id] = evolve(announced, make=lambda: content, created_at=self._now(), checksum=checksum)

    def preprocess(self, file_id: str) -> StoredFile:
        """Process the bytes that have arrived. Raises Refusal 404 before that."""
        file = self.get(file_id)
        file.processed = True
        return file


def _signed(address: str) -> Signed:
    """Return what a signature covers: the decoded path and parameters, in a fixed order.

    So a URL that a client encodes differently is accepted as long as it means the same, as at the real storage: ``~``
    for ``%7E`` does, ``+`` for ``%2B`` is a space.
    """
    path, _, query = address.partition("?")
    return unquote_to_bytes(path), tuple(sorted(parse_qsl(query, keep_blank_values=True, errors="surrogateescape")))
