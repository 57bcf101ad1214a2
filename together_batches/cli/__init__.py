"""The command ``together-batches``: arguments, output and exit codes around the async client.

Each command is a function in the file of that name. One command is one loop.
"""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING

import click

from together_batches._version import __version__
from together_batches.cli._command import Group, explain
from together_batches.cli._exits import CommandError, Exit, Interrupted, code_of
from together_batches.cli._text import PROGRAM, is_open, print_err, print_error
from together_batches.errors import BatchesError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["COMMANDS", "main"]

_FILES = Group(
    "files",
    """Upload, look up, list, download and delete the files of the account.

    examples:
      together-batches files upload requests.jsonl
      together-batches files list
      together-batches files download ID -o output.jsonl
    """,
    {
        "upload": ("_files", "upload", "upload a file"),
        "list": ("_files", "list_files", "list the files of the account"),
        "get": ("_files", "get", "show files by their ids"),
        "download": ("_files", "download", "download the content of a file"),
        "delete": ("_files", "delete", "delete files"),
    },
)

_RUNS = Group(
    "runs",
    """Look at a durable run, one that goes on or one that ended. It needs no key
    and no network.

    examples:
      together-batches runs show answers.jsonl.run
    """,
    {"show": ("_runs", "show", "show a run: its rows, its shards along the time")},
)

COMMANDS = click.version_option(__version__, prog_name=PROGRAM, message="%(prog)s %(version)s")(
    Group(
        PROGRAM,
        """Batch inference jobs on Together AI, from a file of requests to their results,
        one job or many thousands at a time.
        The API key is read from the environment variable TOGETHER_API_KEY, and from
        nowhere else.

        examples:
          together-batches demo                        see it at work, without a key
          together-batches run FILE -o out.jsonl       every answer to a file
          together-batches submit FILE --wait          a file of requests becomes a job
          together-batches results ID -o out.jsonl     what became of each request
          together-batches list --status IN_PROGRESS   the jobs that are running
          together-batches cancel ID ID ID             cancel these jobs
          together-batches cancel --all --dry-run      see what would be cancelled
        """,
        {
            "demo": ("_demo", "demo", "see a thousand jobs being cancelled, on this machine alone"),
            "cancel": ("_cancel", "cancel", "cancel jobs: by id, from standard input, or by filters"),
            "list": ("_list_get", "list_jobs", "list the jobs of the account"),
            "get": ("_list_get", "get", "show jobs by their ids"),
            "validate": ("_validate", "validate", "find every problem of a file of requests"),
            "split": ("_split", "split", "cut a file of requests into files that the service takes"),
            "submit": ("_submit", "submit", "check a file of requests, upload it, and create a job"),
            "results": ("_results", "results", "write what became of each row of a finished job"),
            "wait": ("_wait", "wait", "wait for jobs, and print each as it finishes"),
            "run": ("_run", "run", "every answer to a file of any size; run it again and it goes on"),
            "runs": _RUNS,
            "files": _FILES,
            "emulator": ("_emulate", "emulator", "run a stand-in for the service on this machine"),
        },
    )
)

_COMPLETE = "_TOGETHER_BATCHES_COMPLETE"
"""The variable by which a shell asks for completions, as click names it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command on ``argv``, by default that of the process, and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        # A character that the encoding lacks is written as an escape, and never ends the command.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _guarded(list(sys.argv[1:] if argv is None else argv))
        # Here and not at the interpreter's exit, which would complain about a closed pipe.
        if is_open(sys.stdout):
            sys.stdout.flush()
    except BrokenPipeError:
        _mute_stdout()
        return Exit.FAILED
    except OSError as error:
        print_error(f"the output cannot be written: {error.strerror or error}")
        _mute_stdout()
        return Exit.FAILED
    return code


def _guarded(argv: list[str]) -> int:
    """Run the command; every error is printed as a sentence but a closed pipe, which is raised."""
    try:
        return _invoke(argv)
    except click.exceptions.Exit as end:  # after --help and --version
        return end.exit_code
    except click.UsageError as error:
        print_error(explain(error))
        return Exit.USAGE
    except (KeyboardInterrupt, Interrupted) as error:
        print_err(str(error) or str(Interrupted()))
        return Exit.INTERRUPTED
    except CommandError as error:
        print_error(str(error))
        return error.code
    except BatchesError as error:
        print_error(str(error))
        return code_of(error)
    except BrokenPipeError:
        raise
    except OSError as error:  # after BatchesError: our APITimeoutError is one too
        print_error(error.strerror or str(error))
        return Exit.FAILED


def _invoke(argv: list[str]) -> int:
    if instruction := os.environ.get(_COMPLETE):
        from click.shell_completion import shell_complete

        return shell_complete(COMMANDS, {}, PROGRAM, _COMPLETE, instruction)
    # Not click's own main(), which prints errors, interrupts and closed pipes in its way.
    with COMMANDS.make_context(PROGRAM, argv) as context:
        code: int = COMMANDS.invoke(context)
        return code


def _mute_stdout() -> None:
    """Discard what the interpreter flushes at its exit: it cannot be written, and the error was printed."""
    if not is_open(sys.stdout):
        return
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
