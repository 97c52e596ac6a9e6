"""The receiver: whose packets they are, and that none is lost sight of."""

from __future__ import annotations

from uuid import RFC_4122, UUID

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from packetmaker import MS
from recordingsink import RecordingSink
from wirecases import CASES, GOODBYE, STALE, rtp, strep

from pipeline.dispatch import Dispatcher
from strep.receive.admission import Admission
from strep.receive.receiver import Binding, Receiver, flow_ids
from strep.wire import Direction, DropReason, Endpoint, Leg, PacketBatch

pytestmark = pytest.mark.usefixtures("kernel")

CALL = UUID("01234567-89ab-4cde-8f01-23456789abcd")
OTHER_CALL = UUID("2dc6fc34-f9e0-11ea-b68e-02420a0f7768")
SOURCE = Endpoint.of("192.0.2.1", 4000)
DESTINATION = Endpoint.of("192.0.2.2", 9000)
AUDIO_BYTES = 160


def audio(number):
    """Return 20 ms of G.711 that is told from its neighbours, and from stale bytes."""
    return bytes([number % STALE]) * AUDIO_BYTES


def plain(number, *, ssrc=1, **fields):
    """Return the RTP packet of this sequence number."""
    return rtp(
        audio(number),
        sequence=number & 0xFFFF,
        timestamp=number * AUDIO_BYTES & 0xFFFFFFFF,
        ssrc=ssrc,
        **fields,
    )


def forked(number, call=CALL, *, first=0xC4, **fields):
    """Return the same in STREP."""
    return strep(plain(number, **fields), call, first=first)


def _closed(receiver):
    return {why: tracks for why, tracks in receiver.tracks_closed.items() if tracks}


class Rig:
    """A receiver with a sink, and a batch that is full of stale bytes after each reading."""

    def __init__(self, **options):
        self.sink = RecordingSink()
        self.receiver = Receiver(Dispatcher({"recording": self.sink}), **options)
        self.batch = PacketBatch(64, 512)

    def receive(self, *datagrams, at_ms=0, source=SOURCE, destination=DESTINATION, binding=None):
        self.batch.clear()
        for i, datagram in enumerate(datagrams):
            arrival_ns = round((at_ms + 20 * i) * MS)
            self.batch.add(datagram, arrival_ns, source.pack(), destination.pack())
        number = self.receiver.bind(binding) if binding else 0
        self.batch.binding[: self.batch.count] = number
        self.receiver.receive(self.batch)
        if number:
            self.receiver.unbind(number)
        reasons = [DropReason(r) for r in self.batch.reason[: self.batch.count]]
        self.batch.buffer[:] = STALE
        self.check()
        return reasons

    def tick(self, at_ms):
        self.receiver.tick(round(at_ms * MS))
        self.check()

    def check(self):
        assert self.receiver.read == sum(self.receiver.datagrams.values())

    @property
    def counts(self):
        return {reason: n for reason, n in self.receiver.datagrams.items() if n}

    @property
    def tracks(self):
        return [
            (track.row, track.generation, track.call_leg_id, track.leg, track.direction)
            for track in self.sink.opened.values()
        ]


def test_a_fork_becomes_a_track():
    rig = Rig(unix_offset_ns=1_700_000_000_000_000_000)
    rig.receive(forked(100, ssrc=0xABCD), at_ms=5)
    (track,) = rig.sink.opened.values()
    assert (track.row, track.generation) == (0, 1)
    assert (track.call_leg_id, track.leg, track.direction) == (CALL, "A", "inbound")
    assert (track.source, track.destination) == ("192.0.2.1:4000", "192.0.2.2:9000")
    assert track.opened_ns == 5 * MS
    assert track.opened_unix_ns == 1_700_000_000_005_000_000
    assert track.ssrc == 0xABCD
    assert rig.sink.payloads() == [audio(100)]


