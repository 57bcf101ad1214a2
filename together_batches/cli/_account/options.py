"""Options that commands share: those of all that talk to the service, and others."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial, update_wrapper
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from together_batches.cli._terminal.commands import CommonOption, option
from together_batches.cli._terminal.exits import CommandError, Exit
from together_batches.cli._terminal.numbers import above_zero, profile_name, whole_number, zero_or_above
from together_batches.cli._terminal.text import print_err, print_error
from together_batches.errors import AuthenticationError, PermissionDeniedError

if TYPE_CHECKING:
    import click

F = TypeVar("F", bound=Callable[..., Any])


class Common(NamedTuple):
    """The options of every command that sends requests to the service."""

    json: bool = False
    profile: str | None = None
    base_url: str | None = None
    timeout: float | None = None
    request_timeout: float | None = None
    verbose: bool = False
    quiet: bool = False

    def note(self, text: str) -> None:
        """Print one line on standard error, unless ``--quiet`` is given."""
        if not self.quiet:
            print_err(text)

    @property
    def shows_progress(self) -> bool:
        """Whether the options allow a progress bar."""
        return not (self.quiet or self.verbose)


json_option = option("--json", "complete JSON on standard output")
model_option = option("--model M", "the job's model_id; each request names its model all the same", "model_id")
priority_option = option("--priority N", "the job's priority, a whole number", type=whole_number)
endpoint_option = option(
    "--endpoint E", "what the requests are for (/v1/chat/completions)", default="/v1/chat/completions"
)


def patience_option(usual: float) -> Callable[[F], F]:
    """Return the option ``--patience``, with its default."""
    help = f"look again so long for what is absent and should exist ({usual:g})"  # noqa: A001
    return option("--patience SECONDS", help, type=zero_or_above, default=usual)


def _complete_profile(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    from together_batches.cli._account.profiles import read_profiles

    with suppress(CommandError):  # a shell shows no errors
        return [name for name in read_profiles() if name.startswith(incomplete)]
    return []


profile_option = partial(option, "--profile NAME", type=profile_name, complete=_complete_profile)
_common = partial(option, cls=CommonOption)
_COMMON = (
    _common("--json", "complete JSON on standard output"),
    profile_option("use the key and the URL of this profile", cls=CommonOption),
    _common("--base-url URL", "the service; otherwise TOGETHER_BASE_URL, otherwise Together AI"),
    _common("--timeout SECONDS", "limit of the whole call; then the exit code is 6", type=above_zero),
    _common("--request-timeout SECONDS", "limit of one attempt of one request", type=above_zero),
    _common("-v, --verbose", "log retries to standard error"),
    _common("-q, --quiet", "no progress and no summary; errors are still printed"),
)


def service_options(function: Callable[..., Exit]) -> Callable[..., Exit]:
    """Add the common options, which the function takes as its first argument, a :class:`Common`."""

    def with_common(**options: Any) -> Exit:
        common = Common(**{name: options.pop(name) for name in Common._fields})
        try:
            code = function(common, **options)
        except (AuthenticationError, PermissionDeniedError, CommandError) as error:
            reason = error.__cause__ if isinstance(error, CommandError) else error
            if not isinstance(reason, AuthenticationError | PermissionDeniedError):
                raise
            print_error(str(error))
        else:
            if code is not Exit.DENIED:
                return code
        from together_batches.cli._account.profiles import origin

        print_err(origin(common.profile))
        return Exit.DENIED

    decorated: Callable[..., Exit] = update_wrapper(with_common, function)
    for add in reversed(_COMMON):
        decorated = add(decorated)
    return decorated
