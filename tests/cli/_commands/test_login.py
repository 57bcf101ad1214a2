"""`login` keeps a key, `logout` removes it, `profiles` lists what is kept; none of them prints a key."""

from __future__ import annotations

import io
import json
import stat
import sys
from typing import TYPE_CHECKING

import pytest

from together_batches.cli._account.places import config_directory
from together_batches.emulator import Emulator, Fault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cli.conftest import Ran

    Run = Callable[..., Ran]

KEY = "tgp_v1_the-key-of-these-tests"


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """Return a service that accepts KEY, which no variable has."""
    with Emulator(api_key=KEY).running_in_thread() as running:
        monkeypatch.setenv("TOGETHER_BASE_URL", running.base_url)
        yield running


@pytest.fixture
def login(run: Run, feed: Callable[..., None]) -> Callable[..., Ran]:
    """Log in with a key from standard input."""

    def login(*argv: str, key: str = KEY) -> Ran:
        feed(key.encode())
        return run("login", "--stdin", *argv)

    return login


@pytest.fixture
def file() -> Path:
    return config_directory() / "profiles.json"


def test_a_key_that_is_kept_is_used(run: Run, login: Callable[..., Ran], emulator: Emulator, file: Path) -> None:
    """The key is checked by one request, kept in a file for its user alone, and used afterwards."""
    assert login() == (0, "", f"the key of profile 'default', for {emulator.base_url}, is in {file}\n")
    assert len(emulator.requests) == 1
    if sys.platform != "win32":
        modes = [stat.S_IMODE(path.stat().st_mode) for path in (file, file.parent)]
        assert modes == [0o600, 0o700]
    assert run("list").code == 0


@pytest.mark.parametrize(
    "text", [f"{KEY}\n", f"\ufeff{KEY}\r\n", f"  {KEY}\n\n"], ids=["line end", "mark of Windows", "white space"]
)
def test_what_surrounds_a_key_is_removed(login: Callable[..., Ran], emulator: Emulator, text: str) -> None:
    """The key is what is left without white space and invisible marks."""
    assert login(key=text).code == 0


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "no key was given"),
        (b" \n", "no key was given"),
        (b"two words", "white space"),
        (b"\xff\xfe", "characters that no key has"),
        (b"x" * 5000, "more than 4096 characters"),
    ],
    ids=["nothing", "white space", "two words", "no text", "too much"],
)
def test_what_is_no_key(
    run: Run, feed: Callable[..., None], emulator: Emulator, file: Path, content: bytes, expected: str
) -> None:
    """What cannot be a key is refused before anything is sent, and not repeated."""
    feed(content)
    ran = run("login", "--stdin")
    assert (ran.code, ran.out) == (2, "")
    assert expected in ran.err
    assert "two" not in ran.err
    assert not emulator.requests
    assert not file.exists()


@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_is_refused(login: Callable[..., Ran], emulator: Emulator, file: Path, status: int) -> None:
    """A key that the service refuses is not kept."""
    emulator.fail(Fault(status=status, times=None))
    ran = login()
    assert ran.code == 3
    assert f"the service answered {status}" in ran.err
    assert ran.err.endswith("; the key is not kept\n")
    assert KEY not in ran.err
    assert not file.exists()


def test_a_key_that_cannot_be_checked(login: Callable[..., Ran], emulator: Emulator, file: Path) -> None:
    """While the service fails no key is kept, unless it should not be checked."""
    emulator.fail(Fault(status=500, times=None))
    ran = login()
    assert ran.code == 1
    assert "the key could not be checked, and is not kept: the service answered 500" in ran.err
    assert not file.exists()
    before = len(emulator.requests)
    assert login("--no-check").code == 0
    assert len(emulator.requests) == before


def test_another_service(login: Callable[..., Ran], emulator: Emulator) -> None:
    """A web server that knows no jobs is mentioned; an odd refusal of an unknown id is no refusal of the key."""
    emulator.fail(Fault(status=404, body="<html>", times=1))
    ran = login()
    assert ran.code == 0
    assert f"note: {emulator.base_url} does not answer as the service does" in ran.err
    emulator.fail(Fault(status=400, times=1))
    assert "note" not in login().err


def test_without_a_terminal(run: Run, feed: Callable[..., None], emulator: Emulator, file: Path) -> None:
    """A key comes from a pipe only with --stdin, and with it from no terminal, which would show it."""
    feed(KEY.encode())
    refused = run("login")
    assert (refused.code, refused.out) == (2, "")
    assert "there is no terminal to read the key from; add --stdin" in refused.err
    feed(KEY.encode(), terminal=True)
    shown = run("login", "--stdin")
    assert (shown.code, shown.out) == (2, "")
    assert "leave out --stdin" in shown.err
    assert not file.exists()


