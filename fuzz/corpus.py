"""What each target begins with: small inputs that reach its parts, made here and kept nowhere."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING

from capturefile import datagram, ethernet, pcap, pcapng

from fuzz.targets import TEMPLATES

if TYPE_CHECKING:
    from pathlib import Path

FULL_CONFIGURATION = b"""\
http = "none"
recordings = "/var/calls"
database = "/var/lib/strep.db"
keep_calls_days = 90
workers = "auto"
drain_timeout_s = 12.5
max_tracks = 100
log_format = "json"
[control]
base_url = "https://api.example.com/v2"
webhook_public_key = "YKJ3TjuMRTE0+NXBO7bP/N9RbwOf/1tQnBThgedORiE="
media_target = "udp:192.0.2.1:9000"
port_range = "20000-20999"
advertised_host = "192.0.2.1"
auto_fork = [{connection_id = "7267", direction = "any", from = "+49*", to = "a,b"}]
admission = "known"
[[media]]
listen = "[::1]:9000"
[[media]]
listen = "127.0.0.1:9002"
call_leg_id = "0ccc7b54-4df3-4bca-a65a-3da1ecc777f0"
direction = "outbound"
[[sink]]
name = "wav"
layout = "mono"
"an odd key" = [1, 2.5, "x"]
"""
EVENTS = (
    "call.initiated", "call.answered", "call.hangup", "call.fork.started", "call.fork.stopped",
    "call.dtmf.received", "call.speak.ended", "no.such.event",
)  # fmt: skip


def seeds(target: str) -> list[bytes]:
    """Return the inputs that a target begins with."""
    match target:
        case "wire":
            return _datagrams()
        case "path":
            return _calls()
        case "jitter":
            return _arrivals()
        case "capture":
            return _captures()
        case "webhooks":
            return [b"\0" + _event(name) for name in EVENTS] + [
                b"\x01" + bytes([88]) + b"A" * 86 + b"==" + bytes([10]) + b"1700000000" + b"{}",
                b"\0{}", b"\0[]", b"\0" + b'{"data": ' * 40,
            ]  # fmt: skip
        case "configuration":
            return [
                FULL_CONFIGURATION,
                b"",
                b"\0MEDIA=0.0.0.0:1;[::1]:2\0SINK=wav:layout=mono;vad\0HTTP=none",
                b"\0CONTROL_AUTO_FORK=7267,direction=incoming;*\0MAX_TRACKS=3",
            ]
    raise KeyError(target)


def write(target: str, folder: Path) -> None:
    """Put the inputs of a target into a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds(target)):
        (folder / f"seed-{number:03}").write_bytes(seed)


def _datagrams() -> list[bytes]:
    """Return each template alone, and all of them together."""
    each = [bytes([which, 0, 0]) for which in range(len(TEMPLATES))]
    return [*each, b"".join(each), b"\xff\x20" + bytes(32) + b"\0"]


def _calls() -> list[bytes]:
    """Return calls of every template among ordinary packets, with time passing in between."""
    ordinary = [bytes([15]), *([bytes([20, 0, 0, 1, 27, number]) for number in range(16)])]
    calls = [b"\0" + b"".join(ordinary) + bytes([210, 20]) + b"".join(ordinary)]
    for first in range(0, len(TEMPLATES), 8):
        which = range(first, min(first + 8, len(TEMPLATES)))
        odd = bytes([len(which) - 1]) + b"".join(bytes([20, each % 3, each, 0]) for each in which)
        calls.append(bytes([first // 8 % 4]) + odd + bytes([230, 210, 50]) + odd)
    return calls


def _arrivals() -> list[bytes]:
    """Return packets in order, behind a hole, twice, from another source, and with pauses."""
    begin = bytes([2, 0, 100, 255, 250, 10, 0])
    straight = bytes([47, 0, 20, 32, 20, 64, 20, 0, 20, 32, 20, 64, 20, 0, 20, 32, 20])
    hole = bytes([41, 21, 20, 0, 20])
    foreign = bytes([41, 31, 128, 7, 20, 31, 128, 7, 20])
    tick = bytes([1, 200])
    close = bytes([33, 1, 2])
    return [
        begin + straight * 3,
        begin + (straight + hole) * 3 + tick,
        begin + straight + foreign * 3 + tick + straight,
        begin + straight + close + straight + tick,
        bytes([0]) + begin[1:] + (hole + tick) * 8,
    ]


def _captures() -> list[bytes]:
    frames = [(10**18 + i * 20_000_000, ethernet(datagram(d))) for i, d in enumerate(TEMPLATES[:8])]
    classic = pcap(frames)
    return [classic, gzip.compress(classic, mtime=0), pcapng(frames), classic[:-3], b""]


def _event(name: str) -> bytes:
    payload = {
        "call_control_id": "v3:call-1",
        "call_leg_id": "428c31b6-7af4-4bcb-b7f5-5013ef9657c1",
        "call_session_id": "428c31b6-abf3-3bc1-b7f4-5013ef9657c1",
        "connection_id": "7267",
        "from": "+35319605860",
        "to": "+13129457420",
        "direction": "incoming",
        "client_state": "c3RyZXA=",
        "hangup_cause": "normal_clearing",
        "start_time": "2026-01-31T12:00:00Z",
        "digit": "5",
    }
    data = {
        "event_type": name,
        "id": "0ccc7b54-4df3-4bca-a65a-3da1ecc777f0",
        "occurred_at": "2026-01-31T12:00:00.123456Z",
        "payload": payload,
    }
    return json.dumps({"data": data}).encode()
