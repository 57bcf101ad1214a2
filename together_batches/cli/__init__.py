"""The command ``together-batches``: arguments, output and exit codes around the async client.

Each command is a function in the file of that name, and runs one event loop.
"""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING

import click

from together_batches.cli._command import explain
from together_batches.cli._exits import CommandError, Exit, Interrupted, code_of
from together_batches.cli._groups import COMMANDS
from together_batches.cli._streams import unblocked_streams
from together_batches.cli._text import PROGRAM, is_open, print_err, print_error
from together_batches.errors import BatchesError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

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
    """Run the command. Print every error as a sentence; raise only the one of a closed pipe."""
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
        print_error(error.strerror or str(error))
        return Exit.FAILED


def _invoke(argv: list[str]) -> int:
    if instruction := os.environ.get(_COMPLETE):
        from click.shell_completion import shell_complete

        return shell_complete(COMMANDS, {}, PROGRAM, _COMPLETE, instruction)
    # Not click's own main(), which prints errors, interrupts and closed pipes in its own way.
    with COMMANDS.make_context(PROGRAM, argv) as context:
        code: int = COMMANDS.invoke(context)
        return code


def _mute_stdout() -> None:
    """Discard what the interpreter flushes at its exit: it cannot be written, and the error has been printed."""
    if not is_open(sys.stdout):
        return
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
