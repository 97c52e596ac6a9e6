"""RTCP beside the media: whose it is, what is told of it, and that it is bounded."""

from __future__ import annotations

import struct
from uuid import UUID

import pytest
from packetmaker import MS
from recordingsink import RecordingSink
from wirecases import CALL, rtp, strep

from pipeline.dispatch import Dispatcher
from strep.receive.receiver import Binding, Receiver
from strep.receive.rtcp import MAX_PER_SECOND
from strep.wire import Direction, Endpoint, PacketBatch

pytestmark = pytest.mark.usefixtures("kernel")

OTHER_CALL = UUID("2dc6fc34-f9e0-11ea-b68e-02420a0f7768")
HERE, THERE = Endpoint.of("192.0.2.1", 4000), Endpoint.of("192.0.2.2", 9000)
INBOUND, OUTBOUND = 0xC4, 0xC5
CALLER, CALLEE = 0xAAAA, 0xBBBB
NOON_UNIX_S = 1_769_860_800
NOON_NTP = (NOON_UNIX_S + 2_208_988_800) << 32
"""2026-01-31T12:00:00Z"""


def report(ssrc, *, ntp=None, timestamp=0, sent=(0, 0), blocks=()):
    """Return a sender report, or without `ntp` a receiver report."""
    body = struct.pack("!I", ssrc)
    if ntp is not None:
        body += struct.pack("!QIII", ntp, timestamp, *sent)
    body += b"".join(struct.pack("!IIIIII", *block) for block in blocks)
    kind = 201 if ntp is None else 200
    return struct.pack("!BBH", 0x80 | len(blocks), kind, len(body) // 4) + body


def block(ssrc, *, fraction=0, lost=0, jitter=0, answers=0, after_s=0.0):
    return (
        ssrc,
        fraction << 24 | lost,
        0,
        jitter,
        answers >> 16 & 0xFFFFFFFF,
        int(after_s * 65536),
    )


def name(ssrc, cname):
    items = struct.pack("!BB", 1, len(cname)) + cname.encode() + b"\0"
    items += bytes(-len(items) % 4)
    return struct.pack("!BBHI", 0x81, 202, 1 + len(items) // 4, ssrc) + items


def audio(number, ssrc):
    return rtp(bytes(160), sequence=number, timestamp=1000 + 160 * number, ssrc=ssrc)


class Rig:
    """A receiver whose clock is 100 s behind noon at 0."""

    def __init__(self):
        self.closed = {}
        self.receiver = Receiver(
            Dispatcher({"recording": RecordingSink()}, on_closed=self._closed),
            unix_offset_ns=(NOON_UNIX_S - 100) * 1_000_000_000,
        )
        self.batch = PacketBatch(64, 512)

    def _closed(self, track, summary, results):
        del results
        self.closed[track.call_leg_id, track.direction] = summary.rtcp

    def receive(self, *datagrams, at_ms=0, source=HERE, destination=THERE, binding=None):
        self.batch.clear()
        for datagram in datagrams:
            self.batch.add(datagram, round(at_ms * MS), source.pack(), destination.pack())
        self.batch.binding[: self.batch.count] = 0 if binding is None else binding
        self.receiver.receive(self.batch)
        assert self.receiver.read == sum(self.receiver.datagrams.values())
        return self

    @property
    def counts(self):
        return {what: n for what, n in self.receiver.rtcp.counts.items() if n}

    def told(self, call=CALL, direction="inbound"):
        if self.receiver.pipeline.tracks:
            self.receiver.stop()
        return self.closed[call, direction]

    @property
    def only(self):
        self.receiver.stop()
        (told,) = self.closed.values()
        return told


def test_a_track_without_rtcp_has_none():
    assert Rig().receive(strep(audio(0, CALLER))).only is None


def test_a_sender_report_tells_when_the_track_began_by_the_senders_clock():
    rig = Rig().receive(strep(audio(0, CALLER), first=INBOUND), at_ms=100_000)
    # by the sender's clock 400 samples, 50 ms, after the first packet
    rig.receive(
        strep(
            report(CALLER, ntp=NOON_NTP + (1 << 31), timestamp=1400, sent=(3, 480))
            + name(CALLER, "phone@host"),
            first=INBOUND,
        ),
        at_ms=100_060,
    )
    assert rig.told()["sender"] == {
        "ssrc": "0x0000aaaa",
        "reports": 1,
        "cname": "phone@host",
        "packets": 3,
        "octets": 480,
        "ntp_at": "2026-01-31T12:00:00.500Z",
        "rtp_timestamp": 1400,
        "clock_offset_ms": 440.0,
        "started_at": "2026-01-31T12:00:00.450Z",
        "goodbye": None,
    }
    assert rig.counts == {"matched": 1}


def test_rtcp_may_come_in_the_batch_that_opens_its_track():
    rig = Rig().receive(strep(report(CALLER, ntp=NOON_NTP)), strep(audio(0, CALLER)))
    assert rig.only["sender"]["reports"] == 1


def test_a_clock_that_counts_from_its_start_is_no_date():
    rig = Rig().receive(strep(audio(0, CALLER)), strep(report(CALLER, ntp=5 << 32, timestamp=1000)))
    sender = rig.only["sender"]
    assert (sender["ntp_at"], sender["started_at"], sender["clock_offset_ms"]) == (None,) * 3
    assert sender["rtp_timestamp"] == 1000


def test_the_far_ends_view_is_told_of_the_track_that_it_receives():
    rig = Rig().receive(
        strep(audio(0, CALLER), first=INBOUND), strep(audio(0, CALLEE), first=OUTBOUND)
    )
    rig.receive(strep(report(CALLER, ntp=NOON_NTP), first=INBOUND), at_ms=1000)
    for fraction, jitter, at_ms in ((64, 80, 3050), (16, 40, 3070)):
        seen = block(CALLER, fraction=fraction, lost=7, jitter=jitter, answers=NOON_NTP, after_s=2)
        rig.receive(strep(report(CALLEE, blocks=[seen]), first=OUTBOUND), at_ms=at_ms)
    assert rig.told(direction="inbound")["far_end"] == {
        "ssrc": "0x0000bbbb",
        "reports": 2,
        "fraction_lost": 0.0625,
        "fraction_lost_max": 0.25,
        "cumulative_lost": 7,
        "jitter_ms": 5.0,
        "jitter_max_ms": 10.0,
        "round_trip_ms": 70.0,
        "round_trip_max_ms": 70.0,
    }
    # a report is no sender's report: of the callee's own sending nothing was said
    assert rig.told(direction="outbound") is None
    assert rig.counts == {"matched": 3}


@pytest.mark.parametrize(("answers", "after_s"), [(0, 0), (NOON_NTP + (9 << 32), 0), (NOON_NTP, 5)])
def test_no_round_trip_without_the_report_that_is_answered(answers, after_s):
    rig = Rig().receive(strep(audio(0, CALLER)), strep(report(CALLER, ntp=NOON_NTP)))
    seen = block(CALLER, answers=answers, after_s=after_s)
    rig.receive(strep(report(CALLEE, blocks=[seen]), first=OUTBOUND), at_ms=50)
    assert rig.only["far_end"]["round_trip_ms"] is None


def test_a_goodbye_is_told_with_its_reason():
    goodbye = struct.pack("!BBHI", 0x81, 203, 2, CALLER) + b"\3end"
    assert Rig().receive(strep(audio(0, CALLER)), strep(goodbye)).only["sender"]["goodbye"] == "end"


@pytest.mark.parametrize(
    ("ssrc", "first", "call"),
    [(7, INBOUND, CALL), (CALLER, OUTBOUND, CALL), (CALLER, INBOUND, OTHER_CALL)],
)
def test_reports_of_unknown_tracks_are_counted(ssrc, first, call):
    rig = Rig().receive(strep(audio(0, CALLER), first=INBOUND))
    rig.receive(strep(report(ssrc, ntp=NOON_NTP), call, first=first))
    assert rig.counts == {"unknown": 1}
    assert rig.only is None


def test_an_earlier_source_of_the_track_is_known():
    rig = Rig().receive(strep(audio(0, CALLER)))
    rig.receive(strep(audio(5, CALLEE)), strep(audio(6, CALLEE)), at_ms=20)
    rig.receive(strep(report(CALLEE, ntp=NOON_NTP, timestamp=1000)))
    sender = rig.only["sender"]
    assert sender["ssrc"] == "0x0000bbbb"
    # its clock says nothing of the track's beginning
    assert sender["started_at"] is None


def test_what_is_malformed_is_counted():
    rig = Rig().receive(strep(audio(0, CALLER)), strep(report(CALLER, ntp=NOON_NTP)[:-1]))
    assert rig.counts == {"malformed": 1}
    assert rig.receiver.datagrams["rtcp"] == 1


def test_plain_rtcp_belongs_to_its_ports_binding():
    rig = Rig()
    number = rig.receiver.bind(Binding(CALL, direction=Direction.OUTBOUND))
    rig.receive(audio(0, CALLER), report(CALLER, ntp=NOON_NTP), binding=number)
    assert rig.told(direction="outbound")["sender"]["reports"] == 1


@pytest.mark.parametrize("port", [0, 1])
def test_plain_rtcp_without_a_binding_is_matched_by_addresses(port):
    """Multiplexed, or on the next port."""
    rig = Rig().receive(audio(0, CALLER))
    here, there = (Endpoint(end.address, end.port + port) for end in (HERE, THERE))
    rig.receive(report(CALLER, ntp=NOON_NTP), source=here, destination=there)
    rig.receive(report(CALLEE, blocks=[block(CALLER, lost=3)]), source=there, destination=here)
    assert rig.counts == {"matched": 2}
    told = rig.only
    assert told["sender"]["reports"] == 1
    assert told["far_end"]["cumulative_lost"] == 3


def test_a_flood_is_looked_at_only_so_much():
    rig = Rig().receive(strep(audio(0, CALLER)))
    flood = [strep(report(7, ntp=0))] * 50
    for _ in range(MAX_PER_SECOND // 50 + 2):
        rig.receive(*flood, at_ms=500)
    assert rig.counts == {"unknown": MAX_PER_SECOND, "skipped": 100}
    rig.receive(*flood, at_ms=1500)
    assert rig.counts == {"unknown": MAX_PER_SECOND + 50, "skipped": 100}
