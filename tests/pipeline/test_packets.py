from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from packetmaker import P, columns

ROWS = 5


def rounds(*rows):
    """The rounds of packets of these rows, as (row, sequence number) with 0, 1, 2... in order."""
    packets = columns([P(row=row, sequence=i) for i, row in enumerate(rows)])
    parts = packets.rounds(np.zeros(ROWS, np.intp))
    return [list(zip(p.rows.tolist(), p.sequence.tolist(), strict=True)) for p in parts]


def test_packets_of_different_rows_are_one_round_untouched():
    packets = columns([P(row=3), P(row=0), P(row=4)])
    parts = packets.rounds(np.zeros(ROWS, np.intp))
    assert len(parts) == 1
    assert parts[0] is packets


def test_second_packet_of_a_row_goes_to_the_second_round():
    assert rounds(1, 0, 1, 2) == [[(0, 1), (1, 0), (2, 3)], [(1, 2)]]


def test_rounds_are_as_many_as_the_busiest_row_has_packets():
    assert rounds(2, 2, 2) == [[(2, 0)], [(2, 1)], [(2, 2)]]


def test_first_packets_come_first_wherever_they_stand():
    assert rounds(0, 0, 0, 1) == [[(0, 0), (1, 3)], [(0, 1)], [(0, 2)]]


def test_no_packets_are_one_empty_round():
    assert rounds() == [[]]


def test_values_left_in_the_scratch_mean_nothing():
    packets = columns([P(row=1), P(row=1), P(row=0)])
    parts = packets.rounds(np.array([2, 1, 7, 7, 7]))
    assert [p.rows.tolist() for p in parts] == [[0, 1], [1]]


def test_taken_packets_keep_every_field_and_their_payload_in_place():
    packets = columns(
        [
            P(row=1, sequence=7, arrival_ms=1, ssrc=10, payload_type=0, timestamp=70, payload=b"a"),
            P(row=2, sequence=8, arrival_ms=2, ssrc=20, payload_type=8, timestamp=80, payload=b"b"),
            P(
                row=3,
                sequence=9,
                arrival_ms=3,
                ssrc=30,
                payload_type=9,
                timestamp=90,
                payload=b"cc",
            ),
        ]
    )
    taken = packets.take(np.array([2, 0]))
    assert len(taken) == 2
    assert taken.rows.tolist() == [3, 1]
    assert taken.sequence.tolist() == [9, 7]
    assert taken.arrival_ns.tolist() == [3_000_000, 1_000_000]
    assert taken.ssrc.tolist() == [30, 10]
    assert taken.payload_type.tolist() == [9, 0]
    assert taken.timestamp.tolist() == [90, 70]
    assert taken.slot.tolist() == [2, 0]
    assert taken.offset.tolist() == [4, 4]
    assert taken.length.tolist() == [2, 1]
    assert taken.store is packets.store
    assert taken.store[2, 4:6].tobytes() == b"cc"


@settings(deadline=None)
@given(st.lists(st.integers(0, ROWS - 1), min_size=1, max_size=40))
def test_no_row_comes_twice_in_a_round_and_nothing_is_lost_or_overtaken(rows):
    parts = rounds(*rows)
    for part in parts:
        assert len({row for row, _ in part}) == len(part) > 0
    for row in range(ROWS):
        arrived = [i for i, other in enumerate(rows) if other == row]
        assert [s for part in parts for r, s in part if r == row] == arrived
        # one in each round until there are no more
        assert [row in dict(part) for part in parts] == [
            i < len(arrived) for i in range(len(parts))
        ]
