"""The command as a process: its imports, its exit, and its output."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import Request, urlopen

import pytest

from together_batches.emulator import Emulator, Fault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "together_batches"]
HEAVY = {
    "aiohttp",
    "anyio",
    "asyncio",
    "cattrs",
    "msgspec",
    "rich",
    "together_batches.client",
    "together_batches._protocol.json_codec",
}

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals and pseudo-terminals are those of POSIX")


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with Emulator().running_in_thread() as running:
        yield running


@pytest.fixture
def environment(emulator: Emulator) -> dict[str, str]:
    """Return the environment of the tests, pointed at the emulator, with every warning shown."""
    unwanted = ("CI", "NO_COLOR", "FORCE_COLOR", "PYTHONIOENCODING", "PYTHONUNBUFFERED")
    kept = {name: value for name, value in os.environ.items() if name not in unwanted}
    return {
        **kept,
        "TOGETHER_BASE_URL": emulator.base_url,
        "TOGETHER_API_KEY": str(emulator.api_key),
        "TERM": "xterm",
        "COLUMNS": "200",  # so that no message is longer than a line
        "PYTHONWARNINGS": "always",
    }


@pytest.fixture
def start(environment: dict[str, str], warm_python: list[str]) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start the command with these arguments, and kill it if it is still running at the end of the test."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*argv: str, **how: object) -> subprocess.Popen[bytes]:
        how = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **how}
        process = subprocess.Popen([*warm_python, *COMMAND[1:], *argv], cwd=ROOT, env=environment, **how)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def until(happened: Callable[[], object]) -> None:
    """Wait until it happens, for a short time at most."""
    limit = time.monotonic() + 20
    while not happened():
        assert time.monotonic() < limit
        time.sleep(0.01)


# --- imports

WHAT_IT_IMPORTS = """
import sys; from together_batches.cli import main; code = main(sys.argv[1:])
print("\\n" + " ".join(sys.modules)); sys.exit(code)
"""


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["--help"], 0),
        (["--version"], 0),
        (["cancel", "--help"], 0),
        (["run", "--help"], 0),
        (["runs", "show", "--help"], 0),
        (["lst"], 2),
        (["list", "--jsn"], 2),
        ([], 2),
    ],
)
def test_quick_answers_import_nothing_heavy(argv: Sequence[str], code: int) -> None:
    """Help, version and usage errors import neither the HTTP client nor any other slow module."""
    ran = subprocess.run(
        [sys.executable, "-c", WHAT_IT_IMPORTS, *argv],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert code == ran.returncode
    assert HEAVY.isdisjoint(ran.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("argv", [["validate", "requests.jsonl"], ["split", "requests.jsonl"]])
def test_what_needs_no_network_imports_none(argv: Sequence[str], tmp_path: Path) -> None:
    """Files are checked and split without an import of the HTTP client."""
    (tmp_path / "requests.jsonl").write_text('{"custom_id": "a", "body": {"model": "m"}}\n')
    ran = subprocess.run(
        [sys.executable, "-c", WHAT_IT_IMPORTS, *argv],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    loaded = set(ran.stdout.splitlines()[-1].split())
    assert loaded.isdisjoint({"aiohttp", "anyio", "asyncio", "rich", "together_batches.client"})


def test_looking_at_a_run_needs_no_network(tmp_path: Path) -> None:
    """A run is shown from its directory without an import of the HTTP client."""
    ran = subprocess.run(
        [sys.executable, "-c", WHAT_IT_IMPORTS, "runs", "show", str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ran.returncode == 2, ran.stderr
    assert set(ran.stdout.splitlines()[-1].split()).isdisjoint({"aiohttp", "rich", "together_batches.client"})


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str) -> None:
    """A shell reads the completions from a pipe."""
    environment = {**os.environ, "_TOGETHER_BATCHES_COMPLETE": f"{shell}_complete"}
    environment |= {"COMP_WORDS": "together-batches canc", "COMP_CWORD": "canc" if shell == "fish" else "1"}
    ran = subprocess.run(COMMAND, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "cancel" in ran.stdout


def test_error_is_one_line(environment: dict[str, str]) -> None:
    """An error is one sentence on standard error, with the exit code of the table."""
    del environment["TOGETHER_API_KEY"]
    ran = subprocess.run([*COMMAND, "list"], cwd=ROOT, env=environment, capture_output=True, timeout=30, check=False)
    assert ran.returncode == 3
    assert ran.stdout == b""
    assert (
        ran.stderr == b"together-batches: error: no API key: set TOGETHER_API_KEY, or run 'together-batches login'\n"
    )


# --- Ctrl-C


@posix
@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_interrupted_cancel(
    emulator: Emulator, start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path, how: str
) -> None:
    """An interrupt during 10,000 cancels ends the command in under a second, with a report of what was done.

    The limit is higher, for a busy machine; a command that waited for the service would take a minute.
    """
    emulator.fail(Fault(on="cancel", times=200, delay=0.05))
    emulator.fail(Fault(on="cancel", times=None, delay=60))
    ids = [emulator.add_job() for _ in range(10_000)]
    (tmp_path / "ids").write_text("\n".join(ids))
    output = tmp_path / "output"
    with (tmp_path / "ids").open() as source, output.open("w") as target:
        process = start("cancel", "-", "--yes", stdin=source, stdout=target)
    until(output.read_bytes)
    interrupted = time.monotonic()
    process.send_signal(getattr(signal, how))
    _, err = process.communicate(timeout=20)
    assert time.monotonic() - interrupted < 5
    assert process.returncode == 130
    preview, summary = err.decode().splitlines()  # neither a traceback nor a warning
    assert preview == "10 000 jobs named on standard input"
    lines = output.read_text().splitlines()
    found = re.fullmatch(
        r"interrupted: ([\d ]+) accepted and still stopping, (\d+) in flight, ([\d ]+) not sent; run it again .*",
        summary,
    )
    assert found is not None
    accepted, in_flight, not_sent = (int(count.replace(" ", "")) for count in found.groups())
    assert accepted == len(lines)
    assert 0 < in_flight <= 100
    assert accepted + in_flight + not_sent == 10_000
    assert all(line.split("\t")[1:] == ["canceling", "CANCELING"] for line in lines)


@posix
def test_interrupted_run(emulator: Emulator, start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path) -> None:
    """Ctrl-C leaves the jobs alone and prints how to resume and how to cancel, and both work."""
    requests = tmp_path / "requests.jsonl"
    requests.write_text("".join(f'{{"custom_id": "{name}", "body": {{"model": "m"}}}}\n' for name in "abcde"))
    output = tmp_path / "answers.jsonl"
    argv = ("run", str(requests), "-o", str(output), "--max-rows-per-job", "2", "--poll-interval", "0.05")
    process = start(*argv)
    assert process.stderr is not None
    created = 0
    while created < 3:
        line = process.stderr.readline().decode()
        assert line, "it ended by itself"
        created += line.endswith("is created\n")
        if created == 1:
            emulator.advance(3)  # it leaves VALIDATING, and the others follow
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (130, b"")
    *_, again, cancel = err.decode().splitlines()  # neither a traceback nor a warning
    assert again == "interrupted: 0 of 5 rows are done; run the same command again to resume"
    hint = "3 jobs still run at the service; to cancel: together-batches "
    assert cancel == f"{hint}run --cancel {output}.run"
    assert emulator.count("cancel") == 0
    assert not output.exists()
    process = start(*cancel.removeprefix(hint).split(), "--wait")
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert sorted(line.split("\t")[0] for line in out.decode().splitlines()) == sorted(
        str(job["id"]) for job in emulator.jobs
    )
    emulator.advance(3_600)
    process = start(*argv, "--patience", "0")  # one read suffices to accept that a job ended without files
    until(lambda: len(emulator.jobs) == 6)
    emulator.advance(3_600)
    process.communicate(timeout=20)
    assert process.returncode == 0
    assert [json.loads(line)["custom_id"] for line in output.read_text().splitlines()] == list("abcde")


@posix
def test_interrupted_emulator(start: Callable[..., subprocess.Popen[bytes]]) -> None:
    """The emulator serves until Ctrl-C, which is not a failure, and then closes its port."""
    process = start("emulator", "--jobs", "3")
    assert process.stdout is not None
    exports = dict(process.stdout.readline().decode().removeprefix("export ").strip().split("=") for _ in range(2))
    headers = {"Authorization": f"Bearer {exports['TOGETHER_API_KEY']}", "User-Agent": "test"}
    request = Request(f"{exports['TOGETHER_BASE_URL']}/batches", headers=headers)
    with urlopen(request, timeout=10) as answer:
        assert len(json.load(answer)) == 3
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (0, b"")
    assert err.decode().splitlines()[1:] == ["the emulator has stopped, and its jobs are gone"]
    with pytest.raises(OSError, match="refused"):
        urlopen(request, timeout=10)


@posix
@pytest.mark.parametrize("how", ["SIGTERM", "SIGHUP"])
@pytest.mark.parametrize("command", ["results", "files download"])
def test_ended_download(
    emulator: Emulator, start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path, how: str, command: str
) -> None:
    """A signal that ends the process leaves no incomplete file."""
    emulator.fail(Fault(on="content", drip=0.002, times=None))
    file_id = emulator.add_file(b'{"custom_id":"a","response":{"status_code":200,"body":{}}}\n' * 20_000)
    wanted = file_id if command == "files download" else emulator.add_job(status="COMPLETED", output_file_id=file_id)
    process = start(*command.split(), wanted, "-o", str(tmp_path / "out"))
    until(lambda: list(tmp_path.iterdir()))
    process.send_signal(getattr(signal, how))
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (130, b"", b"interrupted\n")
    assert list(tmp_path.iterdir()) == []


@posix
@pytest.mark.parametrize("command", ["run", "submit", "files upload"])
def test_interrupted_before_a_pipe_is_written_to(
    start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path, command: str
) -> None:
    """Ctrl-C ends a command that waits for the other end of a pipe."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    output = ("-o", str(tmp_path / "out")) if command == "run" else ()
    process = start(*command.split(), str(pipe), *output)
    with pipe.open("wb"):  # the command has opened its end, and waits for input
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err.splitlines()[-1]) == (130, b"", b"interrupted")
    assert list(tmp_path.iterdir()) == [pipe]


