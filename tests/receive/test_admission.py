"""Datagrams of call legs that nobody has told of: how long, how many, and in which order."""

from __future__ import annotations

import tracemalloc
from uuid import UUID

import numpy as np
import pytest
from packetmaker import MS
from wirecases import STALE, rtp, strep

from strep.receive.admission import PART_BYTES, Admission
from strep.wire import Endpoint, PacketBatch

CALL = UUID("01234567-89ab-4cde-8f01-23456789abcd")
OTHER = UUID("2dc6fc34-f9e0-11ea-b68e-02420a0f7768")
SOURCE, DESTINATION = Endpoint.of("192.0.2.1", 4000), Endpoint.of("192.0.2.2", 9000)


def packet(number, call=CALL, payload_bytes=160):
    payload = bytes([number]) * payload_bytes
    return strep(rtp(payload, sequence=number, timestamp=160 * number, ssrc=1), call)


class Rig:
    """An admission, and a batch that is full of stale bytes after each keeping."""

    def __init__(self, **limits):
        self.admission = Admission(**{"wait_s": 10, **limits})
        self.batch = PacketBatch(64, 512)

    def keep(self, *datagrams, at_ms=0):
        """Keep datagrams that come 20 ms apart; return the places of those that were refused."""
        self.batch.clear()
        for i, datagram in enumerate(datagrams):
            arrival_ns = round((at_ms + 20 * i) * MS)
            self.batch.add(datagram, arrival_ns, SOURCE.pack(), DESTINATION.pack())
        self.batch.parse()
        n = self.batch.count
        refused = self.admission.keep(
            self.batch, np.arange(n), self.batch.call_leg_id[:, :n].copy()
        )
        self.batch.buffer[:] = STALE
        self.batch.arrival_ns[:] = -1
        return refused.tolist()

    def admit(self, call=CALL):
        """Return what waited: each datagram and when it came, in ms."""
        waited = self.admission.admit(call)
        if waited is None:
            return None
        return [
            (bytes(waited.datagram(i)), int(waited.arrival_ns[i]) / MS) for i in range(waited.count)
        ]


def words(*calls):
    return np.array([np.frombuffer(call.bytes, np.uint64) for call in calls]).T


def test_leg_is_known_from_when_it_is_admitted_until_it_is_forgotten():
    admission = Admission(wait_s=10)
    assert admission.knows(words(CALL, OTHER)).tolist() == [False, False]
    assert admission.admit(CALL) is None
    assert admission.knows(words(OTHER, CALL, CALL)).tolist() == [False, True, True]
    admission.forget(CALL)
    assert admission.knows(words(CALL)).tolist() == [False]
    admission.forget(CALL)


def test_what_waited_comes_back_whole_in_order_with_its_times():
    rig = Rig()
    assert rig.keep(packet(1), packet(2, OTHER), packet(3, payload_bytes=240)) == []
    assert rig.keep(packet(4, payload_bytes=80), at_ms=60) == []
    assert (rig.admission.datagrams, rig.admission.legs) == (4, 2)
    assert rig.admit() == [
        (packet(1), 0),
        (packet(3, payload_bytes=240), 40),
        (packet(4, payload_bytes=80), 60),
    ]
    assert (rig.admission.datagrams, rig.admission.legs) == (1, 1)
    assert rig.admit() is None
    assert rig.admit(OTHER) == [(packet(2, OTHER), 20)]
    assert (rig.admission.datagrams, rig.admission.legs) == (0, 0)


def test_both_endpoints_come_back():
    rig = Rig()
    rig.keep(packet(1))
    waited = rig.admission.admit(CALL)
    assert waited.source[0].tobytes() == SOURCE.pack()
    assert waited.destination[0].tobytes() == DESTINATION.pack()
    assert waited.slot_bytes == 512
    assert waited.parse()


def test_leg_waits_so_long_from_its_first_datagram_on():
    rig = Rig(wait_s=1)
    rig.keep(packet(1), at_ms=100)
    rig.keep(packet(2), at_ms=900)
    rig.keep(packet(3, OTHER), at_ms=1000)
    assert rig.admission.expire(1099 * MS) == 0
    assert rig.admission.expire(1100 * MS) == 2
    assert rig.admit() is None
    assert rig.admission.expire(1999 * MS) == 0
    assert rig.admission.expire(5000 * MS) == 1
    assert rig.admission.datagrams == 0


def test_leg_that_goes_on_waits_again_after_its_time():
    rig = Rig(wait_s=1)
    rig.keep(packet(1), at_ms=0)
    assert rig.admission.expire(1000 * MS) == 1
    rig.keep(packet(2), at_ms=1010)
    assert rig.admission.expire(2000 * MS) == 0
    assert rig.admit() == [(packet(2), 1010)]


def test_so_many_legs_wait_at_once():
    rig = Rig(max_legs=2)
    calls = [UUID(int=number) for number in range(1, 4)]
    assert rig.keep(*(packet(i, call) for i, call in enumerate(calls))) == [2]
    # of those that wait there may be more
    assert rig.keep(*(packet(i, call) for i, call in enumerate(calls))) == [2]
    assert (rig.admission.datagrams, rig.admission.legs) == (4, 2)
    rig.admit(calls[0])
    assert rig.keep(packet(0, calls[2])) == []


def test_so_many_datagrams_of_a_leg_wait_at_once():
    rig = Rig(max_datagrams=3)
    assert rig.keep(packet(1), packet(2)) == []
    assert rig.keep(packet(3), packet(4, OTHER), packet(5)) == [2]
    assert rig.keep(packet(6)) == [0]
    assert [datagram for datagram, _ in rig.admit()] == [packet(1), packet(2), packet(3)]


def test_so_many_bytes_wait_at_once():
    beside = 60  # length, time and addresses
    rig = Rig(max_bytes=3 * (len(packet(1)) + beside) + 2 * PART_BYTES)
    assert rig.keep(packet(1), packet(2)) == []
    assert rig.keep(packet(3, OTHER), packet(4, OTHER)) == [1]
    assert rig.keep(packet(5, payload_bytes=1)) == [0]
    rig.admit()
    assert rig.keep(packet(6, payload_bytes=80), packet(7, payload_bytes=80)) == []


def test_what_waits_takes_no_more_memory_than_it_may_however_small_it_is():
    rig = Rig(max_bytes=500_000, max_datagrams=10_000)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        while rig.keep(packet(1, payload_bytes=0)) == []:
            pass
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert rig.admission.datagrams > 900
    assert taken < 500_000


@pytest.mark.parametrize("waiting", [0, 3])
def test_all_is_given_up_at_the_end(waiting):
    rig = Rig()
    rig.keep(*(packet(number) for number in range(waiting)))
    assert rig.admission.clear() == waiting
    assert (rig.admission.datagrams, rig.admission.legs) == (0, 0)
    assert rig.admit() is None
