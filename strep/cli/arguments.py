"""What the parsers of several commands have in common."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SINK_HELP = (
    "what is done with the audio: wav, vad, dtmf, log, another installed sink, or "
    "package.module:Class; repeat for several"
)

PAYLOAD_TYPES_HELP = (
    "what dynamic RTP payload types stand for: 96=opus,97=L16/16000; all but L16 and G.711 need "
    "strep[codecs]"
)


class Parser(argparse.ArgumentParser):
    """A parser that says in one line what is wrong, and of which command it is."""

    def parse_known_args(  # type: ignore[override]  # what is not known is wrong here
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse, and end where something is left."""
        parsed, rest = super().parse_known_args(args, namespace)
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        return parsed, rest

    def error(self, message: str) -> NoReturn:
        """End with one line."""
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def add_command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], None], text: str, example: str
) -> argparse.ArgumentParser:
    """Add a command that `run` carries out, and return its parser.

    `commands` is what `ArgumentParser.add_subparsers` returned. `text`, a phrase in lower case
    without a full stop, stands in the list of commands and begins the command's own help.
    """
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ".",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=run)
    return parser


def speed(text: str) -> float:
    """Read a speed in times real time, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a speed above 0, such as 4, or inf")
    return value


def seconds(text: str) -> float:
    """Read a number of seconds, for argparse."""
    value = float(text)
    if not 0 < value <= 3600:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds up to 3600")
    return value
