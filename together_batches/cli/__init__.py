"""The command ``together-batches``: arguments, output and exit codes around the async client.

One command is one loop. aiohttp, rich and the like are imported by the commands that need them, so that ``--help``
and a mistyped option are answered at once.
"""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING

from together_batches.cli._exits import CommandError, Exit, Interrupted, code_of
from together_batches.cli._parser import Arguments, parse
from together_batches.cli._streams import unblocked_streams
from together_batches.cli._text import complain, has, say
from together_batches.errors import BatchesError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command on ``argv`` (otherwise on what was typed) and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        # What a narrow encoding cannot say is written as an escape, and never ends the command.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    with unblocked_streams() as finish:
        try:
            code = _guarded(argv)
            # Here and not at the interpreter's exit, where a closed pipe would be complained about.
            finish(code == Exit.INTERRUPTED)
        except KeyboardInterrupt:
            return Exit.INTERRUPTED
        except BrokenPipeError:
            _mute_stdout()
            return Exit.FAILED
        except OSError as error:
            complain(f"the output cannot be written: {error.strerror or error}")
            _mute_stdout()
            return Exit.FAILED
        return code


def _guarded(argv: Sequence[str] | None) -> int:
    """The exit code; what goes wrong is told in a sentence, and only a closed pipe is raised."""
    try:
        return _carry_out(parse(argv))
    except (KeyboardInterrupt, Interrupted):
        say("interrupted")
        return Exit.INTERRUPTED
    except CommandError as error:
        complain(str(error))
        return error.code
    except BatchesError as error:
        complain(str(error))
        return code_of(error)
    except BrokenPipeError:
        raise
    except OSError as error:  # after BatchesError: our APITimeoutError is one too
        complain(error.strerror or str(error))
        return Exit.FAILED
    except SystemExit as end:  # argparse, after --help and --version
        return int(end.code or 0)


def _carry_out(arguments: Arguments) -> Exit:
    match arguments.command:
        case "cancel":
            from together_batches.cli._cancel import cancel as command
        case "list":
            from together_batches.cli._read import list_jobs as command
        case "get":
            from together_batches.cli._read import get as command
        case "results":
            from together_batches.cli._results import results as command
        case "submit":
            from together_batches.cli._submit import submit as command
        case "wait":
            from together_batches.cli._wait import wait as command
        case "run":
            from together_batches.cli._run import run as command
        case "runs show":
            from together_batches.cli._runs import show as command
        case "validate":
            from together_batches.cli._validate import validate as command
        case "split":
            from together_batches.cli._split import split as command
        case "files upload":
            from together_batches.cli._files import upload as command
        case "files list":
            from together_batches.cli._files import list_files as command
        case "files get":
            from together_batches.cli._files import get as command
        case "files download":
            from together_batches.cli._files import download as command
        case "files delete":
            from together_batches.cli._files import delete as command
        case "emulator":
            from together_batches.cli._emulate import emulator as command
        case _:
            from together_batches.cli._demo import demo as command
    return command(arguments)


def _mute_stdout() -> None:
    """Let what the interpreter flushes at its exit go nowhere: it cannot be written, and that has been dealt with."""
    if not has(sys.stdout):
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
