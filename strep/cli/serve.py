"""`strep serve`: the daemon."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from strep.cli.arguments import PAYLOAD_TYPES_HELP, SINK_HELP, add_command

if TYPE_CHECKING:
    import argparse

    from strep.config import Settings

FLAGS = (
    "media", "http", "http_token_file", "http_tls_certificate", "http_tls_key", "recordings",
    "database", "keep_calls_days", "sink", "workers", "max_tracks", "idle_timeout_s",
    "drain_timeout_s", "reorder_ms", "max_gap_s", "allowed_sources", "tick_ms", "slot_bytes",
    "merge_datagrams", "receive_buffer_bytes", "log_format", "log_level",
    "telephone_event_payload_types", "max_ahead_s", "concealment", "comfort_noise", "payload_types",
    "control_base_url", "control_media_target", "control_port_range", "control_advertised_host",
    "control_webhook_public_key", "control_auto_fork", "control_admission",
)  # fmt: skip
"""The settings that have a flag; all others of `control` are in the file or the environment."""


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
        help="health, metrics, calls, forks and webhooks (default 127.0.0.1:8080), or none",
    )
    settings.add_argument(
        "--http-token-file",
        metavar="FILE",
        help="holds the token that HTTP asks for; addresses other than loopback need one",
    )
    settings.add_argument(
        "--http-tls-certificate", metavar="FILE", help="serve HTTPS with this certificate (PEM)"
    )
    settings.add_argument("--http-tls-key", metavar="FILE", help="the certificate's private key")
    settings.add_argument("--recordings", metavar="DIR", help="default: ./recordings")
    settings.add_argument(
        "--database",
        metavar="FILE",
        help="where calls and recordings are remembered (default: strep.db in the recordings "
        "folder), or none",
    )
    settings.add_argument(
        "--keep-calls-days",
        metavar="DAYS",
        help="delete older calls from the database, not their files (default: none are deleted)",
    )
    settings.add_argument(
        "--sink",
        action="append",
        metavar="NAME[:key=value,...]",
        help=f"{SINK_HELP} (default: wav, vad, dtmf and conversation), or none",
    )
    settings.add_argument(
        "--telephone-event-payload-types",
        action="append",
        metavar="NUMBER[/CLOCK]",
        help="payload type of keys pressed as packets (default 101), or none; repeat for several",
    )
    settings.add_argument(
        "--workers",
        metavar="N",
        help="processes that share the calls (default 1), or auto: one for each usable core",
    )
    settings.add_argument(
        "--allowed-sources",
        action="append",
        metavar="NETWORK",
        help="where tracks may be opened from, such as 192.0.2.0/24 (default: anywhere); repeat "
        "for several",
    )
    settings.add_argument(
        "--payload-types",
        metavar="NUMBER=CODEC[,...]",
        help=PAYLOAD_TYPES_HELP,
    )
    settings.add_argument(
        "--merge-datagrams",
        action="store_const",
        const="true",
        help="read datagrams that came together from one port as one: cheaper where a carrier "
        "sends many calls from one port; for one worker",
    )
    for flag, text in {
        "max-tracks": "tracks open at once in each worker (default 16384)",
        "idle-timeout-s": "close a track that is silent on the wire so long (default 120)",
        "drain-timeout-s": "how long running calls may go on after SIGTERM (default 0)",
        "reorder-ms": "how long packets behind a missing one wait for it (default 60)",
        "max-gap-s": "longest silence inserted for one gap (default 120)",
        "max-ahead-s": "how far silence may run ahead of the arrivals (default 2); more for media "
        "that is sent faster than it was spoken",
        "concealment": "what stands for lost packets: silence (default), repeat or g711",
        "comfort-noise": "what stands for pauses that are described: silence (default) or noise",
        "tick-ms": "how often packets are drained and released (default 10)",
        "slot-bytes": "longest datagram that is taken whole (default 576: 60 ms of G.711)",
        "receive-buffer-bytes": "SO_RCVBUF asked for (default 33554432)",
        "log-format": "console, json or auto (default: console on a terminal)",
        "log-level": "debug, info, warning or error (default info)",
    }.items():
        settings.add_argument(f"--{flag}", metavar=flag.rsplit("-", 1)[-1].upper(), help=text)
    _add_control(parser)


def _add_control(parser: argparse.ArgumentParser) -> None:
    control = parser.add_argument_group(
        "call control",
        "drives the carrier where any of these or of [control] in the file is given; the API key "
        "comes from STREP_API_KEY or a file",
    )
    control.add_argument(
        "--control-base-url",
        metavar="URL",
        help="where commands are sent (default https://api.telnyx.com/v2)",
    )
    control.add_argument(
        "--control-media-target",
        metavar="udp:IP:PORT",
        help="what the carrier is told as target of forks",
    )
    control.add_argument(
        "--control-port-range", metavar="LOW-HIGH", help="ports of forks that come as plain RTP"
    )
    control.add_argument(
        "--control-advertised-host", metavar="IP", help="by which the carrier reaches these ports"
    )
    control.add_argument(
        "--control-webhook-public-key", metavar="KEY", help="the carrier's, in base64"
    )
    control.add_argument(
        "--control-auto-fork",
        action="append",
        metavar="CONNECTION_ID[,key=value...]",
        help="calls that are forked when they are answered; repeat for several",
    )
    control.add_argument(
        "--control-admission",
        metavar="WHOSE",
        help="whose media is received: any call leg's (default), or of known ones",
    )


def run(arguments: argparse.Namespace) -> None:
    """Run the daemon, or check its settings."""
    from strep import config, daemon  # noqa: PLC0415 -- other commands start without these

    flags = {flag: getattr(arguments, flag) for flag in FLAGS}

    def read() -> Settings:
        return config.load(arguments.config, os.environ, flags)

    settings = read()
    if arguments.check:
        _check(settings)
        return
    sys.exit(daemon.run(settings, read))


def _check(settings: Settings) -> None:
    """Print the effective settings, once all who need them have accepted theirs."""
    from strep import daemon  # noqa: PLC0415
    from strep.sinks import make_sinks  # noqa: PLC0415

    make_sinks(settings.sinks, settings.recordings)
    daemon.find_credentials(settings, os.environ)
    sys.stdout.write(settings.as_toml())
