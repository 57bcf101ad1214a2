"""Run the examples of one page, in order, against an emulator: ``python tests/contracts/run_page.py PAGE``.

Its commands are processes of the Python that the environment variable WARM_PYTHON names, by default of this one.

These run: each ``python`` block, and each ``$`` command of a ``console`` block. All blocks of a page share one
namespace and one event loop; ``await`` may stand at the top of a block. TOGETHER_BASE_URL and TOGETHER_API_KEY point
at an emulator that has a few jobs. A ``text`` block right after a ``python`` block, and the lines below a command,
are the expected output; ``...`` stands for anything.

HTML comments contain instructions that the reader does not see:

- ``<!-- run`` … ``-->``: code that runs at this place; ``page_emulator`` is the emulator.
- ``<!-- exit: 5 -->`` before a ``console`` block: the exit code of its commands.
- ``<!-- not run: the reason -->`` before a block that cannot run.
- ``<!-- needs: airflow -->`` before a block that runs only if that module is installed.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from together_batches.emulator import Emulator, Timing

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator


class Block(NamedTuple):
    """One block of a page; ``line`` is that of its first line of text."""

    kind: str
    text: str
    line: int
    follows: bool = False
    """Only blank lines separate this block from the one before it."""
    exit_code: int = 0
    not_run: str | None = None
    needs: str | None = None


class MismatchError(Exception):
    """The output differs from the page."""


def blocks(page: str) -> Iterator[Block]:
    """Yield the fenced blocks and the hidden code of a page; ``kind`` is the word after the fence, or ``run``."""
    marks: dict[str, str] = {}
    follows = False
    lines = enumerate(page.splitlines(), start=1)
    for number, line in lines:
        if line == "<!-- run":
            kind, end = "run", "-->"
        elif fence := re.match(r"(`{3,})(.*)", line):
            kind, end = fence[2].strip(), fence[1]
        elif marker := re.fullmatch(r"<!-- (exit|not run|needs): (.+) -->", line):
            marks[marker[1]] = marker[2]
            continue
        else:
            if line.strip():
                marks, follows = {}, False
            continue
        text = []
        for _, inner in lines:
            if inner.rstrip() == end:
                break
            text.append(inner)
        exit_code = int(marks.get("exit", 0))
        yield Block(
            kind, "\n".join(text) + "\n", number + 1, follows, exit_code, marks.get("not run"), marks.get("needs")
        )
        marks, follows = {}, True


def commands(block: Block) -> Iterator[tuple[str, str]]:
    """Yield the commands of a ``console`` block, each with the output that is shown below it."""
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        while command.endswith("\\"):
            more, _, output = output.partition("\n")
            command = command[:-1] + more.removeprefix(">").strip()
        yield command, output


def compare(shown: str, came: str, where: str) -> None:
    """Raise :class:`MismatchError` if ``came`` differs from ``shown``; ``...`` stands for anything."""
    pattern = ".*".join(re.escape(part) for part in shown.strip().split("..."))
    if not re.fullmatch(pattern, came.strip(), re.DOTALL):
        message = f"{where}: the page shows\n{shown.rstrip()}\nand this came:\n{came.rstrip()}"
        raise MismatchError(message)


def run_python(block: Block, path: Path, namespace: dict[str, object], runner: asyncio.Runner) -> None:
    """Run a block."""
    # Preceded by as many empty lines as on the page, so that the line numbers of tracebacks are those of the page.
    source = "\n" * (block.line - 1) + block.text
    code = compile(source, str(path), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    awaited: Coroutine[Any, Any, None] | None = eval(code, namespace)
    if inspect.iscoroutine(awaited):
        runner.run(awaited)


def run_command(command: str, block: Block, where: str) -> str:
    """Run a command, and return its output from both streams."""
    if not command.startswith("together-batches "):
        message = f"{where}: console blocks are for together-batches; for `{command}` take an sh block"
        raise MismatchError(message)
    ended = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=30,
        check=False,
    )
    if ended.returncode != block.exit_code:
        message = f"{where}: `{command}` ended with {ended.returncode}, not with {block.exit_code}:\n{ended.stdout}"
        raise MismatchError(message)
    return ended.stdout


def run(path: Path, emulator: Emulator) -> None:
    """Run all blocks of a page; raise the error of an example, or :class:`MismatchError`."""
    namespace: dict[str, object] = {"__name__": "__main__", "page_emulator": emulator}
    printed: str | None = None
    # One stream for the page, because a log handler that one block creates may write to it in the next.
    with asyncio.Runner() as runner, contextlib.redirect_stdout(io.StringIO()) as stream:
        for block in blocks(path.read_text("utf-8")):
            where = f"{path}:{block.line}"
            if block.kind == "text" and block.follows and printed is not None:
                compare(block.text, printed, where)
            printed = None
            if block.not_run is not None or (block.needs is not None and find_spec(block.needs) is None):
                continue
            if block.kind in {"python", "run"}:
                begin = stream.tell()
                run_python(block, path, namespace, runner)
                printed = stream.getvalue()[begin:]
            elif block.kind == "console":
                for command, shown in commands(block):
                    came = run_command(command, block, where)
                    if shown.strip():
                        compare(shown, came, where)


def main() -> None:
    """Run the page that the command line names, in an empty directory."""
    path = Path(sys.argv[1]).resolve()
    emulator = Emulator(seed=1, timing=Timing(validating=3600, running=3600, canceling=0.3))
    for status in ("IN_PROGRESS", "IN_PROGRESS", "IN_PROGRESS", "VALIDATING", "FAILED"):
        emulator.add_job(status=status, age_seconds=3 * 3600)
    emulator.add_job(status="COMPLETED", age_seconds=3 * 3600, output_file_id=emulator.add_file())
    with (
        emulator.running_in_thread(),
        tempfile.TemporaryDirectory() as scripts,
        tempfile.TemporaryDirectory() as scratch,
        contextlib.chdir(scratch),
    ):
        os.environ["TOGETHER_BASE_URL"] = emulator.base_url
        os.environ["TOGETHER_API_KEY"] = str(emulator.api_key)
        os.environ["XDG_CONFIG_HOME"] = str(Path(scripts, "config"))  # the reader's own stays as it is
        # The command of this tree, which need not be installed.
        script = Path(scripts, "together-batches")
        python = os.environ.get("WARM_PYTHON", shlex.quote(sys.executable))
        script.write_text(f'#!/bin/sh\nexec {python} -m together_batches "$@"\n')
        script.chmod(0o700)
        for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME"):
            os.environ[name] = str(Path(scripts, "home"))
        os.environ["PATH"] = os.pathsep.join([scripts, str(Path(sys.executable).parent), os.environ["PATH"]])
        try:
            run(path, emulator)
        except MismatchError as error:
            sys.exit(str(error))


if __name__ == "__main__":
    main()
