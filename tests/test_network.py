from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strep.network import DelayTrace, Impairments, Network, traverse

EVERY_20_MS = np.arange(50_000) * 0.02


def lost_packets(arrivals, packets):
    lost = np.ones(packets, bool)
    lost[arrivals.packet] = False
    return lost


def mean_run(flags):
    starts = np.count_nonzero(np.diff(flags.astype(int), prepend=0) == 1)
    return np.count_nonzero(flags) / starts


def test_perfect_network_delivers_every_packet_when_it_was_sent():
    arrivals = traverse([0.0, 0.02, 0.04], Impairments(), seed=1)
    assert arrivals.packet.tolist() == [0, 1, 2]
    assert arrivals.time_s.tolist() == [0.0, 0.02, 0.04]


def test_no_packets_make_no_arrivals():
    arrivals = traverse([], Impairments(loss=0.5, jitter_ms=3.0), seed=1)
    assert arrivals.packet.shape == arrivals.time_s.shape == (0,)


def test_packets_of_one_moment_arrive_in_the_order_of_sending():
    arrivals = traverse([1.0, 1.0, 1.0], Impairments(delay_ms=5.0, duplicate=1.0), seed=1)
    assert arrivals.packet.tolist() == [0, 0, 1, 1, 2, 2]


def test_delay_is_added_to_every_packet():
    arrivals = traverse([0.0, 0.02], Impairments(delay_ms=50.0), seed=1)
    assert arrivals.time_s == pytest.approx([0.05, 0.07])


def test_sender_1000_ppm_fast_sends_1001_packets_in_the_time_of_1000():
    arrivals = traverse(10.0 + np.arange(1002) * 0.02, Impairments(clock_ppm=1000.0), seed=1)
    assert arrivals.time_s[0] == 10.0
    assert arrivals.time_s[1001] == pytest.approx(30.0)


@pytest.mark.parametrize(
    ("loss", "burst", "expected_run"),
    [(0.01, 4.0, 4.0), (0.2, 10.0, 10.0), (0.3, 1.0, 1 / 0.7), (0.9, 1.0, 10.0)],
)
def test_loss_has_the_fraction_and_the_mean_burst_asked_for(loss, burst, expected_run):
    send_s = np.arange(400_000) * 0.02
    arrivals = traverse(send_s, Impairments(loss=loss, loss_burst_packets=burst), seed=4)
    lost = lost_packets(arrivals, len(send_s))
    assert lost.mean() == pytest.approx(loss, rel=0.1)
    assert mean_run(lost) == pytest.approx(expected_run, rel=0.1)


def test_first_packet_is_lost_as_often_as_any_other():
    impairments = Impairments(loss=0.25, loss_burst_packets=8.0)
    first_lost = sum(0 not in traverse([0.0, 0.02], impairments, seed=s).packet for s in range(800))
    assert 160 <= first_lost <= 240


def test_jitter_is_what_rfc_3550_measures():
    send_s = np.arange(200_000) * 1.0
    arrivals = traverse(send_s, Impairments(jitter_ms=3.0), seed=2)
    transit_ms = (arrivals.time_s - send_s) * 1000
    assert np.abs(np.diff(transit_ms)).mean() == pytest.approx(3.0, rel=0.03)
    assert np.median(transit_ms) == pytest.approx(1.75, rel=0.03)
    assert np.quantile(transit_ms, 0.999) == pytest.approx(38.4, rel=0.1)


def test_jitter_alone_bunches_packets_but_never_reorders_them():
    arrivals = traverse(EVERY_20_MS, Impairments(jitter_ms=30.0), seed=3)
    assert np.array_equal(arrivals.packet, np.arange(len(EVERY_20_MS)))
    assert np.count_nonzero(np.diff(arrivals.time_s) == 0) > 1000


def test_packet_held_back_30_ms_comes_behind_the_next_one():
    arrivals = traverse(EVERY_20_MS, Impairments(reorder=0.01, reorder_ms=30.0), seed=5)
    held_back = arrivals.time_s - EVERY_20_MS[arrivals.packet] > 0.01
    assert np.count_nonzero(held_back) == pytest.approx(500, rel=0.2)
    assert arrivals.time_s[held_back] == pytest.approx(
        EVERY_20_MS[arrivals.packet[held_back]] + 0.03
    )
    overtaken = np.flatnonzero(np.diff(arrivals.packet) < 0) + 1
    assert held_back[overtaken].all()
    assert len(overtaken) > 450