def test_legs_and_directions_are_tracks_of_their_own():
    rig = Rig()
    rig.receive(*(forked(100, first=first) for first in (0xC4, 0xC5, 0xC6, 0xC7)))
    assert rig.tracks == [
        (0, 1, CALL, "A", "inbound"),
        (1, 1, CALL, "A", "outbound"),
        (2, 1, CALL, "B", "inbound"),
        (3, 1, CALL, "B", "outbound"),
    ]


def test_calls_in_one_batch_are_told_apart():
    rig = Rig()
    for start in (100, 103):
        rig.receive(
            forked(start),
            forked(start + 50, OTHER_CALL),
            forked(start + 1),
            forked(start + 2),
            forked(start + 51, OTHER_CALL),
            forked(start + 52, OTHER_CALL),
        )
    assert rig.tracks == [(0, 1, CALL, "A", "inbound"), (1, 1, OTHER_CALL, "A", "inbound")]
    assert rig.sink.payloads(0) == [audio(n) for n in range(100, 106)]
    assert rig.sink.payloads(1) == [audio(n) for n in range(150, 156)]
    assert rig.counts == {"accepted": 12}


def test_packets_of_one_track_in_one_batch_all_count():
    rig = Rig()
    rig.receive(*(forked(n) for n in range(100, 164)))
    rig.receiver.stop()
    summary = rig.sink.closed[0, 1]
    assert (summary.packets, summary.payload_bytes, summary.lost) == (64, 64 * 160, 0)
    assert rig.sink.payloads() == [audio(n) for n in range(100, 164)]


def test_what_the_sinks_were_given_outlives_the_batch_behind_a_hole_too():
    rig = Rig()
    rig.receive(forked(100), forked(102), forked(103))
    assert rig.sink.payloads() == [audio(100)]
    rig.receive(forked(101), at_ms=50)
    assert rig.sink.payloads() == [audio(n) for n in (100, 101, 102, 103)]


def test_unusual_headers_belong_to_the_same_track():
    rig = Rig()
    rig.receive(
        forked(100),
        forked(101, csrcs=(5, 6)),
        forked(102, extension=(0xBEDE, bytes(8))),
        forked(103, padding=b"\0\0\3"),
        strep(plain(104), CALL, extra=b"longer"),
        strep(plain(105), CALL, reserved=b"\xff" * 6),
    )
    assert rig.tracks == [(0, 1, CALL, "A", "inbound")]
    assert rig.sink.payloads() == [audio(n) for n in range(100, 106)]


def test_every_drop_reason_is_counted():
    rig = Rig()
    expected = {}
    for start in range(0, len(CASES), 32):
        rig.batch.clear()
        for case in CASES[start : start + 32]:
            rig.batch.add(case.datagram, 0, length_bytes=case.length_bytes)
            expected[case.reason.label] = expected.get(case.reason.label, 0) + 1
        rig.receiver.receive(rig.batch)
        rig.check()
    # the accepted ones share few SSRCs and sequence numbers; some of them wait on probation
    accepted = expected.pop("accepted")
    counts = rig.counts
    taken = sum(counts.pop(reason, 0) for reason in ("accepted", "on_probation", "stray"))
    assert taken == accepted
    assert counts == expected


def test_a_batch_in_which_nothing_is_accepted_opens_nothing():
    rig = Rig()
    assert rig.receive(GOODBYE, b"", strep(GOODBYE)) == [
        DropReason.RTCP, DropReason.SHORT, DropReason.RTCP,
    ]  # fmt: skip
    assert rig.tracks == []
    assert rig.counts == {"short": 1, "rtcp": 2}


def test_an_empty_batch_changes_nothing():
    rig = Rig()
    rig.receive()
    assert (rig.receiver.read, rig.counts) == (0, {})


def test_all_reasons_are_reported_even_where_none_occurred():
    assert Rig().receiver.datagrams == dict.fromkeys(
        (
            "accepted", "short", "truncated", "strep_version", "header_length", "rtp_version",
            "csrc", "extension", "padding", "rtcp", "t38", "sip", "other",
            "tracks_full", "stray", "unknown_leg", "draining", "other_source", "source_not_allowed",
            "too_many_new", "on_probation", "pending",
        ),
        0,
    )  # fmt: skip


