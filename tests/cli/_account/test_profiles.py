"""Which key a command uses, for which base URL; a file of keys that others can read or replace is refused."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs
import pytest

from together_batches import Batches, UsageError
from together_batches.cli._account.profiles import (
    Profile,
    change_profiles,
    credentials,
    origin,
    profiles_file,
    read_profiles,
)
from together_batches.cli._terminal.exits import CommandError, Exit
from together_batches.config import Secret

if TYPE_CHECKING:
    from collections.abc import Callable

    from cli.conftest import Ran

    Run = Callable[..., Ran]

URL = "https://api.together.ai/v1"
STAGING = "https://staging.example/v1"
posix = pytest.mark.skipif(sys.platform == "win32", reason="modes of POSIX")


def keep(name: str, key: str, url: str = URL) -> None:
    change_profiles(lambda profiles: {**profiles, name: Profile(name, url, Secret(key))})


@pytest.fixture
def file() -> Path:
    """Return the file of two profiles."""
    made = (
        Profile("default", URL, Secret("key-of-default")),
        Profile("staging", STAGING, Secret("key-of-staging")),
    )
    change_profiles(lambda _: {profile.name: profile for profile in made})
    return profiles_file()


# --- which key


@pytest.mark.parametrize(
    ("option", "environ", "expected"),
    [
        ("staging", {"TOGETHER_API_KEY": "k", "TOGETHER_BATCHES_PROFILE": "default"}, "key-of-staging"),
        (None, {"TOGETHER_API_KEY": "k", "TOGETHER_BATCHES_PROFILE": "staging"}, None),
        (None, {"TOGETHER_BATCHES_PROFILE": "staging"}, "key-of-staging"),
        (None, {"TOGETHER_API_KEY": " \n", "TOGETHER_BATCHES_PROFILE": ""}, "key-of-default"),
        (None, {}, "key-of-default"),
    ],
)
def test_precedence(
    file: Path, monkeypatch: pytest.MonkeyPatch, option: str | None, environ: dict[str, str], expected: str | None
) -> None:
    """--profile, TOGETHER_API_KEY, TOGETHER_BATCHES_PROFILE, the default profile: the first of these that is there.

    None is the variable with the key, which the client itself reads.
    """
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    key, url = credentials(option, None)
    assert key == expected
    assert url == {"key-of-staging": STAGING, "key-of-default": URL}.get(expected or "")


def test_a_variable_with_the_key_needs_no_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A damaged file is not read if the key is in the environment; the base URL is that of the options then."""
    file.write_text("{")
    monkeypatch.setenv("TOGETHER_API_KEY", "k")
    assert credentials(None, STAGING) == (None, STAGING)


def test_no_profile(run: Run) -> None:
    """Without any profile the error is that there is no key; a profile that is named has to exist."""
    assert credentials(None, None) == (None, None)
    ran = run("list", "--profile", "a")
    assert (ran.code, ran.out) == (3, "")
    assert "there is no profile 'a'; 'together-batches login --profile a' makes it" in ran.err


def test_no_default_profile(run: Run, file: Path) -> None:
    """The error names the profiles that there are."""
    change_profiles(lambda profiles: {"staging": profiles["staging"]})
    ran = run("list")
    assert ran.code == 3
    assert "no API key: set TOGETHER_API_KEY, or name a profile with --profile (there are 'staging')\n" in ran.err


@pytest.mark.parametrize("name", ["", "a b", "a/b", "..", "é", "x" * 65, "a\n", "a\x1b"])
def test_invalid_names(run: Run, name: str) -> None:
    """A name has letters, digits, hyphens and underscores; an invalid one is not repeated."""
    ran = run("list", "--profile", name)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == (
        "together-batches: error: invalid --profile: this is not the name of a profile: it has 1 to 64 letters, "
        "digits, hyphens and underscores; see together-batches list --help\n"
    )


@pytest.mark.parametrize("name", ["a", "-", "A-b_3", "x" * 64])
def test_valid_names(name: str) -> None:
    """Names may begin with a hyphen and are at most 64 characters long."""
    keep(name, "k")
    assert credentials(name, None) == ("k", URL)


