"""The service as a state machine over virtual time."""

from __future__ import annotations

import json
import re
from typing import Any, cast

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from together_batches.emulator._jobs import ENDED, Timing
from together_batches.emulator._replies import Refusal
from together_batches.emulator._state import Service

CHAT = "/v1/chat/completions"
BAD_LINE = "Failed to calculate tokens: input format error: Line %d (within chunk): Invalid JSON format"
GOOD_LINE = b'{"custom_id":"a","body":{"model":"some/model","messages":[]}}\n'


class Clock:
    def __init__(self) -> None:
        self.time = 1_789_381_230.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def service(clock: Clock) -> Service:
    return Service(now=clock, timing=Timing(validating=2, running=30, canceling=1))


def created(service: Service, content: bytes | None = GOOD_LINE, **more: object) -> dict[str, Any]:
    """Create a job from a file with this content; None: from a file that does not exist."""
    file_id = "file-gone" if content is None else service.files.add(content, filename="in.jsonl").id
    answer = service.create({"input_file_id": file_id, "endpoint": CHAT, **more})
    return cast("dict[str, Any]", answer["job"])


def test_a_new_job_is_validating_and_lean(service: Service) -> None:
    """A new job is validating, and omits unknown fields instead of showing null."""
    job = created(service)
    assert list(job) == [
        "id",
        "user_id",
        "project_id",
        "organization_id",
        "input_file_id",
        "file_size_bytes",
        "status",
        "job_deadline",
        "created_at",
        "endpoint",
        "progress",
    ]
    assert ("VALIDATING", 0, len(GOOD_LINE)) == (job["status"], job["progress"], job["file_size_bytes"])
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", job["id"])
    assert re.fullmatch(r"[0-9a-f]{24}", job["user_id"])


def test_a_job_runs_and_completes_by_the_clock_alone(service: Service, clock: Clock) -> None:
    """A job runs and completes by the clock alone: the model appears after validation, ``completed_at`` last."""
    job_id = created(service)["id"]
    clock.time += 2
    running = service.retrieve(job_id)
    assert (running["status"], running["model_id"]) == ("IN_PROGRESS", "some/model")
    clock.time += 30
    done = service.retrieve(job_id)
    assert (
        done["status"],
        done["progress"],
        done["completed_at"],
    ) == ("COMPLETED", 100, "2026-09-14T10:21:02.000000Z")


def test_the_model_of_the_request_wins_over_that_of_the_file(service: Service, clock: Clock) -> None:
    """The model of the request takes precedence; that of the file is used only without one."""
    job_id = created(service, model_id="requested/for")["id"]
    clock.time += 2
    assert service.retrieve(job_id)["model_id"] == "requested/for"


@pytest.mark.parametrize("content", [b'{"custom_id":"a","body":{}}', b'{"body":{"model":7}}', b"{}"])
def test_a_file_that_names_no_model_gives_none(service: Service, clock: Clock, content: bytes) -> None:
    """A job from a file that names no model has no such field."""
    job_id = created(service, content)["id"]
    clock.time += 2
    assert "model_id" not in service.retrieve(job_id)


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (None, "Failed to download input file: file-gone: unexpected status code: 404"),
        (b"{}\n?\n", f"{BAD_LINE % 2} - JSON is malformed: invalid character (byte 0)"),
        (b"{}\n[]", f"{BAD_LINE % 2} - a line must be an object"),
        (b"", f"{BAD_LINE % 1} - unexpected end of JSON input"),
        (b'{"a":"\xff"}', f"{BAD_LINE % 1} - 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"),
    ],
)
def test_bad_input_is_accepted_and_fails_after_validation(
    service: Service, clock: Clock, content: bytes | None, error: str
) -> None:
    """Bad input is accepted, and fails after validation without a model or files."""
    job = created(service, content)
    assert job["status"] == "VALIDATING"
    clock.time += 2
    failed = service.retrieve(job["id"])
    assert ("FAILED", error, 0) == (failed["status"], failed["error"], failed["progress"])
    assert "model_id" not in failed