def test_packets_of_tracks_beyond_the_limit_are_dropped_and_counted():
    rig = Rig(max_tracks=2)
    reasons = rig.receive(
        forked(100),
        forked(200, OTHER_CALL),
        forked(300, OTHER_CALL, first=0xC5),
        forked(101),
        forked(301, OTHER_CALL, first=0xC5),
    )
    full = DropReason.TRACKS_FULL
    assert reasons == [DropReason.ACCEPTED, DropReason.ACCEPTED, full, DropReason.ACCEPTED, full]
    rig.receive(forked(302, OTHER_CALL, first=0xC5), forked(102))
    assert rig.counts == {"accepted": 4, "tracks_full": 3}
    assert rig.receiver.tracks_opened == 2
    assert rig.sink.payloads(0) == [audio(100), audio(101), audio(102)]


def test_a_closed_track_makes_room_for_another():
    rig = Rig(max_tracks=1)
    rig.receive(forked(100))
    assert rig.receive(forked(1, OTHER_CALL)) == [DropReason.TRACKS_FULL]
    assert rig.receiver.close_call(CALL) == 1
    assert rig.receive(forked(2, OTHER_CALL)) == [DropReason.ACCEPTED]
    assert rig.tracks == [(0, 1, CALL, "A", "inbound"), (0, 2, OTHER_CALL, "A", "inbound")]
    assert rig.sink.payloads(0, 1) == [audio(100)]
    assert rig.sink.payloads(0, 2) == [audio(2)]


def test_a_late_packet_of_a_closed_call_never_reaches_the_next():
    rig = Rig()
    rig.receive(forked(100), forked(101))
    rig.receiver.close_call(CALL)
    rig.receive(forked(7, OTHER_CALL), at_ms=40)
    rig.receive(forked(102), forked(8, OTHER_CALL), at_ms=60)
    assert rig.tracks == [
        (0, 1, CALL, "A", "inbound"),
        (0, 2, OTHER_CALL, "A", "inbound"),
        (1, 1, CALL, "A", "inbound"),
    ]
    assert rig.sink.payloads(0, 1) == [audio(100), audio(101)]
    assert rig.sink.payloads(0, 2) == [audio(7), audio(8)]
    assert rig.sink.payloads(1, 1) == [audio(102)]


def test_what_waited_on_a_closed_track_is_given_out_to_it_and_to_no_other():
    rig = Rig()
    rig.receive(forked(100), forked(102))
    rig.receiver.close_call(CALL)
    rig.receive(forked(101, OTHER_CALL), forked(102, OTHER_CALL), at_ms=40)
    assert rig.sink.payloads(0, 1) == [audio(100), audio(102)]
    assert rig.sink.payloads(0, 2) == [audio(101), audio(102)]
    assert rig.sink.closed[0, 1].lost == 1


def test_closing_a_call_closes_all_its_tracks_and_no_other():
    rig = Rig()
    rig.receive(forked(1), forked(1, OTHER_CALL), forked(1, first=0xC7))
    assert rig.receiver.close_call(CALL) == 2
    assert rig.receiver.close_call(CALL) == 0
    assert {key: summary.reason for key, summary in rig.sink.closed.items()} == {
        (0, 1): "closed", (2, 1): "closed",
    }  # fmt: skip
    assert _closed(rig.receiver) == {"closed": 2}
    rig.receive(forked(2, OTHER_CALL), at_ms=20)
    assert rig.sink.payloads(1) == [audio(1), audio(2)]


def test_a_further_segment_is_a_track_of_its_own_on_the_same_row():
    opened = []
    rig = Rig(max_gap_s=2, on_opened=opened.append)
    rig.receive(forked(100), forked(101))
    rig.receive(forked(102), forked(103), at_ms=5040)
    rig.tick(5700)
    assert rig.tracks == [(0, 1, CALL, "A", "inbound"), (0, 2, CALL, "A", "inbound")]
    assert [(track.generation, track.segment, track.gap_s) for track in opened] == [
        (1, 0, 0.0),
        (2, 1, 5.0),
    ]
    assert rig.sink.payloads(0, 2) == [audio(102), audio(103)]
    assert rig.receiver.close_call(CALL) == 1
    assert _closed(rig.receiver) == {"gap": 1, "closed": 1}
    assert rig.receiver.tracks_opened == 2
    rig.receive(forked(7), at_ms=6000)
    assert rig.tracks[-1] == (0, 3, CALL, "A", "inbound")


