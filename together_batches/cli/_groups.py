"""All commands: the location of each, and its summary in the help."""

from __future__ import annotations

import click

from together_batches._version import __version__
from together_batches.cli._command import Group
from together_batches.cli._text import PROGRAM

__all__ = ["COMMANDS"]

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
    {"show": ("_runs", "show", "show a run: its rows, and its shards over time")},
)

COMMANDS = click.version_option(
    __version__, prog_name=PROGRAM, message="%(prog)s %(version)s", help="show the version and exit"
)(
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
            "demo": ("_demo", "demo", "watch a thousand jobs being cancelled, on this machine alone"),
            "cancel": ("_cancel", "cancel", "cancel jobs: by id, from standard input, or by filters"),
            "list": ("_list_get", "list_jobs", "list the jobs of the account"),
            "get": ("_list_get", "get", "show jobs by their ids"),
            "validate": ("_validate", "validate", "find every problem in a file of requests"),
            "split": ("_split", "split", "split a file of requests into files that the service accepts"),
            "submit": ("_submit", "submit", "check a file of requests, upload it, and create a job"),
            "results": ("_results", "results", "write the result of each row of a finished job"),
            "wait": ("_wait", "wait", "wait for jobs, and print each as it finishes"),
            "run": ("_run", "run", "get every answer to a file of any size; run it again to resume"),
            "runs": _RUNS,
            "files": _FILES,
            "emulator": ("_emulate", "emulator", "run a stand-in for the service on this machine"),
        },
    )
)
