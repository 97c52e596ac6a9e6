"""What the parsers of several commands have in common."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

SINK_HELP = (
    "what is done with the audio: wav, vad, dtmf, log, another installed sink, or "
    "package.module:Class; repeat for several"
)

PAYLOAD_TYPES_HELP = (
    "what dynamic RTP payload types stand for: 96=opus,97=L16/16000; all but L16 and G.711 need "
    "strep[codecs]"
)


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
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text} is not a speed above 0")
    return value


def seconds(text: str) -> float:
    """Read a number of seconds, for argparse."""
    value = float(text)
    if not 0 < value <= 3600:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds up to 3600")
    return value