@posix
@pytest.mark.parametrize("command", ["cancel", "results"])
def test_a_pipe_that_is_not_read(
    emulator: Emulator, start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path, command: str
) -> None:
    """A pipe that is not read delays no cancel, and Ctrl-C still ends the command."""
    if command == "cancel":
        ids = [emulator.add_job() for _ in range(2_000)]  # more lines than a pipe holds
        (tmp_path / "ids").write_text("\n".join(ids))
        with (tmp_path / "ids").open() as source:
            process = start("cancel", "-", "--yes", stdin=source)
        until(lambda: emulator.count("cancel") == len(ids))
    else:
        rows = b'{"custom_id":"a","response":{"status_code":200,"body":{}}}\n' * 20_000
        process = start("results", emulator.add_job(status="COMPLETED", output_file_id=emulator.add_file(rows)))
        until(lambda: emulator.count("content") == 1)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=10) == 130


@posix
@pytest.mark.parametrize("opened", [os.pipe, os.openpty])
def test_standard_error_that_is_not_read(
    emulator: Emulator,
    start: Callable[..., subprocess.Popen[bytes]],
    tmp_path: Path,
    opened: Callable[[], tuple[int, int]],
) -> None:
    """Standard error that is not read, a full pipe or terminal, delays no call, and Ctrl-C still ends the command."""
    ids = [emulator.add_job(ends_as="IN_PROGRESS") for _ in range(5)]
    (tmp_path / "ids").write_text("\n".join(ids))
    ours, theirs = opened()
    os.set_blocking(theirs, False)
    with suppress(BlockingIOError):
        while os.write(theirs, b"x" * 100):
            pass
    os.set_blocking(theirs, True)
    with (tmp_path / "ids").open() as source, os.fdopen(ours, "rb"), os.fdopen(theirs, "wb") as unread:
        process = start("cancel", "-", "--yes", "--wait", "--verbose", stdin=source, stderr=unread)
        until(lambda: emulator.count("cancel") == 5)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == 130


