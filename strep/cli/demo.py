"""`strep demo`: the daemon and a call to it, on loopback."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from strep.cli.arguments import add_command, speed
from strep.cli.output import out, print_json, progress, track_table

if TYPE_CHECKING:
    import argparse


def add(commands: Any) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "demo",
        run,
        "start a daemon on loopback, place a call to it and show what came out",
        "strep demo --speed 4",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("demo"), metavar="DIR", help="default: ./demo"
    )
    parser.add_argument(
        "--speed", type=speed, default=1.0, metavar="X", help="times real time (default 1)"
    )
    parser.add_argument("--seed", type=int, default=3, help="of the network's misfortunes")
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")


def run(arguments: argparse.Namespace) -> None:
    """Run the demo and print what came out."""
    from strep import demo  # noqa: PLC0415 -- other commands start without it

    with progress() as bar:
        task = bar.add_task("starting the daemon", total=None)
        outcome = asyncio.run(
            demo.run(
                arguments.out,
                speed=arguments.speed,
                seed=arguments.seed,
                started=lambda packets: bar.update(
                    task, description="a call of two parties", total=packets
                ),
                progress=lambda sent: bar.update(task, completed=sent),
            )
        )
    if arguments.json:
        print_json(
            {
                "call_leg_id": str(outcome.call_leg_id),
                "sent": outcome.sent,
                "dropped": outcome.dropped,
                "recording": str(outcome.recording),
                "manifest": str(outcome.manifest),
                "picture": None if outcome.picture is None else str(outcome.picture),
                "tracks": outcome.tracks,
            }
        )
        return
    out.print(
        f"call {outcome.call_leg_id}: {outcome.sent} packets arrived, "
        f"{outcome.dropped} were lost on the way\n",
        highlight=False,
        soft_wrap=True,
    )
    out.print(track_table(outcome.tracks))
    if not math.isclose(arguments.speed, 1):
        out.print("(jitter is measured against the sender's clock: true at --speed 1)")
    out.print()
    for name, path in (
        ("recording", outcome.recording),
        ("manifest", outcome.manifest),
        ("picture", outcome.picture or "needs matplotlib: pip install 'strep[picture]'"),
    ):
        out.print(f"{name:<10} {path}", highlight=False, soft_wrap=True)
