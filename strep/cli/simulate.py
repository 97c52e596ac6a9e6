"""`strep simulate`: a stand-in carrier to try things on."""

from __future__ import annotations

import argparse
import asyncio
import base64
import binascii
import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from strep.cli.arguments import add_command
from strep.cli.output import err, print_json, print_plain

if TYPE_CHECKING:
    from strep.simulator.settings import Flag
    from strep.simulator.simulator import Simulator

DEFAULT_HTTP = "127.0.0.1:9080"
STATUS_EVERY_S = 5.0

EXAMPLE = """strep simulate --webhook-url http://127.0.0.1:8080/webhooks --loss 0.01 --reinvite 5
  strep simulate --calls 50 --rate 10 --talk-s 20 --fork 127.0.0.1:9000 --exit-when-done"""

PLAIN_FLAGS = {
    "call": {
        "outcome": "of dialled calls: answer, busy, reject or no_answer (default answer)",
        "ring-s": "how long they ring before (default 1)",
        "talk-s": "the other side hangs up so long after the answer (default 0: never)",
    },
    "audio": {
        "inbound": "what the other side says: caller, agent, silence, or a sound file or capture",
        "outbound": "what it hears (default agent)",
        "codec": "PCMU or PCMA (default PCMU)",
        "packet-ms": "default 20",
        "clock-ppm": "how much too fast the sender's clock is (default 0)",
    },
    "network": {
        "loss": "fraction of packets lost (default 0)",
        "loss-burst-packets": "mean length of a run of lost packets (default 1)",
        "duplicate": "fraction of packets that come twice (default 0)",
        "reorder": "fraction of packets held back (default 0)",
        "reorder-ms": "how long (default 30)",
        "jitter-ms": "mean interarrival jitter (default 0)",
        "delay-ms": "delay of every packet (default 0)",
        "trace": "CSV file of a real network's delays, instead of jitter",
    },
    "traffic": {
        "calls": "so many calls come in by themselves (default 0)",
        "rate": "how many of them begin each second (default 1)",
        "from": "who calls first; each further one has the next number",
        "to": "whom they call",
        "fork": "HOST:PORT: answer these calls at once and fork them there as STREP",
    },
}
"""Flags that stand for one key of a table each, with their help."""
KEYS = {"rate": "rate_per_s"}
"""Keys that are not written as their flag."""
TOP_FLAGS = {
    "webhook-url": "where webhooks go that a command names no other place for",
    "seed": "of everything random (default 1)",
    "speed": "how much faster than ours the simulation's time passes (default 1)",
}


def add(commands: Any) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "simulate",
        run,
        "run a stand-in carrier: Call Commands, webhooks and forked media on loopback",
        EXAMPLE,
    )
    add_flag = parser.add_argument
    add_flag("--scenario", type=Path, metavar="FILE", help="settings and scenarios as a TOML file")
    add_flag("--http", default=DEFAULT_HTTP, metavar="HOST:PORT",
             help=f"where commands are taken (default {DEFAULT_HTTP}; port 0 for any)")  # fmt: skip
    add_flag("--api-key", metavar="KEY", help="bearer token of commands (default: a random one)")
    add_flag("--signing-key", metavar="BASE64", type=_signing_key,
             help="Ed25519 private key of webhooks, 32 bytes (default: a random one)")  # fmt: skip
    for name, text in TOP_FLAGS.items():
        add_flag(f"--{name}", metavar=_metavar(name), help=text)
    add_flag("--ready-file", type=Path, metavar="FILE",
             help="write the addresses and keys there as JSON, once all is ready")  # fmt: skip
    add_flag("--exit-when-done", action="store_true",
             help="stop when the calls that came in by themselves are over")  # fmt: skip
    add_flag("--json", action="store_true",
             help="print the addresses, and figures every few seconds, as JSON lines")  # fmt: skip
    for table, flags in PLAIN_FLAGS.items():
        group = parser.add_argument_group(table)
        for name, text in flags.items():
            group.add_argument(f"--{name}", metavar=_metavar(name), help=text)
        if table == "audio":
            group.add_argument("--silence-suppression", action="store_true", default=None,
                               help="send no packets of silence")  # fmt: skip
    events = parser.add_argument_group(
        "events", "in each call, AT seconds after its answer; each can be repeated"
    )
    for flag, metavar, text in (
        ("hold", "AT:SECONDS", "no packets for so long"),
        ("reinvite", "AT", "another SSRC, with another sequence number and timestamp"),
        ("change-codec", "AT:CODEC", "go on in PCMU or PCMA"),
        ("digits", "AT:DIGITS", "the other side types, as telephone-events"),
    ):
        events.add_argument(f"--{flag}", metavar=metavar, action="append", default=[], help=text)
    faults = parser.add_argument_group("faults", "each can be repeated; the TOML file has more")
    faults.add_argument("--fault", metavar="COMMAND:STATUS[:TIMES]", action="append", default=[],
                        help="answer a command (* for all) with an error")  # fmt: skip
    faults.add_argument("--webhook-fault", metavar="EVENT:KIND[:TIMES]", action="append",
                        default=[], help="late, twice, swapped, bad_signature, stale or lost; "
                        "TIMES 0 for always")  # fmt: skip


