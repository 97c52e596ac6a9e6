"""`strep analyze`: a capture file, as if it came in live."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from strep.cli.arguments import PAYLOAD_TYPES_HELP, SINK_HELP, add_command
from strep.cli.output import out, print_json, progress, track_table, warn

if TYPE_CHECKING:
    import argparse

    from strep.analyze import Report


def add(commands: Any) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "analyze",
        run,
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
        help=f"{SINK_HELP} (default: vad, dtmf and conversation, and with --out also wav)",
    )
    parser.add_argument(
        "--telephone-event-payload-types",
        action="append",
        metavar="NUMBER[/CLOCK]",
        help="payload type of keys pressed as packets (default 101), or none; repeat for several",
    )
    parser.add_argument(
        "--learn-telephone-events",
        action="store_true",
        help="take other payload types for that where their packets look so",
    )
    parser.add_argument(
        "--payload-types",
        default="",
        metavar="NUMBER=CODEC[,...]",
        help=PAYLOAD_TYPES_HELP,
    )
    parser.add_argument(
        "--concealment",
        choices=("silence", "repeat", "g711"),
        default="silence",
        help="what stands for lost packets (default: silence)",
    )
    parser.add_argument(
        "--comfort-noise",
        choices=("silence", "noise"),
        default="silence",
        help="what stands for pauses that the sender describes (default: silence)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(arguments: argparse.Namespace) -> None:
    """Analyse a capture and print what it holds."""
    from strep.analyze import analyze  # noqa: PLC0415 -- other commands start without these
    from strep.config import (  # noqa: PLC0415
        DEFAULT_SINKS,
        parse_event_payload_types,
        parse_payload_types,
        parse_sinks,
    )
    from strep.sinks import make_sinks  # noqa: PLC0415

    default = [name for name in DEFAULT_SINKS if name != "wav" or arguments.out]
    specs = parse_sinks(default if arguments.sink is None else arguments.sink)
    sinks = make_sinks(specs, arguments.out or Path("recordings"))
    event_types = arguments.telephone_event_payload_types
    telephone_events = None if event_types is None else parse_event_payload_types(event_types)
    payload_types = parse_payload_types(arguments.payload_types)
    with progress() as bar:
        task = bar.add_task(f"reading {arguments.capture.name}", total=1.0)
        report = analyze(
            arguments.capture,
            sinks,
            telephone_events=None if telephone_events is None else dict(telephone_events),
            learn_telephone_events=arguments.learn_telephone_events,
            payload_types=payload_types,
            concealment=arguments.concealment,
            comfort_noise=arguments.comfort_noise,
            progress=lambda done: bar.update(task, completed=done),
        )
    if report.cut:
        warn(report.cut)
    if arguments.json:
        print_json(report.as_json())
    else:
        _print_report(report)


def _print_report(report: Report) -> None:
    if report.tracks:
        out.print(track_table(report.tracks))
    else:
        out.print("no audio tracks")
    for track in report.tracks:
        side = f"{str(track['call_leg_id'])[:8]} {track['leg']} {track['direction']}"
        if track["dtmf"]:
            digits = "".join(press["digit"] for press in track["dtmf"])
            out.print(f"keys pressed: {side}: {digits}", highlight=False, soft_wrap=True)
        if "unknown" in track["codecs"]:
            types = ", ".join(track["payload_types"])
            says = f"{track['unknown_payload']} packets of no known codec, payload types {types}"
            out.print(f"no audio: {side}: {says}; see --payload-types", soft_wrap=True)
    counts = ", ".join(f"{n} {reason}" for reason, n in report.datagrams.items() if n)
    out.print(f"datagrams: {counts or 'none'}", highlight=False)
    if report.skipped:
        counts = ", ".join(f"{n} {reason}" for reason, n in report.skipped.items())
        out.print(f"other frames: {counts}", highlight=False)
    for recording in report.recordings:
        out.print(f"recording: {recording}", highlight=False, soft_wrap=True)
