"""`strep calls`: the calls that the daemon knows, one of them in full, and pauses of recordings."""

from __future__ import annotations

import argparse
import os
import re
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from strep.cli.arguments import add_command
from strep.cli.daemon import add_daemon, ask
from strep.cli.errors import WrongInputError
from strep.cli.output import is_wide, out, print_json, print_plain, table

if TYPE_CHECKING:
    from strep.store import (
        CallDetails,
        CallOverview,
        CallQuality,
        Page,
        Store,
        StoredFork,
        StoredTrack,
    )

UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
TIME_HELP = "a date or time, UTC where it names no zone, or such as 30m, 12h or 7d before now"


def add(commands: Any) -> None:
    """Add the command and its own ones."""
    parser = add_command(
        commands,
        "calls",
        run,
        "list and search the calls that the daemon has seen, the newest first",
        "strep calls --number 5550100 --since 7d\n  strep calls show 428c31b6\n"
        "  strep calls pause 428c31b6",
    )
    parser.add_argument(
        "--database", type=Path, metavar="FILE", help="default: that of the daemon's settings"
    )
    parser.add_argument(
        "--number", metavar="N", help="a number that called or was called, or a part of it"
    )
    parser.add_argument(
        "--since", type=moment, metavar="T", help=f"started then or later: {TIME_HELP}"
    )
    parser.add_argument("--until", type=moment, metavar="T", help="started before then")
    parser.add_argument("--leg", metavar="ID", help="call_leg_id, or the beginning of it")
    parser.add_argument("--open", action="store_true", help="only calls that are not over")
    parser.add_argument(
        "--limit", type=count, default=20, metavar="N", help="how many (default 20)"
    )
    parser.add_argument("--after", metavar="ID", help="go on after this call, the last one shown")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    own = parser.add_subparsers(title="commands", metavar="COMMAND")
    show = add_command(
        own,
        "show",
        run_show,
        "show a call with its forks, tracks and files",
        "strep calls show 428c31b6",
    )
    show.add_argument(
        "id", metavar="ID", help="call_leg_id, the beginning of one, or call_control_id"
    )
    # given before `show` or after it; what is not given after it must not undo what was before
    show.add_argument(
        "--database", type=Path, metavar="FILE", default=argparse.SUPPRESS, help="as above"
    )
    show.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON")
    for name, function, text in (
        ("pause", run_pause, "record silence in place of a call's sound, from now on"),
        ("resume", run_resume, "record a call's sound again"),
    ):
        each = add_command(own, name, function, text, f"strep calls {name} 428c31b6")
        each.add_argument(
            "id", metavar="ID", help="call_leg_id, the beginning of one, or call_control_id"
        )
        add_daemon(each)
        each.add_argument(
            "--json", action="store_true", default=argparse.SUPPRESS, help="print JSON"
        )


def run(arguments: argparse.Namespace) -> None:
    """List the calls that were asked for."""
    with open_store(arguments.database) as store:
        page = store.search(
            number=arguments.number,
            since_ns=arguments.since,
            until_ns=arguments.until,
            call_leg_id=arguments.leg,
            is_open=arguments.open,
            after=arguments.after,
            limit=arguments.limit,
        )
    if arguments.json:
        print_json(page.as_json())
    else:
        _print_page(page)


def run_show(arguments: argparse.Namespace) -> None:
    """Show one call."""
    with open_store(arguments.database) as store:
        details = store.details(arguments.id)
    if arguments.json:
        print_json(details.as_json())
    else:
        _print_details(details)


def run_pause(arguments: argparse.Namespace) -> None:
    """Pause the recordings of a call."""
    _ask_for(arguments, "pause")


def run_resume(arguments: argparse.Namespace) -> None:
    """Resume the recordings of a call."""
    _ask_for(arguments, "resume")


def moment(text: str) -> int:
    """Read a time for argparse, see `TIME_HELP`; nanoseconds since 1970 UTC."""
    from strep.store import unix_ns  # noqa: PLC0415 -- other commands start without it

    if match := re.fullmatch(r"(\d{1,5})([smhd])", text):
        return time.time_ns() - int(match[1]) * UNIT_S[match[2]] * 1_000_000_000
    try:
        return unix_ns(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither a time from 1678 to 2262, such as 2026-01-31 or "
            "2026-01-31T12:00:00Z, nor such as 30m, 12h or 7d"
        ) from None


def count(text: str) -> int:
    """Read a whole number above 0, for argparse."""
    if re.fullmatch(r"\d{1,9}", text) and int(text):
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")


def _ask_for(arguments: argparse.Namespace, action: str) -> None:
    """Have a daemon do something with a call's recordings, and print how they are then."""
    call_id = quote(arguments.id, safe="")
    if not call_id:
        raise WrongInputError("ID is empty")
    state = ask(arguments, "POST", f"/v1/calls/{call_id}/recording/{action}")
    if arguments.json:
        print_json(state)
    else:
        print_plain(f"{state['call_leg_id']} {'paused' if state['is_paused'] else 'recording'}")


def open_store(flag: Path | None) -> Store:
    """Open the database that was asked for, or else the one that the daemon keeps, to read it."""
    from strep.store import Store  # noqa: PLC0415 -- other commands start without it

    return Store(_database(flag), read_only=True)


