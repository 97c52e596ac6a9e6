"""`strep call`: the carrier's Call Commands, each with a flag for each of its parameters."""

from __future__ import annotations

import argparse
import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from strep.cli.arguments import Parser, add_command, seconds
from strep.cli.errors import FailureError, WrongInputError
from strep.cli.output import print_json, print_plain

if TYPE_CHECKING:
    from strep.control.base import Call, Command, CommandResult

NAMES = (
    "dial", "answer", "bridge", "client_state_update", "enqueue", "fork_start", "fork_stop",
    "gather", "gather_stop", "gather_using_audio", "gather_using_speak", "hangup", "leave_queue",
    "playback_start", "playback_stop", "record_pause", "record_resume",
)  # fmt: skip
"""The commands, named here so that `strep` starts without their models."""
BASE_URL_VARIABLE = "STREP_CONTROL_BASE_URL"
SAMPLES = {
    "dial": "--connection-id 7267 --from +18005550101 --to +18005550100",
    "bridge": "v3:CALL --call-control-id v3:OTHER",
    "client_state_update": "v3:CALL --client-state 'ticket 17'",
    "enqueue": "v3:CALL --queue-name support",
    "fork_start": "v3:CALL --target udp:192.0.2.1:9000",
    "gather": "v3:CALL --maximum-digits 4",
    "gather_using_audio": "v3:CALL --audio-url https://example.org/menu.wav",
    "gather_using_speak": "v3:CALL --language en-US --voice female --payload 'Your PIN, please.'",
    "playback_start": "v3:CALL --playback-content @hello.mp3 --loop 2",
}
"""What follows the name in the example of a command; else it is the call alone."""


def add(commands: Any) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "call",
        run,
        "send a Call Command to the carrier",
        f"strep call dial {SAMPLES['dial']}\n  strep call hangup v3:CALL\n\n"
        "the API key comes from STREP_API_KEY, STREP_API_KEY_FILE or TELNYX_API_KEY;\n"
        "strep call NAME --help shows a command's parameters",
    )
    parser.add_argument("name", choices=NAMES, metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("rest", nargs=argparse.REMAINDER, metavar="...", help="its parameters")


def run(arguments: argparse.Namespace) -> None:
    """Send the command and print the result."""
    from strep import logs  # noqa: PLC0415 -- other commands start without these
    from strep.cli.parameters import read_parameters  # noqa: PLC0415
    from strep.control import errors  # noqa: PLC0415
    from strep.control.commands import COMMANDS  # noqa: PLC0415

    kind = COMMANDS[arguments.name]
    given = _parser(kind).parse_args(arguments.rest)
    logs.configure("console", "error")  # what comes of retries is said at the end
    try:
        command = kind(**read_parameters(given, kind))
        result = asyncio.run(_send(command, given))
    except (errors.ValidationError, errors.NotFoundError, errors.AuthenticationError) as error:
        raise WrongInputError(str(error)) from None
    except errors.CallControlError as error:
        raise FailureError(str(error)) from None
    if given.json:
        print_json(result.model_dump(mode="json", exclude_none=True))
    else:
        _print(result)


def _parser(kind: type[Command]) -> argparse.ArgumentParser:
    from strep.cli.parameters import add_parameters  # noqa: PLC0415
    from strep.control.base import BASE_URL  # noqa: PLC0415

    sample = SAMPLES.get(kind.name, "v3:CALL")
    takes_call = "{call_control_id}" in kind.path
    parser = Parser(
        prog=f"strep call {kind.name}",
        allow_abbrev=False,
        usage=f"%(prog)s {'CALL ' if takes_call else ''}[OPTION ...]",
        description=kind.__doc__,
        epilog=f"example:\n  strep call {kind.name} {sample}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if takes_call:
        parser.add_argument("call", metavar="CALL", help="the call's call_control_id")
    else:
        parser.set_defaults(call=None)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--base-url",
        metavar="URL",
        default=os.environ.get(BASE_URL_VARIABLE) or BASE_URL,
        help=f"where commands are sent (default: {BASE_URL_VARIABLE}, or else {BASE_URL})",
    )
    parser.add_argument("--api-key-file", type=Path, metavar="FILE", help="holds the API key")
    parser.add_argument(
        "--timeout", type=seconds, default=20.0, metavar="SECONDS",
        help="how long to try, with all retries (default 20)",
    )  # fmt: skip
    add_parameters(parser, kind)
    return parser


async def _send(command: Command, given: argparse.Namespace) -> Call | CommandResult:
    from strep.control.client import CallControl  # noqa: PLC0415

    async with CallControl(
        key_file=given.api_key_file, base_url=given.base_url, total_timeout_s=given.timeout
    ) as carrier:
        return await carrier.send(command, given.call)


def _print(result: Call | CommandResult) -> None:
    document = result.model_dump(mode="json", exclude_none=True)
    if "call_control_id" not in document:
        ended = document.get("already_ended")
        print_plain("the call has ended already" if ended else document.get("result", "ok"))
        return
    for name in ("call_control_id", "call_leg_id", "call_session_id"):
        print_plain(f"{name:<16} {document[name]}")
