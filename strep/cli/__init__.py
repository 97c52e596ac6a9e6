"""The command `strep`.

Each command is a module of this package with a function `add(commands)`, which adds its parser and
says what runs it; `COMMANDS` lists them in the order of the help. What a command needs to run it
imports when it runs, so that every command starts as fast as it can.

Whatever is wrong with what was asked for ends as one line on standard error and exit code 2; what
others could not do, such as a carrier that is down, with exit code 1.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import TYPE_CHECKING, NoReturn

from strep import __version__
from strep.cli import analyze, call, calls, demo, fork, replay, report, serve, simulate
from strep.cli.arguments import Parser
from strep.cli.errors import FailureError, WrongInputError
from strep.cli.output import err, safe

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

COMMANDS = (serve, analyze, replay, calls, report, call, fork, simulate, demo)

EXIT_FAILURE = 1
"""Exit code where what was asked for could not be done."""
EXIT_INPUT = 2
"""Exit code for wrong input, as argparse has it too."""


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit."""
    arguments = _parser().parse_args(argv)
    if not hasattr(arguments, "command"):
        _parser().print_help()
        sys.exit(EXIT_INPUT)
    try:
        _run(arguments)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # the reader of our output has gone: nothing is left to say, not even at exit
        _silence_output()
        sys.exit(EXIT_FAILURE)
    except FailureError as error:
        _end(error, EXIT_FAILURE)
    except _input_errors() as error:
        _end(error, EXIT_INPUT)
    except OSError as error:
        if error.errno != errno.ENOSPC or error.filename is not None:
            raise
        _silence_output()
        _end(FailureError(f"standard output cannot be written: {error.strerror}"), EXIT_FAILURE)
    sys.exit(0)


def _run(arguments: argparse.Namespace) -> None:
    """Carry out the command, and have all that it printed written."""
    arguments.command(arguments)
    if sys.stdout is not None and not sys.stdout.closed:
        sys.stdout.flush()


def _silence_output() -> None:
    """Let what is still to be printed go nowhere, where standard output cannot be written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _end(error: Exception, code: int) -> NoReturn:
    err.print(safe(f"strep: {error}"), style="red", highlight=False, soft_wrap=True)
    sys.exit(code)


def _input_errors() -> tuple[type[Exception], ...]:
    """Return the errors that say what was wrong with what was asked for."""
    from pipeline.sinks.base import SinkError  # noqa: PLC0415 -- only when something is wrong
    from strep.config import ConfigError  # noqa: PLC0415
    from strep.demo import DemoError  # noqa: PLC0415
    from strep.http import HttpError  # noqa: PLC0415
    from strep.receive.capture import CaptureError  # noqa: PLC0415
    from strep.receive.sockets import ListenError  # noqa: PLC0415
    from strep.store import StoreError  # noqa: PLC0415
    from strep.workplace import WorkerError  # noqa: PLC0415

    return (
        CaptureError,
        ConfigError,
        DemoError,
        HttpError,
        ListenError,
        SinkError,
        StoreError,
        WorkerError,
        WrongInputError,
    )


def _parser() -> Parser:
    parser = Parser(
        prog="strep",
        description="Receive forked call media (STREP or plain RTP) and turn it into recordings, "
        "speech marks and statistics.",
    )
    parser.add_argument("--version", action="version", version=f"strep {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return parser