def test_an_idle_track_is_closed_after_the_timeout():
    rig = Rig(idle_timeout_s=30)
    rig.receive(forked(100), forked(1, OTHER_CALL))
    rig.tick(29_000)
    rig.receive(forked(2, OTHER_CALL), at_ms=29_500)
    assert rig.sink.closed == {}
    rig.tick(30_010)
    assert {key: summary.reason for key, summary in rig.sink.closed.items()} == {(0, 1): "idle"}
    rig.tick(59_000)
    assert len(rig.receiver.pipeline.tracks) == 1
    rig.tick(60_000)
    assert _closed(rig.receiver) == {"idle": 2}
    assert rig.receiver.pipeline.tracks == {}


def test_idle_tracks_are_looked_for_once_a_second():
    rig = Rig(idle_timeout_s=0.5)
    rig.tick(0)
    rig.receive(forked(100), at_ms=100)
    rig.tick(999)
    assert rig.sink.closed == {}
    rig.tick(1000)
    assert list(rig.sink.closed) == [(0, 1)]


def test_a_call_that_comes_back_after_idling_is_a_new_track():
    rig = Rig(idle_timeout_s=30)
    rig.receive(forked(100))
    rig.tick(31_000)
    rig.receive(forked(100), at_ms=32_000)
    assert rig.tracks == [(0, 1, CALL, "A", "inbound"), (0, 2, CALL, "A", "inbound")]
    assert [rig.sink.payloads(0, g) for g in (1, 2)] == [[audio(100)], [audio(100)]]


def test_time_closes_holes():
    rig = Rig(reorder_ms=60)
    rig.receive(forked(100), forked(102))
    rig.tick(79.9)
    assert rig.sink.payloads() == [audio(100)]
    rig.tick(80)
    assert rig.sink.payloads() == [audio(100), audio(102)]
    rig.receive(forked(101), at_ms=81)
    assert rig.counts == {"accepted": 3}
    rig.receiver.stop()
    summary = rig.sink.closed[0, 1]
    assert (summary.lost, summary.late) == (1, 1)


def test_stopping_closes_all_tracks_and_the_sinks():
    rig = Rig()
    rig.receive(forked(1), forked(1, OTHER_CALL), forked(3))
    rig.receiver.stop()
    assert [summary.reason for summary in rig.sink.closed.values()] == ["end"] * 2
    assert rig.sink.payloads(0) == [audio(1), audio(3)]
    assert rig.sink.stopped
    assert _closed(rig.receiver) == {"end": 2}
    rig.check()


def test_a_new_ssrc_takes_over_and_the_track_goes_on():
    rig = Rig()
    rig.receive(forked(100), forked(101))
    rig.receive(forked(7, ssrc=2), at_ms=40)
    assert rig.counts == {"accepted": 2, "on_probation": 1}
    rig.receive(forked(8, ssrc=2), at_ms=60)
    assert rig.counts == {"accepted": 4}
    assert rig.tracks == [(0, 1, CALL, "A", "inbound")]
    assert rig.sink.payloads() == [audio(n) for n in (100, 101, 7, 8)]


def test_a_stray_ssrc_is_counted_and_does_no_harm():
    rig = Rig()
    rig.receive(forked(100))
    rig.receive(forked(7, ssrc=2), forked(101), at_ms=20)
    rig.tick(10_100)
    rig.receive(forked(102), at_ms=10_200)
    rig.tick(10_800)
    assert rig.counts == {"accepted": 3, "stray": 1}
    assert rig.sink.payloads() == [audio(n) for n in (100, 101, 102)]


