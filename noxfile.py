"""What CI does, and what a developer does: ``nox`` alone runs the sessions that CI runs.

Needs nothing but nox: each session installs what it uses into an environment of its own.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import nox

nox.options.sessions = ["lint", "typing", "tests", "official", "docs"]
# A machine has the Pythons that it has; nox would insist on all of them wherever CI is set.
nox.options.error_on_missing_interpreters = False

PROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = nox.project.python_versions(PROJECT)
HERE = Path(__file__).parent


def install(session: nox.Session, *groups: str, package: bool = True) -> None:
    """Install the package and dependency groups (expanded here: older pips do not know groups)."""
    needed = nox.project.dependency_groups(PROJECT, *groups) if groups else ()
    session.install(*needed, *(["-e", "."] if package else []))


@nox.session
def lint(session: nox.Session) -> None:
    """Style, imports, likely mistakes, and formatting."""
    install(session, "lint", package=False)
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def typing(session: nox.Session) -> None:
    """The package and the uses in tests/typing, under two type checkers."""
    install(session, "typing")
    session.run("mypy")
    # Said, because it would rather look into a .venv that lies about.
    session.run("basedpyright", "--pythonpath", str(Path(session.bin, "python")))


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The suite, with branch coverage of the package and of the processes that it starts."""
    install(session, "test")
    scratch = Path(session.create_tmp())
    environment = {"COVERAGE_FILE": str(scratch / "coverage"), "HYPOTHESIS_STORAGE_DIRECTORY": str(scratch)}
    chosen = session.posargs or ["--numprocesses=auto", "--ignore=tests/simulation"]
    session.run("coverage", "erase", env=environment)
    session.run("coverage", "run", "-m", "pytest", *chosen, env=environment)
    session.run("coverage", "combine", "--quiet", env=environment)
    if not session.posargs:
        session.run("coverage", "report", env=environment)
        # Without coverage, which makes it take twice the time and finds nothing here that the others do not run.
        session.run("pytest", "--numprocesses=auto", "tests/simulation", env=environment)


@nox.session
@nox.parametrize("version", ["1.6.0", "2.42.0", "3.1.1"])
def official(session: nox.Session, version: str) -> None:
    """A generation of the official package against the emulator, in an environment apart: their pins are not ours."""
    install(session, "test")
    apart = Path(session.create_tmp()).resolve() / "official"
    session.run("python", "-m", "venv", "--clear", str(apart))
    python = str(apart / ("Scripts" if os.name == "nt" else "bin") / "python")
    session.run(python, "-m", "pip", "install", "--quiet", f"together=={version}", external=True)
    environment = {"TOGETHER_BATCHES_OFFICIAL_PYTHON": python}
    session.run("pytest", "tests/process/test_official_package.py", *session.posargs, env=environment)


@nox.session
def docs(session: nox.Session) -> None:
    """The pages, with warnings as errors. Their examples are run by the tests."""
    install(session, "docs")
    out = HERE / "docs" / "_build"
    shutil.rmtree(out, ignore_errors=True)
    session.run("sphinx-build", "-W", "--keep-going", "-n", "-q", "-b", "html", "docs", str(out))


@nox.session
def bench(session: nox.Session) -> None:
    """What things cost, beside bare libraries and other SDKs, as ratios; ``-- --list`` tells the cases. Not in CI."""
    install(session, "bench")
    session.run("python", "-m", "tests.benchmarks", *session.posargs, env={"PYTHONPATH": os.fspath(HERE)})


@nox.session
def simulate(session: nox.Session) -> None:
    """Whole runs in a made-up world, by the thousand; or one again (--seed 123), or kills for real (--kill 30)."""
    install(session)
    session.run("python", "-m", "tests.simulation", *session.posargs, env={"PYTHONPATH": os.fspath(HERE)})
