from __future__ import annotations

import numpy as np
import pytest

from bench.traffic import PacketWriter, Traffic, schedule
from strep.voices import load_voice
from strep.wire import Direction, Leg, RtpHeader, StrepHeader


def planned(traffic, first, stop):
    slabs = list(schedule(traffic, first, stop))
    index = np.concatenate([slab.index for slab in slabs])
    due_ns = np.concatenate([slab.due_ns for slab in slabs])
    return index.tolist(), due_ns.tolist()


def written(traffic, index):
    writer = PacketWriter(traffic)
    out = np.full((len(index), writer.datagram_bytes), 0xA5, np.uint8)
    writer.write(np.array(index), out)
    return writer, [bytes(row) for row in out]


def test_tracks_take_turns_at_a_constant_rate():
    index, due_ns = planned(Traffic(tracks=4, rate_pps=50), 0, 6)
    assert index == [0, 1, 2, 3, 4, 5]
    assert due_ns == [0, 5_000_000, 10_000_000, 15_000_000, 20_000_000, 25_000_000]


def test_stretch_begins_at_once_wherever_it_stands():
    index, due_ns = planned(Traffic(tracks=4, rate_pps=50), 1000, 1003)
    assert index == [1000, 1001, 1002]
    assert due_ns == [0, 5_000_000, 10_000_000]


def test_schedule_goes_on_across_slabs():
    index, due_ns = planned(Traffic(tracks=1000, rate_pps=1000), 0, 5000)
    assert index == list(range(5000))
    assert due_ns == [i * 1000 for i in range(5000)]


def test_bursts_leave_together_at_their_end():
    _, due_ns = planned(Traffic(tracks=1, rate_pps=1000, burst_ms=2), 0, 5)
    assert due_ns == [0, 2_000_000, 2_000_000, 4_000_000, 4_000_000]


def test_same_packets_are_lost_for_the_same_seed():
    index, due_ns = planned(Traffic(tracks=2, rate_pps=500, loss=0.3, seed=5), 0, 12)
    assert index == [0, 1, 2, 5, 6, 9, 10]
    assert due_ns == [i * 1_000_000 for i in index]


def test_lost_share_is_as_told():
    index, _ = planned(Traffic(tracks=10, loss=0.1), 0, 100_000)
    assert 89_500 < len(index) < 90_500


def test_packet_held_back_comes_after_those_of_the_time_between():
    traffic = Traffic(tracks=1, rate_pps=1000, reorder=0.2, reorder_ms=2, seed=1)
    index, due_ns = planned(traffic, 0, 12)
    assert index == [0, 1, 2, 3, 5, 4, 6, 7, 8, 9, 10, 11]
    assert due_ns[4:7] == [5_000_000, 6_000_000, 6_000_000]


def test_packet_held_back_crosses_into_the_next_slab():
    index, due_ns = planned(Traffic(tracks=1, rate_pps=1000, reorder=0.5, reorder_ms=700), 0, 6000)
    assert sorted(index) == list(range(6000))
    assert index != list(range(6000))
    assert due_ns == sorted(due_ns)


def test_order_and_loss_are_independent_of_each_other():
    kept, _ = planned(Traffic(tracks=1, loss=0.2), 0, 3000)
    mixed, _ = planned(Traffic(tracks=1, loss=0.2, reorder=0.3), 0, 3000)
    assert sorted(mixed) == kept


def test_datagram_is_strep_then_rtp_then_speech():
    writer, (first, second) = written(Traffic(tracks=2), [0, 2])
    assert len(first) == writer.datagram_bytes == 196
    strep, rest = StrepHeader.parse(first)
    assert strep.call_leg_id == writer.call_leg_ids[0]
    assert (strep.leg, strep.direction) == (Leg.A, Direction.INBOUND)
    rtp = RtpHeader.parse(rest)[0]
    later = RtpHeader.parse(StrepHeader.parse(second)[1])[0]
    assert rtp.payload_type == 0
    assert rtp.ssrc == later.ssrc == writer.ssrc[0]
    assert later.sequence == (rtp.sequence + 1) % 2**16
    assert later.timestamp == (rtp.timestamp + 160) % 2**32
    voice = load_voice("caller").tobytes()
    assert first[36:] in voice
    assert voice.index(second[36:]) == voice.index(first[36:]) + 160


def test_sequence_and_timestamp_wrap():
    traffic = Traffic(tracks=1)
    _, datagrams = written(traffic, range(70_000))
    headers = [RtpHeader.parse(StrepHeader.parse(d)[1])[0] for d in datagrams[::65_536]]
    assert headers[0].sequence == headers[1].sequence
    assert headers[1].timestamp == (headers[0].timestamp + 65_536 * 160) % 2**32


@pytest.mark.parametrize(
    ("sides", "expected"),
    [
        (1, [(0, 0, 0), (1, 0, 0), (2, 0, 0), (3, 0, 0)]),
        (2, [(0, 0, 0), (0, 0, 1), (1, 0, 0), (1, 0, 1)]),
        (4, [(0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1)]),
    ],
)
def test_sides_of_a_call_share_its_id(sides, expected):
    writer, datagrams = written(Traffic(tracks=4, sides=sides), range(4))
    headers = [StrepHeader.parse(datagram)[0] for datagram in datagrams]
    assert [
        (writer.call_leg_ids.index(h.call_leg_id), int(h.leg), int(h.direction)) for h in headers
    ] == expected


def test_call_whose_sides_are_not_all_there_has_an_id():
    writer, datagrams = written(Traffic(tracks=3, sides=2), range(3))
    assert len(writer.call_leg_ids) == 2
    assert StrepHeader.parse(datagrams[2])[0].call_leg_id == writer.call_leg_ids[1]


def test_plain_rtp_is_told_apart_by_its_ssrc():
    writer, datagrams = written(Traffic(tracks=3, wrapping="rtp"), range(3))
    assert writer.datagram_bytes == 172
    assert [RtpHeader.parse(d)[0].ssrc for d in datagrams] == writer.ssrc.tolist()
    assert len(set(writer.ssrc.tolist())) == 3


def test_same_seed_makes_the_same_bytes():
    traffic = Traffic(tracks=5, seed=9)
    assert written(traffic, range(20))[1] == written(traffic, range(20))[1]
    assert written(traffic, range(5))[1] != written(Traffic(tracks=5, seed=8), range(5))[1]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tracks": 0}, "tracks is 0, expected 1 to 1,000,000"),
        ({"tracks": 1, "loss": 1.0}, "loss is 1.0, expected 0 to 0.99"),
        ({"tracks": 1, "rate_pps": 0}, "rate_pps is 0, expected 0.001 to 10,000,000"),
        ({"tracks": 1, "sides": 3}, "sides is 3, expected 1, 2 or 4"),
    ],
)
def test_values_out_of_range_are_named(values, message):
    with pytest.raises(ValueError, match=message):
        Traffic(**values)
