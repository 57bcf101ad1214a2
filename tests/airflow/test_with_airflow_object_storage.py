"""Files on object storage: S3, which moto plays on loopback."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk.io import attach

from together_batches import jsonl
from together_batches.airflow import TogetherBatchOperator, _storage
from together_batches.airflow._airflow import AirflowFailException
from together_batches.emulator import Timing
from together_batches.errors import UsageError

moto = pytest.importorskip("moto.server", reason="moto is not installed")
s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed")

if TYPE_CHECKING:
    from collections.abc import Iterator

    from together_batches.emulator import Emulator

CONTEXT = {"ti": SimpleNamespace(dag_id="dag", run_id="run", task_id="task", map_index=-1, try_number=1, max_tries=0)}


@pytest.fixture(scope="module")
def files() -> Iterator[Any]:
    """An S3 of this machine, which only the connection ``aws`` may use."""
    server = moto.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    files = s3fs.S3FileSystem(key="key", secret="secret", endpoint_url=f"http://{host}:{port}")
    attach("s3", conn_id="aws", fs=files)
    yield files
    server.stop()


@pytest.fixture
def storage(files: Any) -> Iterator[Any]:
    """The same, with an empty bucket."""
    files.mkdir("bucket")
    yield files
    files.rm("bucket", recursive=True)


def _batch(results: str = "s3://aws@bucket/out/answers.jsonl") -> TogetherBatchOperator:
    return TogetherBatchOperator(task_id="task", requests_uri="s3://aws@bucket/requests.jsonl", results_uri=results)


def test_a_batch(service: Emulator, storage: Any) -> None:
    """Requests are read from object storage, and results written to it; a clear creates no second job."""
    service.timing = Timing(validating=0, running=0)
    rows = [jsonl.chat_request(f"row-{number}", model="m", messages=[]) for number in range(20)]
    storage.pipe("bucket/requests.jsonl", b"".join(map(jsonl.encode, rows)))
    manifest = _batch().execute(CONTEXT)
    assert _batch().execute(CONTEXT) == manifest
    assert service.count("create") == 1
    lines = storage.cat("bucket/out/answers.jsonl").splitlines()
    assert [json.loads(line)["custom_id"] for line in lines] == [row.custom_id for row in rows]
    assert {name.rpartition("/")[2] for name in storage.find("bucket/out/answers.jsonl.run")} == {
        "attempt-1.json",
        "finished.json",
        "shard.json",
    }


def test_an_object_that_is_not_written_whole(storage: Any) -> None:
    """An object that could not be written to its end does not appear, though parts of it were sent."""

    def blocks() -> Iterator[bytes]:
        yield bytes(storage.default_block_size)
        yield bytes(storage.default_block_size)
        raise UsageError("cannot read the third")

    place = _storage.location("s3://aws@bucket/answers.jsonl", parameter="results_uri")
    with pytest.raises(UsageError, match="cannot read the third"):
        _storage.put_all(blocks(), place)
    assert storage.find("bucket") == []


def test_a_bucket_that_does_not_exist(service: Emulator, storage: Any) -> None:
    """Results in a bucket that does not exist are refused before anything is sent."""
    storage.pipe("bucket/requests.jsonl", jsonl.encode(jsonl.chat_request("row", model="m", messages=[])))
    with pytest.raises(AirflowFailException, match="cannot write s3://aws@no-such-bucket/"):
        _batch("s3://aws@no-such-bucket/answers.jsonl").execute(CONTEXT)
    assert len(service.requests) == 0


def test_a_storage_without_its_provider(service: Emulator) -> None:
    """A URI whose storage Airflow does not know is refused with what to install."""
    with pytest.raises(UsageError, match=r"scheme hf; install the provider of its storage"):
        _storage.read_bytes(_storage.location("hf://bucket/requests.jsonl", parameter="requests_uri"))
