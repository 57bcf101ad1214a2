"""Commands on click: lazy groups, arguments and options, help that begins with the examples, usage errors.

Nothing slow to import is imported here, nor at the top of the file of any command: `--help`, completion and a
mistyped option work without the HTTP client.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from importlib import import_module
from inspect import cleandoc
from typing import TYPE_CHECKING, Any, TypeVar

import click

from together_batches.cli._terminal.exits import MEANINGS, Exit
from together_batches.cli._terminal.table import NARROW
from together_batches.cli._terminal.text import PROGRAM, folded, terminal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from click.shell_completion import CompletionItem

F = TypeVar("F", bound=Callable[..., Any])

_EXAMPLES = "examples:\n"
_KEY = """\
The API key is that of --profile, otherwise TOGETHER_API_KEY, otherwise that of
the profile in TOGETHER_BATCHES_PROFILE or of 'default'; 'login' makes profiles.
"""
_HELP_WIDTH = 80
"""Width of a terminal that has room for the help as it is written."""
_RENAMED = {"--force": "--overwrite", "--max-rows": "--max-rows-per-job", "--deadline": "--timeout"}
"""Options of the previous version, which now raise an error that names the new option."""


# --- commands and groups


class _Option(click.Option):
    def type_cast_value(self, ctx: click.Context, value: Any) -> Any:
        """Convert the value. click accepts whatever follows, even an option, which is an error here."""
        values: list[object] = [*value] if self.multiple else [value]
        if any(each in _options(ctx.command) for each in values):
            raise click.BadOptionUsage(max(self.opts, key=len), "", ctx)
        return super().type_cast_value(ctx, value)


class CommonOption(_Option):
    """An option of every command that talks to the service. Help lists these apart."""


class _HelpFormatter(click.HelpFormatter):
    """Help that fits a narrow terminal, too; click's own is at least 50 columns wide."""

    def __init__(self, indent_increment: int = 2, width: int | None = None, max_width: int | None = None) -> None:
        screen = terminal(sys.stdout).width
        self.is_narrow = screen < _HELP_WIDTH
        super().__init__(indent_increment, screen if self.is_narrow else width, max_width)

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        """Write terms with their meanings: beside them, or below them if there is little room."""
        super().write_dl(rows, col_max if self.width >= NARROW else 4, col_spacing)

    def write_heading(self, heading: str) -> None:
        """Write the heading of a section."""
        super().write_heading("\n".join(folded(heading, self.width)))

    def write_prose(self, text: str) -> None:
        """Write text whose lines are broken, and examples aligned; on a narrow terminal it is wrapped."""
        lines = text.splitlines()
        for line in _paragraphs(lines) if self.is_narrow else lines:
            self.write("".join(f"{piece}\n" for piece in self._wrapped(line)))

    def _wrapped(self, line: str) -> Iterator[str]:
        """Yield a line in pieces that fit on a narrow terminal: its columns one by one."""
        if not self.is_narrow or len(line) <= self.width:
            yield line
            return
        indent = "  " if line.startswith(" ") else ""
        for part in re.sub(r"(?<=\S) {2,}", "\n    ", line).split("\n"):
            yield from folded(part, self.width, indent=indent)


def _paragraphs(lines: Iterable[str]) -> list[str]:
    """Join the lines of each paragraph; one with an indent, or after a colon, is a paragraph by itself."""
    joined: list[str] = []
    for line in lines:
        last = joined[-1] if joined else ""
        if line and last and not (line.startswith(" ") or last.startswith(" ") or last.endswith(":")):
            joined[-1] += f" {line}"
        else:
            joined.append(line)
    return joined


class _Context(click.Context):
    formatter_class = _HelpFormatter


class _Documented(click.Command):
    """A command or group whose help begins with its examples."""

    context_class: type[click.Context] = _Context

    def get_help_option(self, ctx: click.Context) -> click.Option | None:
        """Return the option ``--help``, with a help text in this package's style."""
        found = super().get_help_option(ctx)
        if found is not None:
            found.help = "show this help and exit"
        return found

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples, and then the description."""
        description, _, examples = cleandoc(self.help or "").partition(_EXAMPLES)
        key = _KEY if any(isinstance(param, CommonOption) for param in self.params) else ""
        assert isinstance(formatter, _HelpFormatter)  # noqa: S101  # of our context
        formatter.write_prose(f"\n{_EXAMPLES}{examples.rstrip()}\n\n{description.rstrip()}\n{key}")


class _Command(_Documented):
    """A command whose usage errors name their context."""

    allow_extra_args = True  # refused below, with a message of our own
    exits: Sequence[Exit] = ()
    stray: str | None = None

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the options and arguments; an extra argument is an error."""
        try:
            super().parse_args(ctx, args)
        except click.UsageError as error:
            error.ctx = error.ctx or ctx
            raise
        if ctx.args and not ctx.resilient_parsing:
            ctx.fail(self.stray or f"{ctx.args[0]!r} is one argument too many")
        return ctx.args

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the command's own options, and then the common ones."""
        common = [param for param in self.params if isinstance(param, CommonOption)]
        own = [param for param in self.get_params(ctx) if isinstance(param, click.Option) and param not in common]
        for title, options in (("Options", own), ("Options of every command that talks to the service", common)):
            if records := [record for param in options if (record := param.get_help_record(ctx))]:
                with formatter.section(title):
                    formatter.write_dl(records)
        with formatter.section("Exit codes"):
            codes = {Exit.DONE, Exit.FAILED, Exit.USAGE, Exit.INTERRUPTED, *self.exits}
            codes |= {Exit.DENIED, Exit.TIMED_OUT} if common else set()
            formatter.write_dl([(str(code.value), MEANINGS[code]) for code in sorted(codes)])


