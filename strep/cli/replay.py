"""`strep replay`: a capture's RTP, sent as a carrier would fork it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

from strep.cli.arguments import add_command, speed
from strep.cli.output import err, print_json, print_plain, progress, warn

if TYPE_CHECKING:
    import argparse


def add(commands: Any) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "replay",
        run,
        "send a capture's RTP as a carrier would fork it",
        "strep replay call.pcap --to 127.0.0.1:9000 --strep",
    )
    parser.add_argument(
        "capture", type=Path, metavar="CAPTURE", help="a pcap or pcapng file, .gz or not"
    )
    parser.add_argument("--to", required=True, metavar="HOST:PORT", help="where to send it")
    wrapping = parser.add_mutually_exclusive_group()
    wrapping.add_argument(
        "--strep", dest="wrapping", action="store_const", const="strep",
        help="wrap plain RTP in STREP, a call leg of its own for each stream",
    )  # fmt: skip
    wrapping.add_argument(
        "--rtp", dest="wrapping", action="store_const", const="rtp",
        help="take STREP headers off (default: as captured)",
    )  # fmt: skip
    parser.add_argument(
        "--speed",
        type=speed,
        default=1.0,
        metavar="X",
        help="times real time (default 1), or inf for as fast as it goes",
    )
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")


def run(arguments: argparse.Namespace) -> None:
    """Send a capture and print what became of it."""
    from strep import replay  # noqa: PLC0415 -- other commands start without these
    from strep.config import ConfigError, parse_address  # noqa: PLC0415

    try:
        to = parse_address(arguments.to)
    except ConfigError as error:
        raise ConfigError(f"--to: {error}") from None
    loaded = replay.load(arguments.capture, arguments.wrapping)
    if loaded.cut:
        warn(loaded.cut)
    with progress() as bar:
        task = bar.add_task(f"sending {arguments.capture.name}", total=len(loaded.datagrams))
        try:
            report = asyncio.run(
                replay.send(
                    loaded,
                    to,
                    speed=arguments.speed,
                    progress=lambda sent: bar.update(task, completed=sent),
                )
            )
        except OSError as error:
            raise ConfigError(f"cannot send to {arguments.to}: {error.strerror}") from None
    outcome = {
        "sent": report.sent,
        "streams": loaded.streams,
        "refused": report.refused,
        "not_rtp": loaded.skipped,
        "duration_s": round(report.duration_s, 3),
    }
    if arguments.json:
        print_json(outcome, indent=None)
        return
    streams = "1 stream" if loaded.streams == 1 else f"{loaded.streams} streams"
    skipped = f"; {loaded.skipped} datagrams of the capture are no RTP" if loaded.skipped else ""
    print_plain(f"sent {report.sent} packets of {streams} in {report.duration_s:.1f} s{skipped}")
    if report.refused:
        err.print(f"nobody listens on {arguments.to}: {report.refused} refused", style="yellow")
