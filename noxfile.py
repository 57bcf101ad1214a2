"""The sessions of CI and of development: ``nox`` alone runs those of CI except ``airflow``, one on each CPU.

Requires only nox: each session installs what it uses into an environment of its own.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2026.8.10"  # sessions in parallel
# The longest first: short sessions fill the time until it ends.
nox.options.sessions = ["tests", "simulation", "extras", "typing", "official", "docs", "lint"]
nox.options.parallel = "auto"
nox.options.allow_parallel = True
# Not every machine has every Python; nox would require all of them if CI is set.
nox.options.error_on_missing_interpreters = False

PROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = nox.project.python_versions(PROJECT)
HERE = Path(__file__).parent
XDIST = ["--numprocesses=auto", "--dist=worksteal"]
ENGINES = ["prefect~=3.9", "dagster~=1.13", "temporalio~=1.35", "dbos~=3.4"]
"""The engines of docs/how-to/run-from-an-orchestrator.md."""

AIRFLOWS = {"3.0.6": "2025-09-05", "3.1.8": "2026-03-18", "3.2.2": "2026-06-05"}
"""Older versions of Airflow, each with a day soon after its release: it may not work with newer libraries."""

# Otherwise each of the processes that the tests start would compile the package anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def install(session: nox.Session, *groups: str, package: bool = True) -> None:
    """Install dependency groups (expanded here: older pips do not know groups), and the package or what it needs.

    Modules are compiled when they are imported, which most of them never are.
    """
    needed = nox.project.dependency_groups(PROJECT, *groups) if groups else ()
    session.install("--no-compile", *needed, *(["-e", "."] if package else PROJECT["project"]["dependencies"]))


def scratch_of(session: nox.Session) -> dict[str, str]:
    """Return the environment variables that keep the files of tests in the session's own directory."""
    scratch = session.create_tmp()
    return {"COVERAGE_FILE": str(Path(scratch, "coverage")), "HYPOTHESIS_STORAGE_DIRECTORY": scratch}


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, imports, likely mistakes, and formatting."""
    session.install(*nox.project.dependency_groups(PROJECT, "lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def typing(session: nox.Session) -> None:
    """Check the package and the uses in tests/typing with two type checkers."""
    install(session, "typing", package=False)
    session.run("mypy")
    # Explicit, because it prefers a .venv directory if there is one.
    session.run("basedpyright", "--pythonpath", str(Path(session.bin, "python")))
    session.install("--no-deps", ".")  # the public API is checked as installed
    # It does not look into typings/ by itself.
    session.run(
        "basedpyright",
        *("--verifytypes", "together_batches", "--ignoreexternal"),
        env={"PYTHONPATH": str(HERE / "typings")},
    )


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the suite; on the oldest Python with branch coverage, which is off during tests marked ``unmeasured``."""
    install(session, "test", package=False)
    environment = scratch_of(session)
    arguments = session.posargs or [*XDIST, "--ignore=tests/simulation"]
    if session.posargs or session.python != PYTHONS[0]:
        session.run("pytest", *arguments, env=environment)
        return
    session.run("coverage", "erase", env=environment)
    session.run("coverage", "run", "-m", "pytest", *arguments, env=environment)
    session.run("coverage", "combine", "--quiet", env=environment)
    session.run("coverage", "report", env=environment)


@nox.session(python=PYTHONS[0])
def lowest(session: nox.Session) -> None:
    """Run the suite on the oldest Python, with the lowest version of each requirement. Not in CI."""
    requirements = [*PROJECT["project"]["dependencies"], *nox.project.dependency_groups(PROJECT, "test")]
    session.install(*(requirement.replace(">=", "==") for requirement in requirements), "-e", ".")
    session.run("pytest", *(session.posargs or [*XDIST, "--ignore=tests/simulation"]), env=scratch_of(session))


@nox.session
def simulation(session: nox.Session) -> None:
    """Run simulated runs: fifty seeds, and deaths at each step. For thousands: ``nox -s simulate``."""
    install(session, "test", package=False)
    session.run("pytest", *XDIST, "tests/simulation", *session.posargs, env=scratch_of(session))


@nox.session
def extras(session: nox.Session) -> None:
    """Run what needs optional libraries: tests of schemas, tables, notebooks and services, and pages about them."""
    install(session, "extras", package=False)
    chosen = session.posargs or [*XDIST, "-m", "extras", "tests/extras", "tests/contracts/test_docs.py"]
    session.run("pytest", *chosen, env=scratch_of(session))