def test_a_packet_on_probation_when_its_track_closes_is_stray():
    rig = Rig()
    rig.receive(forked(100), forked(7, ssrc=2))
    rig.receiver.close_call(CALL)
    rig.check()
    assert rig.counts == {"accepted": 1, "stray": 1}


BINDING = Binding(CALL, Leg.B, Direction.OUTBOUND)


def test_plain_rtp_belongs_to_whom_its_port_is_bound():
    rig = Rig()
    rig.receive(plain(100), plain(101), binding=BINDING)
    assert rig.tracks == [(0, 1, CALL, "B", "outbound")]
    assert rig.sink.payloads() == [audio(100), audio(101)]


def test_a_binding_is_of_leg_a_inbound_unless_told_otherwise():
    rig = Rig()
    rig.receive(plain(100), binding=Binding(CALL))
    assert rig.tracks == [(0, 1, CALL, "A", "inbound")]


def test_a_new_source_on_a_bound_port_takes_over_the_track():
    rig = Rig()
    rig.receive(plain(100), plain(101), binding=BINDING)
    elsewhere = Endpoint.of("198.51.100.1", 7)
    rig.receive(plain(7, ssrc=2), plain(8, ssrc=2), source=elsewhere, binding=BINDING, at_ms=40)
    assert rig.tracks == [(0, 1, CALL, "B", "outbound")]
    assert rig.sink.payloads() == [audio(n) for n in (100, 101, 7, 8)]


def test_a_binding_does_not_touch_strep():
    rig = Rig()
    rig.receive(forked(1, OTHER_CALL, first=0xC5), plain(100), binding=BINDING)
    assert rig.tracks == [(0, 1, OTHER_CALL, "A", "outbound"), (1, 1, CALL, "B", "outbound")]


def test_strep_and_bound_rtp_of_one_call_are_one_track():
    rig = Rig()
    rig.receive(forked(100, first=0xC7), plain(101), binding=BINDING)
    assert rig.tracks == [(0, 1, CALL, "B", "outbound")]
    assert rig.sink.payloads() == [audio(100), audio(101)]


FLOW = UUID("be236693-ed9b-8392-96ba-7bf31028e5da")
FLOW_V6 = UUID("1029c52f-84d7-8527-a85d-0e9baf62d196")


def test_plain_rtp_without_binding_is_named_after_its_flow_the_same_in_every_run():
    rig = Rig()
    rig.receive(plain(100), plain(101))
    assert rig.tracks == [(0, 1, FLOW, "A", "inbound")]
    assert rig.sink.payloads() == [audio(100), audio(101)]
    rig = Rig()
    rig.receive(
        plain(100, ssrc=0xFFFFFFFF),
        source=Endpoint.of("2001:db8::1", 1),
        destination=Endpoint.of("2001:db8::2", 65535),
    )
    assert rig.tracks == [(0, 1, FLOW_V6, "A", "inbound")]


@pytest.mark.parametrize("flow", [FLOW, FLOW_V6])
def test_names_of_flows_are_custom_uuids(flow):
    assert (flow.version, flow.variant) == (8, RFC_4122)


@pytest.mark.parametrize("first", [0x80, 0x81, 0x82, 0x83])
def test_leg_and_direction_of_a_flow_do_not_come_from_its_csrcs(first):
    rig = Rig()
    rig.receive(plain(100, csrcs=range(first & 0x0F)))
    assert rig.tracks == [(0, 1, FLOW, "A", "inbound")]


def test_flows_that_differ_in_anything_are_tracks_of_their_own():
    rig = Rig()
    rig.receive(plain(1), plain(1, ssrc=2), plain(2))
    rig.receive(plain(3), source=SOURCE._replace(port=4001))
    rig.receive(plain(4), source=Endpoint.of("192.0.2.3", 4000))
    rig.receive(plain(5), destination=DESTINATION._replace(port=9001))
    rig.receive(plain(6), source=DESTINATION, destination=SOURCE)
    assert [rig.sink.payloads(row) for row in range(6)] == [
        [audio(1), audio(2)], [audio(1)], [audio(3)], [audio(4)], [audio(5)], [audio(6)],
    ]  # fmt: skip
    assert len({track.call_leg_id for track in rig.sink.opened.values()}) == 6


