"""The files of the account: stored, described, found again, and transferred through the storage."""

from __future__ import annotations

from hashlib import sha256
from itertools import count

import pytest

from together_batches.emulator._content import content_of
from together_batches.emulator._files import Files
from together_batches.emulator._replies import Refusal

CONTENT = b'{"custom_id":"a"}\n'
CHECKSUM = sha256(CONTENT).hexdigest()


class Clock:
    time = 1_789_381_230.5

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def files(clock: Clock) -> Files:
    numbers = count(1)
    return Files(now=clock, new_id=lambda: f"file-{next(numbers)}", seed=0)


def announced(files: Files, checksum: str | None = CHECKSUM) -> str:
    """Announce a file, and return its id."""
    return files.begin(filename="in.jsonl", purpose="batch-api", file_type="jsonl", checksum=checksum)


def test_an_upload_has_three_steps(files: Files) -> None:
    """An uploaded file exists once its bytes are stored, and is processed only on request."""
    file_id = announced(files)
    assert files.find(file_id) is None
    with pytest.raises(Refusal, match="not found"):
        files.preprocess(file_id)
    files.store(file_id, CONTENT, CHECKSUM)
    described = files.get(file_id).to_json()
    assert (described["bytes"], described["Processed"], described["processing_status"]) == (18, False, "PENDING")
    assert files.preprocess(file_id).to_json()["processing_status"] == "COMPLETED"
    assert files.get(file_id).content.read() == CONTENT


def test_storing_again_changes_nothing(files: Files) -> None:
    """Storing the same bytes again changes nothing: a client may repeat a PUT whose response was lost."""
    file_id = announced(files)
    files.store(file_id, CONTENT, CHECKSUM)
    files.preprocess(file_id)
    files.store(file_id, CONTENT, CHECKSUM)
    assert files.get(file_id).processed


def test_other_bytes_than_announced_are_refused(files: Files) -> None:
    """Bytes that do not match the announced checksum are refused; without a checksum any are accepted."""
    with pytest.raises(Refusal) as refused:
        files.store(announced(files), b"other", sha256(b"other").hexdigest())
    assert (refused.value.status, refused.value.code) == (400, "BadDigest")
    files.store(announced(files, None), b"other", sha256(b"other").hexdigest())


def test_content_is_known_by_its_checksum_and_purpose(files: Files) -> None:
    """Content is known by its checksum and purpose until the file is deleted, if it was hashed at all."""
    file = files.add(CONTENT, filename="a")
    files.add(lambda: [CONTENT], size=len(CONTENT), filename="b")
    assert files.known("batch-api", CHECKSUM) is file
    assert files.known("fine-tune", CHECKSUM) is None
    assert files.known("batch-api", None) is None
    files.delete(file.id)
    assert files.known("batch-api", CHECKSUM) is None


def test_an_address_allows_one_method_on_one_file_for_an_hour(files: Files, clock: Clock) -> None:
    """A signed address allows one method on one file for an hour, in any equivalent spelling and order."""
    address = files.presigned("PUT", announced(files))
    assert files.granted("PUT", address) == "file-1"
    for spelling in ("%2F", "%7E", "%3D"):
        assert spelling in address
        assert files.granted("PUT", address.replace(spelling, bytes.fromhex(spelling[1:]).decode())) == "file-1"
        assert files.granted("PUT", address.replace(spelling, spelling.lower())) == "file-1"
    path, _, query = address.partition("?")
    assert files.granted("PUT", f"{path}?{'&'.join(reversed(query.split('&')))}") == "file-1"
    for other in (address.replace("%2B", "+"), address[:-1], f"{address}&x=1", f"{address}&x=%FF", path):
        with pytest.raises(Refusal) as refused:
            files.granted("PUT", other)
        assert (refused.value.status, refused.value.code) == (403, "SignatureDoesNotMatch")
    with pytest.raises(Refusal, match="does not match"):
        files.granted("GET", address)
    clock.time += 3601
    with pytest.raises(Refusal, match="expired"):
        files.granted("PUT", address)


def test_a_deleted_file_does_not_come_back(files: Files) -> None:
    """A deleted file does not return, and its address is invalid."""
    file_id = announced(files)
    files.store(file_id, CONTENT, CHECKSUM)
    files.delete(file_id)
    with pytest.raises(Refusal) as refused:
        files.store(file_id, CONTENT, CHECKSUM)
    assert (refused.value.status, refused.value.code) == (404, "NoSuchKey")


def test_results_are_made_once_and_only_when_read(files: Files) -> None:
    """Results are made once and only when they are read, because most never are."""
    made: list[int] = []
    files.keep(
        "file-r",
        lambda: made.append(1) or content_of(CONTENT),
        filename="output.jsonl",
        purpose="batch-generated",
        created_at=5.0,
    )
    files.add(b"", filename="later")
    assert made == []
    described = files.listing()[0]
    assert (described["id"], described["purpose"], described["bytes"]) == ("file-r", "batch-generated", 18)
    assert files.get("file-r").content.read() == CONTENT
    assert made == [1]