def run(arguments: argparse.Namespace) -> None:
    """Run the carrier until SIGINT or SIGTERM."""
    from strep.simulator.settings import load  # noqa: PLC0415 -- other commands start without
    from strep.simulator.simulator import Simulator  # noqa: PLC0415
    from strep.specs import ConfigError, parse_address  # noqa: PLC0415

    settings = load(arguments.scenario, _flags(arguments))
    if arguments.exit_when_done and not settings.traffic.calls:
        raise ConfigError("--exit-when-done needs calls that come in by themselves: --calls")
    folder = Path() if arguments.scenario is None else arguments.scenario.parent
    try:
        http = parse_address(arguments.http)
    except ConfigError as error:
        raise ConfigError(f"--http: {error}") from None

    async def simulate() -> None:
        simulator = Simulator(
            settings,
            folder=folder,
            http=http,
            api_key=arguments.api_key,
            signing_key=arguments.signing_key,
        )
        async with simulator:
            await _attend(simulator, arguments)

    asyncio.run(simulate())


async def _attend(simulator: Simulator, arguments: argparse.Namespace) -> None:
    """Say where it is and how it goes, until it is told to stop or has done its work."""
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, told.set)
    ready = {
        "base_url": simulator.base_url,
        "control_url": simulator.control_url,
        "api_key": simulator.api_key,
        "public_key": simulator.public_key,
    }
    _announce(ready, arguments)
    works = [
        asyncio.ensure_future(work)
        for work in (
            simulator.run(),
            told.wait(),
            _report(simulator, as_json=arguments.json),
            *([simulator.traffic_is_over.wait()] if arguments.exit_when_done else []),
        )
    ]
    done, pending = await asyncio.wait(works, return_when=asyncio.FIRST_COMPLETED)
    for work in pending:
        work.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    for work in done:
        await work
    _print_status("stopped", simulator.status(), as_json=arguments.json)


def _announce(ready: dict[str, str], arguments: argparse.Namespace) -> None:
    from strep.specs import ConfigError  # noqa: PLC0415

    if arguments.json:
        _print_line({"event": "ready", **ready})
    else:
        for name, value in ready.items():
            print_plain(f"{name:<12} {value}")
    if arguments.ready_file is None:
        return
    # under another name until it is whole, and for nobody else: it holds the key
    unfinished = arguments.ready_file.with_name(f".{arguments.ready_file.name}.part")
    try:
        own = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(own, "w") as file:
            json.dump({**ready, "pid": os.getpid()}, file)
        unfinished.replace(arguments.ready_file)
    except OSError as error:
        raise ConfigError(
            f"--ready-file: cannot write {arguments.ready_file}: {error.strerror}"
        ) from None


async def _report(simulator: Simulator, *, as_json: bool) -> None:
    """Print the figures every few seconds in which they have changed."""
    before: dict[str, Any] = {}
    while True:
        await asyncio.sleep(STATUS_EVERY_S)
        status = simulator.status()
        if status != before:
            _print_status("status", status, as_json=as_json)
            before = status


def _print_status(event: str, status: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        _print_line({"event": event, **status})
        return
    failed = f" ({status['webhooks_failed']} failed)" if status["webhooks_failed"] else ""
    unsent = f" ({status['datagrams_failed']} failed)" if status["datagrams_failed"] else ""
    err.print(
        f"{status['calls_up']} of {status['calls']} calls up, {status['webhooks']} webhooks"
        f"{failed}, {status['tracks']} tracks, {status['datagrams']} datagrams{unsent}, "
        f"at most {status['worst_lateness_ms']} ms late",
        highlight=False,
        soft_wrap=True,
    )


def _print_line(document: dict[str, Any]) -> None:
    print_json(document, indent=None)
    sys.stdout.flush()


def _flags(arguments: argparse.Namespace) -> list[Flag]:
    """Return what was given on the command line as settings."""
    from strep.simulator.settings import Flag  # noqa: PLC0415

    given = vars(arguments)
    flags: list[Flag] = []

    def take(name: str, *table: str) -> None:
        value = given[name.replace("-", "_")]
        if value is not None:
            key = KEYS.get(name, name.replace("-", "_"))
            flags.append(Flag(f"--{name}", (*table, key), value))

    for name in TOP_FLAGS:
        take(name)
    for table, names in PLAIN_FLAGS.items():
        for name in names:
            take(name, table)
    take("silence-suppression", "audio")
    for name, kind, key in (
        ("hold", "hold", "for_s"),
        ("reinvite", "reinvite", None),
        ("change-codec", "codec", "codec"),
        ("digits", "digits", "digits"),
    ):
        for text in given[name.replace("-", "_")]:
            at_s, _, value = text.partition(":")
            event = {"kind": kind, "at_s": at_s} | ({key: value} if key else {})
            flags.append(Flag(f"--{name} {text}", ("event",), event))
    for name, keys in (("fault", ("command", "status")), ("webhook-fault", ("event", "kind"))):
        key = name.replace("-", "_")
        flags += [Flag(f"--{name} {text}", (key,), _fault(text, *keys)) for text in given[key]]
    return flags


def _fault(text: str, *keys: str) -> dict[str, str]:
    return dict(zip((*keys, "times"), text.split(":", 2), strict=False))


def _signing_key(text: str) -> bytes:
    with suppress(binascii.Error, ValueError):
        key = base64.b64decode(text, validate=True)
        if len(key) == 32:
            return key
    raise argparse.ArgumentTypeError("not 32 bytes in Base64")


def _metavar(name: str) -> str:
    return name.rsplit("-", 1)[-1].upper()
