"""`strep serve`: the daemon."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from strep.cli.arguments import SINK_HELP, add_command

if TYPE_CHECKING:
    import argparse

    from strep.config import Settings

FLAGS = (
    "media", "http", "recordings", "sink", "workers", "max_tracks", "idle_timeout_s",
    "reorder_ms", "max_gap_s", "tick_ms", "slot_bytes", "receive_buffer_bytes", "log_format",
    "log_level",
)  # fmt: skip
"""The settings that have a flag."""


def add(commands: Any) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "serve",
        run,
        "run the daemon: receive forked media until SIGTERM",
        "strep serve --media 0.0.0.0:9000 --recordings /srv/calls "
        "--sink wav:layout=mono --sink vad",
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings as a TOML file")
    parser.add_argument(
        "--check", action="store_true", help="check the settings, print them as TOML and exit"
    )
    settings = parser.add_argument_group(
        "settings", "before STREP_... in the environment, before the file"
    )
    settings.add_argument(
        "--media",
        action="append",
        metavar="HOST:PORT",
        help="where media is received (default 0.0.0.0:9000); repeat for several. For plain RTP "
        "of one known track: HOST:PORT,call_leg_id=UUID,direction=inbound[,leg=B]",
    )
    settings.add_argument(
        "--http",
        metavar="HOST:PORT",
        help="health, metrics and open calls (default 127.0.0.1:8080), or none",
    )
    settings.add_argument("--recordings", metavar="DIR", help="default: ./recordings")
    settings.add_argument(
        "--sink",
        action="append",
        metavar="NAME[:key=value,...]",
        help=f"{SINK_HELP} (default: wav and vad), or none",
    )
    settings.add_argument(
        "--workers",
        metavar="N",
        help="processes that share the calls (default 1), or auto: one for each usable core",
    )
    for flag, text in {
        "max-tracks": "tracks open at once in each worker (default 16384)",
        "idle-timeout-s": "close a track that is silent on the wire so long (default 120)",
        "reorder-ms": "how long packets behind a missing one wait for it (default 60)",
        "max-gap-s": "longest silence inserted for one gap (default 60)",
        "tick-ms": "how often packets are drained and released (default 10)",
        "slot-bytes": "longest datagram that is taken whole (default 576: 60 ms of G.711)",
        "receive-buffer-bytes": "SO_RCVBUF asked for (default 33554432)",
        "log-format": "console, json or auto (default: console on a terminal)",
        "log-level": "debug, info, warning or error (default info)",
    }.items():
        settings.add_argument(f"--{flag}", metavar=flag.rsplit("-", 1)[-1].upper(), help=text)


def run(arguments: argparse.Namespace) -> None:
    """Run the daemon, or check its settings."""
    from strep import config, daemon  # noqa: PLC0415 -- other commands start without these

    flags = {flag: getattr(arguments, flag) for flag in FLAGS}
    settings = config.load(arguments.config, os.environ, flags)
    if arguments.check:
        _check(settings)
        return
    sys.exit(daemon.run(settings))


def _check(settings: Settings) -> None:
    """Print the effective settings, once the sinks have accepted theirs."""
    from strep.sinks import make_sinks  # noqa: PLC0415

    make_sinks(settings.sinks, settings.recordings)
    sys.stdout.write(settings.as_toml())
