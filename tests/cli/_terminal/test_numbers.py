"""Numbers and durations on the command line."""

from __future__ import annotations

from datetime import timedelta

import click
import pytest

from together_batches.cli._terminal.numbers import (
    above_zero,
    at_least_one,
    delays,
    duration,
    port,
    whole_number,
    zero_or_above,
    zero_or_more,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", timedelta(seconds=90)),
        ("15m", timedelta(minutes=15)),
        ("2h", timedelta(hours=2)),
        ("3d", timedelta(days=3)),
        ("1h30m", timedelta(hours=1, minutes=30)),
        ("1.5h", timedelta(hours=1, minutes=30)),
        ("0s", timedelta(0)),
    ],
)
def test_durations(text: str, expected: timedelta) -> None:
    """A duration is one or more numbers, each with its unit."""
    assert expected == duration(text)


@pytest.mark.parametrize("text", ["", "90", "h", "2 h", "-2h", "2w", "1h30", "٣h", "2h\n", "999999999d", "nanh"])
def test_no_durations(text: str) -> None:
    """A duration without a known unit, or above a hundred years, is refused with its text in the error."""
    with pytest.raises(click.BadParameter) as caught:
        duration(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize("text", ["0", "-1", "nan", "", "ten"])
def test_above_zero(text: str) -> None:
    """Seconds and rates are finite and above zero."""
    assert above_zero("0.5") == 0.5
    with pytest.raises(click.BadParameter, match="not a number above zero"):
        above_zero(text)


@pytest.mark.parametrize("text", ["-1", "-0.1", "nan", "", "ten", "60s"])
def test_zero_or_above(text: str) -> None:
    """Patience is finite, and may be zero."""
    assert (zero_or_above("0"), zero_or_above("2.5")) == (0, 2.5)
    with pytest.raises(click.BadParameter, match="not a number, zero or above") as caught:
        zero_or_above(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize("text", ["", "30,", ",30", "30;120", "30,-1", "30,x"])
def test_delays(text: str) -> None:
    """Delays are one or several numbers of seconds separated by commas; zero is allowed."""
    assert (delays("0"), delays("30, 2.5,600")) == ((0,), (30, 2.5, 600))
    with pytest.raises(click.BadParameter, match="not a number, zero or above"):
        delays(text)


@pytest.mark.parametrize("text", ["-1", "1.5", "", "x"])
def test_whole_numbers(text: str) -> None:
    """Counts are whole numbers."""
    assert zero_or_more("0") == 0
    assert at_least_one("1") == 1
    with pytest.raises(click.BadParameter, match="0 or more"):
        zero_or_more(text)
    with pytest.raises(click.BadParameter, match="1 or more"):
        at_least_one(text)


def test_whole_numbers_of_any_sign() -> None:
    """A priority may be below zero."""
    assert whole_number("-1") == -1
    with pytest.raises(click.BadParameter, match="'high' is not a whole number"):
        whole_number("high")


def test_at_least_one() -> None:
    """A count of at least one refuses zero."""
    with pytest.raises(click.BadParameter, match="1 or more"):
        at_least_one("0")


@pytest.mark.parametrize("text", ["9" * 400, "1" + "0" * 19, "-" + "9" * 400])
def test_numbers_out_of_range(text: str) -> None:
    """A number that the database of a run cannot hold is refused, even if Python cannot make a float of it."""
    for parser in (at_least_one, zero_or_more, whole_number, port, above_zero, zero_or_above):
        with pytest.raises(click.BadParameter, match="is out of range"):
            parser(text)
    for infinite in (above_zero, zero_or_above):
        with pytest.raises(click.BadParameter, match="'inf' is out of range"):
            infinite("inf")


def test_ports() -> None:
    """A port is at most 65535."""
    assert port("65535") == 65_535
    with pytest.raises(click.BadParameter, match="not a port"):
        port("65536")