def test_packets_that_are_all_held_back_keep_their_order():
    arrivals = traverse([0.0, 0.02, 0.04], Impairments(reorder=1.0, reorder_ms=30.0), seed=1)
    assert arrivals.packet.tolist() == [0, 1, 2]
    assert arrivals.time_s == pytest.approx([0.03, 0.05, 0.07])


def test_duplicate_arrives_twice_and_the_copy_a_little_later():
    arrivals = traverse(EVERY_20_MS, Impairments(duplicate=0.05, jitter_ms=1.0), seed=6)
    copies = np.bincount(arrivals.packet, minlength=len(EVERY_20_MS))
    assert set(copies.tolist()) == {1, 2}
    assert np.count_nonzero(copies == 2) == pytest.approx(2500, rel=0.1)
    twice = np.flatnonzero(copies == 2)
    times = [arrivals.time_s[arrivals.packet == packet] for packet in twice[:50]]
    assert all(0 < second - first < 0.1 for first, second in times)


def test_lost_packet_is_not_duplicated():
    arrivals = traverse(EVERY_20_MS, Impairments(loss=0.5, duplicate=1.0), seed=7)
    copies = np.bincount(arrivals.packet, minlength=len(EVERY_20_MS))
    assert set(copies.tolist()) == {0, 2}


def test_one_seed_gives_one_result_and_another_seed_another():
    impairments = Impairments(loss=0.1, jitter_ms=5.0, reorder=0.1, duplicate=0.1)
    first, again, other = (traverse(EVERY_20_MS, impairments, seed=s) for s in (8, 8, 9))
    assert np.array_equal(first.packet, again.packet)
    assert np.array_equal(first.time_s, again.time_s)
    assert not np.array_equal(first.packet, other.packet)


def test_same_packets_are_lost_with_and_without_jitter():
    calm = traverse(EVERY_20_MS, Impairments(loss=0.02), seed=10)
    rough = traverse(EVERY_20_MS, Impairments(loss=0.02, jitter_ms=9.0, reorder=0.1), seed=10)
    assert np.array_equal(calm.packet, np.sort(rough.packet))


def test_generator_goes_on_from_call_to_call():
    generator = np.random.default_rng(11)
    first, second = (
        traverse(EVERY_20_MS, Impairments(loss=0.5), seed=generator).packet for _ in range(2)
    )
    assert np.array_equal(first, traverse(EVERY_20_MS, Impairments(loss=0.5), seed=11).packet)
    assert not np.array_equal(first, second)


def trace(*delays_ms, lost=()):
    delay_s = np.array(delays_ms) / 1000
    return DelayTrace(delay_s, np.isin(np.arange(len(delay_s)), lost))


def test_trace_delays_packet_by_packet_and_begins_again():
    network = Network(Impairments(), seed=1, trace=trace(0, 30, 5))
    arrivals = network.traverse(np.arange(5) * 1.0)
    assert arrivals.time_s == pytest.approx([0.0, 1.03, 2.005, 3.0, 4.03])


def test_packet_behind_one_that_the_trace_delayed_comes_right_after_it():
    network = Network(Impairments(delay_ms=10), seed=1, trace=trace(0, 100, 0))
    arrivals = network.traverse([0.0, 0.02, 0.04])
    assert arrivals.packet.tolist() == [0, 1, 2]
    assert arrivals.time_s == pytest.approx([0.01, 0.13, 0.13])


def test_what_the_trace_lost_is_lost_beside_the_impairments():
    network = Network(Impairments(loss=0.2), seed=1, trace=trace(0, 0, lost=[1]))
    lost = lost_packets(network.traverse(EVERY_20_MS), len(EVERY_20_MS))
    assert lost[1::2].all()
    assert lost[::2].mean() == pytest.approx(0.2, rel=0.1)


@pytest.mark.parametrize(
    ("impairments", "delays"), [(Impairments(jitter_ms=1), trace(0)), (Impairments(), trace())]
)
def test_trace_without_packets_or_with_jitter_is_refused(impairments, delays):
    with pytest.raises(ValueError, match="a trace needs at least one packet, and jitter_ms to be"):
        Network(impairments, seed=1, trace=delays)


