"""Profiles: keys that ``login`` keeps, each bound to the base URL that it was given for.

They are in one file, for its user alone; a key may be in the keyring of the system instead. Only the command reads
them: code that uses the library passes its key, or sets ``TOGETHER_API_KEY``.
"""

from __future__ import annotations

import json
import os
import shlex
import stat
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from together_batches._local.os_errors import explained
from together_batches.cli._account.places import config_directory, locked
from together_batches.cli._terminal.exits import CommandError, Exit
from together_batches.cli._terminal.numbers import PROFILE_NAMES, is_profile_name
from together_batches.config import Config, Secret
from together_batches.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

DEFAULT = "default"
_FILE = "profiles.json"
_ADVICE = {", or pass api_key=": ", or run 'together-batches login'", ", or say allow_insecure_http=True": ""}
_SERVICE = "together-batches"
"""The name under which the keyring has the keys."""


class Profile(NamedTuple):
    """A key and the base URL that it is for."""

    name: str
    base_url: str
    api_key: Secret | None
    """None if the key is in the keyring."""

    @property
    def account(self) -> str:
        """The name of the key in the keyring, with the URL: files of several directories share one keyring."""
        return f"{self.name} {self.base_url}"

    def key(self) -> Secret:
        """Return the key, which the keyring may have to be unlocked for."""
        if self.api_key is not None:
            return self.api_key
        with _keyring("read") as keyring:
            found = Secret.of(keyring.get_password(_SERVICE, self.account))
        if not found:
            message = f"the keyring has no key for profile {self.name!r}; run {login_to(self.name)}"
            raise CommandError(message, Exit.DENIED)
        return Secret(found)


def login_to(name: str) -> str:
    """Return the command that keeps a key in this profile."""
    return "'together-batches login'" if name == DEFAULT else f"'together-batches login --profile {name}'"


# --- which key


def credentials(option: str | None, url: str | None) -> tuple[Secret | None, str | None]:
    """Return the key and the base URL of a client, None for those that it reads from the environment.

    ``option`` and ``url`` are the profile and the base URL in the options.

    Raises :class:`CommandError` for a profile that does not exist, or is for another base URL.
    """
    name = profile_in_use(option)
    if name is None:
        return None, url
    profiles = read_profiles()
    if option is None and name == DEFAULT and name not in profiles:
        if not profiles:
            return None, url  # the client reports that there is no key
        message = f"no API key: set TOGETHER_API_KEY, or name a profile with --profile{_listed(profiles)}"
        raise CommandError(message, Exit.DENIED)
    profile = existing(name)
    check_url(profile, url)
    return profile.key(), profile.base_url


def profile_in_use(option: str | None) -> str | None:
    """Return the name of the profile that has the key; None if it is in the environment."""
    if option is None and os.environ.get("TOGETHER_API_KEY", "").strip():
        return None
    return named_profile(option)


def named_profile(option: str | None) -> str:
    """Return the name of a profile: that of the option, of the environment, or the default."""
    if option is not None:
        return option
    name = os.environ.get("TOGETHER_BATCHES_PROFILE", "").strip()
    if name and not is_profile_name(name):
        message = f"TOGETHER_BATCHES_PROFILE is not the name of a profile: {PROFILE_NAMES}"
        raise CommandError(message)
    return name or DEFAULT


def origin(option: str | None) -> str:
    """Return where the key of a command comes from, after the service refused it."""
    name = profile_in_use(option)
    if name is not None:
        return f"the key is that of profile {name!r}; {login_to(name)} replaces it"
    beside = ", which takes precedence over a profile without --profile" if _has_profiles() else ""
    return f"the key is that of TOGETHER_API_KEY{beside}"


def _has_profiles() -> bool:
    with suppress(CommandError):
        return bool(read_profiles())
    return False


