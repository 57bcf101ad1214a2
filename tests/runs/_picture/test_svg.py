"""The SVG image of a run."""

from __future__ import annotations

import re
import unicodedata
from itertools import combinations, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple
from xml.etree import ElementTree

import pytest
from hypothesis import given

from runs.views import JOB, any_run, at, attempt, moments, run, shard
from together_batches import UsageError
from together_batches.rows import Usage
from together_batches.runs import SessionView, to_html, to_svg
from together_batches.runs._picture.svg import to_narrow_svg

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from together_batches.runs import RunView

SVG = "{http://www.w3.org/2000/svg}"
FINISHED = run(
    shard(
        1, attempt(1, 3, 10, 40, 42, succeeded=8, again=2), attempt(43, 44, 50, 70, 71, number=2, rows=2, succeeded=2)
    ),
    shard(2, attempt(1, 3, 12, 60, 62, status="EXPIRED", succeeded=9, found=True, error="too late")),
    state="finished",
    finished_at=at(80),
    failed=1,
    not_sent=0,
    usage=Usage(10, 20, 30),
)


class Box(NamedTuple):
    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: Box) -> bool:
        """Return whether two boxes overlap by more than the two digits to which coordinates are rounded."""
        hair = 0.02
        across = min(self.right, other.right) - max(self.left, other.left)
        return across > hair and min(self.bottom, other.bottom) - max(self.top, other.top) > hair


def drawn(view: RunView, seconds: float = 100) -> ElementTree.Element:
    return ElementTree.fromstring(to_svg(view, now=at(seconds)))


def number(element: ElementTree.Element, name: str) -> float:
    return float(element.attrib[name])


def words(image: ElementTree.Element) -> list[str]:
    return [text.text or "" for text in image.iter(f"{SVG}text")]


def boxes_of_words(image: ElementTree.Element) -> Iterator[Box]:
    """Return the boxes of words in a font of usual width: 0.6 of its height for a letter, all for a wide one."""
    for text in image.iter(f"{SVG}text"):
        size = number(text, "font-size")
        width = size * sum(1 if unicodedata.east_asian_width(letter) in "WF" else 0.6 for letter in text.text or "")
        left = number(text, "x") - {"start": 0, "middle": width / 2, "end": width}[text.attrib["text-anchor"]]
        yield Box(left, number(text, "y") - size * 0.8, left + width, number(text, "y") + size * 0.2)


def box_of(rect: ElementTree.Element) -> Box:
    left, top = number(rect, "x"), number(rect, "y")
    return Box(left, top, left + number(rect, "width"), top + number(rect, "height"))


def bars(image: ElementTree.Element) -> Iterator[tuple[str, Box, str]]:
    """Return the bars along the time axis: the phase, the position, and the tooltip."""
    for rect in image.iter(f"{SVG}rect"):
        shown = rect.findtext(f"{SVG}title", "")
        if shown.startswith("shard "):
            yield rect.attrib["class"], box_of(rect), shown


def test_a_lane_for_each_shard() -> None:
    """A lane for each shard shows its phases in order, its attempts one after the other, and its result."""
    image = drawn(FINISHED)
    lanes: dict[float, list[str]] = {}
    for phase, box, _ in bars(image):
        lanes.setdefault(round((box.top + box.bottom) / 2), []).append(phase.removeprefix("tb-"))
    once = ["sending", "waiting", "running", "collecting"]
    assert list(lanes.values()) == [once * 2, once]
    assert {"1", "2", "all 10", "9 of 10"} <= set(words(image))


def test_the_tooltip_of_a_stretch() -> None:
    """The tooltip of a bar names the job, the duration, and the error."""
    assert [shown for phase, _, shown in bars(drawn(FINISHED)) if phase == "tb-running"][1:] == [
        "shard 1, attempt 2 (2 rows): running for 20s; job " + JOB,
        f"shard 2, attempt 1 (10 rows): running for 48s; job {JOB} EXPIRED: too late",
    ]


def test_length_is_time() -> None:
    """The length of a bar is proportional to its duration."""
    at_once = {
        shown.partition(": ")[2].partition(" for ")[0]: box
        for _, box, shown in bars(
            drawn(run(shard(1, attempt(0, 10, 20, 40, 80)), state="finished", finished_at=at(100)))
        )
    }
    widths = {phase: box.right - box.left for phase, box in at_once.items()}
    assert widths["collecting"] == pytest.approx(2 * widths["running"], abs=0.05)
    assert widths["running"] == pytest.approx(2 * widths["created, waiting"], abs=0.05)


def test_what_it_says() -> None:
    """The image shows the name, the state, the figures, the rows by bucket, and the axis."""
    said = words(drawn(FINISHED))
    assert said[:2] == [
        "requests.jsonl: finished",
        "20 rows, 2 shards, 3 jobs, 1m20s, 30 tokens; began 2026-09-14 10:20:30 UTC",
    ]
    assert {"19 rows answered", "1 row failed", "0s", "20s", "1m", "finished", "running"} <= set(said)
    assert "0 rows missing" not in said


def test_signs_are_explained_where_they_occur() -> None:
    """The legend explains a cross (a job that ended badly) and a diamond (a job found again) only if they occur."""
    image = drawn(FINISHED)
    classes = [path.attrib["class"] for path in image.iter(f"{SVG}path")]
    assert sorted(classes) == ["tb-cross", "tb-cross", "tb-found", "tb-found"]  # in the legend, and at the bar
    assert {"failed, expired or cancelled", "found again after a crash"} <= set(words(image))
    plain = drawn(run(shard(1, attempt(1, 2, 3))))
    assert list(plain.iter(f"{SVG}path")) == []


