"""The commands ``together-batches login``, ``logout`` and ``profiles``."""

from __future__ import annotations

import os
import sys

from together_batches.cli._account.client import connected
from together_batches.cli._account.options import Common, json_option, profile_option
from together_batches.cli._account.profiles import (
    Profile,
    as_command,
    change_profiles,
    changeable_profiles,
    check_keyring,
    check_url,
    existing,
    given_url,
    keep_in_keyring,
    named_profile,
    profile_in_use,
    profiles_file,
    read_profiles,
    remove_from_keyring,
    usual_url,
)
from together_batches.cli._terminal.commands import command, option
from together_batches.cli._terminal.exits import CommandError, Exit
from together_batches.cli._terminal.loop import in_loop, raised_by_signals
from together_batches.cli._terminal.table import Column, draw
from together_batches.cli._terminal.text import (
    as_json,
    columns,
    is_open,
    is_terminal,
    print_err,
    print_lines,
    terminal,
)
from together_batches.config import Config, Secret
from together_batches.errors import (
    AuthenticationError,
    BadRequestError,
    BatchesError,
    NotFoundError,
    PermissionDeniedError,
    UsageError,
)

_NO_JOB = "00000000-0000-0000-0000-000000000000"
_MOST_BYTES = 4096
_COLUMNS = (
    Column("PROFILE"),
    Column("BASE URL", rank=1, cut="middle", least=20),
    Column("KEY IN", rank=3),
    Column("", rank=2),
)
_STRAY = "login takes no argument: other users see a command line, and a key that was in one should be replaced"


@command("login", Exit.DENIED, stray=_STRAY)
@profile_option("the profile that keeps the key (default)")
@option("--base-url URL", "the service that the key is for; otherwise TOGETHER_BASE_URL, otherwise Together AI")
@option("--stdin", "read the key from standard input, where there is no terminal")
@option("--keyring", "keep the key in the keyring of the system (needs together_batches[keyring])")
@option("--no-check", "keep the key without a request to the service")
def login(profile: str | None, base_url: str | None, stdin: bool, keyring: bool, no_check: bool) -> Exit:
    """Keep an API key for this command, in a file that only its user can read. The key
    is typed or pasted, and not shown; one request checks it. Its profile is for one
    base URL, and the key is sent to no other. The library reads no profiles.

    examples:
      together-batches login
      together-batches login --profile staging --base-url https://staging.example/v1
      pass show together | together-batches login --stdin
    """
    if keyring:
        check_keyring()
    name = named_profile(profile)
    # What can fail, fails before a key is typed.
    if before := changeable_profiles().get(name):
        check_url(before, base_url)
    url = before.base_url if before else given_url(base_url) or usual_url()
    key = _checked(_from_stdin() if stdin else _from_terminal(url))
    if not no_check:
        _try(Common(base_url=url), key)
    place = _keep(Profile(name, url, None if keyring else key), key)
    print_err(f"the key of profile {name!r}, for {url}, is in {place}")
    if profile is None and os.environ.get("TOGETHER_API_KEY", "").strip():
        print_err("TOGETHER_API_KEY is set, and is used in its place unless --profile is given")
    return Exit.DONE


def _from_stdin() -> Secret:
    if not is_open(sys.stdin):
        message = "the key is to come from standard input, and it is closed"
        raise CommandError(message)
    if is_terminal(sys.stdin):
        message = "standard input is a terminal, which would show the key; leave out --stdin"
        raise CommandError(message)
    return Secret(sys.stdin.buffer.read(_MOST_BYTES + 1).decode("utf-8", "replace"))


def _from_terminal(url: str) -> Secret:
    if not is_terminal(sys.stdin):
        message = "there is no terminal to read the key from; add --stdin to read it from standard input"
        raise CommandError(message)
    import warnings
    from getpass import GetPassWarning, getpass

    try:
        # SIGTERM would leave the terminal without an echo.
        with raised_by_signals(), warnings.catch_warnings(action="error", category=GetPassWarning):
            return Secret(getpass(f"API key for {url} (not shown): "))
    except GetPassWarning:
        message = "this terminal would show the key; read it from a file: together-batches login --stdin < FILE"
        raise CommandError(message) from None
    except EOFError:
        print_err("")  # the prompt has no line end
        return Secret()
    except KeyboardInterrupt:
        print_err("")  # the terminal has echoed ^C without a line end
        raise


