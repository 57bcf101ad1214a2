"""The command line: what may be typed. Nothing is imported here that `--help` would have to wait for."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, NoReturn

from together_batches._version import __version__
from together_batches.cli._exits import CommandError
from together_batches.cli._numbers import above_zero, at_least_one, duration, port, zero_or_more

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import timedelta

__all__ = ["PROGRAM", "Arguments", "Parser", "build_parser", "parse"]

PROGRAM = "together-batches"

_KEY = """\
The API key is read from the environment variable TOGETHER_API_KEY, and from
nowhere else."""

_TOP = f"""\
examples:
  {PROGRAM} demo                        see it at work, without a key
  {PROGRAM} submit FILE --wait          a file of requests becomes a job
  {PROGRAM} results ID -o out.jsonl     what became of each request
  {PROGRAM} list --status IN_PROGRESS   the jobs that are running
  {PROGRAM} cancel ID ID ID             cancel these jobs
  {PROGRAM} cancel --all --dry-run      see what would be cancelled

Batch inference jobs on Together AI, from a file of requests to their results,
one job or many thousands at a time.
{_KEY}"""

_CANCEL = f"""\
examples:
  {PROGRAM} cancel ID                    cancel one job
  {PROGRAM} cancel - --yes < ids.txt     what a file names, an id a line
  {PROGRAM} cancel --all                 all unfinished jobs; asks first
  {PROGRAM} cancel --status IN_PROGRESS --older-than 2h --yes --wait

Cancel the jobs whose ids are given, or that standard input names, or that the
filters choose. A cancel may be repeated, and does no harm to a job that has
finished.
{_KEY}"""

_LIST = f"""\
examples:
  {PROGRAM} list                         every job, newest first
  {PROGRAM} list --status FAILED --newer-than 1d
  {PROGRAM} list --json | jq -r '.[].id'

List jobs: as a table on a terminal, with tabs between the columns elsewhere.
{_KEY}"""

_GET = f"""\
examples:
  {PROGRAM} get ID
  {PROGRAM} get ID ID --json     one JSON object a line

Show jobs as they now stand.
{_KEY}"""

_VALIDATE = f"""\
examples:
  {PROGRAM} validate requests.jsonl
  {PROGRAM} validate clips.jsonl --endpoint /v1/audio/transcriptions
  {PROGRAM} validate - < requests.jsonl

Find every problem of a file of requests before it is sent. It needs no key and
no network."""

_SPLIT = f"""\
examples:
  {PROGRAM} split requests.jsonl -o pieces
  {PROGRAM} split requests.jsonl -o pieces --max-rows 10000
  {PROGRAM} split requests.jsonl | xargs -n 1 {PROGRAM} submit

Cut any number of requests into as few files as the service's limits allow, and
print their paths. Where there is a problem nothing is written. It needs no key
and no network."""

_SUBMIT = f"""\
examples:
  {PROGRAM} submit requests.jsonl
  {PROGRAM} submit requests.jsonl --wait
  {PROGRAM} submit - --json < requests.jsonl

Check a file of requests, upload it, and create one job from it: one, also where
answers are lost on the way.
{_KEY}"""

_RESULTS = f"""\
examples:
  {PROGRAM} results ID -o out.jsonl
  {PROGRAM} results ID -o out.jsonl --requests in.jsonl --order input
  {PROGRAM} results ID | jq 'select(.result == "failure").message'

Write what became of each row of a finished job, one JSON object a line: those
of its output and of its error file, and with --requests those in neither.
{_KEY}"""

_WAIT = f"""\
examples:
  {PROGRAM} wait ID                      until it has finished
  {PROGRAM} wait ID ID ID --json         each as it finishes
  {PROGRAM} wait - --deadline 3600 < ids.txt

Wait for jobs, and print each as it finishes. The exit code is 0 where all of
them completed. Interrupting the wait leaves the jobs alone.
{_KEY}"""

_FILES = f"""\
examples:
  {PROGRAM} files upload requests.jsonl
  {PROGRAM} files list
  {PROGRAM} files download ID -o output.jsonl

Upload, look up, list, download and delete the files of the account.
{_KEY}"""

_FILES_UPLOAD = f"""\
examples:
  {PROGRAM} files upload requests.jsonl
  id=$({PROGRAM} files upload requests.jsonl)

Upload a file and print its id. Content that the account has already is
recognised, and not sent again.
{_KEY}"""

_FILES_LIST = f"""\
examples:
  {PROGRAM} files list
  {PROGRAM} files list --json | jq -r '.[].id'