class Group(_Documented, click.Group):
    """A group of commands, each imported on first use.

    ``entries`` maps each name to the module in ``_commands`` and the function of the command and its summary, or to
    another group.
    """

    def __init__(
        self,
        name: str,
        summary: str,
        help: str,  # noqa: A002
        entries: Mapping[str, Group | tuple[str, str, str]],
    ) -> None:
        settings = {"help_option_names": ["-h", "--help"]}
        super().__init__(name, short_help=summary, help=help, context_settings=settings)
        self.entries = entries

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the options before the name of a command, which is required."""
        if not args and not ctx.resilient_parsing:
            ctx.fail("no command given" + ("" if ctx.parent else f"; try '{PROGRAM} demo'"))
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands, in the order of the help."""
        return list(self.entries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of this name, which is imported now."""
        entry = self.entries.get(cmd_name)
        if not isinstance(entry, tuple):
            return entry
        module, function, summary = entry
        found: click.Command = getattr(import_module(f"together_batches.cli._commands.{module}"), function)
        found.short_help = summary
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; an unknown name is an error that lists the nearest ones."""
        if args[0] not in self.entries and not ctx.resilient_parsing:
            raise click.NoSuchCommand(args[0], possibilities=self.entries, ctx=ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the summary of each command, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl(list(self.summaries()))

    def summaries(self) -> Iterator[tuple[str, str]]:
        """Yield every command with its summary; those of a group by their full names."""
        for name, entry in self.entries.items():
            if isinstance(entry, Group):
                yield from ((f"{name} {sub}", line) for sub, line in entry.summaries())
            else:
                yield name, entry[2]


def command(name: str, *exits: Exit, stray: str | None = None) -> Callable[[Callable[..., Exit]], click.Command]:
    """Make a function a command. Its docstring is the help: a description, and ``examples:``.

    ``exits`` are the exit codes that help explains, beside those of every command; ``stray`` is the error for an
    extra argument that must not be repeated.
    """

    def make(function: Callable[..., Exit]) -> click.Command:
        made = click.command(name, cls=_Command)(function)
        made.exits, made.stray = exits, stray
        return made

    return make


# --- usage errors


def explain(error: click.UsageError) -> str:
    """Return a usage error as one sentence, with the command whose help explains it.

    For an unknown option only its name is shown, because its value may be a key.
    """
    known = _options(error.ctx.command) if error.ctx else {}
    match error:
        case click.NoSuchOption(option_name=name) if _RENAMED.get(name) in known:
            text = f"{name} is now {_RENAMED[name]}"
        case click.NoSuchOption(option_name=name):
            text = f"there is no option {name}{_suggestions(error.possibilities)}"
        case click.NoSuchCommand(command_name=name):
            text = f"there is no command {name!r}{_suggestions(error.possibilities)}"
        case click.BadOptionUsage(option_name=name):
            text = f"{name} {'takes no' if known[name].is_flag else 'needs a'} value"
        case click.MissingParameter():
            text = f"missing {_name(error.param)}"
        case click.BadParameter():
            text = f"invalid {_name(error.param)}: {error.message.rstrip('.')}"
        case _:
            text = error.message
    return f"{text}; see {error.ctx.command_path if error.ctx else PROGRAM} --help"


def _options(command: click.Command) -> dict[str, click.Option]:
    return {name: param for param in command.params if isinstance(param, click.Option) for name in param.opts}


def _suggestions(names: Sequence[str] | None) -> str:
    return f" (did you mean {' or '.join(names)}?)" if names else ""


def _name(param: click.Parameter | None) -> str:
    if isinstance(param, click.Option):
        return max(param.opts, key=len)
    return param.human_readable_name.strip("[].") if param else "value"


# --- arguments and options


def argument(name: str, metavar: str, help: str, *, complete: str | None = None, **attrs: Any) -> Callable[[F], F]:  # noqa: A002
    """Add an argument of a command; ``complete`` makes the shell complete paths, of a ``file`` or a ``dir``."""
    return click.argument(name, metavar=metavar, help=help, shell_complete=_completer(complete), **attrs)


def option(
    spelling: str,
    help: str,  # noqa: A002
    name: str | None = None,
    *,
    complete: str | Callable[..., list[str]] | None = None,
    cls: type[click.Option] = _Option,
    **attrs: Any,
) -> Callable[[F], F]:
    """Add an option of a command, spelled as in its help: ``--wait``, which is a flag, or ``-o, --output FILE``.

    ``name`` is the name of the parameter if it differs from the option's; ``complete`` is a function, or as for an
    argument.
    """
    names = spelling.replace(",", "").split()
    if names[-1].startswith("-"):
        attrs["is_flag"] = True  # with False, the value of an option would be optional
    else:
        attrs["metavar"] = names.pop()
    completer = complete if callable(complete) else _completer(complete)
    return click.option(*names, *filter(None, [name]), cls=cls, help=help, shell_complete=completer, **attrs)


def _completer(kind: str | None) -> Callable[..., list[CompletionItem]] | None:
    if kind is None:
        return None

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        return [CompletionItem(incomplete, type=kind)]

    return complete