def test_names_of_many_flows_do_not_collide():
    source = np.tile(np.frombuffer(SOURCE.pack(), np.uint8), (40_000, 1))
    destination = np.tile(np.frombuffer(DESTINATION.pack(), np.uint8), (40_000, 1))
    ssrc = np.arange(40_000, dtype=np.uint32)
    ids = flow_ids(source, destination, ssrc)
    assert ids.shape == (2, 40_000)
    # both halves vary: each alone has 60 bits or more of the mix
    assert [len(np.unique(half)) for half in ids] == [40_000, 40_000]
    assert {UUID(bytes=ids[:, i].tobytes()).version for i in range(0, 40_000, 1000)} == {8}


def known(**limits):
    """Return a rig that receives known call legs only."""
    return Rig(admission=Admission(**{"wait_s": 10, **limits}))


def test_leg_that_nobody_told_of_opens_nothing_until_it_is_told():
    rig = known()
    rig.receive(forked(100), forked(50, OTHER_CALL), forked(101))
    assert (rig.tracks, rig.counts, rig.receiver.legs_pending) == ([], {"pending": 3}, 2)
    rig.receiver.admit(CALL)
    rig.check()
    assert rig.tracks == [(0, 1, CALL, "A", "inbound")]
    assert (rig.counts, rig.receiver.read) == ({"accepted": 2, "pending": 1}, 3)
    rig.receive(forked(102), at_ms=60)
    assert rig.sink.payloads() == [audio(100), audio(101), audio(102)]


def test_what_waited_is_received_with_the_times_at_which_it_came():
    rig = known()
    rig.receive(forked(100), forked(102), at_ms=1000)
    rig.receive(forked(103), forked(104, first=0xC5), at_ms=1040)
    rig.tick(9000)
    rig.receiver.admit(CALL)
    rig.tick(9000)
    inbound, outbound = rig.sink.opened.values()
    assert (inbound.opened_ns, outbound.opened_ns) == (1000 * MS, 1060 * MS)
    # what came behind a hole was given up as when it came, not when it was told
    assert rig.sink.payloads() == [audio(100), audio(102), audio(103)]
    rig.receiver.close_call(CALL)
    summary = rig.sink.closed[0, 1]
    assert (summary.packets, summary.lost, summary.jitter_mean_ms > 0) == (3, 1, True)
    assert (summary.first_arrival_ns, summary.last_arrival_ns) == (1000 * MS, 1040 * MS)


def test_leg_that_nobody_tells_of_in_time_is_dropped():
    rig = known(wait_s=2)
    rig.receive(forked(100), forked(101), at_ms=1000)
    rig.tick(2900)
    assert rig.counts == {"pending": 2}
    rig.tick(4000)
    assert rig.counts == {"unknown_leg": 2}
    rig.receiver.admit(CALL)
    assert rig.tracks == []


def test_what_has_no_room_to_wait_is_dropped_at_once():
    rig = known(max_datagrams=2)
    assert rig.receive(forked(100), forked(101), forked(102))[2] is DropReason.UNKNOWN_LEG
    assert rig.counts == {"pending": 2, "unknown_leg": 1}


def test_plain_rtp_is_known_by_its_port_alone():
    rig = known()
    assert rig.receive(plain(100), plain(101)) == [DropReason.UNKNOWN_LEG] * 2
    rig.receive(plain(100), binding=Binding(CALL))
    assert rig.tracks == [(0, 1, CALL, "A", "inbound")]
    # a leg in the STREP header is not that of the port that it comes in on
    rig.receive(forked(100, OTHER_CALL), binding=Binding(CALL))
    assert rig.counts == {"accepted": 1, "unknown_leg": 2, "pending": 1}


def test_tracks_of_a_forgotten_leg_go_on_and_new_ones_are_not_opened():
    rig = known()
    rig.receiver.admit(CALL)
    rig.receive(forked(100))
    rig.receiver.forget(CALL)
    rig.receive(forked(101), forked(100, first=0xC5))
    assert rig.counts == {"accepted": 2, "pending": 1}
    rig.receiver.close_call(CALL)
    rig.receive(forked(102))
    assert rig.counts == {"accepted": 2, "pending": 2}