def check_url(profile: Profile, option: str | None) -> None:
    """Refuse another base URL than that of the profile, from the option or the environment."""
    given = given_url(option)
    if given is None or _parts(given) == _parts(profile.base_url):
        return
    source = "--base-url" if option else "TOGETHER_BASE_URL"
    message = (
        f"profile {profile.name!r} is for {profile.base_url}, and {source} is {given}: its key is not sent there; "
        f"leave out {source}, or name a profile for it with --profile"
    )
    raise CommandError(message)


def given_url(option: str | None) -> str | None:
    """Return the base URL of the option or the environment in its usual form; None if there is none."""
    url = option or os.environ.get("TOGETHER_BASE_URL", "").strip()
    try:
        return usual_url(url) if url else None
    except UsageError as error:
        raise CommandError(as_command(error)) from None


def usual_url(url: str | None = None) -> str:
    """Return a base URL, by default that of the service, in its usual form."""
    return Config.from_env({}, api_key="any", base_url=url).base_url


def as_command(error: UsageError) -> str:
    """Return the message of an invalid setting with advice that applies to the command, and not to code."""
    message = str(error)
    for in_code, advice in _ADVICE.items():
        if message.endswith(in_code):
            return message.removesuffix(in_code) + advice
    return message


def _parts(url: str) -> tuple[str, str | None, int | None, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"https": 443, "http": 80}.get(parts.scheme), parts.path


def existing(name: str) -> Profile:
    """Return a profile; raise :class:`CommandError` with the names that there are if it does not exist."""
    profiles = read_profiles()
    if name in profiles:
        return profiles[name]
    message = f"there is no profile {name!r}{_listed(profiles)}; {login_to(name)} makes it"
    raise CommandError(message, Exit.DENIED)


def _listed(profiles: dict[str, Profile]) -> str:
    return f" (there are {', '.join(map(repr, sorted(profiles)))})" if profiles else ""


# --- the file


def profiles_file() -> Path:
    """Return the path of the file, which need not exist."""
    return config_directory() / _FILE


def read_profiles() -> dict[str, Profile]:
    """Return the profiles by their names.

    Raises :class:`CommandError` if the file cannot be read or is damaged, or if others can read or replace it.
    """
    try:
        path = profiles_file()
    except UsageError:  # without a home there are none
        return {}
    try:
        text = _text_of(path)
    except UsageError as error:
        raise CommandError(str(error), Exit.DENIED) from None
    profiles = {} if text is None else _parsed(text)
    if profiles is None:
        message = f"{path} is damaged: it is not what 'together-batches login' writes; remove it, and log in again"
        raise CommandError(message, Exit.DENIED)
    return profiles


def changeable_profiles() -> dict[str, Profile]:
    """Return the profiles, as :func:`read_profiles`; raise an error if they could not be written."""
    with locked(profiles_file().parent):
        return read_profiles()


def change_profiles(change: Callable[[dict[str, Profile]], dict[str, Profile]]) -> None:
    """Read the profiles, change them and write them, while no other process does."""
    path = profiles_file()
    with locked(path.parent):
        profiles = read_profiles()
        if not profiles:
            # Without a key first: on a file system that keeps no modes, reading it fails before a key is in it.
            _write(path, {})
            read_profiles()
        _write(path, change(profiles))


def _write(path: Path, profiles: dict[str, Profile]) -> None:
    from together_batches._local.atomic_file import AtomicFile  # here, because most commands only read

    entries = {
        profile.name: {"base_url": profile.base_url, **({"api_key": profile.api_key} if profile.api_key else {})}
        for profile in profiles.values()
    }
    failure = None
    try:
        with AtomicFile(path, follow_links=False, fsync=True) as file:
            file.write(json.dumps({"profiles": entries}, indent=2).encode() + b"\n")
            file.commit()
    except UsageError as error:
        failure = str(error)
    if failure is not None:
        raise UsageError(failure)  # another one, without the frames that have the keys


