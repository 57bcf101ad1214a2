"""Progress bars."""

from __future__ import annotations

from typing import TYPE_CHECKING

from together_batches.cli._progress import bar

if TYPE_CHECKING:
    import pytest


def test_nothing_is_drawn_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """A bar that is not shown writes nothing."""
    with bar(10, shown=False) as show:
        show(5, 1)
    assert capsys.readouterr() == ("", "")


def test_drawn_on_standard_error(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A bar shows the number of jobs done and failed, and writes nothing to standard output."""
    monkeypatch.setenv("NO_COLOR", "1")
    with bar(12_000, shown=True) as show:
        for done in range(12_001):
            show(done, 3)
        print("data")
    out, err = capsys.readouterr()
    assert out == "data\n"
    assert "12 000 of 12 000, 3 failed" in err


def test_what_else_there_is_to_say(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Further text stands between the numbers of jobs done and failed."""
    monkeypatch.setenv("NO_COLOR", "1")
    with bar(650, shown=True) as show:
        show(340, 1, "261 accepted and stopping")
    assert "340 of 650, 261 accepted and stopping, 1 failed" in capsys.readouterr().err


def test_the_last_numbers_of_a_burst_are_drawn(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last numbers of a burst are drawn, although no update follows them, after a failure too."""
    monkeypatch.setenv("NO_COLOR", "1")
    for last in (209, 340):
        with bar(650, shown=True) as show:
            for done in range(last + 1):
                show(done, 0)
        assert f"{last} of 650" in capsys.readouterr().err


def test_narrow_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """On a narrow terminal the bar is dropped and the numbers stay."""
    monkeypatch.setenv("COLUMNS", "40")
    with bar(10, shown=True) as show:
        show(10, 0)
    assert "10 of 10" in capsys.readouterr().err