List the files of the account, newest first: inputs, outputs and errors.
{_KEY}"""

_FILES_GET = f"""\
examples:
  {PROGRAM} files get ID
  {PROGRAM} files get ID ID --json     one JSON object a line

Show what the service knows of files.
{_KEY}"""

_FILES_DOWNLOAD = f"""\
examples:
  {PROGRAM} files download ID -o output.jsonl
  {PROGRAM} files download ID | head -1

Download the content of a file. Under the name that is given it appears when it
is whole.
{_KEY}"""

_FILES_DELETE = f"""\
examples:
  {PROGRAM} files delete ID ID

Delete files, for good.
{_KEY}"""

_EMULATOR = f"""\
examples:
  {PROGRAM} emulator             some jobs to play with, on any free port
  {PROGRAM} emulator --port 8765 --jobs 5000 --rate-limit 50

Run a stand-in for the service on this machine until Ctrl-C. It prints the two
lines that point this command, and the library, to it. Its jobs live in memory
and are gone afterwards."""

_DEMO = f"""\
examples:
  {PROGRAM} demo
  {PROGRAM} demo --jobs 10000

Start a stand-in for the service on this machine, fill it with jobs of mixed
fates, and cancel them all while some requests fail, get lost or are refused.
It needs no key and no network, and ignores the environment's TOGETHER_*."""


class Arguments(argparse.Namespace):
    """What was typed. A command has the attributes of its own options and no others."""

    command: str
    # of all that talk to the service
    json: bool
    base_url: str | None
    timeout: float | None
    verbose: bool
    quiet: bool
    # of choosing
    ids: list[str]
    all: bool
    status: list[str]
    model: str | None
    endpoint: str | None
    input_file: str | None
    older_than: timedelta | None
    newer_than: timedelta | None
    # of cancel
    dry_run: bool
    yes: bool
    wait: bool
    max_concurrency: int | None
    rate: float | None
    deadline: float | None
    # of results
    id: str
    output: str | None
    requests: str | None
    order: str
    force: bool
    # of files
    path: str
    name: str | None
    purpose: str
    via: str
    # of submit, validate and split; `path` is theirs too
    requests_endpoint: str
    priority: int | None
    directory: str
    max_rows: int | None
    max_bytes: int | None
    # of emulator and demo
    port: int
    jobs: int
    seed: int
    rate_limit: float | None
    burst: int | None