@posix
@pytest.mark.parametrize("argv", [["list", "--json"], ["files", "download", "ID", "-o", "-"], ["wait", "-"]])
def test_standard_output_of_other_commands_that_is_not_read(
    emulator: Emulator, start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path, argv: list[str]
) -> None:
    """Ctrl-C ends other commands too if their standard output is not read."""
    ids = [emulator.add_job(status="COMPLETED") for _ in range(1_000)]
    (tmp_path / "ids").write_text("\n".join(ids))
    file_id = emulator.add_file(b"x" * 10_000_000)
    with (tmp_path / "ids").open() as source:
        process = start(*(file_id if word == "ID" else word for word in argv), stdin=source)
    until(lambda: emulator.requests)
    time.sleep(1.5)  # until the pipe is full
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=10) == 130


# --- a terminal


@posix
@pytest.mark.parametrize(("typed", "code", "cancels"), [(b"y\n", 0, 2), (b"n\n", 1, 0), (None, 130, 0)])
def test_prompt(
    emulator: Emulator, start: Callable[..., subprocess.Popen[bytes]], typed: bytes | None, code: int, cancels: int
) -> None:
    """On a terminal the command prompts; the answer decides, and Ctrl-C at the prompt ends it at once."""
    for _ in range(2):
        emulator.add_job(ends_as="IN_PROGRESS")
    ours, theirs = os.openpty()
    process = start("cancel", "--all", stdin=theirs, stderr=theirs)
    seen = b""
    while not seen.endswith(b"Cancel 2 jobs? [y/N] "):
        seen += os.read(ours, 4096)
    if typed is None:
        time.sleep(0.2)  # until it reads
        process.send_signal(signal.SIGINT)
    else:
        os.write(ours, typed)
    out, _ = process.communicate(timeout=20)
    rest = os.read(ours, 4096).decode().replace("\r", "")
    os.close(theirs)
    os.close(ours)
    assert code == process.returncode
    assert cancels == len(out.splitlines()) == emulator.count("cancel")
    shown = {0: "2 canceling; took", 1: "nothing was cancelled", 130: "interrupted"}
    assert rest.splitlines()[-1].startswith(shown[code])  # neither a traceback nor a warning
    assert len(rest.splitlines()) == 2


