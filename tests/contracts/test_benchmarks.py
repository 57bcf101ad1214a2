"""Computations of the benchmarks, without a measurement."""

from __future__ import annotations

import itertools
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.benchmarks import _page, _plot, _report
from tests.benchmarks.__main__ import CASES
from tests.benchmarks._client import job_ids
from tests.benchmarks._measure import Bar, Case, Line, Plan, Sample, Samples, in_turn, number, ratios
from tests.benchmarks._server import Limit
from tests.benchmarks.flood import Window, windows

EXPLANATION = Path(__file__).parents[2] / "docs" / "explanation"
PAGE, FIGURES = EXPLANATION / "performance.md", EXPLANATION / "performance.json"


def _samples(**walls: list[float]) -> Samples:
    """Return samples with one run of each candidate in a round."""
    return Samples([
        Sample(name, {"at_once": 10}, {"wall": wall})
        for walls_of_a_round in zip(*walls.values(), strict=True)
        for name, wall in zip(walls, walls_of_a_round, strict=True)
    ])  # fmt: skip


def _case(measured: Samples) -> Case:
    return Case(
        "start",
        "begin",
        lambda _: measured.all,
        lambda samples: [Line("ours / bare", ratios(samples, "ours", "bare", "wall"), "×", Bar("≤", 1.2))],
        draw=lambda samples: f"<svg>{len(samples.all)}</svg>",
        drawn_with=["other"],
    )


def test_a_ratio_is_that_of_one_round() -> None:
    """A ratio is formed within one round, so that noise that affects both candidates cancels out."""
    samples = _samples(ours=[2.0, 20.0], bare=[1.0, 10.0])
    assert ratios(samples, "ours", "bare", "wall", at_once=10) == [2.0, 2.0]
    assert ratios(samples, "ours", "absent", "wall") == []


def test_candidates_take_turns() -> None:
    """Each candidate runs once a round."""
    assert list(in_turn(2, ["ours", "bare"])) == ["ours", "bare", "ours", "bare"]
    assert Plan(rounds=1).few == 1


@pytest.mark.parametrize(
    ("bar", "values", "met"),
    [
        (Bar("≤", 1.25), [1.0, 1.25, 9.0], True),
        (Bar("≤", 1.25), [1.26], False),
        (Bar("≥", 10), [9.0, 10.0, 11.0], True),
        (Bar("≥", 10), [9.9], False),
        (Bar("≤", 64, each=True), [1.0, 2.0, 65.0], False),
        (Bar("≤", 64, each=True), [64.0], True),
    ],
)
def test_a_bar_is_for_the_median_or_for_each_value(bar: Bar, values: list[float], *, met: bool) -> None:
    """A promise has to hold in every round; a comparison, in the median one."""
    assert bar.met(values) is met


def test_a_line_tells_median_spread_and_bar() -> None:
    """A line shows median, spread and bar, and omits a spread or bar that does not exist."""
    line = Line("ours / bare", [1.5, 1.125, 1.25], "×", Bar("≤", 1.25))
    assert line.cells() == ("ours / bare", "1.25 × (1.12 to 1.50)", "≤ 1.25 ×", "met")
    assert Line("lost", [0.0], "ids", Bar("≤", 0, each=True)).cells() == ("lost", "0 ids", "each ≤ 0 ids", "met")
    assert Line("rate", [12_345.6], "/s").cells() == ("rate", "12,346 /s", "", "")


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, "0"), (0.00391, "0.0039"), (0.25, "0.25"), (9.996, "10.00"), (12.34, "12.3"), (64, "64")],
)
def test_a_number_has_three_digits(value: float, expected: str) -> None:
    """A number has three digits, because more would be noise."""
    assert number(value) == expected


def test_a_perfect_sender_uses_the_burst_and_each_token() -> None:
    """A perfect sender gets the burst in no time, and then the rate of the moment."""
    assert Limit(burst=50).seconds_for(50) == 0
    assert Limit(burst=50).seconds_for(2_050) == 10
    changing = Limit(steps=((0.0, 200.0), (3.0, 100.0), (8.0, 200.0)), burst=50)
    assert [changing.seconds_for(calls) for calls in (650, 750, 1_150, 1_350)] == [3.0, 4.0, 8.0, 9.0]


def test_a_perfect_sender_repeats_what_failed() -> None:
    """A perfect sender needs more calls than there are ids, according to the fault rate, and always equally many."""
    ids = list(itertools.islice(job_ids(), 2_000))
    assert Limit(failing=0, losing=0).calls_needed(ids) == 2_000
    assert 2_040 < Limit().calls_needed(ids) < 2_130
    assert Limit().calls_needed(ids) == Limit().calls_needed(ids) != Limit(seed=2).calls_needed(ids)


