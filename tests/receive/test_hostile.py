"""Kinds of hostile input, each sent to a receiver beside a running call, and what counts it.

The table of docs/security.md has the same rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from packetmaker import MS
from recordingsink import RecordingSink
from wirecases import BINDING_REQUEST, CLIENT_HELLO, GOODBYE, SENDER_REPORT, UDPTL, rtp, strep

from pipeline.dispatch import Dispatcher
from strep.receive.admission import Admission
from strep.receive.gate import GateSettings
from strep.receive.receiver import Receiver
from strep.wire import Endpoint, PacketBatch

pytestmark = pytest.mark.usefixtures("kernel")

DOCS = Path(__file__).parents[2] / "docs" / "security.md"
CALL = UUID("01234567-89ab-4cde-8f01-23456789abcd")
OURS, THEIRS = Endpoint.of("192.0.2.1", 4000), Endpoint.of("198.51.100.9", 4000)
HERE = Endpoint.of("192.0.2.2", 9000)
SENT = 5
"""Packets of the running call before the hostile ones, and as many after them."""


def packet(number, call=CALL, *, step=0, **fields):
    """A packet of a call, 20 ms of G.711; `step` is added to its timestamp."""
    times = {"timestamp": (number * 160 + step) & 0xFFFFFFFF, "sequence": number & 0xFFFF}
    return strep(rtp(bytes([number % 100]) * 160, **{**times, "ssrc": 1, **fields}), call)


def others(count):
    """Packets of call legs that nobody knows, one each."""
    return [packet(7, UUID(int=1000 + number)) for number in range(count)]


@dataclass
class Kind:
    """What is sent, the words of the table, and what counts it."""

    what: str
    counter: str
    datagrams: list[bytes]
    source: Endpoint = THEIRS
    counted: int = -1
    """How many are counted; all where that is not told."""
    options: dict[str, Any] = field(default_factory=dict)
    is_draining: bool = False
    wait_ms: int = 0
    resumes_at: int = SENT
    """The number of the call's next packet."""
    step: int = 0


def dropped(reason):
    return f'strep_datagrams_total{{reason="{reason}"}}'


CUT = packet(6)
KINDS = [
    Kind("an empty datagram", dropped("short"), [b""]),
    Kind("one byte", dropped("short"), [b"\xc4"]),
    Kind("a STREP header that is cut", dropped("short"), [CUT[:23]]),
    Kind("a STREP header with nothing behind it", dropped("short"), [CUT[:24]]),
    Kind("an RTP header that is cut", dropped("short"), [CUT[:35]]),
    Kind("a HeaderLen that runs past the end", dropped("short"), [strep(rtp(), header_length=255)]),
    Kind("a datagram of 60,000 bytes", dropped("truncated"), [CUT + bytes(60_000)]),
    Kind("another STREP version", dropped("strep_version"), [b"\xc8" + CUT[1:]]),
    Kind("a HeaderLen of 0", dropped("header_length"), [strep(rtp(), header_length=0)]),
    Kind("a HeaderLen of 23", dropped("header_length"), [strep(rtp(), header_length=23)]),
    Kind("another RTP version", dropped("rtp_version"), [packet(6, version=1)]),
    Kind("15 CSRCs that are not there", dropped("csrc"), [strep(b"\x8f" + rtp()[1:])]),
    Kind(
        "a header extension that is not there", dropped("extension"), [strep(b"\x90" + rtp()[1:])]
    ),
    Kind(
        "a header extension of 256 KiB",
        dropped("extension"),
        [strep(b"\x90" + rtp()[1:] + b"\xbe\xde\xff\xff" + bytes(160))],
    ),
    Kind(
        "more padding than there is payload",
        dropped("padding"),
        [strep(rtp(bytes(9), padding=b"\xff"))],
    ),
    Kind("padding of 0 bytes", dropped("padding"), [strep(rtp(bytes(9), padding=b"\0"))]),
    Kind("RTCP that ends a running call", dropped("rtcp"), [strep(GOODBYE)]),
    Kind("RTCP of nobody's", 'strep_rtcp_total{outcome="unknown"}', [strep(SENDER_REPORT)]),
    Kind("a SIP scanner", dropped("sip"), [b"OPTIONS sip:100@192.0.2.2 SIP/2.0\r\n\r\n"]),
    Kind("a fax (T.38)", dropped("t38"), [UDPTL]),
    Kind("STUN", dropped("other"), [BINDING_REQUEST]),
    Kind("DTLS", dropped("other"), [CLIENT_HELLO]),
    Kind("text", dropped("other"), [b"hello, is there anybody?"]),
    Kind("all ones", dropped("strep_version"), [b"\xff" * 200]),
    Kind(
        "the ids and numbers of a running call, from another address",
        dropped("other_source"),
        [packet(number) for number in range(SENT, SENT + 20)],
    ),
    Kind(
        "another SSRC in a running call, from another address",
        dropped("other_source"),
        [packet(number, ssrc=666) for number in range(20)],
    ),
    Kind(
        "another SSRC with the call's own address, forged",
        dropped("stray"),
        [packet(30_000, ssrc=666)],
        OURS,
        wait_ms=12_000,
    ),
    Kind(
        "a jump of the sequence, forged", dropped("stray"), [packet(30_000)], OURS, wait_ms=12_000
    ),
    Kind(
        "packets of a running call, played again, forged",
        "strep_packets_duplicate_total",
        [packet(number) for number in range(SENT)],
        OURS,
    ),
    Kind(
        "a timestamp that would write hours of silence",
        "strep_packets_realignments_total",
        [packet(SENT, step=8000 * 36_000)],
        OURS,
        resumes_at=SENT + 1,
        step=8000 * 36_000,
    ),
    Kind(
        "made-up call legs, more than there may be tracks",
        dropped("tracks_full"),
        others(20),
        counted=17,
        options={"max_tracks": 4},
    ),
    Kind(
        "made-up call legs, many from one host",
        dropped("too_many_new"),
        others(20),
        counted=10,
        options={"gate": GateSettings(new_tracks_per_s=0.001, burst_tracks=10)},
    ),
    Kind(
        "made-up call legs from a network that is not allowed",
        dropped("source_not_allowed"),
        others(20),
        options={"gate": GateSettings(allowed_sources=(ip_network("192.0.2.0/24"),))},
    ),
    Kind(
        "made-up call legs where only known ones are received",
        dropped("unknown_leg"),
        others(20),
        options={"admission": Admission(wait_s=1.0)},
        wait_ms=2000,
    ),
    Kind("new call legs at the end", dropped("draining"), others(20), is_draining=True),
]


