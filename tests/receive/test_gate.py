"""Who may open tracks, and that nobody talks into a running one."""

from __future__ import annotations

from ipaddress import ip_network
from uuid import UUID

import numpy as np
import pytest
from packetmaker import MS
from recordingsink import RecordingSink
from wirecases import rtp, strep

from pipeline.dispatch import Dispatcher
from strep.receive import gate as gate_module
from strep.receive.gate import Gate, GateSettings
from strep.receive.receiver import UNCONFIRMED_NS, Receiver
from strep.wire import DropReason, Endpoint, PacketBatch

pytestmark = pytest.mark.usefixtures("kernel")

CARRIER = Endpoint.of("192.0.2.1", 4000)
OTHER_PORT = Endpoint.of("192.0.2.1", 4001)
STRANGER = Endpoint.of("198.51.100.9", 4000)
SIX = Endpoint.of("2001:db8::1", 4000)
ACCEPTED, OTHER_SOURCE = DropReason.ACCEPTED, DropReason.OTHER_SOURCE
TOO_MANY, NOT_ALLOWED = DropReason.TOO_MANY_NEW, DropReason.SOURCE_NOT_ALLOWED


def call(number):
    return UUID(int=number + 1)


def packet(sequence, leg=0, *, ssrc=1):
    audio = rtp(
        bytes([sequence & 0x7F]) * 160, sequence=sequence, timestamp=sequence * 160, ssrc=ssrc
    )
    return strep(audio, call(leg))


class Rig:
    def __init__(self, max_tracks=64, **settings):
        self.sink = RecordingSink()
        self.receiver = Receiver(
            Dispatcher({"recording": self.sink}),
            max_tracks=max_tracks,
            gate=GateSettings(**settings),
        )

    def receive(self, *arrivals):
        """Take (datagram, arrival in ms, source) in one batch; return what became of each."""
        batch = PacketBatch(max(1, len(arrivals)), 512)
        for datagram, at_ms, source in arrivals:
            batch.add(datagram, at_ms * MS, source.pack(), Endpoint.of("127.0.0.1", 9000).pack())
        self.receiver.receive(batch)
        counts = self.receiver.datagrams
        assert sum(counts.values()) == self.receiver.read
        return [DropReason(reason) for reason in batch.reason[: batch.count]]

    @property
    def tracks(self):
        return len(self.receiver.table)


def test_packets_from_elsewhere_are_dropped_while_the_source_sends():
    rig = Rig()
    assert rig.receive((packet(0), 0, CARRIER), (packet(1), 20, CARRIER)) == [ACCEPTED] * 2
    injected = [(packet(2), 30, STRANGER), (packet(2), 31, SIX), (packet(2), 40, CARRIER)]
    assert rig.receive(*injected) == [OTHER_SOURCE, OTHER_SOURCE, ACCEPTED]
    assert rig.receiver.datagrams["other_source"] == 2
    assert rig.receiver.datagrams["accepted"] == 3


def test_host_may_change_its_port():
    rig = Rig()
    assert rig.receive((packet(0), 0, CARRIER), (packet(1), 20, OTHER_PORT)) == [ACCEPTED] * 2


def test_source_may_move_when_nothing_came_from_the_old_one_for_long():
    rig = Rig(source_timeout_s=1.0)
    rig.receive((packet(0), 0, CARRIER))
    assert rig.receive((packet(1), 999, SIX)) == [OTHER_SOURCE]
    moved = [
        (packet(1), 1000, SIX),
        (packet(9), 1001, STRANGER),
        (packet(2), 1020, SIX),
    ]
    assert rig.receive(*moved) == [ACCEPTED, OTHER_SOURCE, ACCEPTED]
    assert rig.receive((packet(3), 1040, CARRIER)) == [OTHER_SOURCE]


def test_source_that_speaks_again_in_the_same_moment_keeps_its_track():
    rig = Rig(source_timeout_s=1.0)
    rig.receive((packet(0), 0, CARRIER))
    both = [(packet(1), 2000, STRANGER), (packet(1), 2001, CARRIER)]
    assert rig.receive(*both) == [OTHER_SOURCE, ACCEPTED]


def test_tracks_of_one_batch_have_sources_of_their_own():
    rig = Rig()
    first = [(packet(0, leg), 0, CARRIER if leg % 2 else SIX) for leg in range(10)]
    assert rig.receive(*first) == [ACCEPTED] * 10
    swapped = [(packet(1, leg), 20, SIX if leg % 2 else CARRIER) for leg in range(5)]
    assert rig.receive(*swapped, *[(packet(1, 9), 20, CARRIER)]) == [OTHER_SOURCE] * 5 + [ACCEPTED]


