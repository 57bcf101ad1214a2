"""The command ``together-batches``: arguments, output and exit codes around the async client.

Each command is a function in the file that :data:`COMMANDS` names, and runs one event loop.
"""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING

import click

from together_batches._version import __version__
from together_batches.cli._terminal.commands import Group, explain
from together_batches.cli._terminal.exits import CommandError, Exit, Interrupted, code_of
from together_batches.cli._terminal.streams import is_of_output, unblocked_streams
from together_batches.cli._terminal.text import PROGRAM, is_open, print_err, print_error
from together_batches.errors import BatchesError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["COMMANDS", "main"]

_FILES = Group(
    "files",
    "the files of the account",
    """Upload, look up, list, download and delete the files of the account.

    examples:
      together-batches files upload requests.jsonl
      together-batches files list
      together-batches files download ID -o output.jsonl
    """,
    {
        "upload": ("files", "upload", "upload a file"),
        "list": ("files", "list_files", "list the files of the account"),
        "get": ("files", "get", "show files by their ids"),
        "download": ("files", "download", "download the content of a file"),
        "delete": ("files", "delete", "delete files"),
    },
)

_RUNS = Group(
    "runs",
    "look at durable runs",
    """Look at durable runs, in progress or ended. It needs no key and no network.

    examples:
      together-batches runs list
      together-batches runs show answers.jsonl.run
    """,
    {
        "list": ("runs.list", "list_runs", "list the runs in a directory, and their states"),
        "show": ("runs.show", "show", "show a run: its rows, and its shards over time"),
    },
)

COMMANDS = click.version_option(
    __version__, prog_name=PROGRAM, message="%(prog)s %(version)s", help="show the version and exit"
)(
    Group(
        PROGRAM,
        "batch inference jobs on Together AI",
        """Batch inference jobs on Together AI, from a file of requests to their results,
        one job or many thousands at a time.
        The API key is the one in the environment variable TOGETHER_API_KEY, or one that
        'login' keeps.

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
            "demo": ("emulator", "demo", "watch a thousand jobs being cancelled, on this machine alone"),
            "cancel": ("cancel.command", "cancel", "cancel jobs: by id, from standard input, or by filters"),
            "list": ("list_get", "list_jobs", "list the jobs of the account"),
            "get": ("list_get", "get", "show jobs by their ids"),
            "validate": ("validate_split", "validate", "find every problem in a file of requests"),
            "estimate": ("estimate", "estimate", "estimate the tokens and the cost of a file of requests"),
            "split": ("validate_split", "split", "split a file of requests into files that the service accepts"),
            "submit": ("submit", "submit", "check a file of requests, upload it, and create a job"),
            "results": ("results", "results", "write the result of each row of a finished job"),
            "label": ("label", "label", "label jobs, on this machine, or take labels off"),
            "wait": ("wait", "wait", "wait for jobs, and print each as it finishes"),
            "watch": ("watch.command", "watch", "watch many jobs in one live table, until all have finished"),
            "run": ("runs.run", "run", "get every answer to a file of any size; run it again to resume"),
            "runs": _RUNS,
            "files": _FILES,
            "login": ("login", "login", "keep an API key for this command, in a profile"),
            "logout": ("login", "logout", "remove the key of a profile from this machine"),
            "profiles": ("login", "profiles", "list the profiles, without their keys"),
            "emulator": ("emulator", "emulator", "run a stand-in for the service on this machine"),
        },
    )
)

_COMPLETE = "_TOGETHER_BATCHES_COMPLETE"
"""The environment variable by which a shell requests completions, in click's spelling."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command on ``argv``, by default that of the process, and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        # A character that the encoding lacks is written as an escape and does not end the command.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    with unblocked_streams() as finish:
        try:
            code = _guarded(list(sys.argv[1:] if argv is None else argv))
            # Not at the interpreter's exit, which would print an error about a closed pipe.
            finish(code == Exit.INTERRUPTED)
        except KeyboardInterrupt:
            return Exit.INTERRUPTED
        except BrokenPipeError:
            _mute_stdout()
            return Exit.FAILED
        except OSError as error:
            print_error(f"the output cannot be written: {error.strerror or error}")
            _mute_stdout()
            return Exit.FAILED
        return code


def _guarded(argv: list[str]) -> int:
    """Run the command. Print every error as a sentence; raise only those of standard output."""
    try:
        return _invoke(argv)
    except click.exceptions.Exit as end:  # after --help and --version
        return end.exit_code
    except click.UsageError as error:
        print_error(explain(error))
        return Exit.USAGE
    except (KeyboardInterrupt, Interrupted) as error:
        for line in (str(error) or str(Interrupted())).split("\n"):
            print_err(line)
        return Exit.INTERRUPTED
    except CommandError as error:
        print_error(str(error))
        return error.code
    except BatchesError as error:
        print_error(str(error))
        return code_of(error)
    except BrokenPipeError:
        raise
    except OSError as error:  # after BatchesError, because APITimeoutError is both
        if is_of_output(error):
            raise
        print_error(error.strerror or str(error))
        return Exit.FAILED


def _invoke(argv: list[str]) -> int:
    if instruction := os.environ.get(_COMPLETE):
        return _complete(instruction)
    # Not click's own main(), which prints errors, interrupts and closed pipes in its own way.
    with COMMANDS.make_context(PROGRAM, argv) as context:
        code: int = COMMANDS.invoke(context)
        return code


def _complete(instruction: str) -> int:
    """Print the completions that a shell requests, or the script that makes it do so."""
    from click.shell_completion import FishComplete, add_completion_class, shell_complete

    class Fish(FishComplete):
        # click's own script cuts a description at its first comma.
        source_template = FishComplete.source_template.replace("string split", "string split --max 1")

    add_completion_class(Fish)
    return shell_complete(COMMANDS, {}, PROGRAM, _COMPLETE, instruction)


def _mute_stdout() -> None:
    """Discard what the interpreter flushes at its exit: it cannot be written, and the error has been printed."""
    if not is_open(sys.stdout):
        return
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