def test_lines_end_at_newline_only(service: Service, clock: Clock) -> None:
    """Lines end only at a newline: U+2028 ends a line for str.splitlines, but is an ordinary character in JSON."""
    job_id = created(service, '{"a":"x\u2028y"}\n{}\n'.encode())["id"]
    clock.time += 2
    assert service.retrieve(job_id)["status"] == "IN_PROGRESS"


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"endpoint": CHAT}, "input_file_id is required"),
        ({"input_file_id": 7, "endpoint": CHAT}, "input_file_id is required"),
        ({"input_file_id": "file-1"}, "invalid endpoint"),
        ({"input_file_id": "file-1", "endpoint": "/v1/other"}, "invalid endpoint"),
        ({"input_file_id": "file-1", "endpoint": []}, "invalid endpoint"),
        ({"input_file_id": "file-1", "endpoint": CHAT, "model_id": 7}, "model_id must be a string"),
        ({"input_file_id": "file-1", "endpoint": CHAT, "priority": "1"}, "priority must be an integer"),
        ({"input_file_id": "file-1", "endpoint": CHAT, "priority": True}, "priority must be an integer"),
        ({"input_file_id": "file-1", "endpoint": CHAT, "priority": 1.0}, "priority must be an integer"),
        (
            {"input_file_id": "file-1", "endpoint": CHAT, "completion_window": 24},
            "completion_window must be a string",
        ),
    ],
)
def test_create_refuses_what_it_can_see_at_once(service: Service, wanted: dict[str, object], message: str) -> None:
    """Create refuses invalid requests at once with a 400, and makes no job."""
    with pytest.raises(Refusal) as refused:
        service.create(wanted)
    assert (400, message) == (refused.value.status, refused.value.message)
    assert service.listing() is None


def test_options_may_be_null(service: Service) -> None:
    """Null options are treated as absent."""
    options = dict.fromkeys(("model_id", "priority", "completion_window"))
    assert "warning" not in service.create({"input_file_id": "file-1", "endpoint": CHAT, **options})


def test_another_window_is_accepted_with_a_warning(service: Service) -> None:
    """Another completion window is accepted with a warning, and replaced by 24h."""
    wanted = {"input_file_id": "file-1", "endpoint": CHAT}
    assert "warning" not in service.create({**wanted, "completion_window": "24h"})
    assert "24h" in str(service.create({**wanted, "completion_window": "72h"})["warning"])


@pytest.mark.parametrize("status", ["VALIDATING", "IN_PROGRESS", "PAUSED"])
def test_cancel_drains_and_then_ends(service: Service, clock: Clock, status: str) -> None:
    """A cancelled job is CANCELING, then CANCELLED after the drain; a repeated cancel meanwhile changes nothing."""
    job_id = service.add_job(status=status)
    assert service.cancel(job_id)["status"] == "CANCELING"
    clock.time += 0.9
    assert service.cancel(job_id)["status"] == "CANCELING"
    clock.time += 0.1
    assert service.retrieve(job_id)["status"] == "CANCELLED"


@pytest.mark.parametrize("status", sorted(ENDED))
def test_cancelling_an_ended_job_is_a_409_that_names_the_state(service: Service, status: str) -> None:
    """Cancelling an ended job is a 409 that names the state, with the text captured from the service."""
    with pytest.raises(Refusal) as refused:
        service.cancel(service.add_job(status=status))
    expected = f"Cannot cancel job - already in terminal state: {status}"
    assert (409, expected) == (refused.value.status, refused.value.message)


def test_a_job_can_outrun_its_cancellation(service: Service, clock: Clock) -> None:
    """A job can complete although its cancellation was accepted."""
    job_id = service.add_job(cancels_as="COMPLETED")
    assert service.cancel(job_id)["status"] == "CANCELING"
    clock.time += 1
    assert service.retrieve(job_id)["status"] == "COMPLETED"


def test_unknown_jobs_are_404(service: Service) -> None:
    """Unknown jobs are a 404 for retrieve and cancel."""
    for ask in (service.retrieve, service.cancel):
        with pytest.raises(Refusal) as refused:
            ask("no-such-job")
        assert (refused.value.status, refused.value.message) == (404, "Job not found")


def test_the_list_is_null_when_empty_and_unsorted_otherwise(service: Service, clock: Clock) -> None:
    """The list is null if empty; otherwise its order is stable, and neither that of creation nor its reverse."""
    assert service.listing() is None
    ids: list[object] = []
    for _ in range(20):
        clock.time += 1
        ids.append(service.add_job())
    listed = [job["id"] for job in service.listing() or ()]
    assert listed not in (ids, ids[::-1])
    assert sorted(map(str, ids)) == sorted(map(str, listed))
    assert listed == [job["id"] for job in service.listing() or ()]
    assert ids == [job["id"] for job in service.jobs()]


