"""Attempts and shards as plain data, which other versions of the package may have written."""

from __future__ import annotations

import json
import random
from base64 import b64encode
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from together_batches import ValidationError, to_dict
from together_batches.runs import Attempt, Shard, attempt_from_dict, shard_from_dict
from together_batches.runs._records import packed

if TYPE_CHECKING:
    from collections.abc import Callable

NOON = datetime(2026, 9, 14, 12, tzinfo=UTC)
PLANNED = Attempt(shard=3, number=2, rows=4, planned_at=NOON)
COLLECTED = attrs.evolve(
    PLANNED,
    marked=True,
    file_id="file-2",
    former_file_ids="file-0 file-1",
    posts=1,
    progress=99.5,
    outcomes=packed(b"sfam"),
    collected_at=NOON.replace(microsecond=250_000),
)
SHARD = Shard(number=1, first_line=1, rows=4, offset=0, size=40, sha256="ab", skipped=packed([1, 7]))


@pytest.mark.parametrize("attempt", [PLANNED, COLLECTED], ids=["planned", "collected"])
def test_an_attempt_survives_json(attempt: Attempt) -> None:
    """An attempt is the same after JSON."""
    assert attempt_from_dict(json.loads(json.dumps(to_dict(attempt)))) == attempt


def test_a_shard_survives_json() -> None:
    """A shard is the same after JSON."""
    assert shard_from_dict(json.loads(json.dumps(to_dict(SHARD)))) == SHARD


def test_what_is_written() -> None:
    """The version comes first, times have a Z, bytes are base64, and fields with their defaults are left out."""
    assert list(to_dict(PLANNED).items()) == [
        ("version", 1),
        ("shard", 3),
        ("number", 2),
        ("rows", 4),
        ("planned_at", "2026-09-14T12:00:00Z"),
    ]
    written = to_dict(COLLECTED)
    assert written["collected_at"] == "2026-09-14T12:00:00.250000Z"
    assert set(written["outcomes"]) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=")


@pytest.mark.parametrize(("outcomes", "most"), [(b"s" * 49_900 + b"a" * 100, 1_000), (b"sfam", 22_000)])
def test_a_record_is_small(outcomes: bytes, most: int) -> None:
    """A record of 50,000 rows takes a few kilobytes, also with outcomes of four kinds at random."""
    outcomes = outcomes if len(outcomes) > 4 else bytes(random.Random(1).choices(outcomes, k=50_000))
    attempt = attrs.evolve(COLLECTED, rows=50_000, outcomes=packed(outcomes))
    assert len(json.dumps(to_dict(attempt))) < most


def test_later_fields_are_ignored() -> None:
    """Fields that this version does not know, and null, are ignored."""
    assert attempt_from_dict({**to_dict(PLANNED), "colour": "red", "job_id": None}) == PLANNED
    assert shard_from_dict({**to_dict(SHARD), "colour": "red"}) == SHARD


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, "the field version is 2, and this version of together_batches reads 1: upgrade the package"),
        ({"version": None}, "the field version is not a version"),
        ({"version": "1"}, "the field version is not a version"),
        ({"shard": None}, "the field shard is missing"),
        ({"shard": 0}, "the field shard is not a whole number, one or more"),
        ({"rows": True}, "the field rows is not a whole number, zero or more"),
        ({"posts": -1}, "the field posts is not a whole number, zero or more"),
        ({"file_id": 7}, "the field file_id is not text"),
        ({"marked": 1}, "the field marked is not true or false"),
        ({"progress": "1"}, "the field progress is not a number"),
        ({"since": "noon"}, "the field since is not a time in ISO 8601"),
        ({"since": 7}, "the field since is not a time in ISO 8601"),
        ({"outcomes": "?"}, "the field outcomes is not base64"),
        ({"outcomes": "AAAA"}, "the field outcomes is not the outcomes of 4 rows"),
        ({"rows": 5}, "the field outcomes is not the outcomes of 5 rows"),
        ({"outcomes": None}, "the field outcomes is not the outcomes of 4 rows"),
        (
            {"outcomes": to_dict(attrs.evolve(COLLECTED, outcomes=packed(b"sfax")))["outcomes"]},
            "the field outcomes is not the outcomes of 4 rows",
        ),
    ],
)
def test_attempts_that_are_invalid(changes: dict[str, Any], message: str) -> None:
    """An invalid field is named."""
    with pytest.raises(ValidationError, match=f"^invalid attempt: {message}$"):
        attempt_from_dict({**to_dict(COLLECTED), **changes})


def test_shards_that_are_invalid() -> None:
    """Invalid line numbers of a shard are named, too."""
    for skipped in ("AAAA", "eJxLAgAAYwBj"):  # not compressed, and one byte
        with pytest.raises(ValidationError, match=r"^invalid shard: the field skipped is not line numbers$"):
            shard_from_dict({**to_dict(SHARD), "skipped": skipped})
    for copies in ("AAAA", b64encode(packed([1, 1])).decode()):
        with pytest.raises(ValidationError, match=r"^invalid shard: the field copies is not those of 4 rows$"):
            shard_from_dict({**to_dict(SHARD), "copies": copies})
    of_rows = attrs.evolve(SHARD, copies=packed([1, 2, 1, 1]))
    assert shard_from_dict(json.loads(json.dumps(to_dict(of_rows)))) == of_rows


@pytest.mark.parametrize("read", [attempt_from_dict, shard_from_dict])
@pytest.mark.parametrize("given", [None, [], "{}", {}])
def test_what_is_no_record(read: Callable[[Any], object], given: Any) -> None:
    """Anything but a mapping with a version is refused."""
    with pytest.raises(ValidationError, match=r"expected a mapping|the field version is missing"):
        read(given)