def test_what_waits_at_the_end_is_dropped():
    rig = known()
    rig.receive(forked(100))
    rig.receiver.stop()
    rig.check()
    assert rig.counts == {"unknown_leg": 1}


def test_known_leg_beyond_the_most_tracks_is_dropped_as_such():
    rig = Rig(admission=Admission(wait_s=10), max_tracks=1)
    rig.receive(forked(100), forked(100, OTHER_CALL))
    rig.receiver.admit(CALL)
    rig.receiver.admit(OTHER_CALL)
    rig.check()
    assert rig.counts == {"accepted": 1, "tracks_full": 1}


def test_without_an_admission_all_legs_are_known():
    rig = Rig()
    rig.receiver.admit(CALL)
    rig.receiver.forget(CALL)
    rig.receive(forked(100), forked(100, OTHER_CALL))
    assert (rig.counts, rig.receiver.legs_pending) == ({"accepted": 2}, 0)


def test_while_it_drains_new_call_legs_are_refused_and_counted():
    rig = Rig()
    rig.receive(forked(100))
    rig.receiver.take_no_new()
    assert rig.receive(forked(100, OTHER_CALL), forked(101)) == [
        DropReason.DRAINING,
        DropReason.ACCEPTED,
    ]
    # the other side of a running call, and its next track, are of that call
    rig.receive(forked(100, first=0xC5))
    rig.receiver.close_call(CALL)
    rig.receive(forked(200))
    assert rig.counts == {"accepted": 4, "draining": 1}
    assert [track[2:] for track in rig.tracks] == [
        (CALL, "A", "inbound"), (CALL, "A", "outbound"), (CALL, "A", "inbound"),
    ]  # fmt: skip


def test_while_it_drains_forks_that_were_asked_for_still_come():
    rig = Rig()
    rig.receiver.take_no_new([OTHER_CALL])
    rig.receive(forked(100), plain(100), forked(100, OTHER_CALL))
    rig.receive(plain(100), binding=Binding(OTHER_CALL, direction=Direction.OUTBOUND))
    assert rig.counts == {"accepted": 2, "draining": 2}
    assert {track[2] for track in rig.tracks} == {OTHER_CALL}


def test_while_it_drains_unknown_legs_do_not_wait():
    rig = known()
    rig.receive(forked(100))
    rig.receiver.take_no_new()
    rig.receive(forked(100, OTHER_CALL))
    assert rig.counts == {"pending": 1, "draining": 1}
    rig.receiver.admit(CALL)
    rig.check()
    assert rig.counts == {"draining": 2}


def test_admission_that_ends_takes_in_what_waited():
    rig = known()
    rig.receive(forked(100), forked(100, OTHER_CALL), forked(101))
    rig.receiver.set_admission(None)
    rig.check()
    assert (rig.counts, rig.receiver.legs_pending) == ({"accepted": 3}, 0)
    assert [track[2] for track in rig.tracks] == [CALL, OTHER_CALL]


def test_admission_that_begins_lets_open_tracks_go_on():
    rig = Rig()
    rig.receive(forked(100))
    rig.receiver.set_admission(Admission(wait_s=10))
    rig.receive(forked(101), forked(100, OTHER_CALL))
    assert rig.counts == {"accepted": 2, "pending": 1}
    rig.receiver.admit(OTHER_CALL)
    assert rig.counts == {"accepted": 3}


def test_each_new_track_is_told():
    told = []
    rig = Rig(on_opened=told.append)
    rig.receive(forked(100), forked(101), forked(100, first=0xC5))
    assert told == list(rig.sink.opened.values())
    assert [track.direction for track in told] == ["inbound", "outbound"]


