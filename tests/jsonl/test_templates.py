"""Templates of prompts: columns in braces, and nothing else."""

from __future__ import annotations

import enum
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from together_batches import UsageError
from together_batches.jsonl._columns import BadCellError
from together_batches.jsonl._templates import Template


class _Colour(enum.Enum):
    RED = "red"


def test_a_column_in_braces_stands_for_its_value() -> None:
    """A column may be named more than once; each is needed once."""
    template = Template("Which river flows through {city}, {country}? Answer for {city}.")
    assert template.columns == ("city", "country")
    assert template.fill({"city": "Paris", "country": "France"}) == (
        "Which river flows through Paris, France? Answer for Paris."
    )


@pytest.mark.parametrize(
    "name", ["a.b", "a[0]", "a!r", "a:>10", " a ", "größe", "a\nb", '"a"', "0", "a{b", "__class__"]
)
def test_the_whole_text_between_braces_is_the_name(name: str) -> None:
    """No attribute, item, conversion or format of ``str.format``, and no trimming of spaces."""
    template = Template(f"<{{{name}}}>")
    assert template.columns == (name,)
    assert template.fill({name: "x"}) == "<x>"


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("{{}}", "{}"),
        ("{{city}}", "{city}"),
        ("{{{city}}}", "{Paris}"),
        ('{{"city": "{city}"}}', '{"city": "Paris"}'),
        ("{% if x %}", None),
        ("", ""),
    ],
)
def test_doubled_braces_are_braces(text: str, filled: str | None) -> None:
    """So JSON can be part of a prompt, and a template of Jinja is only text with columns."""
    template = Template(text)
    if filled is None:
        assert template.columns == ("% if x %",)
    else:
        assert template.fill({"city": "Paris"}) == filled


@given(st.text(), st.text())
def test_values_are_not_templates(value: str, literal: str) -> None:
    """The text of a cell is put in as it is, whatever braces it has; so is any text with its braces doubled."""
    template = Template(literal.replace("{", "{{").replace("}", "}}") + "{x}")
    try:
        value.encode()
    except UnicodeEncodeError:
        return
    assert template.fill({"x": value}) == literal + value


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a {b", "a single { at character 3"),
        ("a } b", "a single } at character 3"),
        ("{}", "no name within the braces at character 1"),
    ],
)
def test_a_single_brace_is_an_error(text: str, problem: str) -> None:
    """A brace that is neither doubled nor one of a pair is refused, with its place."""
    with pytest.raises(UsageError) as caught:
        Template(text)
    advice = "write a column as {its name}, and a brace of the text twice"
    assert str(caught.value) == f"invalid prompt: {problem}; {advice}"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("", ""),
        (3, "3"),
        (10**30, "1000000000000000000000000000000"),
        (2.5, "2.5"),
        (True, "true"),
        (Decimal("1.10"), "1.10"),
        (date(2026, 1, 2), "2026-01-02"),
        (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00+00:00"),
        (["a", 1, None], '["a",1,null]'),
        ({"a": "é"}, '{"a":"é"}'),
        (_Colour.RED, '"red"'),
        (UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
    ],
)
def test_values_become_text(value: Any, text: str) -> None:
    """Text as it is; numbers and times as Python writes them; everything else as JSON."""
    assert Template("{x}").fill({"x": value}) == text


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (None, "the value is null"),
        (float("nan"), "the value is null"),
        (b"bytes", "the value cannot be written as text: Type is not JSON serializable: bytes"),
        (object(), "the value cannot be written as text: Type is not JSON serializable: object"),
        ("caf\udce9", "the text is not UTF-8: save the table as UTF-8, for example with iconv"),
    ],
)
def test_a_value_without_text_is_refused(value: Any, problem: str) -> None:
    """A null would silently become the word None in a prompt that is paid for."""
    with pytest.raises(BadCellError) as caught:
        Template("{x}").fill({"x": value})
    assert (caught.value.column, caught.value.problem) == ("x", problem)
