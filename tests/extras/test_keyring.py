"""Keys in the keyring of the system."""

from __future__ import annotations

import io
import json
import sys
from typing import TYPE_CHECKING

import pytest
from cli.conftest import Ran

from together_batches.cli import main
from together_batches.cli._account.profiles import profiles_file
from together_batches.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

keyring = pytest.importorskip("keyring")
keyring_backend = pytest.importorskip("keyring.backend")

KEY = "tgp_v1_in-the-keyring"


class Backend(keyring_backend.KeyringBackend):  # type: ignore[misc]
    """A keyring in memory, that may fail or forget."""

    priority = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[tuple[str, str], str] = {}
        self.error: Exception | None = None
        self.forgets = False

    def get_password(self, service: str, username: str) -> str | None:
        if self.error is not None:
            raise self.error
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        if self.error is not None:
            raise self.error
        if not self.forgets:
            self.kept[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        del self.kept[service, username]


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    with Emulator(api_key=KEY).running_in_thread() as running:
        monkeypatch.setenv("TOGETHER_BASE_URL", running.base_url)
        yield running


@pytest.fixture
def backend() -> Iterator[Backend]:
    before = keyring.get_keyring()
    made = Backend()
    keyring.set_keyring(made)
    yield made
    keyring.set_keyring(before)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    def run(*argv: str) -> Ran:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(KEY.encode())))
        return Ran(main(argv), *capsys.readouterr())

    return run


@pytest.fixture(autouse=True)
def _logged_in(emulator: Emulator, backend: Backend, run: Callable[..., Ran]) -> None:
    ran = run("login", "--stdin", "--keyring")
    assert ran == (
        0,
        "",
        f"the key of profile 'default', for {emulator.base_url}, is in the keyring of this system\n",
    )


def test_a_key_in_the_keyring(emulator: Emulator, backend: Backend, run: Callable[..., Ran]) -> None:
    """The key is in the keyring, under the profile and its URL, and not in the file; commands use it."""
    assert backend.kept == {("together-batches", f"default {emulator.base_url}"): KEY}
    assert json.loads(profiles_file().read_text()) == {"profiles": {"default": {"base_url": emulator.base_url}}}
    assert run("list").code == 0
    assert run("profiles").out == f"default\t{emulator.base_url}\tkeyring\tused\n"


def test_logout(backend: Backend, run: Callable[..., Ran]) -> None:
    """The key is removed from the keyring, too; one that is gone already is no error."""
    assert run("logout").code == 0
    assert not backend.kept
    run("login", "--stdin", "--keyring")
    backend.kept.clear()
    assert run("logout").code == 0
    assert "no API key" in run("list").err


def test_from_the_keyring_to_the_file(backend: Backend, run: Callable[..., Ran]) -> None:
    """A login without --keyring moves the profile to the file."""
    assert run("login", "--stdin").code == 0
    assert not backend.kept
    assert run("list").code == 0


def test_an_edited_file(emulator: Emulator, backend: Backend, run: Callable[..., Ran]) -> None:
    """A profile whose base URL was changed in the file has no key: it is bound to the URL in the keyring, too."""
    file = profiles_file()
    file.write_text(file.read_text().replace(emulator.base_url, "https://example.com/v1"))
    ran = run("list", "--base-url", "https://example.com")
    assert ran.code == 3
    assert "the keyring has no key for profile 'default'; run 'together-batches login'" in ran.err


def test_a_keyring_that_fails(backend: Backend, run: Callable[..., Ran]) -> None:
    """Any error of a backend is one sentence, without the text of the error, which may have the key in it."""
    backend.error = RuntimeError(KEY)
    for argv, doing, advice in (
        (["list"], "read", "unlock it, or set TOGETHER_API_KEY"),
        (["login", "--stdin", "--keyring"], "open", "leave out --keyring to keep the key in a file"),
    ):
        ran = run(*argv)
        assert (ran.code, ran.out) == (1, "")
        assert ran.err == (
            f"together-batches: error: cannot {doing} the keyring of this system (RuntimeError); {advice}\n"
        )


def test_a_keyring_that_keeps_nothing(backend: Backend, run: Callable[..., Ran]) -> None:
    """A backend that drops what it is given is noticed by login."""
    backend.forgets = True
    backend.kept.clear()
    ran = run("login", "--stdin", "--keyring")
    assert ran.code == 1
    assert "the keyring did not keep the key; leave out --keyring" in ran.err


def test_without_the_package(backend: Backend, run: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the extra."""
    monkeypatch.setitem(sys.modules, "keyring", None)
    for argv in (["list"], ["login", "--stdin", "--keyring"], ["logout"]):
        ran = run(*argv)
        assert ran.code == 1
        assert ran.err.endswith("error: the keyring needs another package: pip install 'together_batches[keyring]'\n")