@posix
@pytest.mark.parametrize(("ended_by", "code"), [(None, 0), (signal.SIGINT, 130), (signal.SIGTERM, 130)])
def test_a_key_is_typed(
    emulator: Emulator, start: Callable[..., subprocess.Popen[bytes]], ended_by: int | None, code: int
) -> None:
    """A key that is typed is not shown, and the terminal has its echo again afterwards, also after a signal."""
    import termios

    ours, theirs = os.openpty()
    # A session of its own: otherwise it would prompt on the terminal that the tests were started from.
    process = start("login", "--profile", "a", stdin=theirs, stderr=theirs, start_new_session=True)
    seen = b""
    while not seen.endswith(b" (not shown): "):
        seen += os.read(ours, 4096)
    if ended_by is None:
        os.write(ours, f"{emulator.api_key}\n".encode())
    else:
        time.sleep(0.2)  # until it reads
        process.send_signal(ended_by)
    process.communicate(timeout=20)
    has_echo = bool(termios.tcgetattr(theirs)[3] & termios.ECHO)
    rest = os.read(ours, 4096).decode().replace("\r", "")
    os.close(theirs)
    os.close(ours)
    assert (process.returncode, has_echo) == (code, True)
    assert str(emulator.api_key) not in seen.decode() + rest
    last = "interrupted" if ended_by else f"the key of profile 'a', for {emulator.base_url}, is in "
    assert rest.splitlines()[-1].startswith(last)
    assert len(rest.splitlines()) == 2


# --- pipes and streams


@posix
def test_reader_that_leaves(emulator: Emulator, start: Callable[..., subprocess.Popen[bytes]]) -> None:
    """A pipe that is closed before the end of a long list ends the command quietly."""
    for _ in range(2_000):
        emulator.add_job()
    process = start("list")
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert process.wait(timeout=20) == 1


@posix
def test_reader_that_leaves_a_cancel(emulator: Emulator, start: Callable[..., subprocess.Popen[bytes]]) -> None:
    """A pipe that is closed during a cancel ends it, and the remaining jobs are reported."""
    emulator.fail(Fault(on="cancel", times=200, delay=0.05))
    emulator.fail(Fault(on="cancel", times=None, delay=60))
    ids = [emulator.add_job() for _ in range(50)]
    process = start("cancel", "--max-concurrency", "5", *ids)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr is not None
    (summary,) = process.stderr.read().decode().splitlines()
    assert process.wait(timeout=20) == 1
    assert summary.startswith("the output was closed by its reader: ")
    assert "accepted and still stopping, " in summary
    assert " not sent; run it again to resume" in summary


@posix
@pytest.mark.parametrize("argv", [["--help"], ["get", "ID"], ["list"], ["cancel", "ID"]])
def test_closed_standard_output(emulator: Emulator, environment: dict[str, str], argv: list[str]) -> None:
    """A standard output that was closed from the start causes no traceback."""
    emulator.add_job(id="ID")
    shell = ["sh", "-c", 'exec "$@" >&-', "sh", *COMMAND, *argv]
    ran = subprocess.run(shell, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert ran.returncode == 0
    assert "Traceback" not in ran.stderr


def test_narrow_encoding(emulator: Emulator, environment: dict[str, str]) -> None:
    """A character that the encoding of standard output lacks becomes an escape."""
    emulator.add_job(model_id="módel", ends_as="IN_PROGRESS")
    ran = subprocess.run(
        [*COMMAND, "list"],
        cwd=ROOT,
        env={**environment, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert b"m\\xf3del" in ran.stdout


def test_bytes_that_are_no_text(environment: dict[str, str]) -> None:
    """An id that is not text in any encoding is refused in one sentence."""
    ran = subprocess.run(
        [*COMMAND, "get", b"\xff"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=30, check=False
    )
    assert ran.returncode == 2
    assert "Traceback" not in ran.stderr
    assert ran.stderr.count("\n") == 1
