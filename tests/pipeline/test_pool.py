from __future__ import annotations

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from packetmaker import P, columns

from pipeline.pool import Pool


def content(pool, cells):
    """What lies in the cells: (payload, timestamp, payload type, arrival) of each."""
    n = len(cells)
    packets = pool.packets(
        np.asarray(cells, np.int32),
        rows=np.zeros(n, np.intp),
        ssrc=np.zeros(n, np.int64),
        sequence=np.zeros(n, np.int64),
    )
    return [
        (
            packets.store[slot, offset : offset + length].tobytes(),
            int(packets.timestamp[i]),
            int(packets.payload_type[i]),
            int(packets.arrival_ns[i]),
        )
        for i, (slot, offset, length) in enumerate(
            zip(packets.slot, packets.offset, packets.length, strict=True)
        )
    ]


def put(pool, *payloads):
    return pool.put(columns([P(payload=payload) for payload in payloads])).tolist()


def test_what_was_put_can_be_had_again():
    pool = Pool()
    cells = pool.put(
        columns(
            [
                P(timestamp=160, payload_type=8, arrival_ms=2, payload=b"\x11" * 160),
                P(timestamp=0xFFFF_FFFF, payload_type=101, arrival_ms=3, payload=b"\x22" * 4),
            ]
        )
    )
    assert pool.used == 2
    assert content(pool, cells) == [
        (b"\x11" * 160, 160, 8, 2_000_000),
        (b"\x22" * 4, 0xFFFF_FFFF, 101, 3_000_000),
    ]


def test_names_of_the_packets_are_the_callers():
    pool = Pool()
    cells = pool.put(columns([P(payload=b"a"), P(payload=b"b")]))
    packets = pool.packets(
        cells, rows=np.array([5, 6]), ssrc=np.array([7, 8]), sequence=np.array([9, 10])
    )
    assert packets.rows.tolist() == [5, 6]
    assert packets.ssrc.tolist() == [7, 8]
    assert packets.sequence.tolist() == [9, 10]


def test_payloads_are_copies():
    packets = columns([P(payload=b"speech")])
    pool = Pool()
    cells = pool.put(packets)
    packets.store[:] = 0xA5
    assert content(pool, cells)[0][0] == b"speech"


def test_payload_at_the_very_end_of_its_slot_is_whole():
    packets = columns([P(payload=b"0123456789abcdef"), P(payload=b"x")])
    # the second slot's payload is its last byte, while the longest payload reaches further
    packets.store[1, -1] = ord("z")
    packets.offset[1] = packets.store.shape[1] - 1
    pool = Pool()
    assert [c[0] for c in content(pool, pool.put(packets))] == [b"0123456789abcdef", b"z"]


def test_empty_payloads_and_no_packets_at_all_are_fine():
    pool = Pool()
    assert put(pool) == []
    cells = put(pool, b"", b"")
    assert [c[0] for c in content(pool, cells)] == [b"", b""]
    assert pool.used == 2


def test_wider_payloads_widen_the_cells_and_leave_the_narrow_ones_whole():
    pool = Pool()
    narrow = put(pool, b"n" * 20)
    assert pool.payload.shape == (256, 32)
    wide = put(pool, b"w" * 480)
    assert pool.payload.shape == (256, 480)
    assert content(pool, narrow + wide) == [(b"n" * 20, 0, 0, 0), (b"w" * 480, 0, 0, 0)]


def test_more_packets_than_cells_double_the_cells_and_leave_the_old_ones_whole():
    pool = Pool()
    payloads = [i.to_bytes(2, "big") for i in range(512)]
    cells = [*put(pool, *payloads[:200]), *put(pool, *payloads[200:257])]
    assert pool.payload.shape == (512, 16)
    assert content(pool, cells) == [(payload, 0, 0, 0) for payload in payloads[:257]]
    cells += put(pool, *payloads[257:])
    assert pool.payload.shape == (512, 16)
    assert sorted(cells) == list(range(512))
    assert [c[0] for c in content(pool, cells)] == payloads


def test_freed_cells_are_used_again_before_the_pool_grows():
    pool = Pool()
    for _ in range(3):
        cells = put(pool, *[b"x"] * 256)
        assert sorted(cells) == list(range(256))
        pool.free(np.array(cells, np.int32))
        assert pool.used == 0
    assert len(pool.payload) == 256


class PoolEqualsDictionary(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.pool = Pool()
        self.model = {}
        self.serial = 0

    @rule(sizes=st.lists(st.integers(0, 40), max_size=150))
    def put(self, sizes):
        packets = []
        for size in sizes:
            self.serial += 1
            payload = (self.serial % 251).to_bytes(1, "big") * size
            packets.append(
                P(
                    timestamp=self.serial,
                    payload_type=self.serial % 128,
                    arrival_ms=self.serial,
                    payload=payload,
                )
            )
        cells = self.pool.put(columns(packets)).tolist()
        assert len(set(cells)) == len(cells)
        assert not self.model.keys() & set(cells)
        for cell, p in zip(cells, packets, strict=True):
            self.model[cell] = (p.payload, p.timestamp, p.payload_type, p.arrival_ns)

    @rule(data=st.data())
    def free(self, data):
        share = data.draw(st.sets(st.sampled_from(sorted(self.model)))) if self.model else set()
        for cell in share:
            del self.model[cell]
        self.pool.free(np.array(sorted(share), np.int32))

    @rule()
    def free_all(self):
        self.pool.free(np.array(list(self.model), np.int32))
        self.model.clear()

    @invariant()
    def everything_is_where_it_was_put(self):
        assert self.pool.used == len(self.model)
        assert content(self.pool, list(self.model)) == list(self.model.values())


PoolEqualsDictionary.TestCase.settings = settings(
    max_examples=50, stateful_step_count=15, deadline=None
)
test_pool_equals_a_dictionary = PoolEqualsDictionary.TestCase
