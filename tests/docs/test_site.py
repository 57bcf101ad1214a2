"""The site as it was built: ``nox -s docs`` builds it, and then runs this."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from together_batches import Batches, BatchesError, RetryPolicy
from together_batches.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SITE = Path(os.environ.get("TOGETHER_BATCHES_SITE", "missing"))
SOURCE = Path(__file__).parents[2] / "docs"

pytestmark = pytest.mark.skipif(
    not SITE.is_dir(), reason="TOGETHER_BATCHES_SITE names no built site; see nox -s docs"
)

SOURCES = [*SOURCE.glob("*.md"), *SOURCE.glob("[!_]*/*.md")]
PAGES = [path.relative_to(SOURCE).with_suffix("").as_posix() for path in SOURCES]


def text_of(page: str) -> str:
    return (SITE / page).read_text("utf-8")


def test_language_models_get_every_page() -> None:
    """llms.txt lists each page as Markdown, and llms-full.txt has the text of each."""
    listed = re.findall(r"\]\((.+?)\.md\)", text_of("llms.txt"))
    assert set(PAGES) - set(listed) == set()
    full = text_of("llms-full.txt")
    assert [page for page in listed if text_of(f"{page}.md").strip() not in full] == []


def test_no_page_has_the_preparation_of_its_examples() -> None:
    """The hidden code of the tests is in no page, neither as HTML nor as Markdown."""
    assert [page for page in PAGES if "<!-- run" in text_of(f"{page}.html") + text_of(f"{page}.md")] == []


def missing_key(emulator: Emulator) -> None:
    Batches("")


def unknown_job(emulator: Emulator) -> None:
    with Batches(emulator.api_key, base_url=emulator.base_url) as batches:
        batches.retrieve("no-such-job")


def refused_key(emulator: Emulator) -> None:
    with Batches("another", base_url=emulator.base_url) as batches:
        batches.list()


def missing_file(emulator: Emulator) -> None:
    with Batches(emulator.api_key, base_url=emulator.base_url) as batches:
        batches.submit("no-such-file.jsonl")


def no_server(emulator: Emulator) -> None:
    with Batches("key", base_url="http://127.0.0.1:9", retry=RetryPolicy(max_attempts=1)) as batches:
        batches.list()


def closed_client(emulator: Emulator) -> None:
    batches = Batches(emulator.api_key, base_url=emulator.base_url)
    batches.close()
    batches.list()


def timed_out(emulator: Emulator) -> None:
    with Batches(emulator.api_key, base_url=emulator.base_url) as batches:
        batches.wait(emulator.add_job(ends_as="IN_PROGRESS"), timeout=0)


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with Emulator().running_in_thread() as running:
        yield running


@pytest.mark.parametrize(
    "fails", [missing_key, unknown_job, refused_key, missing_file, no_server, closed_client, timed_out]
)
def test_the_search_knows_the_messages_of_errors(fails: Callable[[Emulator], None], emulator: Emulator) -> None:
    """The page of the search has the message of each error, with its place, as search-messages.js compares it."""
    with pytest.raises(BatchesError) as raised:
        fails(emulator)
    (known,) = re.findall(r"const ERROR_MESSAGES = (\{.*?\});", text_of("search.html"))
    fitting = [
        address
        for address, text in json.loads(known).items()
        if len(text) > 15 and re.match(".*".join(map(re.escape, text.split("…"))), str(raised.value))
    ]
    assert fitting, str(raised.value)
    page, _, anchor = fitting[0].partition("#")
    assert f'id="{anchor}"' in text_of(page)


def test_pages_load_nothing_from_elsewhere() -> None:
    """Scripts, styles, fonts and images are those of the site."""
    loaded = re.compile(r"<(?:script|img|link)\b[^>]*\b(?:src|href)=\"(?:https?:)?//|url\((?:https?:)?//")
    assert [page for page in [*PAGES, "search"] if loaded.search(text_of(f"{page}.html"))] == []
