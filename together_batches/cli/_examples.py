"""What `--help` shows: each command by its examples, and in two sentences."""

from __future__ import annotations

__all__ = [
    "CANCEL",
    "DEMO",
    "EMULATOR",
    "FILES",
    "FILES_DELETE",
    "FILES_DOWNLOAD",
    "FILES_GET",
    "FILES_LIST",
    "FILES_UPLOAD",
    "GET",
    "LIST",
    "PROGRAM",
    "RESULTS",
    "RUN",
    "RUNS",
    "RUNS_SHOW",
    "SPLIT",
    "SUBMIT",
    "TOP",
    "VALIDATE",
    "WAIT",
]

PROGRAM = "together-batches"

_KEY = """\
The API key is read from the environment variable TOGETHER_API_KEY, and from
nowhere else."""

TOP = f"""\
examples:
  {PROGRAM} demo                        see it at work, without a key
  {PROGRAM} run FILE -o out.jsonl       every answer to a file
  {PROGRAM} submit FILE --wait          a file of requests becomes a job
  {PROGRAM} results ID -o out.jsonl     what became of each request
  {PROGRAM} list --status IN_PROGRESS   the jobs that are running
  {PROGRAM} cancel ID ID ID             cancel these jobs
  {PROGRAM} cancel --all --dry-run      see what would be cancelled

Batch inference jobs on Together AI, from a file of requests to their results,
one job or many thousands at a time.
{_KEY}"""

CANCEL = f"""\
examples:
  {PROGRAM} cancel ID                    cancel one job
  {PROGRAM} cancel - --yes < ids.txt     what a file names, an id a line
  {PROGRAM} cancel --all                 all unfinished jobs; asks first
  {PROGRAM} cancel --status IN_PROGRESS --older-than 2h --yes --wait

Cancel the jobs whose ids are given, or that standard input names, or that the
filters choose. A cancel may be repeated, and does no harm to a job that has
finished. One that is refused while its job goes on is a failure.
{_KEY}"""

LIST = f"""\
examples:
  {PROGRAM} list                         every job, newest first
  {PROGRAM} list --status FAILED --newer-than 1d
  {PROGRAM} list --json | {PROGRAM} cancel - --dry-run

List jobs: as a table on a terminal, with tabs between the columns elsewhere.
{_KEY}"""

GET = f"""\
examples:
  {PROGRAM} get ID
  {PROGRAM} get ID ID --json     one JSON object a line

Show jobs as they now stand.
{_KEY}"""

VALIDATE = f"""\
examples:
  {PROGRAM} validate requests.jsonl
  {PROGRAM} validate clips.jsonl --endpoint /v1/audio/transcriptions
  {PROGRAM} validate - < requests.jsonl

Find every problem of a file of requests before it is sent. It needs no key and
no network."""

SPLIT = f"""\
examples:
  {PROGRAM} split requests.jsonl -o pieces
  {PROGRAM} split requests.jsonl -o pieces --max-rows 10000
  {PROGRAM} split requests.jsonl | xargs -n 1 {PROGRAM} submit

Cut any number of requests into as few files as the service's limits allow, and
print their paths. Where there is a problem nothing is written. It needs no key
and no network."""

SUBMIT = f"""\
examples:
  {PROGRAM} submit requests.jsonl
  {PROGRAM} submit requests.jsonl --wait
  {PROGRAM} submit - --json < requests.jsonl

Check a file of requests, upload it, and create one job from it: one, also where
answers are lost on the way.
{_KEY}"""

RESULTS = f"""\
examples:
  {PROGRAM} results ID -o out.jsonl
  {PROGRAM} results ID -o out.jsonl --requests in.jsonl --order input
  {PROGRAM} results ID | jq 'select(.result == "failure").message'

Write what became of each row of a finished job, one JSON object a line: those
of its output and of its error file, and with --requests those in neither.
{_KEY}"""

WAIT = f"""\
examples:
  {PROGRAM} wait ID                      until it has finished
  {PROGRAM} wait ID ID ID --json         each as it finishes
  {PROGRAM} wait - --deadline 3600 < ids.txt

Wait for jobs, and print each as it finishes. The exit code is 0 where all of
them completed. Interrupting the wait leaves the jobs alone.
{_KEY}"""

RUN = f"""\
examples:
  {PROGRAM} run requests.jsonl -o answers.jsonl
  {PROGRAM} run requests.jsonl -o answers.jsonl --skip-invalid
  {PROGRAM} run --cancel answers.jsonl.run

Take a file of any size through as many jobs as it takes, and write every answer
in the order of the file. Interrupted in any way, the same command goes on where
it was. What fails on the way is sent again.
{_KEY}"""

RUNS = f"""\
examples:
  {PROGRAM} runs show answers.jsonl.run

Look at what {PROGRAM} run has done, and does. It needs no key and no network."""

RUNS_SHOW = f"""\
examples:
  {PROGRAM} runs show answers.jsonl.run
  {PROGRAM} runs show answers.jsonl.run --watch
  {PROGRAM} runs show answers.jsonl.run --svg run.svg --html run.html

Show a run as it stands in its directory: its rows, its shards along the time,
and their jobs. It needs no key and no network."""

FILES = f"""\
examples:
  {PROGRAM} files upload requests.jsonl
  {PROGRAM} files list
  {PROGRAM} files download ID -o output.jsonl

Upload, look up, list, download and delete the files of the account.
{_KEY}"""

FILES_UPLOAD = f"""\
examples:
  {PROGRAM} files upload requests.jsonl
  id=$({PROGRAM} files upload requests.jsonl)

Upload a file and print its id. Content that the account has already is
recognised, and not sent again.
{_KEY}"""

FILES_LIST = f"""\
examples:
  {PROGRAM} files list
  {PROGRAM} files list --json | jq -r '.[].id'

List the files of the account, newest first: inputs, outputs and errors.
{_KEY}"""

FILES_GET = f"""\
examples:
  {PROGRAM} files get ID
  {PROGRAM} files get ID ID --json     one JSON object a line

Show what the service knows of files.
{_KEY}"""

FILES_DOWNLOAD = f"""\
examples:
  {PROGRAM} files download ID -o output.jsonl
  {PROGRAM} files download ID | head -1

Download the content of a file. Under the name that is given it appears when it
is whole.
{_KEY}"""

FILES_DELETE = f"""\
examples:
  {PROGRAM} files delete ID ID

Delete files, for good.
{_KEY}"""

EMULATOR = f"""\
examples:
  {PROGRAM} emulator             some jobs to play with, on any free port
  {PROGRAM} emulator --port 8765 --jobs 5000 --rate-limit 50

Run a stand-in for the service on this machine until Ctrl-C. It prints the two
lines that point this command, and the library, to it. Its jobs live in memory
and are gone afterwards."""

DEMO = f"""\
examples:
  {PROGRAM} demo
  {PROGRAM} demo --jobs 10000

Start a stand-in for the service on this machine, fill it with jobs of mixed
fates, and cancel them all while some requests fail, get lost or are refused.
It needs no key and no network, and ignores the environment's TOGETHER_*."""