class Parser(argparse.ArgumentParser):
    """A strict parser whose complaint is one sentence, printed by whoever called."""

    def __init__(self, prog: str, examples: str) -> None:
        super().__init__(
            prog=prog,
            description=examples,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self.commands: dict[str, Parser] = {}
        self.summary = ""

    def error(self, message: str) -> NoReturn:
        """Raise the complaint, with the way to the help that answers it."""
        told = f"{message}; see {self.prog} --help"
        raise CommandError(told)


def build_parser() -> Parser:
    """The whole command line; ``commands`` holds the parser of each command."""
    top = Parser(PROGRAM, _TOP)
    top.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    # For the help only: see parse().
    listed = top.add_subparsers(
        dest="command", metavar="COMMAND", title="commands", required=True, parser_class=argparse.ArgumentParser
    )

    def add(name: str, summary: str, examples: str, fill: Callable[[Parser], None]) -> None:
        made = Parser(f"{PROGRAM} {name}", examples)
        made.summary = summary
        fill(made)
        top.commands[name] = made
        listed.add_parser(name, help=summary, add_help=False)

    add("demo", "see a thousand jobs being cancelled, on this machine alone", _DEMO, _fill_demo)
    add("cancel", "cancel jobs: by id, from standard input, or by filters", _CANCEL, _fill_cancel)
    add("list", "list the jobs of the account", _LIST, _fill_list)
    add("get", "show jobs by their ids", _GET, _fill_get)
    add("validate", "find every problem of a file of requests", _VALIDATE, _fill_validate)
    add("split", "cut a file of requests into files that the service takes", _SPLIT, _fill_split)
    add("submit", "check a file of requests, upload it, and create a job", _SUBMIT, _fill_submit)
    add("results", "write what became of each row of a finished job", _RESULTS, _fill_results)
    add("wait", "wait for jobs, and print each as it finishes", _WAIT, _fill_wait)
    add("files upload", "upload a file", _FILES_UPLOAD, _fill_files_upload)
    add("files list", "list the files of the account", _FILES_LIST, _fill_common)
    add("files get", "show files by their ids", _FILES_GET, _fill_files_ids)
    add("files download", "download the content of a file", _FILES_DOWNLOAD, _fill_files_download)
    add("files delete", "delete files", _FILES_DELETE, _fill_files_ids)
    add("emulator", "run a stand-in for the service on this machine", _EMULATOR, _fill_emulator)
    return top


def parse(argv: Sequence[str] | None = None) -> Arguments:
    """What was typed; :class:`CommandError` where it cannot be, ``SystemExit`` after `--help` and `--version`."""
    words = list(sys.argv[1:] if argv is None else argv)
    top = build_parser()
    if not words:
        top.error(f"no command given; try '{PROGRAM} demo'")
    name = " ".join(words[: 2 if words[0] == "files" else 1])
    command = top.commands.get(name)
    if command is None:
        if words[0] == "files":
            _files_parser(top).parse_args(words[1:])
        # Not one of ours: argparse answers --help and --version, and complains about the rest.
        return top.parse_args(words, namespace=Arguments())
    # The command's own parser, and in this way, so that ids and options may stand in any order: the usual one
    # takes the ids up to the first option and calls the others stray.
    rest = words[len(name.split()) :]
    arguments, strays = command.parse_known_intermixed_args(rest, namespace=Arguments(command=name))
    if strays:
        # Of an option that is none only the name: what follows it may be a key.
        options = [word.partition("=")[0] for word in strays if word.startswith("-") and word != "-"]
        command.error(f"there is no option {options[0]}" if options else f"{strays[0]!r} is one argument too many")
    return arguments


def _fill_common(parser: Parser) -> None:
    group = parser.add_argument_group("options of every command that talks to the service")
    group.add_argument("--json", action="store_true", help="complete JSON on standard output")
    group.add_argument(
        "--base-url", metavar="URL", help="the service; otherwise TOGETHER_BASE_URL, otherwise Together AI"
    )
    group.add_argument("--timeout", type=above_zero, metavar="SECONDS", help="limit of one attempt of one request")
    group.add_argument("-v", "--verbose", action="store_true", help="log retries to standard error")
    group.add_argument("-q", "--quiet", action="store_true", help="no progress and no summary; errors are still told")


def _fill_filters(parser: Parser, *, status: str) -> None:
    parser.add_argument("--status", action="append", default=[], metavar="S", help=status)
    parser.add_argument("--model", metavar="M", help="jobs of this model")
    parser.add_argument(
        "--older-than", type=duration, metavar="D", help="jobs created longer ago than this: 90s, 15m, 2h, 3d, 1h30m"
    )


def _fill_cancel(parser: Parser) -> None:
    parser.add_argument(
        "ids", nargs="*", metavar="ID", help="ids of jobs; or - alone, to read them from standard input"
    )
    parser.add_argument("--all", action="store_true", help="every job that has not finished; other filters narrow it")
    _fill_filters(parser, status="jobs of this status, finished ones included if it is one; may be repeated")
    parser.add_argument("--dry-run", action="store_true", help="print what would be cancelled, and cancel nothing")
    parser.add_argument("--yes", action="store_true", help="do not ask; needed for - and filters without a terminal")
    parser.add_argument("--wait", action="store_true", help="follow each job until it has really stopped")
    parser.add_argument("--max-concurrency", type=at_least_one, metavar="N", help="requests at once (100)")
    parser.add_argument("--rate", type=above_zero, metavar="R", help="at most so many requests a second")
    parser.add_argument(
        "--deadline", type=above_zero, metavar="SECONDS", help="limit of the whole; what is left is told (exit 6)"
    )
    _fill_common(parser)


def _fill_list(parser: Parser) -> None:
    _fill_filters(parser, status="jobs of this status; may be repeated")
    parser.add_argument("--newer-than", type=duration, metavar="D", help="jobs created no longer ago than this")
    parser.add_argument("--endpoint", metavar="E", help="jobs of this endpoint, such as /v1/chat/completions")
    parser.add_argument("--input-file", metavar="ID", help="jobs made from this file")
    _fill_common(parser)


def _fill_get(parser: Parser) -> None:
    parser.add_argument("ids", nargs="+", metavar="ID", help="ids of jobs")
    _fill_common(parser)


def _fill_requests(parser: Parser) -> None:
    parser.add_argument("path", metavar="FILE", help="a file of requests; or -, to read them from standard input")
    parser.add_argument(
        "--endpoint",
        dest="requests_endpoint",
        default="/v1/chat/completions",
        metavar="E",
        help="what the requests are for (/v1/chat/completions)",
    )


def _fill_validate(parser: Parser) -> None:
    _fill_requests(parser)
    parser.add_argument("--json", action="store_true", help="complete JSON on standard output")


def _fill_split(parser: Parser) -> None:
    _fill_requests(parser)
    parser.add_argument(
        "-o", "--output", dest="directory", default=".", metavar="DIR", help="where the files go (here)"
    )
    parser.add_argument("--max-rows", type=at_least_one, metavar="N", help="most requests in a file (50000)")
    parser.add_argument("--max-bytes", type=at_least_one, metavar="N", help="most bytes in a file (100000000)")
    parser.add_argument("--json", action="store_true", help="complete JSON on standard output")


def _fill_submit(parser: Parser) -> None:
    _fill_requests(parser)
    parser.add_argument("--model", metavar="M", help="the job's model_id; each request names its model all the same")
    parser.add_argument("--priority", type=int, metavar="N", help="the job's priority, a whole number")
    parser.add_argument("--wait", action="store_true", help="wait until the job has finished")
    parser.add_argument(
        "--deadline", type=above_zero, metavar="SECONDS", help="with --wait: the limit of it (exit 6)"
    )
    _fill_common(parser)


def _fill_results(parser: Parser) -> None:
    parser.add_argument("id", metavar="ID", help="id of a job that has finished")
    parser.add_argument("-o", "--output", metavar="FILE", help="write to this file; otherwise to standard output")
    parser.add_argument("--requests", metavar="FILE", help="the job's input: its rows that are missing are told too")
    parser.add_argument(
        "--order",
        choices=("file", "input"),
        default="file",
        metavar="ORDER",
        help="file, as the service wrote them, or input, as the requests stand (needs --requests)",
    )
    parser.add_argument("--force", action="store_true", help="replace the file if it exists")
    _fill_common(parser)


def _fill_wait(parser: Parser) -> None:
    parser.add_argument(
        "ids", nargs="+", metavar="ID", help="ids of jobs; or - alone, to read them from standard input"
    )
    parser.add_argument(
        "--deadline", type=above_zero, metavar="SECONDS", help="limit of the whole; otherwise as long as it takes"
    )
    _fill_common(parser)


def _files_parser(top: Parser) -> Parser:
    """What answers `files --help`, and complains about `files` without an action of its own."""
    parser = Parser(f"{PROGRAM} files", _FILES)
    listed = parser.add_subparsers(
        dest="action", metavar="ACTION", title="actions", required=True, parser_class=argparse.ArgumentParser
    )
    for name, made in top.commands.items():
        if name.startswith("files "):
            listed.add_parser(name.removeprefix("files "), help=made.summary, add_help=False)
    return parser


def _fill_files_upload(parser: Parser) -> None:
    parser.add_argument("path", metavar="FILE", help="the file to upload")
    parser.add_argument("--name", metavar="NAME", help="what the service is to call it; otherwise its own name")
    parser.add_argument("--purpose", default="batch-api", metavar="P", help="what it is for (batch-api)")
    parser.add_argument(
        "--via",
        choices=("storage", "api"),
        default="storage",
        metavar="WAY",
        help="storage, to where the service says, or api, through the service itself (storage)",
    )
    _fill_common(parser)


def _fill_files_ids(parser: Parser) -> None:
    parser.add_argument("ids", nargs="+", metavar="ID", help="ids of files")
    _fill_common(parser)


def _fill_files_download(parser: Parser) -> None:
    parser.add_argument("id", metavar="ID", help="id of a file")
    parser.add_argument("-o", "--output", metavar="FILE", help="write to this file; otherwise to standard output")
    parser.add_argument("--force", action="store_true", help="replace the file if it exists")
    _fill_common(parser)


def _fill_emulator(parser: Parser) -> None:
    parser.add_argument("--port", type=port, default=0, metavar="N", help="where it listens (any free port)")
    parser.add_argument("--jobs", type=zero_or_more, default=100, metavar="N", help="how many jobs it has (100)")
    parser.add_argument("--seed", type=zero_or_more, default=0, metavar="N", help="another number, other jobs (0)")
    parser.add_argument("--rate-limit", type=above_zero, metavar="R", help="refuse more requests a second than this")
    parser.add_argument(
        "--burst", type=at_least_one, metavar="N", help="with --rate-limit: so many at once after a pause (R)"
    )


def _fill_demo(parser: Parser) -> None:
    parser.add_argument("--jobs", type=at_least_one, default=1_000, metavar="N", help="how many jobs (1000)")
    parser.add_argument("--seed", type=zero_or_more, default=0, metavar="N", help="another number, other fates (0)")