def counters(receiver):
    """What the metrics say, by their names."""
    figures = {dropped(reason): count for reason, count in receiver.datagrams.items()}
    figures |= {
        f"strep_packets_{name}_total": count
        for name, count in receiver.pipeline.counters().as_dict().items()
    }
    return figures | {
        f'strep_rtcp_total{{outcome="{name}"}}': count
        for name, count in receiver.rtcp.counts.items()
    }


def give(receiver, datagrams, source, at_ms, every_ms=20):
    batch = PacketBatch(64, 512)
    for i, datagram in enumerate(datagrams):
        batch.add(datagram, round((at_ms + every_ms * i) * MS), source.pack(), HERE.pack())
    receiver.receive(batch)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.what)
def test_hostile_input_is_counted_and_a_running_call_goes_on(kind):
    sink = RecordingSink()
    options = {"gate": GateSettings(), **kind.options}
    receiver = Receiver(Dispatcher({"recording": sink}), **options)
    receiver.admit(CALL)
    give(receiver, map(packet, range(SENT)), OURS, 0)
    if kind.is_draining:
        receiver.take_no_new()
    before = counters(receiver)
    give(receiver, kind.datagrams, kind.source, 20 * SENT - 10, every_ms=0.1)
    rest = [packet(number, step=kind.step) for number in range(kind.resumes_at, 2 * SENT)]
    give(receiver, rest, OURS, 20 * kind.resumes_at)
    if kind.wait_ms:
        receiver.tick(kind.wait_ms * MS)
    after = counters(receiver)
    expected = len(kind.datagrams) if kind.counted < 0 else kind.counted
    assert after[kind.counter] - before[kind.counter] == expected
    assert receiver.read == sum(receiver.datagrams.values())
    assert sink.payloads(0) == [bytes([number % 100]) * 160 for number in range(2 * SENT)]


def test_the_table_of_hostile_input_is_this_one():
    rows = [line for line in DOCS.read_text(encoding="utf-8").splitlines() if "_total" in line]
    table = [f"| {kind.what} | `{kind.counter}` |" for kind in KINDS]
    assert len(table) >= 24
    assert [row for row in rows if row in table] == table
