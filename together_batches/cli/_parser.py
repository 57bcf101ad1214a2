"""The command line: what may be typed. Nothing is imported here that `--help` would have to wait for."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, NoReturn

from together_batches._version import __version__
from together_batches.cli import _examples
from together_batches.cli._examples import PROGRAM
from together_batches.cli._exits import CommandError
from together_batches.cli._numbers import (
    above_zero,
    at_least_one,
    delays,
    duration,
    port,
    zero_or_above,
    zero_or_more,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import timedelta

__all__ = ["PROGRAM", "Arguments", "Parser", "build_parser", "parse"]

_GROUPS = {"files": _examples.FILES, "runs": _examples.RUNS}
"""Commands of two words, by the first, with the help of that."""


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
    models: list[str]
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
    model: str | None
    priority: int | None
    directory: str
    max_rows: int | None
    max_bytes: int | None
    # of run and runs show
    input: str | None
    cancel: str | None
    run_dir: str | None
    failures: str | None
    max_jobs: int | None
    max_enqueued_rows: int | None
    max_attempts: int | None
    stop_after_rows: int | None
    stop_after_tokens: int | None
    skip_invalid: bool
    poll_interval: float | None
    patience: float | None
    give_up: list[str]
    retry_delays: tuple[float, ...] | None
    shared_files: bool
    cancel_on_interrupt: bool
    watch: bool
    svg: str | None
    html: str | None
    # of emulator and demo
    port: int
    jobs: int
    seed: int
    rate_limit: float | None
    burst: int | None
    speed: float
    faults: list[str]
    log: bool


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
    top = Parser(PROGRAM, _examples.TOP)
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

    add("demo", "see a thousand jobs being cancelled, on this machine alone", _examples.DEMO, _fill_demo)
    add("cancel", "cancel jobs: by id, from standard input, or by filters", _examples.CANCEL, _fill_cancel)
    add("list", "list the jobs of the account", _examples.LIST, _fill_list)
    add("get", "show jobs by their ids", _examples.GET, _fill_get)
    add("validate", "find every problem of a file of requests", _examples.VALIDATE, _fill_validate)
    add("split", "cut a file of requests into files that the service takes", _examples.SPLIT, _fill_split)
    add("submit", "check a file of requests, upload it, and create a job", _examples.SUBMIT, _fill_submit)
    add("results", "write what became of each row of a finished job", _examples.RESULTS, _fill_results)
    add("wait", "wait for jobs, and print each as it finishes", _examples.WAIT, _fill_wait)
    add("run", "every answer to a file of any size; run it again and it goes on", _examples.RUN, _fill_run)
    add("runs show", "show a run: its rows, its shards along the time", _examples.RUNS_SHOW, _fill_runs_show)
    add("files upload", "upload a file", _examples.FILES_UPLOAD, _fill_files_upload)
    add("files list", "list the files of the account", _examples.FILES_LIST, _fill_common)
    add("files get", "show files by their ids", _examples.FILES_GET, _fill_files_ids)
    add("files download", "download the content of a file", _examples.FILES_DOWNLOAD, _fill_files_download)
    add("files delete", "delete files", _examples.FILES_DELETE, _fill_files_ids)
    add("emulator", "run a stand-in for the service on this machine", _examples.EMULATOR, _fill_emulator)
    return top


def parse(argv: Sequence[str] | None = None) -> Arguments:
    """What was typed; :class:`CommandError` where it cannot be, ``SystemExit`` after `--help` and `--version`."""
    words = list(sys.argv[1:] if argv is None else argv)
    top = build_parser()
    if not words:
        top.error(f"no command given; try '{PROGRAM} demo'")
    name = " ".join(words[: 2 if words[0] in _GROUPS else 1])
    command = top.commands.get(name)
    if command is None:
        if words[0] in _GROUPS:
            _group_parser(top, words[0]).parse_args(words[1:])
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
    parser.add_argument(
        "--model",
        action="append",
        dest="models",
        default=[],
        metavar="M",
        help="jobs of this model, which are those that have been validated; may be repeated",
    )
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
        "--deadline", type=above_zero, metavar="SECONDS", help="limit of the whole; what is left is named (exit 6)"
    )
    parser.set_defaults(endpoint=None, input_file=None, newer_than=None)
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


def _fill_patience(parser: Parser, usual: float) -> None:
    parser.add_argument(
        "--patience",
        type=zero_or_above,
        default=usual,
        metavar="SECONDS",
        help=f"look again so long for what is absent and should exist ({usual:g})",
    )


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
    _fill_patience(parser, 120)
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
    _fill_patience(parser, 60)
    _fill_common(parser)


def _fill_wait(parser: Parser) -> None:
    parser.add_argument(
        "ids", nargs="+", metavar="ID", help="ids of jobs; or - alone, to read them from standard input"
    )
    parser.add_argument(
        "--deadline", type=above_zero, metavar="SECONDS", help="limit of the whole; otherwise as long as it takes"
    )
    _fill_patience(parser, 60)
    _fill_common(parser)


def _fill_run(parser: Parser) -> None:
    parser.add_argument(
        "input", nargs="?", metavar="INPUT", help="a file of requests, of any size; - is standard input"
    )
    parser.add_argument("-o", "--output", metavar="FILE", help="where the answers go, in the order of the input")
    parser.add_argument("--cancel", metavar="DIR", help="cancel the jobs of the run in this directory instead")
    parser.add_argument("--run-dir", metavar="DIR", help="where the run is kept (FILE.run)")
    parser.add_argument("--failures", metavar="FILE", help="where the rows go that were not answered in the end")
    parser.add_argument("--endpoint", metavar="E", help="what the requests are for (/v1/chat/completions)")
    parser.add_argument("--model", metavar="M", help="the jobs' model_id; each request names its model all the same")
    parser.add_argument("--priority", type=int, metavar="N", help="the jobs' priority, a whole number")
    parser.add_argument("--max-rows", type=at_least_one, metavar="N", help="most requests in a job (50000)")
    parser.add_argument("--max-jobs", type=at_least_one, metavar="N", help="most jobs at once")
    parser.add_argument("--max-enqueued-rows", type=at_least_one, metavar="N", help="most rows in jobs at once")
    parser.add_argument("--max-attempts", type=at_least_one, metavar="N", help="how often a row is sent at most (3)")
    parser.add_argument("--stop-after-rows", type=at_least_one, metavar="N", help="send no more rows than this")
    parser.add_argument(
        "--stop-after-tokens", type=at_least_one, metavar="N", help="create nothing more once so many were used"
    )
    parser.add_argument("--skip-invalid", action="store_true", help="set bad lines aside; otherwise nothing is sent")
    parser.add_argument("--force", action="store_true", help="replace the file of the answers if it exists")
    parser.add_argument("--poll-interval", type=above_zero, metavar="SECONDS", help="how often jobs are looked at")
    _fill_patience(parser, 900)
    parser.add_argument(
        "--give-up",
        action="append",
        default=[],
        metavar="ID",
        help="a job whose results are gone, or an input file no job came of: what is missing may be sent again",
    )
    parser.add_argument(
        "--retry-delays",
        type=delays,
        metavar="SECONDS",
        help="pauses before rows go again, with commas between several (30,120,600)",
    )
    parser.add_argument(
        "--shared-files", action="store_true", help="upload the rows as they are, without white space of their own"
    )
    parser.add_argument(
        "--cancel-on-interrupt", action="store_true", help="Ctrl-C cancels the jobs; otherwise they are left alone"
    )
    parser.add_argument("--wait", action="store_true", help="with --cancel: until each job has really stopped")
    # Nothing that was not typed is passed on, so that --cancel can refuse what it has no use for.
    parser.set_defaults(max_concurrency=None, rate=None, deadline=None, patience=None)
    _fill_common(parser)


def _fill_runs_show(parser: Parser) -> None:
    parser.add_argument("directory", metavar="DIR", help="the directory of a run")
    parser.add_argument("--watch", action="store_true", help="draw it again and again until the run has finished")
    parser.add_argument("--svg", metavar="FILE", help="write the picture to this file")
    parser.add_argument("--html", metavar="FILE", help="write a page with the picture and all jobs to this file")
    parser.add_argument("--force", action="store_true", help="replace these files if they exist")
    parser.add_argument("--json", action="store_true", help="complete JSON on standard output")


def _group_parser(top: Parser, group: str) -> Parser:
    """What answers `files --help`, and complains about `files` without an action of its own; `runs` likewise."""
    parser = Parser(f"{PROGRAM} {group}", _GROUPS[group])
    listed = parser.add_subparsers(
        dest="action", metavar="ACTION", title="actions", required=True, parser_class=argparse.ArgumentParser
    )
    for name, made in top.commands.items():
        if name.startswith(f"{group} "):
            listed.add_parser(name.removeprefix(f"{group} "), help=made.summary, add_help=False)
    return parser


def _fill_files_upload(parser: Parser) -> None:
    parser.add_argument("path", metavar="FILE", help="the file to upload, or - for standard input")
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
    _fill_patience(parser, 60)
    _fill_common(parser)


def _fill_emulator(parser: Parser) -> None:
    parser.add_argument("--port", type=port, default=0, metavar="N", help="where it listens (any free port)")
    parser.add_argument("--jobs", type=zero_or_more, default=100, metavar="N", help="how many jobs it has (100)")
    parser.add_argument("--seed", type=zero_or_more, default=0, metavar="N", help="another number, other jobs (0)")
    parser.add_argument("--rate-limit", type=above_zero, metavar="R", help="refuse more requests a second than this")
    parser.add_argument(
        "--burst", type=at_least_one, metavar="N", help="with --rate-limit: so many at once after a pause (R)"
    )
    parser.add_argument("--speed", type=above_zero, default=1.0, metavar="X", help="its jobs run X times as fast (1)")
    parser.add_argument(
        "--fault",
        dest="faults",
        action="append",
        default=[],
        metavar="F",
        help="what goes wrong, such as cancel,status=503,times=3; may be given again",
    )
    parser.add_argument("--log", action="store_true", help="write a line for each request to stderr")


def _fill_demo(parser: Parser) -> None:
    parser.add_argument("--jobs", type=at_least_one, default=1_000, metavar="N", help="how many jobs (1000)")
    parser.add_argument("--seed", type=zero_or_more, default=0, metavar="N", help="another number, other fates (0)")