def test_what_is_not_known_is_pale() -> None:
    """The phase that had not ended is pale in an interrupted run; a running one has no pale phase."""
    view = run(shard(1, attempt(1, 3, 10, 40, 42), attempt(43, 44, 50, number=2)), state="interrupted")
    assert [phase for phase, _, _ in bars(drawn(view))][-1] == "tb-running tb-lost"
    assert "tb-lost" not in [phase for phase, _, _ in bars(drawn(view))][2]
    running = run(shard(1, attempt(1, 3, 10)))
    assert [phase for phase, _, _ in bars(drawn(running))] == ["tb-sending", "tb-waiting", "tb-running"]


def test_of_the_fewest_rows_something_is_seen() -> None:
    """One failed row among a million is visible."""
    image = drawn(run(shard(1, rows=10**6), succeeded=10**6 - 1, failed=1))
    (failed,) = [rect for rect in image.iter(f"{SVG}rect") if rect.findtext(f"{SVG}title") == "1 row failed"]
    assert number(failed, "width") >= 3


def test_light_and_dark_and_alone() -> None:
    """One image serves light and dark mode; it has no script, and loads no font or other file."""
    text = to_svg(FINISHED, now=at(0))
    assert "@media(prefers-color-scheme:dark)" in text
    assert re.findall(r"https?://[^\"]+", text) == ["http://www.w3.org/2000/svg"]
    assert not re.search(r"<script|<image|<use|@import|url\(|href|on\w+=", text)


@pytest.mark.parametrize("shards", [0, 1, 16, 17, 60, 200, 1_000])
def test_any_number_of_shards(shards: int) -> None:
    """The image grows more slowly than the number of shards, and lanes stay visible."""
    image = drawn(run(*[shard(number, attempt(number, number + 1, number + 2)) for number in range(1, shards + 1)]))
    assert number(image, "height") <= 250 + shards * 26
    assert number(image, "height") <= 6_000
    assert all(box.bottom - box.top > 1 for _, box, _ in bars(image))
    check_room(image)


def test_any_text_is_text() -> None:
    """Names and messages are escaped."""
    view = run(shard(1, attempt(1, 2, 3, error="</title><script>\x1b[31m\udcff")), input_name='<b>"&\x00.jsonl')
    image = drawn(view)
    assert words(image)[0] == '<b>"&\\x00.jsonl: running'
    assert next(bars(image))[2].endswith(": </title><script>\\x1b[31m\\udcff")


def test_a_long_name_is_cut() -> None:
    """A long name is cut after it is escaped, not before."""
    check_room(drawn(run(input_name="\x1b" * 100)))
    (first, *_) = words(drawn(run(input_name="very-" * 100)))
    assert first.startswith("very-very-")
    assert first.endswith("…")


@given(any_run(), moments)
def test_any_run(view: RunView, now: datetime) -> None:
    """Any run gives a well-formed image: no overlapping words or bars, and everything within the image."""
    for draw in (to_svg, to_narrow_svg):
        check_room(ElementTree.fromstring(draw(view, now=now)))


def check_room(image: ElementTree.Element) -> None:
    """Check that everything is within the image, and that nothing overlaps."""
    whole = Box(0, 0, number(image, "width"), number(image, "height"))
    assert image.attrib["viewBox"] == f"0 0 {image.attrib['width']} {image.attrib['height']}"
    written = sorted(boxes_of_words(image), key=lambda box: (box.top, box.left))
    rects = [box_of(rect) for rect in image.iter(f"{SVG}rect") if "x" in rect.attrib]
    for box in [*written, *rects]:
        assert whole.left <= box.left <= box.right <= whole.right
        assert whole.top <= box.top <= box.bottom <= whole.bottom
    lines: dict[float, list[Box]] = {}
    for box in written:
        lines.setdefault(box.top, []).append(box)
    assert not any(one.overlaps(other) for line in lines.values() for one, other in combinations(line, 2))
    for line, following in pairwise(lines.values()):
        assert not any(one.overlaps(other) for one in line for other in following)
    lanes: dict[int, list[Box]] = {}
    for _, box, _ in bars(image):
        lanes.setdefault(round((box.top + box.bottom) * 4), []).append(box)
    for lane in lanes.values():
        assert not any(one.overlaps(other) for one, other in combinations(lane, 2))
    for lane, following in pairwise(lanes.values()):
        assert max(box.bottom for box in lane) <= min(box.top for box in following)


def test_only_a_view_is_drawn() -> None:
    """A value of another type is refused, with the type that is accepted."""
    other: Any = {"state": "finished"}
    for draw in (to_svg, to_html):
        with pytest.raises(UsageError, match=r"a picture is of a RunView, .* not of dict"):
            draw(other)


def test_no_process_at_work() -> None:
    """The time without a process at work is a band behind the bars, with a tooltip, and a place in the legend."""
    sessions = tuple(SessionView(began_at=at(first), last_at=at(last)) for first, last in ((0, 20), (60, 80)))
    image = drawn(run(shard(1, attempt(0, 1, 2, 80)), state="interrupted", sessions=sessions))
    (legend, first, last) = (each for each in image.iter(f"{SVG}rect") if each.get("class") == "tb-absence")
    assert legend.find(f"{SVG}title") is None
    assert (first.findtext(f"{SVG}title") or "") == "no process for 40s from 2026-09-14 10:20:50 UTC on"
    assert (last.findtext(f"{SVG}title") or "") == "no process since 2026-09-14 10:21:50 UTC"
    assert "tb-absence" not in to_svg(FINISHED).partition("</style>")[2]
    page = to_html(run(sessions=sessions))
    assert "2026-09-14 10:20:30Z to 2026-09-14 10:20:50Z; 2026-09-14 10:21:30Z to 2026-09-14 10:21:50Z" in page
