"""The fixtures as users see them: in a project of their own, in a separate pytest process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

PACKAGE_PARENT = Path(__file__).resolve().parent.parent


def run_tests(folder: Path, source: str, **environment: str) -> str:
    """Run `pytest -q` on one test file, with the plugin in its conftest, and return the last lines of its output."""
    (folder / "conftest.py").write_text('pytest_plugins = ["together_batches.pytest_plugin"]\n')
    (folder / "test_it.py").write_text(dedent(source))
    command = [sys.executable, "-W", "error", "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += ["-o", "asyncio_mode=auto", "-o", "asyncio_default_fixture_loop_scope=function"]
    search_path = os.pathsep.join([str(PACKAGE_PARENT), os.environ.get("PYTHONPATH", "")])
    run = subprocess.run(
        [*command, "--rootdir", str(folder), str(folder)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": search_path, **environment},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    return run.stdout + run.stderr


def test_synchronous_and_asynchronous_tests_find_the_emulator(tmp_path: Path) -> None:
    """Each test, sync or async, finds its own emulator by the environment, and controls it from its own thread."""
    output = run_tests(
        tmp_path,
        """
        import json, os, urllib.request
        import aiohttp

        def ask(path):
            url = os.environ["TOGETHER_BASE_URL"] + path
            key = os.environ["TOGETHER_API_KEY"]
            headers = {"Authorization": f"Bearer {key}", "User-Agent": "test"}
            with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
                return json.load(answer)

        def test_sync(emulator):
            job_id = emulator.add_job()
            emulator.advance(60)
            assert ask(f"/batches/{job_id}")["status"] == "COMPLETED"

        def test_a_fresh_one(emulator):
            assert ask("/batches") is None

        async def test_async(emulator):
            emulator.add_job(id="a")
            headers = {"Authorization": f"Bearer {os.environ['TOGETHER_API_KEY']}"}
            async with aiohttp.ClientSession(headers=headers) as http:
                async with http.post(f"{emulator.base_url}/batches/a/cancel") as answer:
                    assert answer.status == 200
            assert emulator.count("cancel") == 1

        def test_the_environment_is_put_back():
            assert os.environ["TOGETHER_BASE_URL"] == "https://before.example"
            assert os.environ["NO_PROXY"] == "before.example"
        """,
        TOGETHER_BASE_URL="https://before.example",
        NO_PROXY="before.example",
        HTTP_PROXY="http://127.0.0.1:9",
        http_proxy="http://127.0.0.1:9",
    )
    assert "4 passed" in output, output


def test_options_are_chosen_by_overriding_a_fixture(tmp_path: Path) -> None:
    """Options are set by overriding a fixture, for a file, a class or the whole project."""
    output = run_tests(
        tmp_path,
        """
        import os
        import pytest
        from together_batches.emulator import Timing

        @pytest.fixture
        def emulator_options():
            return {"api_key": None, "host": "127.0.0.2", "timing": Timing(running=5)}

        def test_chosen(emulator):
            job_id = emulator.add_job()
            emulator.advance(5)
            assert emulator.job(job_id)["status"] == "COMPLETED"
            assert os.environ["TOGETHER_API_KEY"]
            assert os.environ["NO_PROXY"].startswith("127.0.0.2")
        """,
    )
    assert "1 passed" in output, output


def test_a_failing_test_ends_like_any_other(tmp_path: Path) -> None:
    """After a failing test the emulator is stopped, and pytest ends."""
    output = run_tests(tmp_path, "def test_wrong(emulator):\n    assert emulator.count('list') == 1\n")
    assert "1 failed" in output, output


def test_the_how_to_page_works_as_written(tmp_path: Path) -> None:
    """The blocks of the how-to page, in their order, are one test file that passes."""
    page = PACKAGE_PARENT / "docs" / "how-to" / "test-your-code-with-the-emulator.md"
    conftest, *blocks = re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    assert conftest == 'pytest_plugins = ["together_batches.pytest_plugin"]\n'
    output = run_tests(tmp_path, "\n".join(blocks))
    assert "6 passed" in output, output