def test_a_limit_is_drawn_with_its_corners() -> None:
    """A rate that changes at once is drawn as a vertical line."""
    limit = Limit(steps=((0.0, 200.0), (3.0, 100.0)))
    assert limit.drawn_until(5.0) == [(0.0, 200.0), (3.0, 200.0), (3.0, 100.0), (5.0, 100.0)]


def test_a_flood_is_told_in_windows_of_half_a_second() -> None:
    """Counts are divided into windows of half a second; windows without calls are omitted."""
    counts = {"goodput": [10] * 5 + [0] * 5 + [20], "refused": [30, 20], "lost": []}
    assert windows(counts) == [Window(0.25, 100.0, 0.5), Window(1.25, 40.0, 0.0)]


def test_figures_can_be_written_down(tmp_path: Path) -> None:
    """Figures that are read equal those that were written, to five digits."""
    path = tmp_path / "figures.json"
    assert _report.read(path) == {}
    sample = Sample("ours", {"kind": "steady"}, {"wall": 1.23456789}, {"goodput": [1, 2]})
    _report.write(path, {"flood": _report.Measured(Samples([sample]), ["2 cores"])})
    shown = _report.read(path)["flood"]
    assert shown.machine == ["2 cores"]
    assert shown.samples.all == [Sample("ours", {"kind": "steady"}, {"wall": 1.2346}, {"goodput": [1, 2]})]


def test_the_tables_of_a_page_are_renewed(tmp_path: Path) -> None:
    """The table between the marks of a measured case is replaced; the rest of the page and other cases stay."""
    samples = _samples(ours=[1.1], bare=[1.0])
    page = tmp_path / "page.md"
    page.write_text(
        "# Speed\n\n<!-- figures: start -->\nold\n<!-- end of figures -->\n\n"
        "<!-- figures: other -->\nstays\n<!-- end of figures -->\n\n"
        "<!-- figures: machine -->\n<!-- end of figures -->\n"
    )
    found = {"start": _report.Measured(samples, ["2 cores", "Python 3.11"])}
    _page.renew(page, {"start": _case(samples)}, found)
    _page.draw(tmp_path, {"start": _case(samples)}, found)
    text = page.read_text("utf-8")
    assert "| ours / bare | 1.10 × | ≤ 1.20 × | met |" in text
    assert "stays" in text
    assert "old" not in text
    assert "a machine with 2 cores, Python 3.11." in text
    assert (tmp_path / "performance-start.svg").read_text() == "<svg>2</svg>"
    _page.renew(page, {"start": _case(samples)}, found)
    assert page.read_text("utf-8") == text


def test_a_plot_is_a_picture_with_names_and_units() -> None:
    """A plot is well-formed, names each measured curve, and draws nothing beyond the axes."""
    axis = _plot.Axis("at once", (1, 10, 100), log=True)
    curves = [
        _plot.Curve("ours", [(1, 1.0), (10, 5_000.0), (100, float("nan"))]),
        _plot.Curve("a < b", [(1, 0.0), (100, 0.0)], dashed=True),
        _plot.Curve("nothing", [(1, float("nan"))]),
    ]
    drawn = _plot.drawing("Speed & more", [_plot.Panel("near", axis, _plot.Axis("/s", (1, 1_000), log=True), curves)])
    root = ElementTree.fromstring(drawn)
    texts = {text for node in root.iter() if (text := (node.text or "").strip())}
    assert {"Speed & more", "near", "at once", "/s", "ours", "a < b", "1,000"} <= texts
    assert "nothing" not in texts
    assert "nan" not in drawn
    heights = [float(node.attrib["cy"]) for node in root.iter() if node.tag.endswith("circle")]
    assert min(heights) >= 0
    assert max(heights) <= float(root.attrib["height"])


def test_names_of_curves_that_end_together_do_not_cover_each_other() -> None:
    """Names of curves that end close together move apart, and stay above the axis."""
    axis = _plot.Axis("s", (0, 1))
    curves = [_plot.Curve(name, [(1, 0.0)], dots=False) for name in ("ours", "bare", "together")]
    root = ElementTree.fromstring(_plot.drawing("", [_plot.Panel("", axis, axis, curves)]))
    heights = sorted(
        float(node.attrib["y"]) for node in root.iter() if (node.text or "").strip() in {"ours", "bare", "together"}
    )
    assert all(later - earlier >= 12 for earlier, later in itertools.pairwise(heights))


def test_the_page_shows_what_was_measured() -> None:
    """The tables and plots of the page are those of its figures, and every case is on the page."""
    page, found = PAGE.read_text("utf-8"), _report.read(FIGURES)
    assert set(found) == set(CASES)
    assert all(f"<!-- figures: {name} -->" in page for name in CASES)
    assert _page.renewed(page, CASES, found) == page
    for file, drawing in _page.plots(CASES, found):
        assert (EXPLANATION / file).read_text("utf-8") == drawing
        assert f"({file})" in page
