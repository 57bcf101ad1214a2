"""Commands of ``--exec``: run by the shell, with the facts in the environment and as JSON on standard input."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from threading import Thread
from typing import IO, TYPE_CHECKING

from anyio import CancelScope, move_on_after, sleep, to_thread

from together_batches.cli._notify.notifications import WEBHOOK_SECRET, WEBHOOK_URL
from together_batches.cli._terminal.text import print_err

if TYPE_CHECKING:
    from collections.abc import Mapping

    from together_batches.cli._notify.notifications import Notification

MOST_SECONDS = 60.0
_GRACE_SECONDS = 5.0
"""Seconds between the signals that end a command: SIGTERM and SIGKILL."""
_SHORT_GRACE_SECONDS = 0.5
"""The same after Ctrl-C, which ends everything at once."""
_LOOK_SECONDS = 0.02
_LAST_LINES_SECONDS = 0.2
"""Maximum seconds that the last lines are waited for: a process in the background may keep the output open."""
_LONGEST_LINE = 8_192
_MOST_PRINTED = 1 << 16
"""Maximum characters of its output that are printed: a command that writes without end must not keep us busy."""
_PREFIX = "TOGETHER_BATCHES_"
_PROFILE = f"{_PREFIX}PROFILE"
"""The only variable with the prefix that a command inherits: the others are facts."""
_SECRETS = ("TOGETHER_API_KEY", WEBHOOK_URL, WEBHOOK_SECRET)
_SHORTEST_SECRET = 12
"""Minimum characters of a secret that is looked for within a text: a shorter one may be in it by chance."""


async def execute(command: str, notification: Notification, *, seconds: float = MOST_SECONDS) -> str | None:
    """Run a command for a notification; return why it failed, or None if it succeeded.

    Its output is printed on standard error, because standard output is for data. It runs in a process group of its
    own, which is ended after ``seconds``.
    """
    out, sink = os.pipe()
    printing = Thread(target=_print_lines, args=(out,), daemon=True)
    printing.start()
    try:
        # Not as a process of the event loop: Ctrl-C during its start would end only the shell, and uvloop passes
        # open files on to it.
        process = subprocess.Popen(  # noqa: ASYNC220, S602
            command,
            shell=True,
            stdin=subprocess.PIPE,
            stdout=sink,
            stderr=sink,
            env=environment(notification, os.environ),
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        return f"--exec cannot be started: {getattr(error, 'strerror', None) or error}"
    finally:
        os.close(sink)

    # In a thread that no cancellation ends, so that standard input is closed in any case.
    Thread(target=_write, args=(process.stdin, notification.body + b"\n"), daemon=True).start()

    def wait() -> None:
        process.wait(seconds)
        printing.join(_LAST_LINES_SECONDS)

    try:
        await to_thread.run_sync(wait, abandon_on_cancel=True)
    except subprocess.TimeoutExpired:
        await _end(process, _GRACE_SECONDS)
        return f"--exec was ended after {seconds:g} s"
    except BaseException:
        await _end(process, _SHORT_GRACE_SECONDS)
        raise
    return _reason(process.returncode) if process.returncode else None


def _write(file: IO[bytes], content: bytes) -> None:
    with suppress(OSError), file:  # a command need not read it
        file.write(content)


def _print_lines(file: int) -> None:
    """Print what a command writes: a line at a time, so that lines of several do not mix, above any progress bar."""
    left = _MOST_PRINTED
    with open(file, encoding="utf-8", errors="replace") as output:
        while left > 0 and (line := output.readline(_LONGEST_LINE)):
            left -= len(line)
            print_err(line.removesuffix("\n"))
        if left <= 0:
            print_err("the rest of the output of --exec is left out")
            while output.buffer.read(_MOST_PRINTED) != b"":  # a full pipe would stop the command
                pass


def environment(notification: Notification, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a command: ``environ`` without secrets and older facts, and the facts."""
    secrets = {environ.get(name, "").strip().removeprefix("whsec_") for name in _SECRETS} - {""}
    kept = {
        name: value
        for name, value in environ.items()
        if name not in _SECRETS
        and not any(_shows(value, secret) for secret in secrets)
        and (name == _PROFILE or not name.startswith(_PREFIX))
    }
    return kept | {f"{_PREFIX}{name.upper()}": _encodable(text) for name, text in notification.texts.items()}


def _shows(value: str, secret: str) -> bool:
    """Return whether a variable has a copy of a secret, as a script may make it, such as in a header."""
    return secret in value if len(secret) >= _SHORTEST_SECRET else secret == value.strip()


def _encodable(text: str) -> str:
    """Return a text that the system accepts in an environment: its encoding may lack characters."""
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        encoding = sys.getfilesystemencoding()
        return text.encode(encoding, "replace").decode(encoding)
    return text


async def _end(process: subprocess.Popen[bytes], grace: float) -> None:
    """End a command and the processes that it has started: first with SIGTERM, after ``grace`` with SIGKILL."""
    with CancelScope(shield=True):
        try:
            if sys.platform == "win32":  # without process groups
                with suppress(ProcessLookupError):
                    process.kill()
            elif _signal(process, signal.SIGTERM):
                with move_on_after(grace):
                    while _signal(process, 0):
                        process.poll()  # an ended process that was not waited for is still in its group
                        await sleep(_LOOK_SECONDS)
        finally:  # also after a second Ctrl-C, which no shield keeps off
            if sys.platform != "win32":
                _signal(process, signal.SIGKILL)
            with suppress(subprocess.TimeoutExpired):
                process.wait(_SHORT_GRACE_SECONDS)


def _signal(process: subprocess.Popen[bytes], number: int) -> bool:
    """Send a signal to the process group of a command; return False if none of its processes is left."""
    try:
        os.killpg(process.pid, number)
    except (ProcessLookupError, PermissionError):  # macOS refuses a group whose processes have all ended
        return False
    return True


def _reason(code: int) -> str:
    if code > 0:
        return f"the exit code of --exec was {code}"
    try:
        return f"--exec was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"--exec was ended by signal {-code}"
