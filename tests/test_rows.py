"""The rows of a job: frozen values, and what is asked of an answer most often."""

from __future__ import annotations

import copy
import pickle

import attrs
import pytest

import together_batches
from together_batches import models, rows
from together_batches.rows import BatchFailure, BatchMissing, BatchRequest, BatchStray, BatchSuccess, Usage

_ROWS = [
    BatchRequest("a", {"model": "m", "messages": []}),
    BatchSuccess("a", {"text": "hello"}),
    BatchFailure(None, "code", "why", 400, "{"),
    BatchMissing("a"),
    BatchStray("a", "why", "{}"),
    Usage(1, 2, 3),
]


@pytest.mark.parametrize("row", _ROWS, ids=lambda row: type(row).__name__)
def test_a_row_is_a_value(row: attrs.AttrsInstance) -> None:
    """It is frozen, has a hash, and travels."""
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(row, attrs.fields(type(row))[0].name, None)
    for twin in (copy.deepcopy(row), pickle.loads(pickle.dumps(row))):
        assert twin == row
        assert hash(twin) == hash(row)


@pytest.mark.parametrize("name", rows.__all__)
def test_where_a_row_is_to_be_had(name: str) -> None:
    """It is one and the same from the package, from its module and from the models."""
    assert getattr(together_batches, name) is getattr(models, name) is getattr(rows, name)


def test_what_the_models_do_not_have() -> None:
    """Is an :class:`AttributeError` as of any module."""
    with pytest.raises(AttributeError, match=r"module 'together_batches\.models' has no attribute 'Batch'"):
        models.Batch  # type: ignore[attr-defined]  # noqa: B018


def test_tokens_add_up() -> None:
    """``sum`` works, from ``Usage()``."""
    assert sum([Usage(1, 2, 3), Usage(10, 20, 30)], Usage()) == Usage(11, 22, 33)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}}, Usage(1, 2, 3)),
        ({"usage": {"total_tokens": 3, "prompt_tokens": None}}, Usage(0, 0, 3)),
        ({"usage": None}, None),
        ({"usage": [1]}, None),
        ({}, None),
    ],
)
def test_tokens_of_an_answer(body: dict[str, object], expected: Usage | None) -> None:
    """They are there where the answer says so."""
    assert BatchSuccess("a", body).usage == expected
