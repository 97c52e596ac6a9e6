"""`strep fork`: start, stop and list the forks of a running daemon, by its HTTP interface."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from strep.cli.arguments import add_command
from strep.cli.daemon import add_daemon, ask
from strep.cli.errors import WrongInputError
from strep.cli.output import is_wide, out, print_json, print_plain, safe, table, warn

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping


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
    start.add_argument(
        "--codecs",
        metavar="NAME[,...]",
        help="what the call's media may be, such as the preferred_codecs that it was dialled with",
    )
    stop = add_command(own, "stop", run_stop, "stop a fork", "strep fork stop 5f7d7b0e")
    stop.add_argument("id", metavar="ID", help="the fork's id, or the beginning of it")
    listing = add_command(own, "list", run_list, "list the open forks", "strep fork list --all")
    listing.add_argument("--all", action="store_true", help="those closed lately too")
    for each in (start, stop, listing):
        add_daemon(each)
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
        "codecs": arguments.codecs,
    }
    given = {key: value for key, value in wanted.items() if value is not None}
    _print_fork(ask(arguments, "POST", "/v1/forks", given), arguments)


def run_stop(arguments: argparse.Namespace) -> None:
    """Stop a fork."""
    fork_id = _whole_id(arguments)
    _print_fork(ask(arguments, "DELETE", f"/v1/forks/{fork_id}"), arguments)


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
    forks: list[dict[str, Any]] = ask(arguments, "GET", "/v1/forks")["forks"]
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