def test_the_same_seed_gives_the_same_ids_and_the_same_order() -> None:
    """The same seed gives the same ids and the same order, and another seed gives others."""

    def story(seed: int) -> list[dict[str, object]]:
        service = Service(now=Clock(), seed=seed)
        created(service)
        for _ in range(10):
            service.add_job()
        return service.listing() or []

    assert story(3) == story(3)
    assert story(3) != story(4)


def test_seeded_jobs_are_as_old_as_told(service: Service) -> None:
    """Seeded jobs have the given age, and their phase begins now."""
    job = service.retrieve(service.add_job(age_seconds=3600, id="job/1"))
    assert (
        job["id"],
        job["created_at"],
        job["status"],
    ) == ("job/1", "2026-09-14T09:20:30.000000Z", "IN_PROGRESS")


def test_a_seeded_failure_has_an_error(service: Service) -> None:
    """Every seeded FAILED job has an error."""
    assert service.retrieve(service.add_job(status="FAILED"))["error"]


def test_a_seeded_job_knows_the_size_of_its_file(service: Service) -> None:
    """A seeded job shows the size of its file, if the file exists."""
    file = service.files.add(b"12345", filename="x")
    assert service.retrieve(service.add_job(input_file_id=file.id))["file_size_bytes"] == 5


def test_ids_are_taken_once(service: Service) -> None:
    """An id that is taken, or empty, is refused."""
    service.add_job(id="a")
    for bad in ("a", ""):
        with pytest.raises(ValueError, match="id of its own"):
            service.add_job(id=bad)


def test_files_are_kept_described_and_forgotten(service: Service) -> None:
    """Files are stored, described with dates in whole seconds and the service's odd key names, and deleted."""
    file = service.files.add(b"abc", filename="in.jsonl", purpose="fine-tune")
    expected = {
        "id": file.id,
        "object": "file",
        "created_at": 1_789_381_230,
        "filename": "in.jsonl",
        "bytes": 3,
        "purpose": "fine-tune",
        "FileType": "jsonl",
        "LineCount": 0,
        "Processed": True,
        "processing_status": "COMPLETED",
    }
    assert [expected] == service.files.listing()
    service.files.delete(file.id)
    assert service.files.listing() == []
    with pytest.raises(Refusal, match="not found"):
        service.files.get(file.id)


# Rows and results

ROWS = 40
MIXED = b"".join(
    b'{"custom_id":"%d","body":{"model":"%s"}}\n' % (number, b"unknown/m" if number % 4 == 0 else b"m")
    for number in range(ROWS)
)


def ids_in(service: Service, file_id: object) -> set[str]:
    content = service.files.get(str(file_id)).content.read()
    return {json.loads(line)["custom_id"] for line in content.splitlines()}


def test_a_completed_job_has_both_files(service: Service, clock: Clock) -> None:
    """A completed job has both files, made of its rows, listed under the service's names, and named at its end."""
    job_id = created(service, MIXED)["id"]
    clock.time += 31.9
    assert {"output_file_id", "error_file_id"}.isdisjoint(service.retrieve(job_id))
    clock.time += 0.1
    job = service.retrieve(job_id)
    failed = {str(number) for number in range(0, ROWS, 4)}
    assert ids_in(service, job["error_file_id"]) == failed
    assert ids_in(service, job["output_file_id"]) == {str(number) for number in range(ROWS)} - failed
    listed = [(file["filename"], file["purpose"]) for file in service.files.listing()]
    expected = [("in.jsonl", "batch-api"), ("errors.jsonl", "batch-generated"), ("output.jsonl", "batch-generated")]
    assert expected == sorted(listed, key=lambda pair: (pair[1], pair[0]))


