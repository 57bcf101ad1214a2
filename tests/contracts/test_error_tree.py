"""Every error derives from the root, is in the drawing, survives pickling and copying, and hides the key."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
import traceback
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from together_batches import errors
from together_batches.config import Config
from together_batches.errors import (
    APIConnectionError,
    APIError,
    APIResponseValidationError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    BatchesError,
    ConflictError,
    CreateUnconfirmedError,
    InternalServerError,
    JobNotCreatedError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    ResultsUnavailableError,
    RunChangedError,
    RunError,
    RunInUseError,
    RunLedgerError,
    UnprocessableEntityError,
    UsageError,
    ValidationError,
    WaitTimeoutError,
)
from together_batches.models import BatchJob

if TYPE_CHECKING:
    from collections.abc import Callable

_KEY = "tgp_v1_do-not-show-this-anywhere"
_ALL: list[type[BatchesError]] = [getattr(errors, name) for name in errors.__all__]
_JOB = BatchJob(id="a", status="PAUSED", created_at=datetime(2026, 9, 14, tzinfo=UTC), extra={"x": [1, {"y": None}]})

_asked = {"method": "POST", "url": "https://api.together.ai/v1/batches"}
_answered = {"request_id": "oJ3x", "body": {"error": ["text", None]}, **_asked}
_EXAMPLES: list[BatchesError] = [
    BatchesError("it failed"),
    APIError("it failed", **_asked),
    APIStatusError("teapot", status=418, **_answered),
    BadRequestError("no", status=400, **_answered),
    AuthenticationError("no", status=401, **_answered),
    PermissionDeniedError("no", status=403, **_answered),
    NotFoundError("no", status=404, **_answered),
    ConflictError("no", status=409, **_answered),
    UnprocessableEntityError("no", status=422, **_answered),
    RateLimitError("no", retry_after=1.5, **_answered),
    InternalServerError("no", status=503, **_answered),
    APIConnectionError("no connection", request_sent=False, **_asked),
    APITimeoutError("no answer", request_sent=True, status=201, **_asked),
    APIResponseValidationError(
        "null", expected="a job", where="$.id", excerpt="{", status=200, request_id="r", **_asked
    ),
    JobNotCreatedError("quota"),
    CreateUnconfirmedError("which?", input_file_id="file-1", candidates=[_JOB]),
    WaitTimeoutError("too long", jobs=[_JOB]),
    ResultsUnavailableError("absent", job_id="job-1", file_ids=["file-1", "file-2"]),
    RunError("it cannot go on", directory="run"),
    RunInUseError("in use", directory="run", pid=7, host="here"),
    RunChangedError("another input", directory="run"),
    RunLedgerError("broken", directory="run"),
    ValidationError("wrong", problems=["line 1: no", "line 2: no"]),
    UsageError("wrong"),
]
_each_example = pytest.mark.parametrize("error", _EXAMPLES, ids=lambda error: type(error).__name__)


def _drawn(docstring: str) -> dict[str, str | None]:
    """Return each name in the drawing, with the name of its parent."""
    parents: dict[str, str | None] = {}
    branch: list[str] = []
    for line in docstring.splitlines():
        if found := re.match(r"^    ([│├└─ ]*)(\w+Error)\b", line):
            depth = len(found[1]) // 4
            branch[depth:] = [found[2]]
            parents[found[2]] = branch[depth - 1] if depth else None
    return parents


def test_the_drawing_is_the_tree() -> None:
    """The docstring of ``errors`` draws the classes as they are."""
    real: dict[str, str | None] = {cls.__name__: cls.__bases__[0].__name__ for cls in _ALL}
    real["BatchesError"] = None
    assert _drawn(errors.__doc__ or "") == real


def test_the_public_names_are_all_the_errors_there_are() -> None:
    """Every class of the tree is in ``__all__``, but for those of the Airflow provider."""

    def family(cls: type[BatchesError]) -> set[type[BatchesError]]:
        return {cls}.union(*(family(child) for child in cls.__subclasses__()))

    provider = "together_batches.airflow."
    assert {cls for cls in family(BatchesError) if not cls.__module__.startswith(provider)} == set(_ALL)


@pytest.mark.parametrize("cls", _ALL, ids=lambda cls: cls.__name__)
def test_every_error_is_caught_by_the_root(cls: type[BatchesError]) -> None:
    """``except BatchesError`` catches every error of the package, and all are ordinary exceptions."""
    assert issubclass(cls, BatchesError)
    assert issubclass(cls, Exception)
    assert cls.__doc__


@pytest.mark.parametrize(
    ("cls", "also"),
    [(APITimeoutError, TimeoutError), (WaitTimeoutError, TimeoutError), (ValidationError, ValueError)],
    ids=lambda cls: cls.__name__,
)
def test_some_are_errors_of_python_too(cls: type[BatchesError], also: type[Exception]) -> None:
    """Some errors also derive from a built-in one, so that code without knowledge of this package catches them."""
    assert issubclass(cls, also)


def test_there_is_an_example_of_each() -> None:
    """There is an example of each error, so that the tests below cover all of them."""
    assert {type(error) for error in _EXAMPLES} == set(_ALL)


def _pickled(error: BatchesError, protocol: int) -> BatchesError:
    copied: BatchesError = pickle.loads(pickle.dumps(error, protocol))
    return copied


_WAYS: list[Callable[[BatchesError], BatchesError]] = [
    copy.copy,
    copy.deepcopy,
    *(lambda error, protocol=protocol: _pickled(error, protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)),
]


@_each_example
@pytest.mark.parametrize("way", _WAYS, ids=["copy", "deepcopy", *map("pickle {}".format, range(6))])
def test_an_error_survives_a_copy(error: BatchesError, way: Callable[[BatchesError], BatchesError]) -> None:
    """A copied or pickled error has the same class, text and attributes."""
    twin = way(error)
    assert type(twin) is type(error)
    assert str(twin) == str(error)
    assert twin.args == error.args
    assert vars(twin) == vars(error)


@_each_example
def test_what_was_added_survives_a_copy(error: BatchesError) -> None:
    """A copied or pickled error keeps its notes, and the reason for giving up."""
    error = copy.deepcopy(error)
    error.add_note("job 17 of 40")
    if isinstance(error, APIError):
        error.message += "; given up after 5 attempts"
    twin = _pickled(error, 5)
    assert twin.__notes__ == ["job 17 of 40"]
    assert str(twin) == str(error)


@_each_example
def test_facts_are_attributes(error: BatchesError) -> None:
    """Each parameter of an error is an attribute of it, so that its text need not be parsed."""
    facts = {*inspect.getfullargspec(type(error).__init__).kwonlyargs}
    assert facts <= vars(error).keys()


@pytest.mark.parametrize(
    "settings",
    [
        {"base_url": "ftp://api.together.ai"},
        {"base_url": "http://api.together.ai"},
        {"timeout": -1},
        {"retry": "often"},
        {"max_concurrency": 0},
        {"headers": {"X-Bad": "a\nb"}},
        {"headers": {"Authorization": f"Bearer {_KEY}"}},
        {"proxy": "socks5://proxy.example:1080"},
        {"api_key": f"{_KEY}\nmore"},
        {"api_key": f"{_KEY} more"},
        {"api_key": f"{_KEY}\u00e9"},
        {"api_key": _KEY.encode()},
        {"base_url": f"https://{_KEY}@api.together.ai"},
        {"base_url": f"https://api.together.ai/v1?key={_KEY}"},
        {"base_url": f"https://host:{_KEY}"},
        {"proxy": f"http://user:{_KEY}/@proxy.example"},
    ],
    ids=lambda settings: "-".join(settings),
)
def test_no_text_of_an_error_shows_the_key(settings: dict[str, Any]) -> None:
    """An error about an invalid configuration quotes nothing that may be secret, in message and traceback."""
    with pytest.raises(UsageError) as caught:
        Config.from_env(**{"environ": {}, "api_key": _KEY, **settings})
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + repr(vars(caught.value))
    assert _KEY not in shown
    assert _KEY.encode() not in pickle.dumps(caught.value)
