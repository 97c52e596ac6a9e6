"""The command `strep`.

Whatever is wrong with what was asked for ends as one line on standard error and exit code 2.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from strep import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from strep.analyze import Report
    from strep.config import Settings

out = Console()
err = Console(stderr=True)

WIDE = 120
"""Columns from which tables show more."""
EXIT_INPUT = 2
"""Exit code for wrong input, as argparse has it too."""


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit."""
    arguments = _parser().parse_args(argv)
    if not hasattr(arguments, "command"):
        _parser().print_help()
        sys.exit(EXIT_INPUT)
    try:
        arguments.command(arguments)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # the reader of our output has gone: nothing is left to say, not even at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except _input_errors() as error:
        err.print(f"strep: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(EXIT_INPUT)
    sys.exit(0)


def _input_errors() -> tuple[type[Exception], ...]:
    """Return the errors that say what was wrong with what was asked for."""
    from pipeline.sinks.base import SinkError  # noqa: PLC0415 -- only when something is wrong
    from strep.config import ConfigError  # noqa: PLC0415
    from strep.demo import DemoError  # noqa: PLC0415
    from strep.http import HttpError  # noqa: PLC0415
    from strep.receive.capture import CaptureError  # noqa: PLC0415
    from strep.receive.sockets import ListenError  # noqa: PLC0415
    from strep.workplace import WorkerError  # noqa: PLC0415

    return (CaptureError, ConfigError, DemoError, HttpError, ListenError, SinkError, WorkerError)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="strep",
        description="Receive forked call media (STREP or plain RTP) and turn it into recordings, "
        "speech marks and statistics.",
    )
    parser.add_argument("--version", action="version", version=f"strep {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    _add_serve(commands)
    _add_analyze(commands)
    _add_replay(commands)
    _add_demo(commands)
    return parser


def _add(
    commands: Any, name: str, run: Callable[[argparse.Namespace], None], text: str, example: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ".",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=run)
    return parser


SINK_HELP = (
    "what is done with the audio: wav, vad, log, another installed sink, or package.module:Class; "
    "repeat for several"
)


def _add_serve(commands: Any) -> None:
    parser = _add(
        commands,
        "serve",
        _serve,
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


_SERVE_FLAGS = (
    "media", "http", "recordings", "sink", "workers", "max_tracks", "idle_timeout_s",
    "reorder_ms", "max_gap_s", "tick_ms", "slot_bytes", "receive_buffer_bytes", "log_format",
    "log_level",
)  # fmt: skip


def _serve(arguments: argparse.Namespace) -> None:
    from strep import config, daemon  # noqa: PLC0415 -- other commands start without these

    flags = {flag: getattr(arguments, flag) for flag in _SERVE_FLAGS}
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


def _add_analyze(commands: Any) -> None:
    parser = _add(
        commands,
        "analyze",
        _analyze,
        "analyse a capture file as if it came in live, as fast as it goes",
        "strep analyze call.pcap --out recordings",
    )
    parser.add_argument(
        "capture", type=Path, metavar="CAPTURE", help="a pcap or pcapng file, .gz or not"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="write recordings and manifests there"
    )
    parser.add_argument(
        "--sink",
        action="append",
        metavar="NAME[:key=value,...]",
        help=f"{SINK_HELP} (default: vad, and with --out also wav)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def _analyze(arguments: argparse.Namespace) -> None:
    from strep.analyze import analyze  # noqa: PLC0415 -- other commands start without these
    from strep.config import parse_sinks  # noqa: PLC0415
    from strep.sinks import make_sinks  # noqa: PLC0415

    default = ["vad", "wav"] if arguments.out else ["vad"]
    specs = parse_sinks(default if arguments.sink is None else arguments.sink)
    sinks = make_sinks(specs, arguments.out or Path("recordings"))
    with _progress() as bar:
        task = bar.add_task(f"reading {arguments.capture.name}", total=1.0)
        report = analyze(
            arguments.capture, sinks, progress=lambda done: bar.update(task, completed=done)
        )
    if report.cut:
        err.print(f"strep: {report.cut}", style="yellow", markup=False, soft_wrap=True)
    if arguments.json:
        json.dump(report.as_json(), sys.stdout, indent=2)
        sys.stdout.write("\n")
    else:
        _print_report(report)


def _print_report(report: Report) -> None:
    if report.tracks:
        out.print(_track_table(report.tracks))
    else:
        out.print("no audio tracks")
    counts = ", ".join(f"{n} {reason}" for reason, n in report.datagrams.items() if n)
    out.print(f"datagrams: {counts or 'none'}", highlight=False)
    if report.skipped:
        counts = ", ".join(f"{n} {reason}" for reason, n in report.skipped.items())
        out.print(f"other frames: {counts}", highlight=False)
    for recording in sorted({t["recording"] for t in report.tracks if t["recording"]}):
        out.print(f"recording: {recording}", highlight=False, soft_wrap=True)


def _track_table(tracks: list[dict[str, Any]]) -> Table:
    """Return the tracks as a table that fits 80 columns; a wider terminal is shown more."""
    is_wide = out.width >= WIDE
    table = Table(box=None, pad_edge=False, padding=(0, 2 if is_wide else 1, 0, 0))
    columns = ["call leg", "side", *(["from"] if is_wide else []), "codec", "duration", "packets"]
    columns += ["lost", "late", "dup", "reord", *(["resets"] if is_wide else [])]
    columns += ["jitter", "speech"]
    for name in columns:
        is_text = name in {"call leg", "side", "from", "codec"}
        table.add_column(name, justify="left" if is_text else "right", no_wrap=True)
    for track in tracks:
        cells = {
            "call leg": str(track["call_leg_id"])[:8],
            "side": f"{track['leg']} {track['direction']}",
            "from": track["source"],
            "codec": track["codec"],
            "duration": f"{track['duration_s']:.2f} s",
            "packets": track["packets"],
            "lost": track["lost"],
            "late": track["late"],
            "dup": track["duplicate"],
            "reord": track["reordered"],
            "resets": track["resets"],
            "jitter": f"{track['jitter_mean_ms']:.1f} ms",
            "speech": f"{sum(end - start for start, end in track['speech']):.1f} s",
        }
        table.add_row(*(str(cells[name]) for name in columns))
    return table


def _add_replay(commands: Any) -> None:
    parser = _add(
        commands,
        "replay",
        _replay,
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
        type=_speed,
        default=1.0,
        metavar="X",
        help="times real time (default 1), or inf for as fast as it goes",
    )
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")


def _speed(text: str) -> float:
    speed = float(text)
    if not speed > 0:
        raise argparse.ArgumentTypeError(f"{text} is not a speed above 0")
    return speed


def _replay(arguments: argparse.Namespace) -> None:
    from strep import replay  # noqa: PLC0415 -- other commands start without these
    from strep.config import ConfigError, parse_address  # noqa: PLC0415

    to = parse_address(arguments.to)
    loaded = replay.load(arguments.capture, arguments.wrapping)
    if loaded.cut:
        err.print(f"strep: {loaded.cut}", style="yellow", markup=False, soft_wrap=True)
    with _progress() as bar:
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
        json.dump(outcome, sys.stdout)
        sys.stdout.write("\n")
        return
    out.print(
        f"sent {report.sent} packets of {loaded.streams} streams in {report.duration_s:.1f} s"
        f"; {loaded.skipped} datagrams of the capture are no RTP",
        highlight=False,
    )
    if report.refused:
        err.print(f"nobody listens on {arguments.to}: {report.refused} refused", style="yellow")


def _add_demo(commands: Any) -> None:
    parser = _add(
        commands,
        "demo",
        _demo,
        "start a daemon on loopback, place a call to it and show what came out",
        "strep demo --speed 4",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("demo"), metavar="DIR", help="default: ./demo"
    )
    parser.add_argument(
        "--speed", type=_speed, default=1.0, metavar="X", help="times real time (default 1)"
    )
    parser.add_argument("--seed", type=int, default=3, help="of the network's misfortunes")
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")


def _demo(arguments: argparse.Namespace) -> None:
    from strep import demo  # noqa: PLC0415 -- other commands start without it

    with _progress() as bar:
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
        json.dump(
            {
                "call_leg_id": str(outcome.call_leg_id),
                "sent": outcome.sent,
                "dropped": outcome.dropped,
                "recording": str(outcome.recording),
                "manifest": str(outcome.manifest),
                "picture": None if outcome.picture is None else str(outcome.picture),
                "tracks": outcome.tracks,
            },
            sys.stdout,
            indent=2,
        )
        sys.stdout.write("\n")
        return
    out.print(
        f"call {outcome.call_leg_id}: {outcome.sent} packets arrived, "
        f"{outcome.dropped} were lost on the way\n",
        highlight=False,
        soft_wrap=True,
    )
    out.print(_track_table(outcome.tracks))
    if not math.isclose(arguments.speed, 1):
        out.print("(jitter is measured against the sender's clock: true at --speed 1)")
    out.print()
    for name, path in (
        ("recording", outcome.recording),
        ("manifest", outcome.manifest),
        ("picture", outcome.picture or "needs matplotlib: pip install 'strep[picture]'"),
    ):
        out.print(f"{name:<10} {path}", highlight=False, soft_wrap=True)


def _progress() -> Progress:
    """Return a progress bar on standard error, shown where that is a terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=err,
        transient=True,
        disable=not err.is_terminal,
    )