def _checked(text: Secret) -> Secret:
    """Return the key in a text; raise :class:`CommandError` if it cannot be one."""
    if len(text) > _MOST_BYTES:
        message = f"this is no API key: it has more than {_MOST_BYTES} characters"
        raise CommandError(message)
    if not text.strip():
        message = "no key was given, and none is kept"
        raise CommandError(message)
    try:
        return Config.from_env({}, api_key=text).api_key
    except UsageError as error:
        raise CommandError(as_command(error)) from None


@in_loop
async def _try(common: Common, key: Secret) -> None:
    """Send the key with one small request; raise :class:`CommandError` unless the service accepts it."""
    async with connected(common, key=key) as batches:
        try:
            await batches.retrieve(_NO_JOB)
        except (AuthenticationError, PermissionDeniedError) as error:
            message = f"{error}; the key is not kept"
            raise CommandError(message, Exit.DENIED) from None
        except NotFoundError as error:
            if not isinstance(error.body, dict):
                print_err(f"note: {common.base_url} does not answer as the service does; check the URL")
        except BadRequestError:
            pass  # of an id that no job has; the key was looked at before it
        except BatchesError as error:
            message = f"the key could not be checked, and is not kept: {error}; --no-check keeps it without a check"
            raise CommandError(message, Exit.FAILED) from None


def _keep(profile: Profile, key: Secret) -> str:
    """Keep the key, and return where."""
    if profile.api_key is None:
        keep_in_keyring(profile, key)
    replaced: list[Profile] = []

    def put(profiles: dict[str, Profile]) -> dict[str, Profile]:
        if before := profiles.get(profile.name):
            check_url(before, profile.base_url)  # again: of another login, which was faster
            replaced.append(before)
        return {**profiles, profile.name: profile}

    change_profiles(put)
    if profile.api_key is None:
        return "the keyring of this system"
    for before in replaced:
        if before.api_key is None:
            remove_from_keyring(before)
    return str(profiles_file())


@command("logout", Exit.DENIED)
@profile_option("the profile to remove (default)")
def logout(profile: str | None) -> Exit:
    """Remove a profile and its key from this machine. The key stays valid until it is
    revoked at the service.

    examples:
      together-batches logout
      together-batches logout --profile staging
    """
    name = named_profile(profile)
    found = existing(name)
    if found.api_key is None:
        remove_from_keyring(found)
    change_profiles(lambda profiles: {key: kept for key, kept in profiles.items() if key != name})
    print_err(f"profile {name!r} and its key are removed; the key is valid until it is revoked at the service")
    return Exit.DONE


@command("profiles", Exit.DENIED)
@json_option
def profiles(json: bool) -> Exit:
    """List the profiles with the base URL of each, whether its key is in the file or
    the keyring, and which one is used if no --profile is given.

    examples:
      together-batches profiles
      together-batches profiles --json
    """
    used = profile_in_use(None)
    rows = [
        (name, each.base_url, "keyring" if each.api_key is None else "file", "used" if name == used else "")
        for name, each in sorted(read_profiles().items())
    ]
    if json:
        facts = (
            {"name": name, "base_url": url, "key_in": place, "used": bool(mark)} for name, url, place, mark in rows
        )
        print("[" + ",\n".join(map(as_json, facts)) + "]")
    elif is_terminal(sys.stdout) and rows:
        screen = terminal(sys.stdout)
        print_lines(draw(_COLUMNS, rows, screen.width, dots=screen.dots))
    else:
        print_lines("\t".join(columns(row)) for row in rows)
    if not rows and not json:
        print_err("there are no profiles; 'together-batches login' makes one")
    if rows and used is None:
        print_err("TOGETHER_API_KEY is set, and is used unless --profile is given")
    return Exit.DONE