def test_closed_input(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard input that is closed has no key."""
    monkeypatch.setattr(sys, "stdin", None)
    assert "it is closed" in run("login", "--stdin").err
    assert "no terminal" in run("login").err


def test_a_terminal_that_cannot_hide_a_key(
    run: Run, feed: Callable[..., None], emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that would be shown is not read."""
    feed(KEY.encode(), terminal=True)
    monkeypatch.setattr(io, "FileIO", _no_terminal)  # what getpass opens /dev/tty with
    ran = run("login")
    assert ran.code == 2
    assert "this terminal would show the key" in ran.err


def _no_terminal(*_: object) -> None:
    raise OSError


def test_a_key_as_an_argument(run: Run) -> None:
    """A key on the command line is refused and not printed: other users have seen it."""
    for argv in ([KEY], [f"--key={KEY}"], ["--profile", f"{KEY} "], ["--stdin", KEY]):
        ran = run("login", *argv)
        assert ran.code == 2
        assert KEY not in ran.err
    assert "login takes no argument" in ran.err


def test_the_key_is_nowhere_else(
    run: Run, login: Callable[..., Ran], emulator: Emulator, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No output has the key: of login, of the list, of a log, of completion, of an error; no other file has it."""
    texts = [str(login())]
    texts += [str(run(*argv)) for argv in (["profiles"], ["profiles", "--json"], ["list", "-v"], ["login", "--help"])]
    monkeypatch.setenv("_TOGETHER_BATCHES_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "together-batches list --profile d")
    monkeypatch.setenv("COMP_CWORD", "3")
    completed = run()
    monkeypatch.delenv("_TOGETHER_BATCHES_COMPLETE")
    assert completed.out == "plain,default\n"
    emulator.fail(Fault(status=401, times=None))
    texts.append(str(run("list")))
    assert not [text for text in texts if KEY in text]
    assert [path for path in file.parent.iterdir() if KEY in path.read_text()] == [file]


def test_a_new_key_for_a_profile(run: Run, login: Callable[..., Ran], emulator: Emulator, file: Path) -> None:
    """A second login replaces the key and keeps the base URL, also without TOGETHER_BASE_URL."""
    assert login("--no-check", key="old").code == 0
    assert run("list").code == 3
    assert login().code == 0
    assert run("list").code == 0
    assert list(json.loads(file.read_text())["profiles"]) == ["default"]


def test_a_base_url_of_its_own(
    run: Run, login: Callable[..., Ran], emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A profile is for the URL of the option, and keeps it at later logins; a logout forgets it."""
    url = emulator.base_url
    monkeypatch.delenv("TOGETHER_BASE_URL")
    assert login("--profile", "a", "--base-url", url).code == 0
    assert f"for {url}" in login("--profile", "a").err
    refused = login("--profile", "a", "--base-url", "https://example.com")
    assert refused.code == 2
    assert f"profile 'a' is for {url}, and --base-url is https://example.com/v1" in refused.err
    assert run("logout", "--profile", "a").code == 0
    assert login("--profile", "a", "--base-url", "https://example.com", "--no-check").code == 0
    invalid = login("--profile", "b", "--base-url", "http://example.com")
    assert (invalid.code, "allow_insecure_http" in invalid.err) == (2, False)


def test_the_name_comes_from_the_environment(
    run: Run, login: Callable[..., Ran], emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TOGETHER_BATCHES_PROFILE names the profile of login and logout, too; an invalid name is refused."""
    monkeypatch.setenv("TOGETHER_BATCHES_PROFILE", "staging")
    assert "profile 'staging'" in login().err
    assert "profile 'staging'" in run("logout").err
    monkeypatch.setenv("TOGETHER_BATCHES_PROFILE", "a b")
    assert "TOGETHER_BATCHES_PROFILE is not the name of a profile" in login().err


def test_login_beside_a_variable(
    login: Callable[..., Ran], emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A login that TOGETHER_API_KEY makes ineffective says so."""
    monkeypatch.setenv("TOGETHER_API_KEY", "another")
    assert "TOGETHER_API_KEY is set, and is used in its place" in login().err
    assert "TOGETHER_API_KEY" not in login("--profile", "a").err


def test_logout(run: Run, login: Callable[..., Ran], emulator: Emulator, file: Path) -> None:
    """The key is removed from the file, others stay; a profile that does not exist is an error with those that do."""
    login("--profile", "a")
    login("--profile", "b", "--no-check", key="other")
    ran = run("logout", "--profile", "a")
    assert ran == (
        0,
        "",
        "profile 'a' and its key are removed; the key is valid until it is revoked at the service\n",
    )
    assert KEY not in file.read_text()
    again = run("logout", "--profile", "a")
    assert again.code == 3
    assert "there is no profile 'a' (there are 'b'); 'together-batches login --profile a' makes it" in again.err


def test_profiles(
    run: Run,
    login: Callable[..., Ran],
    emulator: Emulator,
    monkeypatch: pytest.MonkeyPatch,
    on_terminal: Callable[..., None],
) -> None:
    """Profiles are listed by name, with tabs, as JSON, or as a table; the one that is used is marked."""
    assert run("profiles") == (0, "", "there are no profiles; 'together-batches login' makes one\n")
    assert run("profiles", "--json") == (0, "[]\n", "")
    login()
    login("--profile", "a", "--no-check", key="other")
    url = emulator.base_url
    assert run("profiles").out == f"a\t{url}\tfile\t-\ndefault\t{url}\tfile\tused\n"
    assert json.loads(run("profiles", "--json").out) == [
        {"name": "a", "base_url": url, "key_in": "file", "used": False},
        {"name": "default", "base_url": url, "key_in": "file", "used": True},
    ]
    monkeypatch.setenv("TOGETHER_API_KEY", "another")
    on_terminal("stdout")
    ran = run("profiles")
    assert [line.split() for line in ran.lines] == [
        ["PROFILE", "BASE", "URL", "KEY", "IN"],
        ["a", url, "file"],
        ["default", url, "file"],
    ]
    assert ran.err == "TOGETHER_API_KEY is set, and is used unless --profile is given\n"
    monkeypatch.setenv("COLUMNS", "20")
    assert all(len(line) <= 20 for line in run("profiles").lines)