def test_two_sources_in_the_batch_that_opens_the_track():
    rig = Rig()
    both = [(packet(0), 0, CARRIER), (packet(1), 1, STRANGER), (packet(1), 20, CARRIER)]
    assert rig.receive(*both) == [ACCEPTED, OTHER_SOURCE, ACCEPTED]


def test_row_that_is_used_again_belongs_to_its_new_source():
    rig = Rig()
    rig.receive((packet(0), 0, CARRIER))
    rig.receiver.close_call(call(0))
    assert rig.receive((packet(0, leg=1), 1, STRANGER)) == [ACCEPTED]
    assert rig.receive((packet(1, leg=1), 2, CARRIER)) == [OTHER_SOURCE]


def test_only_allowed_networks_open_tracks():
    rig = Rig(allowed_sources=(ip_network("192.0.2.0/24"), ip_network("2001:db8::/32")))
    arrivals = [(packet(0, leg), 0, source) for leg, source in enumerate((CARRIER, STRANGER, SIX))]
    assert rig.receive(*arrivals) == [ACCEPTED, NOT_ALLOWED, ACCEPTED]
    assert rig.tracks == 2
    assert rig.receiver.datagrams["source_not_allowed"] == 1


def test_settings_that_change_hold_for_new_tracks_only():
    rig = Rig(allowed_sources=(ip_network("192.0.2.0/24"),))
    assert rig.receive((packet(0), 0, CARRIER), (packet(0, 1), 0, SIX)) == [ACCEPTED, NOT_ALLOWED]
    rig.receiver.set_gate(
        GateSettings(
            allowed_sources=(ip_network("2001:db8::/32"),), burst_tracks=1, new_tracks_per_s=0.1
        )
    )
    assert rig.receive(
        (packet(1), 20, CARRIER), (packet(0, 2), 20, CARRIER), (packet(0, 1), 20, SIX),
        (packet(0, 3), 20, SIX),
    ) == [ACCEPTED, NOT_ALLOWED, ACCEPTED, TOO_MANY]  # fmt: skip


def test_host_that_opens_too_many_has_to_wait_and_others_need_not():
    rig = Rig(new_tracks_per_s=10, burst_tracks=3)
    flood = [(packet(0, leg), 0, OTHER_PORT if leg % 2 else CARRIER) for leg in range(6)]
    assert rig.receive(*flood) == [ACCEPTED] * 3 + [TOO_MANY] * 3
    assert rig.receive((packet(0, 7), 0, STRANGER)) == [ACCEPTED]
    assert rig.receive((packet(0, 8), 99, CARRIER)) == [TOO_MANY]
    assert rig.receive((packet(0, 9), 100, CARRIER), (packet(0, 10), 100, CARRIER)) == [
        ACCEPTED,
        TOO_MANY,
    ]
    # what runs is not held up
    assert rig.receive((packet(1, 0), 100, CARRIER)) == [ACCEPTED]


def test_a_track_that_is_refused_is_refused_whole():
    rig = Rig(new_tracks_per_s=0.1, burst_tracks=1)
    arrivals = [(packet(s, leg), 20 * s, CARRIER) for s in range(2) for leg in range(2)]
    assert rig.receive(*arrivals) == [ACCEPTED, TOO_MANY, ACCEPTED, TOO_MANY]


def test_flood_from_everywhere_shares_one_bucket_in_the_end(monkeypatch):
    monkeypatch.setattr(gate_module, "MAX_BUCKETS", 2)
    gate = Gate(8, GateSettings(new_tracks_per_s=1, burst_tracks=2))
    hosts = np.array([list(Endpoint.of(f"10.0.0.{i}", 1).pack()) for i in range(9)], np.uint8)
    assert [gate.take_token(host, 0) for host in hosts] == [True] * 4 + [False] * 5
    assert gate.has_token(hosts, 0).tolist() == [True, True] + [False] * 7
    # those that are quiet for long make room
    later_ns = 5 * 10**9
    assert gate.take_token(hosts[8], later_ns)
    assert len(gate._buckets._levels) == 1


def test_made_up_legs_do_not_keep_their_rows():
    rig = Rig(max_tracks=8)
    rig.receive(*[(packet(s, 0), 20 * s, CARRIER) for s in range(3)])
    rig.receive(*[(packet(0, leg), 40, STRANGER) for leg in range(1, 12)])
    assert rig.tracks == 8
    assert rig.receiver.datagrams["tracks_full"] == 4
    rig.receiver.tick(UNCONFIRMED_NS + 41 * MS)
    assert rig.tracks == 1
    assert rig.receiver.tracks_closed["idle"] == 7
