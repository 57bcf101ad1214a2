"""``Batches`` is ``AsyncBatches`` without ``async``, and ``Files`` is ``AsyncFiles``.

Same names, parameters, defaults, annotations and summaries.
"""

from __future__ import annotations

import inspect
import re

import pytest

from together_batches import AsyncBatches, Batches
from together_batches.files import AsyncFiles
from together_batches.sync import Files
from together_batches.typing import AsyncFollower, Follower

ONLY_ASYNC_PARAMETERS = {"__init__": {"session"}}
RESULTS = {
    "iter_cancel": ("Stream[CancelOutcome]", "LoopIterator[CancelOutcome]"),
    "as_completed": ("Stream[BatchJob]", "LoopIterator[BatchJob]"),
    "follower": ("AsyncFollower", "Follower"),
    "content": ("Stream[bytes]", "LoopIterator[bytes]"),
    "results": ("Stream[BatchResult[Any]]", "LoopIterator[BatchResult[Any]]"),
}


def _public(cls: type) -> dict[str, object]:
    return {name: member for name, member in vars(cls).items() if not name.startswith("_") and callable(member)}


PAIRS = [(AsyncBatches, Batches), (AsyncFiles, Files), (AsyncFollower, Follower)]
METHODS = [(theirs, ours, name) for theirs, ours in PAIRS for name in sorted(_public(theirs))]


@pytest.mark.parametrize(("theirs", "ours"), PAIRS)
def test_both_have_the_same_public_methods(theirs: type, ours: type) -> None:
    """Both sides have the same public methods."""
    assert set(_public(theirs)) == set(_public(ours))


@pytest.mark.parametrize(("theirs", "ours", "name"), [(AsyncBatches, Batches, "__init__"), *METHODS])
def test_a_method_has_the_same_signature_on_both_sides(theirs: type, ours: type, name: str) -> None:
    """Parameters, kinds, defaults and annotations agree; results too, except for iterators and the session."""
    wanted, found = inspect.signature(getattr(theirs, name)), inspect.signature(getattr(ours, name))
    left_out = ONLY_ASYNC_PARAMETERS.get(name, set())
    parameters = [parameter for parameter in wanted.parameters.values() if parameter.name not in left_out]
    assert parameters == list(found.parameters.values())
    expected = RESULTS.get(name, (wanted.return_annotation, wanted.return_annotation))
    assert expected == (wanted.return_annotation, found.return_annotation)


@pytest.mark.parametrize(("theirs", "ours", "name"), METHODS)
def test_a_method_says_the_same_on_both_sides(theirs: type, ours: type, name: str) -> None:
    """The first line of the docstring is the same on both sides."""
    shown = [inspect.getdoc(getattr(cls, name)) or "" for cls in (theirs, ours)]
    assert shown[0].splitlines()[0] == shown[1].splitlines()[0]


@pytest.mark.parametrize(("theirs", "ours", "name"), METHODS)
def test_a_method_names_its_parameters_on_both_sides(theirs: type, ours: type, name: str) -> None:
    """The parameters, and no others, are documented once, in the same words on both sides, and shown by ``help``."""
    with Batches("key") as batches:
        assert type(batches.files) is Files  # documented on first use
        assert type(batches.follower()) is Follower
    parameters, of_ours = (
        (inspect.getdoc(getattr(cls, name)) or "").partition("\nParameters:\n")[2] for cls in (theirs, ours)
    )
    assert parameters == of_ours
    entries = parameters.partition("\nRaises:\n")[0]
    headed = {each for names in re.findall(r"^    (\w[\w, ]*):", entries, re.MULTILINE) for each in names.split(", ")}
    accepted = set(inspect.signature(getattr(ours, name)).parameters) - {"self"}
    assert headed <= accepted
    assert {each for each in accepted - headed if f"``{each}``" not in entries} == set()
