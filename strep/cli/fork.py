"""`strep fork`: start, stop and list the forks of a running daemon, by its HTTP interface."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import UUID

from strep.cli.arguments import add_command
from strep.cli.errors import FailureError, WrongInputError
from strep.cli.output import is_wide, out, print_json, print_plain, safe, table, warn

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

DAEMON = "http://127.0.0.1:8080"
DAEMON_VARIABLE = "STREP_DAEMON"
CONNECT_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 660.0
"""A command to the carrier may take ten minutes, where the daemon is told so."""


def add(commands: Any) -> None:
    """Add the command and its own ones."""
    parser = add_command(
        commands,
        "fork",
        run_list,
        "start, stop and list the forks of a running daemon",
        "strep fork start v3:CALL\n  strep fork list\n  strep fork stop 5f7d7b0e",
    )
    parser.set_defaults(all=False)
    own = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    start = add_command(
        own,
        "start",
        run_start,
        "fork the media of a call",
        "strep fork start v3:CALL --way ports",
    )
    start.add_argument("call", metavar="CALL", help="the call's call_control_id")
    start.add_argument(
        "--leg", metavar="UUID", help="its call_leg_id, where no webhook has told the daemon"
    )
    start.add_argument(
        "--way", choices=("target", "ports"), help="STREP on the shared port, or RTP on two ports"
    )
    start.add_argument("--stream-type", choices=("raw", "decrypted"), help="what is forked")
    start.add_argument(
        "--client-state",
        metavar="TEXT",
        help="state for every further webhook of the call; it is encoded in Base64 here",
    )
    stop = add_command(own, "stop", run_stop, "stop a fork", "strep fork stop 5f7d7b0e")
    stop.add_argument("id", metavar="ID", help="the fork's id, or the beginning of it")
    listing = add_command(own, "list", run_list, "list the open forks", "strep fork list --all")
    listing.add_argument("--all", action="store_true", help="those closed lately too")
    for each in (start, stop, listing):
        each.add_argument(
            "--daemon",
            metavar="URL",
            default=os.environ.get(DAEMON_VARIABLE) or DAEMON,
            help=f"where the daemon serves HTTP (default: {DAEMON_VARIABLE}, or else {DAEMON})",
        )
        each.add_argument(
            "--token-file",
            type=Path,
            metavar="FILE",
            help="holds the daemon's token (default: STREP_HTTP_TOKEN, or the file that"
            " STREP_HTTP_TOKEN_FILE names)",
        )
        each.add_argument("--json", action="store_true", help="print JSON")


def run_start(arguments: argparse.Namespace) -> None:
    """Start a fork."""
    from strep.control.parameters import Base64  # noqa: PLC0415 -- other commands start without it

    state = arguments.client_state
    wanted = {
        "call_control_id": arguments.call,
        "call_leg_id": arguments.leg,
        "way": arguments.way,
        "stream_type": arguments.stream_type,
        "client_state": None if state is None else Base64.of(state),
    }
    given = {key: value for key, value in wanted.items() if value is not None}
    _print_fork(_ask(arguments, "POST", "/v1/forks", given), arguments)


def run_stop(arguments: argparse.Namespace) -> None:
    """Stop a fork."""
    fork_id = _whole_id(arguments)
    _print_fork(_ask(arguments, "DELETE", f"/v1/forks/{fork_id}"), arguments)


def run_list(arguments: argparse.Namespace) -> None:
    """List forks."""
    forks = _forks(arguments)
    if not arguments.all:
        forks = [fork for fork in forks if fork["state"] not in {"stopped", "failed"}]
    if arguments.json:
        print_json({"forks": forks})
    elif forks:
        rows = [_row(fork) for fork in forks]
        out.print(table(rows, elastic={"call", "error"}))
    else:
        out.print("no forks")


def _forks(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    forks: list[dict[str, Any]] = _ask(arguments, "GET", "/v1/forks")["forks"]
    return forks


def _whole_id(arguments: argparse.Namespace) -> UUID:
    try:
        return UUID(arguments.id)
    except ValueError:
        pass
    found = [fork["id"] for fork in _forks(arguments) if fork["id"].startswith(arguments.id)]
    if len(found) != 1:
        several = f"several forks begin with {arguments.id}: {', '.join(found[:5])}"
        raise WrongInputError(several if found else f"there is no fork {arguments.id}")
    return UUID(found[0])


def _print_fork(fork: Mapping[str, Any], arguments: argparse.Namespace) -> None:
    if arguments.json:
        print_json(fork)
    else:
        print_plain(f"{fork['id']} {fork['state']}")
    if fork["in_doubt"]:
        warn(str(safe(f"in doubt, and the daemon will ask again: {fork['error']}")))


def _row(fork: Mapping[str, Any]) -> dict[str, object]:
    wide = is_wide()
    requested_at = fork["changes"][0]["at"]
    ports = f"ports {fork['rx_port']}, {fork['tx_port']}"
    return {
        "fork": fork["id"] if wide else fork["id"][:8],
        "began (UTC)": requested_at[:19].replace("T", " ") if wide else requested_at[11:19],
        "call leg": fork["call_leg_id"] and fork["call_leg_id"][:8],
        "call": fork["call_control_id"],
        "way": "target" if fork["way"] == "target" else ports,
        **({"stream": fork["stream_type"]} if wide else {}),
        "state": "stopping" if fork["is_stopping"] else fork["state"],
        "why": fork["why"],
        **({"error": fork["error"]} if wide else {}),
    }


def _ask(
    arguments: argparse.Namespace, method: str, path: str, body: Mapping[str, Any] | None = None
) -> Any:
    """Return the daemon's answer. Raises `WrongInputError` or `FailureError` with its words."""
    from strep.api.access import find_token  # noqa: PLC0415 -- other commands start without it

    daemon = _checked_url(arguments.daemon)
    token = find_token(arguments.token_file, os.environ)
    headers = {} if token is None else {"Authorization": f"Bearer {token.get_secret_value()}"}
    try:
        status, content = asyncio.run(_exchange(method, daemon + path, body, headers))
    except OSError as error:
        raise FailureError(f"no daemon answers at {daemon}: {_reason(error)}") from None
    if status == 401:
        raise WrongInputError(
            f"{daemon} asks for another token: set STREP_HTTP_TOKEN to it, or give --token-file"
        )
    try:
        document = json.loads(content)
        if status < 300:
            return document
        detail = document["detail"]
    except (ValueError, RecursionError, KeyError, TypeError):
        raise FailureError(f"{daemon} answers {status}, but not as a strep daemon does") from None
    raise (FailureError if status >= 500 else WrongInputError)(detail)


async def _exchange(
    method: str, url: str, body: Mapping[str, Any] | None, headers: Mapping[str, str]
) -> tuple[int, bytes]:
    """Return status and body of the answer. Raises OSError."""
    import aiohttp  # noqa: PLC0415 -- other commands start without it

    timeout = aiohttp.ClientTimeout(total=ANSWER_TIMEOUT_S, sock_connect=CONNECT_TIMEOUT_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, headers=headers) as session,
            # A redirect would take the token elsewhere.
            session.request(method, url, json=body, allow_redirects=False) as response,
        ):
            return response.status, await response.read()
    except aiohttp.ClientError as error:
        raise error if isinstance(error, OSError) else OSError(str(error)) from None


def _reason(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    # resolvers have numbers of their own, below 0
    return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)


def _checked_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme in {"http", "https"} and parts.netloc:
        return text.rstrip("/")
    raise WrongInputError(f"--daemon: {text!r} is not the URL of a daemon, such as {DAEMON}")
