"""Notifications of ``wait`` and ``run``: who is notified of what, how often, and what a failure does."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import shlex
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from together_batches import jsonl
from together_batches._http import webhook
from together_batches._jobs import awaited_job
from together_batches.cli._commands.watch import watched
from together_batches.cli._notify import delivery
from together_batches.emulator import Emulator, Fault, Timing
from together_batches.errors import BatchesError
from together_batches.runs import _ledger
from together_batches.runs._lock import locked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cli.conftest import Ran

    Run = Callable[..., Ran]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="commands for a POSIX shell")

KEY = b"0123456789abcdef01234567"
OFTEN = ("--poll-interval", "0.02")


class Receiver(ThreadingHTTPServer):
    """A receiver of webhooks on loopback that checks each signature. ``statuses`` are those of the next answers."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/hook"
        self.statuses: list[int] = []
        self.messages: list[dict[str, Any]] = []


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        signed = f"{self.headers['webhook-id']}.{self.headers['webhook-timestamp']}.".encode() + body
        expected = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
        assert self.headers["webhook-signature"] == f"v1,{expected}"
        message = json.loads(body)
        assert message["id"] == self.headers["webhook-id"]
        status = self.server.statuses.pop(0) if self.server.statuses else 204
        if status < 300:
            self.server.messages.append(message)
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    monkeypatch.setenv("TOGETHER_BATCHES_WEBHOOK_SECRET", "whsec_" + base64.b64encode(KEY).decode())
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def swift(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """Return an emulator whose jobs finish at once."""
    with Emulator(timing=Timing(validating=0, running=0)).running_in_thread() as running:
        monkeypatch.setenv("TOGETHER_API_KEY", str(running.api_key))
        monkeypatch.setenv("TOGETHER_BASE_URL", running.base_url)
        yield running


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the directory that the command runs in, with a file of requests."""
    monkeypatch.chdir(tmp_path)
    rows = (jsonl.encode(jsonl.chat_request(name, model="m", messages=[])) for name in "abc")
    (tmp_path / "requests.jsonl").write_bytes(b"".join(rows))
    return tmp_path


def noting(path: Path) -> str:
    """Return a command that appends the line of JSON that it gets to a file."""
    return f"cat >> {shlex.quote(str(path))}"


def noted(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


# --- wait


def test_each_job_once(run: Run, emulator: Emulator, receiver: Receiver, tmp_path: Path) -> None:
    """Each job that was waited for is one notification for each receiver, also if it had finished before."""
    good = emulator.add_job(status="COMPLETED", output_file_id="file-o")
    bad = emulator.add_job(status="FAILED", error="the prompt 'hidden' was refused")
    ran = run("wait", good, bad, good, "--exec", noting(tmp_path / "seen"), "--webhook", receiver.url)
    assert (ran.code, len(ran.lines)) == (7, 2)
    seen = noted(tmp_path / "seen")
    assert sorted(seen, key=str) == sorted(receiver.messages, key=str)
    assert {each["data"]["job_id"]: each["data"]["status"] for each in seen} == {good: "COMPLETED", bad: "FAILED"}
    assert {each["type"] for each in seen} == {"job.ended"}
    assert "hidden" not in str(seen)
    run("wait", good, "--webhook", receiver.url)
    assert receiver.messages[-1]["id"] in {each["id"] for each in seen}


def test_a_command_that_fails(run: Run, emulator: Emulator) -> None:
    """A failure is a warning, and makes the exit code 1 if it would be 0."""
    good, bad = emulator.add_job(status="COMPLETED", output_file_id="file-o"), emulator.add_job(status="FAILED")
    ran = run("wait", good, "--exec", "exit 3")
    assert (ran.code, len(ran.lines)) == (1, 1)
    assert f"together-batches: warning: job.ended of {good}: the exit code of --exec was 3\n" in ran.err
    assert run("wait", bad, "--exec", "exit 3").code == 7
    assert run("wait", good, "--exec", "exit 3", "--quiet").err.count("warning") == 1


def test_a_receiver_that_fails(
    run: Run, emulator: Emulator, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A receiver that was down gets the message later; one that refuses it is a warning, without the URL."""
    monkeypatch.setattr(webhook, "_FIRST_PAUSE_SECONDS", 0.001)
    job_id = emulator.add_job(status="COMPLETED", output_file_id="file-o")
    receiver.statuses = [500, 503]
    assert run("wait", job_id, "--webhook", receiver.url).code == 0
    assert len(receiver.messages) == 1
    receiver.statuses = [302]
    ran = run("wait", job_id, "--webhook", receiver.url)
    assert ran.code == 1
    assert f"job.ended of {job_id}: the webhook answered with status 302 (Found)\n" in ran.err
    assert "/hook" not in ran.err


def test_labels(run: Run, emulator: Emulator, receiver: Receiver) -> None:
    """The labels of a job are in its notification."""
    job_id = emulator.add_job(status="COMPLETED", output_file_id="file-o")
    run("label", job_id, "--label", "nightly", "--label", "v2")
    assert run("wait", job_id, "--webhook", receiver.url).code == 0
    assert receiver.messages[0]["data"]["labels"] == "nightly, v2"


def test_a_defect(run: Run, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect in a delivery is a failed delivery; the wait goes on."""

    async def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("together_batches.cli._notify.exec.execute", fail)
    ids = [emulator.add_job(status="COMPLETED", output_file_id="file-o") for _ in range(2)]
    ran = run("wait", *ids, "--exec", "true")
    assert (ran.code, len(ran.lines), ran.err.count("exec failed: ZeroDivisionError")) == (1, 2, 2)


def test_at_most_four_at_once(run: Run, emulator: Emulator, tmp_path: Path) -> None:
    """At most four commands run at once."""
    ids = [emulator.add_job(status="COMPLETED", output_file_id="file-o") for _ in range(9)]
    command = f"cd {shlex.quote(str(tmp_path))}; touch $$; ls | wc -l; sleep 0.1; rm $$"
    ran = run(
        "wait", *ids, "--exec", f"({command}) > /dev/null; test $(ls {shlex.quote(str(tmp_path))} | wc -l) -le 4"
    )
    assert ran.code == 0


def test_what_is_never_delivered(
    run: Run, emulator: Emulator, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command ends if no notification was delivered for too long, and says how many were not."""
    monkeypatch.setattr(delivery, "_LONGEST_WAIT_SECONDS", 0.2)
    monkeypatch.setattr(delivery, "_QUIET_SECONDS", 0.1)
    receiver.statuses = [500] * 9
    ids = [emulator.add_job(status="COMPLETED", output_file_id="file-o") for _ in range(6)]
    ran = run("wait", *ids, "--webhook", receiver.url)
    assert (ran.code, len(ran.lines)) == (1, 6)
    assert ran.err.endswith(
        "delivering 6 notifications; Ctrl-C gives up\ntogether-batches: warning: 6 notifications not delivered\n"
    )


@pytest.mark.parametrize(
    ("options", "environ", "message"),
    [
        (["--webhook", "https://a.example/hidden"], None, "no secret to sign webhooks with"),
        (["--webhook", "http://a.example/hidden"], "whsec_aGlk", "invalid URL of the webhook"),
        (["--webhook", ""], "whsec_aGlk", "invalid URL of the webhook: it must begin with https://"),
        (["--webhook", "https://a.example/hidden"], "whsec_hidden-", "invalid TOGETHER_BATCHES_WEBHOOK_SECRET"),
        (["--exec", " "], None, "--exec takes a command"),
        (["--stuck-after", "30"], None, "invalid --stuck-after: '30' is not a duration"),
    ],
)
def test_bad_options(
    run: Run,
    emulator: Emulator,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    environ: str | None,
    message: str,
) -> None:
    """An option that cannot be is refused before anything is sent, without the URL."""
    if environ is not None:
        monkeypatch.setenv("TOGETHER_BATCHES_WEBHOOK_SECRET", environ)
    ran = run("wait", emulator.add_job(), *options)
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err
    assert "hidden" not in ran.err
    assert emulator.count("retrieve") == 0


def test_the_receiver_from_the_environment(
    run: Run, emulator: Emulator, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The URL may be in the environment."""
    monkeypatch.setenv("TOGETHER_BATCHES_WEBHOOK_URL", receiver.url)
    assert run("wait", emulator.add_job(status="COMPLETED", output_file_id="file-o")).code == 0
    assert len(receiver.messages) == 1


def test_a_stuck_job(run: Run, monkeypatch: pytest.MonkeyPatch, receiver: Receiver) -> None:
    """A job without progress is reported once, and the wait goes on."""
    monkeypatch.setattr(awaited_job, "_SHORTEST_SECONDS", 0.02)

    def note(_: object) -> None:
        if emulator.count("retrieve") == 7:
            emulator.change_job(stuck, status="EXPIRED")

    with Emulator(on_request=note).running_in_thread() as emulator:
        monkeypatch.setenv("TOGETHER_API_KEY", str(emulator.api_key))
        monkeypatch.setenv("TOGETHER_BASE_URL", emulator.base_url)
        stuck = emulator.add_job(status="VALIDATING", ends_as="VALIDATING")
        ran = run("wait", stuck, "--quiet", "--stuck-after", "0.05s", "--webhook", receiver.url)
    assert ran.code == 7
    assert [each["type"] for each in receiver.messages] == ["job.stuck", "job.ended"]
    assert ran.err.count(f"{stuck}: no progress for ") == 1


def test_an_id_in_upper_case(
    run: Run, emulator: Emulator, monkeypatch: pytest.MonkeyPatch, receiver: Receiver
) -> None:
    """A job is reported as stuck, and has its labels, however its id was typed."""
    monkeypatch.setattr(awaited_job, "_SHORTEST_SECONDS", 0.02)
    for status in ("VALIDATING", "VALIDATING", "EXPIRED"):
        emulator.fail(Fault(on="retrieve", status=200, body={"id": "job-a", "status": status}))
    run("label", "job-a", "--label", "nightly")
    ran = run("wait", "JOB-A", "--stuck-after", "0s", "--webhook", receiver.url)
    assert (ran.code, ran.lines) == (7, ["job-a\tEXPIRED\t-\t-\t-\tnightly"])
    assert [each["type"] for each in receiver.messages] == ["job.stuck", "job.ended"]
    assert {each["data"]["labels"] for each in receiver.messages} == {"nightly"}


# --- watch


def test_watch(run: Run, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """A watch notifies of the ends of those jobs that it saw unfinished, and of those that are stuck."""

    def note(_: object) -> None:
        emulator.advance(0.5)
        if emulator.count("list") == 5:
            emulator.change_job(stuck, status="EXPIRED")

    with Emulator(timing=Timing(validating=0, running=1), on_request=note).running_in_thread() as emulator:
        monkeypatch.setenv("TOGETHER_API_KEY", str(emulator.api_key))
        monkeypatch.setenv("TOGETHER_BASE_URL", emulator.base_url)
        ended = emulator.add_job(status="COMPLETED", output_file_id="file-o")
        stuck = emulator.add_job(status="VALIDATING", ends_as="VALIDATING", age_seconds=3_700)
        running = emulator.add_job()
        often = ("--poll-interval", "0.01", "--stuck-after", "1h", "--webhook", receiver.url)
        assert run("watch", *often).code == 7
        sent = [(each["type"], each["data"]["job_id"]) for each in receiver.messages]
        assert sorted(sent) == sorted([("job.ended", running), ("job.stuck", stuck), ("job.ended", stuck)])
        assert run("watch", ended, running, *often).code == 0
        assert run("watch", "--status", "COMPLETED", *often).code == 0
        assert len(receiver.messages) == 3


def test_a_watched_job_that_cannot_be_read(run: Run, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that cannot be read is not stuck, because nothing is known of it; others that are stuck are reported."""

    def note(_: object) -> None:
        if emulator.count("retrieve") == 2:
            emulator.fail(Fault(on="retrieve", job_id=lost, status=503, times=None))
        elif emulator.count("retrieve") == 10:  # at the third look
            emulator.clear_faults()
            emulator.change_job(lost, status="EXPIRED")
            emulator.change_job(stuck, status="EXPIRED")

    def monotonic() -> float:
        return time.monotonic() + 2_000 * emulator.count("retrieve")

    monkeypatch.setattr(watched, "time", SimpleNamespace(monotonic=monotonic, process_time=time.process_time))
    with Emulator(on_request=note).running_in_thread() as emulator:
        monkeypatch.setenv("TOGETHER_API_KEY", str(emulator.api_key))
        monkeypatch.setenv("TOGETHER_BASE_URL", emulator.base_url)
        lost, stuck = (emulator.add_job(status="VALIDATING", ends_as="VALIDATING") for _ in range(2))
        often = ("--poll-interval", "0.01", "--json", "--stuck-after", "2h")
        ran = run("watch", lost, stuck, *often, "--webhook", receiver.url)
    assert ran.code == 7
    assert [each["data"]["job_id"] for each in receiver.messages if each["type"] == "job.stuck"] == [stuck]
    assert "not every job could be read: the service answered 503" in ran.err
    assert "no answer since" not in ran.err
    shown = [json.loads(line) for line in ran.lines]
    assert [job["watch"]["is_stuck"] for job in shown if job["id"] == lost] == [False, False]
    assert [job["watch"]["is_stuck"] for job in shown if job["id"] == stuck] == [False, True, False]


def test_a_watch_that_an_error_ends(run: Run, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read before a refusal that ends the watch is still delivered."""
    requests = iter(range(100))

    def note(_: object) -> None:
        match next(requests):
            case 2:
                emulator.change_job(ended, status="COMPLETED")
            case 3:
                emulator.fail(Fault(job_id=refused, status=401, delay=0.2, times=None))

    with Emulator(on_request=note).running_in_thread() as emulator:
        monkeypatch.setenv("TOGETHER_API_KEY", str(emulator.api_key))
        monkeypatch.setenv("TOGETHER_BASE_URL", emulator.base_url)
        ended, refused = emulator.add_job(), emulator.add_job()
        assert run("watch", ended, refused, "--poll-interval", "0.01", "--webhook", receiver.url).code == 3
    assert [each["data"]["job_id"] for each in receiver.messages] == [ended]


# --- run


def test_the_end_of_a_run(run: Run, swift: Emulator, receiver: Receiver, here: Path) -> None:
    """A run is one notification at its end, and none when the command is repeated."""
    command = ("run", "requests.jsonl", "-o", "answers.jsonl", *OFTEN, "--max-rows-per-job", "1")
    notify = ("--exec", noting(here / "seen"), "--webhook", receiver.url)
    assert run(*command, *notify).code == 0
    (message,) = noted(here / "seen")
    assert receiver.messages == [message]
    assert (message["type"], message["data"]["succeeded"], message["data"]["exit_code"]) == ("run.finished", 3, 0)
    assert message["data"]["directory"] == str(here / "answers.jsonl.run")
    assert run(*command, *notify).code == 0
    assert (len(noted(here / "seen")), len(receiver.messages)) == (1, 1)


def test_a_delivery_that_failed_is_repeated_by_the_next_call(
    run: Run, swift: Emulator, receiver: Receiver, here: Path
) -> None:
    """What one receiver did not get, it gets from the next call, with the same id; the others get nothing again."""
    command = ("run", "requests.jsonl", "-o", "answers.jsonl", *OFTEN, "--exec", noting(here / "seen"))
    receiver.statuses = [404]
    assert run(*command, "--webhook", receiver.url).code == 1
    assert (len(noted(here / "seen")), receiver.messages) == (1, [])
    assert run(*command, "--webhook", receiver.url).code == 0
    assert receiver.messages == [{**noted(here / "seen")[0], "timestamp": receiver.messages[0]["timestamp"]}]


def test_a_run_that_stops(run: Run, swift: Emulator, here: Path) -> None:
    """A run that ends with rows left is notified of, again only after progress."""
    command = ("run", "requests.jsonl", "-o", "answers.jsonl", *OFTEN, "--max-rows-per-job", "1")
    notify = ("--exec", noting(here / "seen"))
    for rows, times in (("1", 1), ("1", 1), ("2", 2)):
        assert run(*command, *notify, "--stop-after-rows", rows).code == 5
        assert len(noted(here / "seen")) == times
    assert {(each["type"], each["data"]["exit_code"]) for each in noted(here / "seen")} == {("run.stopped", 5)}


def test_a_run_that_an_error_ends(run: Run, swift: Emulator, here: Path) -> None:
    """An error that ends a run is notified of; a usage error, and a run in another process, are not."""
    command = ("run", "requests.jsonl", "-o", "answers.jsonl", *OFTEN, "--exec", noting(here / "seen"))
    swift.fail(Fault(on="create", status=401, times=None))
    assert run(*command).code == 3
    (message,) = noted(here / "seen")
    assert (message["type"], message["data"]["exit_code"]) == ("run.stopped", 3)
    assert run(*command, "--prompt", "{x}").code == 2
    with locked(here / "answers.jsonl.run"):
        assert run(*command).code == 1
    assert len(noted(here / "seen")) == 1


def test_the_sample_of_a_run(run: Run, swift: Emulator, here: Path) -> None:
    """The pause after a sample is no end."""
    command = ("run", "requests.jsonl", "-o", "answers.jsonl", *OFTEN, "--sample", "1")
    assert run(*command, "--yes", "--exec", noting(here / "seen")).code == 0
    assert [each["type"] for each in noted(here / "seen")] == ["run.finished"]


def test_cancelling_a_run_notifies_of_nothing(run: Run, swift: Emulator, here: Path) -> None:
    """``run --cancel`` takes no option of notifications."""
    assert run("run", "--cancel", "answers.jsonl.run", "--exec", "true").code == 2


def test_a_delivery_that_cannot_be_noted(
    run: Run, swift: Emulator, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the ledger cannot be written any more, the end of the run is delivered, with a warning."""

    def refuse(directory: Path, _: object) -> None:
        message = "the disk is full"
        raise BatchesError(message)

    monkeypatch.setattr(_ledger, "note_delivery", refuse)
    ran = run("run", "requests.jsonl", "-o", "answers.jsonl", *OFTEN, "--exec", noting(here / "seen"))
    assert (ran.code, len(noted(here / "seen"))) == (0, 1)
    assert "warning: a notification was delivered, and may be again: the disk is full\n" in ran.err


def test_the_end_of_a_run_whose_ledger_cannot_be_read(
    run: Run, swift: Emulator, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That its end is not delivered is a warning, and a failure: it is not taken for a run that never began."""

    def refuse(_: Path) -> None:
        message = "too many open files"
        raise BatchesError(message)

    monkeypatch.setattr(_ledger, "read", refuse)
    ran = run("run", "requests.jsonl", "-o", "answers.jsonl", *OFTEN, "--exec", noting(here / "seen"))
    assert (ran.code, (here / "answers.jsonl").exists(), (here / "seen").exists()) == (1, True, False)
    assert "warning: the end of the run was not notified: too many open files\n" in ran.err