def test_spared_packets_are_neither_lost_nor_held_back_nor_duplicated():
    bad = Impairments(loss=0.5, reorder=0.5, duplicate=0.5)
    spared = np.arange(10_000) % 10 < 3
    arrivals = Network(bad, seed=1).traverse(EVERY_20_MS[:10_000], spared=spared)
    copies = np.bincount(arrivals.packet, minlength=10_000)
    assert (copies[spared] == 1).all()
    assert set(copies[~spared].tolist()) == {0, 1, 2}
    in_time = arrivals.time_s == EVERY_20_MS[arrivals.packet]
    assert in_time[spared[arrivals.packet]].all()


@given(
    cuts=st.lists(st.integers(0, 200), max_size=5),
    jitter_ms=st.sampled_from([0.0, 20.0]),
    traced=st.booleans(),
)
def test_stream_meets_the_same_in_few_or_many_calls(cuts, jitter_ms, traced):
    bad = Impairments(
        loss=0.2, loss_burst_packets=4, reorder=0.1, duplicate=0.1, clock_ppm=500,
        jitter_ms=0.0 if traced else jitter_ms,
    )  # fmt: skip
    delays = trace(0, 50, 20, lost=[2]) if traced else None
    send_s = EVERY_20_MS[:200] + 5.0
    whole = Network(bad, seed=3, trace=delays).traverse(send_s)
    network = Network(bad, seed=3, trace=delays)
    edges = [0, *sorted(cuts), 200]
    met = []
    for start, stop in pairwise(edges):
        part = network.traverse(send_s[start:stop])
        met += zip((part.packet + start).tolist(), part.time_s.tolist(), strict=True)
    expected = zip(whole.packet.tolist(), whole.time_s.tolist(), strict=True)
    assert sorted(met) == sorted(expected)


fraction = st.floats(0.0, 1.0)
milliseconds = st.floats(0.0, 1000.0)


@given(
    impairments=st.builds(
        Impairments,
        loss=st.floats(0.0, 0.99),
        loss_burst_packets=st.floats(1.0, 50.0),
        duplicate=fraction,
        reorder=fraction,
        reorder_ms=milliseconds,
        jitter_ms=milliseconds,
        delay_ms=milliseconds,
    ),
    intervals_s=st.lists(st.floats(0.0, 1.0), max_size=60),
    seed=st.integers(0, 2**32),
)
def test_arrivals_are_in_order_of_time_and_never_before_the_delay(impairments, intervals_s, seed):
    send_s = np.cumsum(intervals_s)
    arrivals = traverse(send_s, impairments, seed=seed)
    assert (np.diff(arrivals.time_s) >= 0).all()
    assert (np.bincount(arrivals.packet, minlength=len(send_s)) <= 2).all()
    earliest = send_s[arrivals.packet] + impairments.delay_ms / 1000
    assert (arrivals.time_s >= earliest - 1e-9).all()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"loss": 1.0}, "loss is 1.0, expected 0 to 0.99"),
        ({"loss": -0.1}, "loss is -0.1, expected 0 to 0.99"),
        ({"loss": float("nan")}, "loss is nan, expected 0 to 0.99"),
        ({"loss_burst_packets": 0.5}, "loss_burst_packets is 0.5, expected 1 to 10000"),
        ({"duplicate": 1.1}, "duplicate is 1.1, expected 0 to 1"),
        ({"reorder": -1}, "reorder is -1, expected 0 to 1"),
        ({"reorder_ms": -1.0}, "reorder_ms is -1.0, expected 0 to 60000"),
        ({"jitter_ms": 60_001}, "jitter_ms is 60001, expected 0 to 60000"),
        ({"delay_ms": -5}, "delay_ms is -5, expected 0 to 60000"),
        ({"clock_ppm": 20_000}, "clock_ppm is 20000, expected -10000 to 10000"),
    ],
)
def test_impairment_out_of_range_is_named_with_its_range(values, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        Impairments(**values)


@pytest.mark.parametrize("send_s", [[1.0, 0.0], [0.0, float("nan")], [[0.0, 1.0]], 1.0])
def test_send_times_that_fall_or_are_no_row_are_refused(send_s):
    with pytest.raises(ValueError, match="one row of finite seconds that never fall"):
        traverse(send_s, Impairments(), seed=1)