@pytest.mark.parametrize(
    ("model", "present", "absent"),
    [(b"m", "output_file_id", "error_file_id"), (b"unknown/m", "error_file_id", "output_file_id")],
)
def test_a_file_without_a_row_is_not_there(
    service: Service, clock: Clock, model: bytes, present: str, absent: str
) -> None:
    """Without failed rows there is no error file; without good ones no output, and the job is still COMPLETED."""
    job_id = created(service, b'{"custom_id":"a","body":{"model":"%s"}}' % model)["id"]
    clock.time += 32
    job = service.retrieve(job_id)
    assert (job["status"], present in job, absent in job) == ("COMPLETED", True, False)


def test_results_are_listed_also_where_nobody_asked_for_the_job(service: Service, clock: Clock) -> None:
    """Results are listed even if the job was never read, and their ids do not depend on the order of reads."""
    ids: list[set[object]] = []
    for look_first in (True, False):
        other = Service(now=clock, seed=5)
        began = clock.time
        job_ids = [created(other, MIXED + b"{}")["id"] for _ in range(3)]
        clock.time += 32
        if look_first:
            other.retrieve(job_ids[2])
        ids.append({file["id"] for file in other.files.listing()})
        clock.time = began
    assert len(ids[0]) == 9
    assert ids[0] == ids[1]


@pytest.mark.parametrize("end", ["CANCELLED", "EXPIRED", "FAILED"])
def test_a_job_that_ends_early_keeps_the_rows_done_by_then(clock: Clock, end: str) -> None:
    """A job that ends early keeps as many rows as its progress says; the others are in neither file."""
    service = Service(now=clock, timing=Timing(validating=2, running=30), ends_as=None if end == "CANCELLED" else end)
    job_id = created(service, MIXED)["id"]
    if end == "CANCELLED":
        clock.time += 17
        service.cancel(job_id)
    clock.time += 60
    job = service.retrieve(job_id)
    assert job["status"] == end
    done = ids_in(service, job["output_file_id"]) | ids_in(service, job["error_file_id"])
    assert len(done) == int(ROWS * cast("float", job["progress"]) / 100)
    assert (20 if end == "CANCELLED" else 39) == len(done)
    assert ("error" in job) == (end == "FAILED")


def test_a_job_cancelled_while_validating_has_no_files(service: Service, clock: Clock) -> None:
    """A job cancelled while validating has no files, because no row has run."""
    job_id = created(service, MIXED)["id"]
    service.cancel(job_id)
    clock.time += 60
    assert {"output_file_id", "error_file_id"}.isdisjoint(service.retrieve(job_id))
    assert len(service.files.listing()) == 1


def test_a_seeded_job_runs_the_rows_of_its_file(service: Service) -> None:
    """A seeded job runs as many rows of its file as its progress says; files given by the caller take precedence."""
    file_id = service.files.add(MIXED, filename="in.jsonl").id
    half = service.retrieve(
        service.add_job(status="EXPIRED", input_file_id=file_id, extra_fields={"progress": 50, "error_file_id": None})
    )
    assert half["error_file_id"] is None
    assert 0 < len(ids_in(service, half["output_file_id"])) < 20
    whole = service.retrieve(service.add_job(status="COMPLETED", input_file_id=file_id))
    assert len(ids_in(service, whole["output_file_id"])) == 30


def test_a_seeded_job_without_a_file_gets_one(service: Service, clock: Clock) -> None:
    """A seeded job without a file gets an input and results, with ids and sizes like the service's."""
    audio = "/v1/audio/transcriptions"
    for job_id in (
        service.add_job(status="COMPLETED"),
        service.add_job(status="COMPLETED", endpoint=audio, model_id="openai/whisper-large-v3"),
        service.add_job(ends_as="COMPLETED"),
    ):
        clock.time += 30
        job = service.retrieve(job_id)
        ids = ids_in(service, job["input_file_id"])
        assert (job["status"], ids_in(service, job["output_file_id"])) == ("COMPLETED", ids)
        assert "error_file_id" not in job
        for name in ("input_file_id", "output_file_id"):
            assert re.fullmatch(r"file-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", str(job[name]))
        assert service.files.get(str(job["input_file_id"])).content.size == job["file_size_bytes"]
    assert len(service.files.listing()) == 6


@pytest.mark.parametrize(
    "named", [{"output_file_id": None}, {"output_file_id": "file-x"}, {"error_file_id": "file-x"}]
)
def test_results_that_the_caller_names_are_the_only_ones(service: Service, named: dict[str, object]) -> None:
    """Result ids given by the caller are the only ones; null makes a completed job without files."""
    job = service.retrieve(service.add_job(status="COMPLETED", extra_fields=named))
    assert {name: value for name, value in job.items() if name in ("output_file_id", "error_file_id")} == named


