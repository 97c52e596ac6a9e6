"""`strep demo`: a carrier, the daemon and a call, on loopback."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from strep.cli.arguments import add_command, speed
from strep.cli.output import out, print_json, print_plain, progress, track_table

if TYPE_CHECKING:
    import argparse

NO_PICTURE = "needs matplotlib: pip install 'strep[picture]'"


def add(commands: Any) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "demo",
        run,
        "run a stand-in carrier and the daemon, dial a call and show what came out",
        "strep demo --speed 4",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("demo"), metavar="DIR", help="default: ./demo"
    )
    parser.add_argument(
        "--speed", type=speed, default=1.0, metavar="X", help="times real time (default 1)"
    )
    parser.add_argument("--seed", type=int, default=7, help="of the network's misfortunes")
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")


def run(arguments: argparse.Namespace) -> None:
    """Run the demo and print what came out."""
    from strep import demo  # noqa: PLC0415 -- other commands start without it

    with progress() as bar:
        task = bar.add_task("", total=None)

        def show(text: str, part: float | None) -> None:
            if part is None:
                bar.update(task, description=text)
            else:
                bar.update(task, description=text, total=1.0, completed=part)

        outcome = asyncio.run(
            demo.run(arguments.out, speed=arguments.speed, seed=arguments.seed, progress=show)
        )
    files = {
        "recording": outcome.recording,
        "manifest": outcome.manifest,
        "picture": outcome.picture,
        "report": outcome.report,
        "database": outcome.database,
    }
    if arguments.json:
        print_json(
            {
                "call": outcome.call,
                "sent": outcome.sent,
                "dropped": outcome.dropped,
                **{name: None if file is None else str(file) for name, file in files.items()},
                "tracks": outcome.tracks,
            }
        )
        return
    call = outcome.call
    print_plain(f"{call['from']} called {call['to']}: call {call['call_leg_id']}")
    print_plain(f"{outcome.sent} packets arrived, {outcome.dropped} were lost on the way")
    out.print()
    out.print(track_table(outcome.tracks))
    if not math.isclose(arguments.speed, 1):
        out.print("(jitter is measured on our clock: true at --speed 1)")
    out.print()
    for name, file in files.items():
        print_plain(f"{name:<10} {file or NO_PICTURE}")
