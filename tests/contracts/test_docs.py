"""The documentation runs, links to existing pages, and is complete."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from run_page import Block, MismatchError, blocks, commands, compare

import together_batches
from together_batches.config import Config

if TYPE_CHECKING:
    from _pytest.mark import ParameterSet

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [README, *sorted([*(ROOT / "docs").glob("*.md"), *(ROOT / "docs").glob("[!_]*/*.md")])]
REFERENCE = "\n".join(page.read_text("utf-8") for page in (ROOT / "docs" / "reference").glob("*.md"))
GROUPS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["dependency-groups"]
# The name of a distribution such as arro3-core begins with that of its package; that of prometheus-client equals it.
NAMES = [re.split(r"[^\w-]", name, maxsplit=1)[0] for name in GROUPS["extras"] if isinstance(name, str)]
EXTRAS = {package for name in NAMES for package in (name.partition("-")[0], name.replace("-", "_"))}
RUN_PAGE = str(ROOT / "tests" / "contracts" / "run_page.py")
MOST_NOT_RUN = 5
PYTEST_INI = """
[pytest]
filterwarnings = error
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
"""


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def _has_examples(page: Path) -> bool:
    found = (block for block in blocks(page.read_text("utf-8")) if block.needs is None or find_spec(block.needs))
    return any(block.kind in {"python", "console"} for block in found)


def _needs(page: Path) -> set[str]:
    """Return the packages without which not every block of the page runs."""
    return {block.needs for block in blocks(page.read_text("utf-8")) if block.needs}


def _page(page: Path) -> ParameterSet:
    return pytest.param(page, id=_name(page), marks=[pytest.mark.extras] if _needs(page) & EXTRAS else [])


def _run(command: list[str], directory: Path, *, quiet: bool = True, **environment: str) -> None:
    """Run a command, which must succeed and, if it is to be ``quiet``, print nothing on standard error."""
    ended = subprocess.run(
        command,
        cwd=directory,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert (ended.returncode, ended.stderr if quiet else "") == (0, ""), ended.stdout + ended.stderr


@pytest.mark.timeout(160)  # a page with many commands starts many processes
@pytest.mark.parametrize("page", [_page(page) for page in PAGES if _has_examples(page)])
def test_the_examples_of_a_page_run(page: Path, tmp_path: Path, warm_python: list[str]) -> None:
    """Every block runs in order and prints what the page shows; examples that are tests are run by pytest."""
    all_blocks = list(blocks(page.read_text("utf-8")))
    found = [block.text for block in all_blocks if block.kind == "python"]
    if not any("def test_" in text for text in found):
        # A library that a page needs may warn of itself.
        quiet = not any(block.needs and find_spec(block.needs) for block in all_blocks)
        command = [*warm_python, *(["-W", "error"] if quiet else []), RUN_PAGE, str(page)]
        _run(command, ROOT, quiet=quiet, WARM_PYTHON=shlex.join(warm_python))
        return
    (tmp_path / "conftest.py").write_text("".join(text for text in found if "pytest_plugins" in text))
    (tmp_path / "test_page.py").write_text("\n".join(text for text in found if "pytest_plugins" not in text))
    (tmp_path / "pytest.ini").write_text(PYTEST_INI)
    _run([sys.executable, "-W", "error", "-m", "pytest", "-q", "-p", "no:cacheprovider"], tmp_path)


def test_few_examples_are_not_run() -> None:
    """Blocks that do not run are rare and state the reason; no block hides in a list or under another name."""
    hidden = re.compile(r"^ +```(?:python|console)|^```(?:py|pycon|python3|shell|bash)$", re.MULTILINE)
    not_run = []
    for page in PAGES:
        text = page.read_text("utf-8")
        not_run += [f"{_name(page)}:{block.line}: {block.not_run}" for block in blocks(text) if block.not_run]
        assert not hidden.findall(text), _name(page)
    assert len(not_run) <= MOST_NOT_RUN, not_run


def test_examples_that_need_a_package_are_run_where_it_is() -> None:
    """A package that a block needs is in the group ``extras``, or has a session of ``nox -s recipes``, and tests.

    Airflow has its own session.
    """
    needed = set[str]().union(*map(_needs, PAGES)) - {"airflow", *EXTRAS}
    (engines,) = re.findall(r"^ENGINES = (\[.+\])$", (ROOT / "noxfile.py").read_text("utf-8"), re.MULTILINE)
    assert needed == set(re.findall(r'"([a-z]+)~=[\d.]+"', engines))
    assert [name for name in needed if not (ROOT / "tests" / "recipes" / f"test_{name}.py").is_file()] == []


@pytest.mark.parametrize("name", together_batches.__all__)
def test_every_public_name_is_in_the_reference(name: str) -> None:
    """Every name in ``together_batches.__all__`` is documented, with its source."""
    assert re.search(rf"(?<!\w){re.escape(name)}(?!\w)", REFERENCE)


def test_every_variable_that_is_read_is_in_the_reference() -> None:
    """Every variable that a client reads is documented; an environment that records reads gives the names."""

    requested = set[str]()

    class Environment(dict[str, str]):
        def get(self, name: str, default: Any = None, /) -> Any:
            requested.add(name.upper())
            return super().get(name, default)

    for base_url in ("https://service.example", "http://service.example"):
        environ = Environment(TOGETHER_API_KEY="key", TOGETHER_BASE_URL=base_url)
        Config.from_env(environ, allow_insecure_http=True)
    assert requested >= {"TOGETHER_API_KEY", "TOGETHER_BASE_URL", "HTTPS_PROXY", "NO_PROXY"}
    assert {name for name in requested if f"`{name}`" not in REFERENCE} == set()


def test_the_test_command_of_the_readme_is_what_ci_runs() -> None:
    """The command in the README is the one that CI runs."""
    (command,) = re.findall(r"^python3 -m venv .*nox$", README.read_text("utf-8"), re.MULTILINE)
    assert command in (ROOT / ".ci" / "run").read_text("utf-8").splitlines()


def test_the_readme_leads_somewhere() -> None:
    """The README names existing files and has no relative links, which lead nowhere on a package index."""
    text = README.read_text("utf-8")
    assert re.findall(r"\]\((?!https://)", text) == []
    named = re.findall(r"`((?:docs/)?[\w/-]+\.md)`", text)
    assert named
    assert [name for name in named if not (ROOT / name).is_file()] == []


def test_the_changelog_tells_of_this_version() -> None:
    """The changelog has a section for unreleased changes, or for the version of the package."""
    sections = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert {"Unreleased", together_batches.__version__} & set(sections)


def test_blocks_are_found_with_what_was_said_about_them() -> None:
    """Markers belong to the block right after them."""
    page = "<!-- run\nx = 1\n-->\n\n```text\n1\n```\n<!-- not run: no network -->\n\n```python\ny\n```\n"
    page += "<!-- needs: engine -->\n```python\nz\n```\n"
    page += "<!-- exit: 5 -->\nwords between\n\n````console\n$ a \\\n> b\n```\n````\n"
    assert list(blocks(page)) == [
        Block("run", "x = 1\n", 2),
        Block("text", "1\n", 6, follows=True),
        Block("python", "y\n", 11, follows=True, not_run="no network"),
        Block("python", "z\n", 15, follows=True, needs="engine"),
        Block("console", "$ a \\\n> b\n```\n", 21),
    ]


def test_commands_are_told_from_their_output() -> None:
    """A command may continue on the next line."""
    assert list(commands(Block("console", "$ a \\\n> b\nout\n$ c\n", 1))) == [("a b", "out\n"), ("c", "")]


def test_output_is_compared_to_the_letter() -> None:
    """Three dots stand for anything; all other output must match exactly."""
    compare("a\n... of it\nb", "a\nmuch\nmore of it\nb\n", "here")
    with pytest.raises(MismatchError, match="the page shows"):
        compare("a", "b", "here")