def _text_of(path: Path) -> Secret | None:
    """Return the text of the file; None if it does not exist."""
    # A link is not followed: what it leads to may be another's. A pipe is not waited for.
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    with explained("read", path, advice="mend that, or set TOGETHER_API_KEY"):
        if path.is_symlink():
            message = f"{path} is a link, and the key is not read through it; put the file itself there"
            raise CommandError(message, Exit.DENIED)
        try:
            file = os.open(path, flags)
        except (FileNotFoundError, NotADirectoryError):
            return None
        with os.fdopen(file, "rb") as stream:
            _check_private(path.parent, path.parent.stat(), 0o022, "replaced", "700")
            _check_private(path, os.fstat(file), 0o077, "read", "600")
            return Secret(stream.read().decode("utf-8", "replace"))


def _check_private(path: Path, found: os.stat_result, others: int, done: str, mode: str) -> None:
    """Refuse a file, or its directory, that gives other users these permissions."""
    if sys.platform == "win32":
        return
    if found.st_uid != os.geteuid():
        message = f"{path} belongs to another user, and its key is not used; set TOGETHER_API_KEY, or be that user"
    elif stat.S_IMODE(found.st_mode) & others:
        message = (
            f"{path} can be {done} by other users, and its key is not used: chmod {mode} {shlex.quote(str(path))}"
        )
    else:
        return
    raise CommandError(message, Exit.DENIED)


def _parsed(text: Secret) -> dict[str, Profile] | None:
    """Return the profiles in the file; None if it is damaged."""
    try:
        entries = json.loads(text, object_hook=_hidden)["profiles"]
        profiles = [
            Profile(name, usual_url(str(entry["base_url"])), entry.get("api_key")) for name, entry in entries.items()
        ]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, UsageError):
        return None
    is_sound = all(
        is_profile_name(each.name) and each.api_key != "" and isinstance(each.api_key, Secret | None)
        for each in profiles
    )
    return {profile.name: profile for profile in profiles} if is_sound else None


def _hidden(members: dict[str, Any]) -> dict[str, Any]:
    """Return the members of a JSON object with its texts as secrets, which no dump of a frame shows."""
    return {name: Secret.of(value) for name, value in members.items()}


# --- the keyring

_WITHOUT = "leave out --keyring to keep the key in a file"


def check_keyring() -> None:
    """Raise :class:`CommandError` if there is no keyring, or no package that reaches it."""
    with _keyring("open", _WITHOUT) as keyring:
        keyring.get_password(_SERVICE, _SERVICE)


def keep_in_keyring(profile: Profile, key: Secret) -> None:
    """Keep the key of a profile in the keyring of the system."""
    with _keyring("write to", _WITHOUT) as keyring:
        keyring.set_password(_SERVICE, profile.account, key)
        is_kept = keyring.get_password(_SERVICE, profile.account) == key
    if not is_kept:
        message = f"the keyring did not keep the key; {_WITHOUT}"
        raise CommandError(message, Exit.FAILED)


def remove_from_keyring(profile: Profile) -> None:
    """Remove the key of a profile from the keyring, if it is there."""
    with _keyring("remove the key from") as keyring:
        if keyring.get_password(_SERVICE, profile.account) is not None:
            keyring.delete_password(_SERVICE, profile.account)


@contextmanager
def _keyring(doing: str, advice: str = "unlock it, or set TOGETHER_API_KEY") -> Generator[Any]:
    """Yield the module ``keyring``; convert whatever its backends raise, whose texts may have the key in them."""
    try:
        import keyring  # slow to import, and optional
    except ImportError:
        message = "the keyring needs another package: pip install 'together_batches[keyring]'"
        raise CommandError(message, Exit.FAILED) from None
    try:
        yield keyring
    except Exception as error:  # noqa: BLE001  # backends are plug-ins, and have errors of their own
        message = f"cannot {doing} the keyring of this system ({type(error).__name__}); {advice}"
    else:
        return
    raise CommandError(message, Exit.FAILED)