def _database(flag: Path | None) -> Path:
    from strep import config  # noqa: PLC0415 -- other commands start without it

    if flag is not None:
        return flag
    # without the settings of [control]: those of `strep call` are not enough for a daemon
    environ = {k: v for k, v in os.environ.items() if not k.startswith("STREP_CONTROL_")}
    file = config.load(None, environ, {}).database_file
    if file is None:
        raise config.ConfigError("no database is kept (database: none): name one with --database")
    return file


def _print_page(page: Page) -> None:
    if page.calls:
        rows = [_call_row(call) for call in page.calls]
        numbers = {"duration", "packets", "lost", "loss", "burst", "jitter", "mos"}
        out.print(table(rows, numbers=numbers, elastic={"from", "to"}))
    else:
        out.print("no calls")
    if page.next is not None:
        print_plain(f"there are more: --after {page.next}")


def _call_row(overview: CallOverview) -> dict[str, object]:
    call = overview.call
    wide = is_wide()
    return {
        "call leg": call.call_leg_id[:8],
        "began (UTC)": _utc(call.started_ns, "%Y-%m-%d %H:%M:%S" if wide else "%Y-%m-%d %H:%M"),
        "from": call.from_number,
        "to": call.to_number,
        **({"direction": call.direction} if wide else {}),
        "state": call.state,
        **({"hangup cause": call.hangup_cause} if wide else {}),
        "duration": _duration(overview),
        **({"packets": overview.packets} if wide else {}),
        "lost": overview.lost,
        **(_quality(overview.quality) if wide else {}),
        "mos": _number(overview.quality.mos, 2),
    }


def _quality(quality: CallQuality) -> dict[str, object]:
    loss_ratio = quality.loss_ratio
    return {
        "loss": None if loss_ratio is None else f"{loss_ratio:.2%}",
        "burst": quality.burst_longest_packets,
        "jitter": _with_unit(quality.jitter_mean_ms, "ms"),
    }


def _print_details(details: CallDetails) -> None:
    call = details.overview.call
    for name, value in {
        "call leg": call.call_leg_id,
        "control id": call.call_control_id,
        "session": call.call_session_id,
        "connection": call.connection_id,
        "from": call.from_number,
        "to": call.to_number,
        "direction": call.direction,
        "client state": call.client_state,
        "state": call.state,
        "hangup cause": call.hangup_cause,
        "began (UTC)": _utc(call.started_ns),
        "answered": _utc(call.answered_ns),
        "ended": _utc(call.ended_ns),
        "duration": _duration(details.overview),
    }.items():
        if value is not None:
            print_plain(f"{name:<13}{value}")
    if details.forks:
        out.print()
        rows = [_fork_row(fork) for fork in details.forks]
        out.print(table(rows, elastic={"fork", "why"}))
    if details.tracks:
        out.print()
        rows = [_track_row(track) for track in details.tracks]
        out.print(table(rows, numbers=rows[0].keys() - {"side", "opened", "closed"}))
    files = [path for track in details.tracks for path in (track.recording, track.manifest) if path]
    if files:
        out.print()
    for path in dict.fromkeys(files):
        print_plain(path)


def _fork_row(fork: StoredFork) -> dict[str, object]:
    return {
        "fork": fork.id,
        "requested": _utc(fork.requested_ns),
        "way": "target" if fork.way == "target" else f"ports {fork.rx_port}, {fork.tx_port}",
        **({"stream": fork.stream_type} if is_wide() else {}),
        "state": fork.state,
        "why": fork.why,
    }


def _track_row(track: StoredTrack) -> dict[str, object]:
    wide = is_wide()
    return {
        "side": f"{track.leg} {track.direction}",
        "opened": _utc(track.opened_ns, "%H:%M:%S"),
        "closed": track.reason or "open",
        "duration": _with_unit(track.duration_s, "s", decimals=2),
        "packets": track.packets,
        "lost": track.lost,
        "late": track.late,
        **({"dup": track.duplicate, "reord": track.reordered} if wide else {}),
        **({"runs": track.loss_runs, "longest": track.longest_loss} if wide else {}),
        "jitter": _with_unit(track.jitter_mean_ms, "ms"),
        **({"drift": _with_unit(track.drift_ppm, "ppm")} if wide else {}),
        "speech": _with_unit(track.speech_s, "s"),
        "mos": _number(track.mos, 2),
        **({"concealed": _number(track.mos_concealed, 2)} if wide else {}),
    }


def _utc(unix_ns: int | None, form: str = "%Y-%m-%d %H:%M:%S") -> str | None:
    if unix_ns is None:
        return None
    return datetime.fromtimestamp(unix_ns // 1_000_000_000, UTC).strftime(form)


def _duration(overview: CallOverview) -> str | None:
    if overview.is_open:
        return "open"
    if overview.duration_s is None:
        return None
    return str(timedelta(seconds=round(overview.duration_s)))


def _number(value: float | None, decimals: int) -> str | None:
    return None if value is None else f"{value:.{decimals}f}"


def _with_unit(value: float | None, unit: str, *, decimals: int = 1) -> str | None:
    return None if value is None else f"{value:.{decimals}f} {unit}"