CALLS = st.sampled_from([CALL, OTHER_CALL, UUID(int=0)])
FORKED = st.builds(
    forked,
    st.integers(100, 110) | st.integers(0, 70_000),
    CALLS,
    first=st.sampled_from([0xC4, 0xC5]),
    ssrc=st.sampled_from([1, 1, 1, 2]),
    payload_type=st.sampled_from([0, 8, 13, 101]),
)
PLAIN = st.builds(plain, st.integers(100, 110), ssrc=st.integers(1, 2))
ODD = st.sampled_from([case.datagram for case in CASES])
DATAGRAMS = st.one_of(FORKED, FORKED, PLAIN, ODD, st.binary(max_size=60))


class DatagramsAreConserved(RuleBasedStateMachine):
    """Anything may come, in any batches, while calls are closed and time passes."""

    @initialize(
        max_tracks=st.sampled_from([1, 3, 100]),
        reorder_ms=st.sampled_from([0, 60]),
        limits=st.none() | st.fixed_dictionaries({"max_datagrams": st.sampled_from([3, 100])}),
    )
    def begin(self, max_tracks, reorder_ms, limits):
        admission = None if limits is None else Admission(wait_s=1, max_legs=2, **limits)
        self.rig = Rig(
            max_tracks=max_tracks,
            reorder_ms=reorder_ms,
            idle_timeout_s=2,
            admission=admission,
        )
        self.now_ms = 1000
        self.sent = 0

    @rule(datagrams=st.lists(DATAGRAMS, max_size=20), is_bound=st.booleans())
    def receive(self, datagrams, is_bound):
        binding = Binding(CALL, Leg.B) if is_bound else None
        self.rig.receive(*datagrams, at_ms=self.now_ms, binding=binding)
        self.sent += len(datagrams)
        self.now_ms += 20 * len(datagrams)

    @rule(wait_ms=st.sampled_from([10, 100, 1000, 3000]))
    def tick(self, wait_ms):
        self.now_ms += wait_ms
        self.rig.tick(self.now_ms)

    @rule(call=CALLS, is_known=st.booleans())
    def tell(self, call, is_known):
        (self.rig.receiver.admit if is_known else self.rig.receiver.forget)(call)

    @rule(call=CALLS)
    def close_call(self, call):
        expected = sum(
            track.call_leg_id == call for track in self.rig.receiver.pipeline.tracks.values()
        )
        assert self.rig.receiver.close_call(call) == expected

    @invariant()
    def every_datagram_is_accounted_for(self):
        receiver = self.rig.receiver
        datagrams = receiver.datagrams
        assert receiver.read == self.sent == sum(datagrams.values())
        assert min(datagrams.values()) >= 0
        counters = receiver.pipeline.counters()
        assert datagrams["accepted"] == (
            counters.released + counters.late + counters.duplicate + counters.held
        )

    @invariant()
    def every_track_is_accounted_for(self):
        receiver, sink = self.rig.receiver, self.rig.sink
        is_open = receiver.pipeline.tracks
        assert len(receiver.table) == len(is_open) <= receiver.table.max_tracks
        assert receiver.tracks_opened == len(sink.opened)
        assert sum(receiver.tracks_closed.values()) == len(sink.closed)
        assert len(sink.opened) == len(sink.closed) + len(is_open)
        keys = [(t.call_leg_id, t.leg, t.direction) for t in is_open.values()]
        assert len(set(keys)) == len(keys)

    def teardown(self):
        if not hasattr(self, "rig"):
            return
        self.rig.receiver.stop()
        self.rig.check()
        datagrams, sink = self.rig.receiver.datagrams, self.rig.sink
        assert datagrams["on_probation"] == datagrams["pending"] == 0
        assert datagrams["accepted"] == sum(s.packets for s in sink.closed.values())
        for summary in sink.closed.values():
            assert summary.packets == summary.released + summary.late + summary.duplicate
        heard = [payload for frames in sink.frames.values() for _, payload in frames]
        assert not any(STALE in payload for payload in heard if len(payload) == AUDIO_BYTES)


def test_datagrams_are_conserved_whatever_comes():
    run_state_machine_as_test(
        DatagramsAreConserved,
        settings=settings(max_examples=80, stateful_step_count=15, deadline=None),
    )
