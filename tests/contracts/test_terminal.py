"""The terminal on the first page is what the command prints today.

``python tests/contracts/test_terminal.py`` records it again.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
from pathlib import Path
from unittest import mock
from xml.etree import ElementTree

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from together_batches.cli import main
from together_batches.emulator import Emulator, Timing

PICTURE = Path(__file__).parents[2] / "docs" / "images" / "terminal.svg"
SESSION = ("list --count-by status", "cancel --all --older-than 2h --yes --wait", "list --count-by status")
JOBS, WIDTH = 500, 68
MODELS = ("openai/gpt-oss-20b", "openai/gpt-oss-120b", "meta-llama/Llama-3.3-70B-Instruct-Turbo")
SECONDS = re.compile(r"took [\d.]+ s")
COLOURS = TerminalTheme(
    (24, 26, 31),
    (220, 223, 228),
    [
        (24, 26, 31),
        (240, 113, 120),
        (126, 200, 127),
        (229, 192, 123),
        (97, 175, 239),
        (198, 120, 221),
        (86, 182, 194),
        (220, 223, 228),
    ],
)
# Of rich's own, but without fonts from elsewhere.
PAGE = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">
<style>
.{unique_id}-matrix {{ font: {char_height}px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; }}
.{unique_id}-title {{ font: bold 18px system-ui, "DejaVu Sans", sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


class Screen(io.StringIO):
    """A terminal that keeps what is printed."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def fill(emulator: Emulator) -> None:
    """Add jobs that stay as they are until they are cancelled; some complete in spite of that."""
    for number in range(JOBS):
        status = {0: "VALIDATING", 1: "COMPLETED", 2: "FAILED"}.get(number % 17, "IN_PROGRESS")
        emulator.add_job(
            status=status,
            ends_as=status,
            cancels_as="COMPLETED" if number % 40 == 3 else "CANCELLED",
            age_seconds=3600 * (number % 5 + 0.5),
            model_id=MODELS[number % len(MODELS)],
        )


def recorded() -> str:
    """Run the commands of the session on a terminal, against an emulator with the same jobs each time."""
    emulator = Emulator(timing=Timing(canceling=0.2))
    screen = Screen()
    settings = {"COLUMNS": str(WIDTH), "TERM": "xterm-256color", "CI": "1"}  # of a build server: no bar is redrawn
    with emulator.running_in_thread(), contextlib.redirect_stdout(screen), contextlib.redirect_stderr(screen):
        fill(emulator)
        settings |= {"TOGETHER_BASE_URL": emulator.base_url, "TOGETHER_API_KEY": str(emulator.api_key)}
        with mock.patch.dict(os.environ, settings):
            os.environ.pop("NO_COLOR", None)
            for command in SESSION:
                screen.write(f"\x1b[1;32m$\x1b[0m \x1b[1mtogether-batches {command}\x1b[0m\n")
                assert main(shlex.split(command)) == 0
    return screen.getvalue().rstrip()


def drawn(output: str) -> str:
    """Return the picture of a terminal with this output."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), color_system="truecolor", no_color=False)
    console.print(Text.from_ansi(output), soft_wrap=True)
    return console.export_svg(title="together-batches", theme=COLOURS, code_format=PAGE, unique_id="terminal")


def shown(picture: str) -> str:
    """Return the text in a picture, without what differs from run to run."""
    texts = (
        element.text or "" for element in ElementTree.fromstring(picture).iter("{http://www.w3.org/2000/svg}text")
    )
    return SECONDS.sub("took … s", " ".join(" ".join(texts).replace("\xa0", " ").split()))


def test_the_terminal_on_the_first_page_is_current() -> None:
    """The picture shows what the session prints, but for the seconds that it took; if not, run this file."""
    assert shown(PICTURE.read_text("utf-8")) == shown(drawn(recorded()))


def test_the_picture_needs_nothing_from_elsewhere() -> None:
    """No font or image comes from another host."""
    assert re.findall(r"url\((?!#)|https?://(?!www\.w3\.org/)", PICTURE.read_text("utf-8")) == []


if __name__ == "__main__":
    PICTURE.write_text(drawn(recorded()), "utf-8")