def test_where_a_refused_key_is_from(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hint names the profile or the variable, and that a variable takes precedence if there are profiles."""
    assert origin(None) == "the key is that of profile 'default'; 'together-batches login' replaces it"
    assert origin("a").endswith("'a'; 'together-batches login --profile a' replaces it")
    monkeypatch.setenv("TOGETHER_API_KEY", "k")
    text = "the key is that of TOGETHER_API_KEY"
    assert origin(None) == f"{text}, which takes precedence over a profile without --profile"
    file.write_text("{")
    assert origin(None) == text


def test_code_reads_no_profiles(file: Path) -> None:
    """A client that is made in code has no key of a profile."""
    with pytest.raises(UsageError, match="no API key"):
        Batches()


# --- for which base URL


@pytest.mark.parametrize("url", [STAGING, "https://staging.example", "https://STAGING.example:443/v1/"])
@pytest.mark.parametrize("in_environment", [False, True])
def test_the_same_base_url(file: Path, monkeypatch: pytest.MonkeyPatch, url: str, in_environment: bool) -> None:
    """The base URL of the profile may be given, in any spelling."""
    if in_environment:
        monkeypatch.setenv("TOGETHER_BASE_URL", url)
    assert credentials("staging", None if in_environment else url)[1] == STAGING


@pytest.mark.parametrize(
    "url",
    [
        URL,
        "https://staging.example/v2",
        "https://staging.example:444/v1",
        "https://staging.example.org",
        "http://[::1]",
    ],
)
@pytest.mark.parametrize("source", ["--base-url", "TOGETHER_BASE_URL"])
def test_another_base_url(run: Run, file: Path, monkeypatch: pytest.MonkeyPatch, url: str, source: str) -> None:
    """The key of a profile is not sent to another base URL, wherever that comes from."""
    if source == "TOGETHER_BASE_URL":
        monkeypatch.setenv(source, url)
    ran = run("list", "--profile", "staging", *([source, url] if source == "--base-url" else []))
    assert (ran.code, ran.out) == (2, "")
    assert f"profile 'staging' is for {STAGING}, and {source} is {url.rstrip('/')}" in ran.err
    assert "key-of" not in ran.err


def test_an_invalid_base_url(run: Run, file: Path) -> None:
    """An invalid URL is a usage error without advice for code."""
    ran = run("list", "--base-url", "http://staging.example")
    assert (ran.code, "plain HTTP" in ran.err, "allow_insecure_http" in ran.err) == (2, True, False)


# --- the file


@posix
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o602])
@pytest.mark.parametrize("argv", [("list",), ("profiles",), ("logout",), ("login", "--stdin")])
def test_a_file_that_others_can_read(run: Run, file: Path, mode: int, argv: tuple[str, ...]) -> None:
    """It is refused by every command, with the command that mends it."""
    file.chmod(mode)
    ran = run(*argv)
    assert (ran.code, ran.out) == (3, "")
    assert ran.err.endswith(f"can be read by other users, and its key is not used: chmod 600 {file}\n")
    assert "key-of" not in ran.err
    file.chmod(0o600)
    assert credentials(None, None)[0] == "key-of-default"


@posix
@pytest.mark.parametrize("mode", [0o770, 0o702, 0o1777])
def test_a_directory_in_which_others_can_write(run: Run, file: Path, mode: int) -> None:
    """They could put another file there; one that they can only read is used."""
    file.parent.chmod(mode)
    ran = run("list")
    assert ran.code == 3
    assert ran.err.endswith(f"can be replaced by other users, and its key is not used: chmod 700 {file.parent}\n")
    file.parent.chmod(0o755)
    assert credentials(None, None)[0] == "key-of-default"


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize("of", ["file", "directory"])
def test_a_file_of_another_user(file: Path, of: str) -> None:
    """Neither is used if it belongs to another user, who can read it."""
    os.chown(file if of == "file" else file.parent, 12345, -1)
    with pytest.raises(CommandError, match="belongs to another user") as caught:
        credentials(None, None)
    assert caught.value.code is Exit.DENIED


@posix
@pytest.mark.parametrize("dangles", [False, True])
def test_a_link_is_not_followed(file: Path, tmp_path: Path, dangles: bool) -> None:
    """A link at the place of the file is neither read nor written through."""
    target = tmp_path / "target"
    content = file.read_text()
    file.rename(target)
    if dangles:
        target.unlink()
    file.symlink_to(target)
    for act in (read_profiles, lambda: keep("a", "k")):
        with pytest.raises(CommandError, match="is a link"):
            act()
    assert dangles or target.read_text() == content
    assert target.exists() is not dangles


def test_a_file_that_cannot_be_read(run: Run, file: Path) -> None:
    """The error names it, the cause, and the variable that needs no file."""
    file.unlink()
    file.mkdir()
    ran = run("list")
    assert (ran.code, ran.out) == (3, "")
    cause = "permission denied" if sys.platform == "win32" else "it is a directory"
    assert f"cannot read {file}: {cause}; mend that, or set TOGETHER_API_KEY" in ran.err


@posix
def test_a_pipe_is_not_waited_for(file: Path) -> None:
    """What is no file is refused at once."""
    file.unlink()
    os.mkfifo(file, 0o600)
    with pytest.raises(CommandError, match="is damaged"):
        read_profiles()
    with pytest.raises(CommandError, match="is damaged"):
        keep("a", "k")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        '{"profiles": []}',
        '{"profiles": {"a": null}}',
        '{"profiles": {"a": {"api_key": "k"}}}',
        '{"profiles": {"a": {"base_url": "http://example.com", "api_key": "k"}}}',
        '{"profiles": {"a": {"base_url": 3, "api_key": "k"}}}',
        '{"profiles": {"a": {"base_url": "https://h", "api_key": 3}}}',
        '{"profiles": {"a": {"base_url": "https://h", "api_key": ""}}}',
        '{"profiles": {"a b": {"base_url": "https://h", "api_key": "k"}}}',
        "[" * 100_000,
        '{"profiles": {"a": {"base_url": "https://h", "api_key": "secret"}}',
    ],
    ids=range(14),
)
def test_a_damaged_file(run: Run, file: Path, content: str) -> None:
    """It is refused, and left as it is by a login, because it may hold other keys."""
    file.write_text(content)
    for argv in (["list"], ["profiles"], ["login", "--stdin"], ["logout"]):
        ran = run(*argv)
        assert (ran.code, ran.out) == (3, "")
        assert ran.err.startswith(f"together-batches: error: {file} is damaged: ")
        assert "secret" not in ran.err
    with pytest.raises(CommandError, match="is damaged"):
        keep("a", "k")
    assert file.read_text() == content


def test_without_a_home(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a home directory there are no profiles, and login names the variable to set."""
    monkeypatch.setattr(platformdirs, "user_config_path", lambda *_, **__: Path("~/.config/together-batches"))
    assert "no API key" in run("list").err
    with pytest.raises(UsageError, match="set HOME"):
        keep("a", "k")


def test_logins_at_once() -> None:
    """Each of several logins at once keeps its key."""
    names = [f"of-{number}" for number in range(8)]
    with ThreadPoolExecutor(len(names)) as threads:
        list(threads.map(keep, names, names))
    assert {name: profile.api_key for name, profile in read_profiles().items()} == {name: name for name in names}


@posix
def test_a_full_disk(file: Path) -> None:
    """A key that cannot be written leaves the file as it was, and nothing beside it."""
    import resource

    content = file.read_bytes()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(content), before[1]))
    try:
        with pytest.raises(UsageError, match=f"cannot write {file}: ") as caught:
            keep("a", "k" * 10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert file.read_bytes() == content
    assert sorted(path.name for path in file.parent.iterdir()) == ["lock", "profiles.json"]
    assert caught.value.__context__ is None  # whose frames would have the keys


def test_no_dump_shows_a_key(file: Path) -> None:
    """What is read has secrets, which no dump of variables shows."""
    assert "key-of" not in repr(read_profiles())