@nox.session
def official(session: nox.Session) -> None:
    """Run each generation of the official package against the emulator, each in an environment of its own."""
    install(session, "test", package=False)
    environment = scratch_of(session)
    for version in ("1.6.0", "2.42.0", "3.1.1"):
        apart = Path(session.create_tmp()).resolve() / f"official-{version}"
        virtualenv = (sys.executable, "-m", "virtualenv", "--quiet", "--clear", "--no-pip", str(apart))
        session.run(*virtualenv, external=True)
        python = str(apart / ("Scripts" if os.name == "nt" else "bin") / "python")
        session.run("pip", "--python", python, "install", "--quiet", "--no-compile", f"together=={version}")
        environment["TOGETHER_BATCHES_OFFICIAL_PYTHON"] = python
        session.run("pytest", "tests/process/test_official_package.py", *session.posargs, env=environment)


@nox.session(python=PYTHONS[0])
def airflow(session: nox.Session) -> None:
    """Run the provider on Airflow, against the emulator; ``-- --cluster`` kills the parts of a whole one.

    Not run by nox alone, because it installs Airflow.
    """
    session.install("--no-compile", *nox.project.dependency_groups(PROJECT, "airflow"), "-e", ".[airflow]")
    environment = scratch_of(session)
    if "--cluster" in session.posargs:
        if os.environ.get("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "").startswith("postgresql"):
            session.install("--no-compile", "apache-airflow-providers-postgres")
        words = [word for word in session.posargs if word != "--cluster"]
        session.run("python", "tests/airflow/cluster.py", *words, env={"PYTHONPATH": str(HERE)})
        return
    # Airflow and its libraries warn of much while they are imported.
    pytest = ["pytest", "-W", "default", *XDIST]
    if session.posargs:
        session.run(*pytest, *session.posargs, env=environment)
        return
    session.run(*pytest, "tests/airflow", env=environment)
    session.run(
        *pytest,
        "tests/contracts/test_public_api.py",
        "tests/contracts/test_docs.py",
        "-k",
        "airflow",
        env=environment,
    )


@nox.session(python=PYTHONS[0])
@nox.parametrize("version", list(AIRFLOWS), ids=list(AIRFLOWS))
def airflow_versions(session: nox.Session, version: str) -> None:
    """Run the provider on older versions of Airflow, with the libraries of their time. Not in CI."""
    session.install("pip>=26")  # the first that chooses by date
    # Without the configuration of this machine, whose indexes may have no dates.
    session.install(
        "--no-compile",
        f"--uploaded-prior-to={AIRFLOWS[version]}",
        f"apache-airflow=={version}",
        "s3fs",  # requires one version of fsspec, and boto3 that of moto
        "moto[server]",
        env={"PIP_CONFIG_FILE": os.devnull},
    )
    others = [
        needed
        for needed in nox.project.dependency_groups(PROJECT, "airflow")
        if not needed.startswith("apache-airflow==")
    ]
    session.install("--no-compile", f"apache-airflow=={version}", *others, "-e", ".")
    arguments = session.posargs or [*XDIST, "tests/airflow"]
    session.run("pytest", "-W", "default", *arguments, env=scratch_of(session))


@nox.session
@nox.parametrize("engine", ENGINES, ids=[engine.partition("~")[0] for engine in ENGINES])
def recipes(session: nox.Session, engine: str) -> None:
    """Run the recipes for other engines, each in an environment of its own, with processes killed. Not in CI."""
    install(session, "test")
    session.install(engine)
    name = engine.partition("~")[0]
    session.run("pytest", f"tests/recipes/test_{name}.py", *session.posargs, env=scratch_of(session))


@nox.session
def docs(session: nox.Session) -> None:
    """Build the pages, with warnings as errors, and look at what was built. The tests run their examples."""
    install(session, "docs", package=False)
    out = HERE / "docs" / "_build"
    shutil.rmtree(out, ignore_errors=True)
    build = ["sphinx-build", "-W", "--keep-going", "-n", "-q", "-b", "html", "docs", str(out)]
    session.run(*build, env={"PYTHONPATH": str(HERE)})
    session.run("pytest", "tests/docs", env={"PYTHONPATH": str(HERE), "TOGETHER_BATCHES_SITE": str(out)})


@nox.session
def bench(session: nox.Session) -> None:
    """Measure costs, next to bare libraries and other SDKs, as ratios; ``-- --list`` lists the cases. Not in CI."""
    install(session, "bench")
    session.run("python", "-m", "tests.benchmarks", *session.posargs, env={"PYTHONPATH": str(HERE)})


@nox.session
def simulate(session: nox.Session) -> None:
    """Run simulated runs by the thousand, one seed again (--seed 123), or with real kills (--kill 30)."""
    install(session)
    session.run("python", "-m", "tests.simulation", *session.posargs, env={"PYTHONPATH": str(HERE)})