@pytest.mark.parametrize(("status", "progress"), [("FAILED", 50), ("CANCELLED", 0), ("EXPIRED", 0)])
def test_a_seeded_job_that_did_no_row_has_no_results(service: Service, status: str, progress: float) -> None:
    """A seeded job without a completed row has no results."""
    job = service.retrieve(service.add_job(status=status, extra_fields={"progress": progress}))
    assert {"output_file_id", "error_file_id"}.isdisjoint(job)


def test_a_cancelled_job_is_settled_when_it_has_drained(service: Service, clock: Clock) -> None:
    """The results of a cancelled job are listed once it has drained, not only at the end planned before."""
    service.cancel(service.add_job(extra_fields={"progress": 99}, ends_as="COMPLETED"))
    clock.time += 0.5
    assert len(service.files.listing()) == 1
    clock.time += 0.5
    assert [file["filename"] for file in service.files.listing()] == ["requests.jsonl", "output.jsonl"]


def test_a_deleted_input_does_not_stop_its_job(service: Service, clock: Clock) -> None:
    """A deleted input does not stop its job, but a deleted result is gone."""
    job = created(service, MIXED)
    service.files.delete(job["input_file_id"])
    clock.time += 32
    output = str(service.retrieve(job["id"])["output_file_id"])
    service.files.delete(output)
    with pytest.raises(Refusal, match="not found"):
        service.files.get(output)
    assert service.retrieve(job["id"])["output_file_id"] == output


def test_a_model_that_is_not_serverless_fails_the_whole_job(service: Service, clock: Clock) -> None:
    """A model that is not serverless fails the whole job, unlike an unknown one."""
    job_id = created(service, MIXED + b'{"custom_id":"x","body":{"model":"dedicated/m"}}')["id"]
    clock.time += 2
    job = service.retrieve(job_id)
    assert (
        job["status"],
        str(job["error"]).startswith("Invalid model ID: Unable to access non-serverless model dedicated/m"),
    ) == ("FAILED", True)


def test_a_job_may_outlive_its_deadline(clock: Clock) -> None:
    """A job may outlive its deadline, which is not a hard stop at the service."""
    service = Service(now=clock, ends_as="IN_PROGRESS")
    job_id = created(service)["id"]
    clock.time += 2 * 86_400
    job = service.retrieve(job_id)
    assert (job["status"], str(job["job_deadline"]) < "2026-09-16") == ("IN_PROGRESS", True)


class Histories(RuleBasedStateMachine):
    """In any order of operations, an ended job never changes and time never runs backwards."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.service = Service(now=self.clock)
        self.ended: dict[str, dict[str, object]] = {}
        self.progress: dict[str, float] = {}

    @rule(status=st.sampled_from(["VALIDATING", "IN_PROGRESS", "CANCELING", "COMPLETED", "PAUSED"]))
    def add(self, status: str) -> None:
        self.service.add_job(status=status)

    @rule(content=st.sampled_from([None, b"", GOOD_LINE]))
    def create(self, content: bytes | None) -> None:
        created(self.service, content)

    @rule(seconds=st.floats(0, 40))
    def wait(self, seconds: float) -> None:
        self.clock.time += seconds

    @rule(which=st.integers(0))
    def cancel(self, which: int) -> None:
        jobs = self.service.jobs()
        if not jobs:
            return
        job = jobs[which % len(jobs)]
        if job["status"] in ENDED:
            with pytest.raises(Refusal, match="Cannot cancel"):
                self.service.cancel(str(job["id"]))
        else:
            assert self.service.cancel(str(job["id"]))["status"] == "CANCELING"

    @invariant()
    def ended_jobs_stay(self) -> None:
        for job in self.service.jobs():
            job_id, progress = str(job["id"]), cast("float", job["progress"])
            assert self.progress.get(job_id, 0) <= progress <= 100
            self.progress[job_id] = progress
            assert ("completed_at" in job) == (job["status"] in ENDED)
            assert self.ended.get(job_id, job) == job
            if job["status"] in ENDED:
                self.ended[job_id] = job


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)
