"""``Batches`` is ``AsyncBatches`` without ``async``: same names, parameters, defaults, annotations and summaries."""

from __future__ import annotations

import inspect

import pytest

from together_batches import AsyncBatches, Batches

ONLY_ASYNC_PARAMETERS = {"__init__": {"session"}}
ITERATORS = {
    "iter_cancel": ("Stream[CancelOutcome]", "LoopIterator[CancelOutcome]"),
    "as_completed": ("Stream[BatchJob]", "LoopIterator[BatchJob]"),
    "results": ("Stream[BatchResult]", "LoopIterator[BatchResult]"),
}


def _public(cls: type) -> dict[str, object]:
    return {name: member for name, member in vars(cls).items() if not name.startswith("_") and callable(member)}


def test_both_have_the_same_public_methods() -> None:
    """Nothing is missing on either side."""
    assert set(_public(AsyncBatches)) == set(_public(Batches))


@pytest.mark.parametrize("name", ["__init__", *sorted(_public(AsyncBatches))])
def test_a_method_has_the_same_signature_on_both_sides(name: str) -> None:
    """Parameters, kinds, defaults and annotations agree; results too, iterators and the session aside."""
    theirs = inspect.signature(getattr(AsyncBatches, name))
    ours = inspect.signature(getattr(Batches, name))
    left_out = ONLY_ASYNC_PARAMETERS.get(name, set())
    wanted = [parameter for parameter in theirs.parameters.values() if parameter.name not in left_out]
    assert wanted == list(ours.parameters.values())
    expected = ITERATORS.get(name, (theirs.return_annotation, theirs.return_annotation))
    assert expected == (theirs.return_annotation, ours.return_annotation)


@pytest.mark.parametrize("name", sorted(_public(AsyncBatches)))
def test_a_method_says_the_same_on_both_sides(name: str) -> None:
    """The first line of the docstring is the same."""
    theirs = inspect.getdoc(getattr(AsyncBatches, name)) or ""
    ours = inspect.getdoc(getattr(Batches, name)) or ""
    assert theirs.splitlines()[0] == ours.splitlines()[0]
