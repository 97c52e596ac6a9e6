from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packetmaker import MS, P, columns

from pipeline.codecs import CLOCK_RATES_HZ
from pipeline.quality import Statistics

ROWS = 3


def statistics(*packets):
    """Figures of fresh tracks and these packets."""
    figures = Statistics()
    for row in range(ROWS):
        figures.renew(row)
    if packets:
        push(figures, *packets)
    return figures


def push(figures, *packets):
    for part in columns(packets).rounds(np.zeros(figures.rows, np.intp)):
        figures.update(part)


def jitter_ms(figures, row=0):
    """The last, mean and greatest jitter of a row."""
    return (
        figures.jitter_ns[row] / MS,
        figures.jitter_mean_ns(row) / MS,
        figures.jitter_max_ns[row] / MS,
    )


def test_nothing_is_known_before_the_first_packet():
    figures = statistics()
    assert jitter_ms(figures) == (0, 0, 0)
    assert (figures.first_arrival_ns[0], figures.last_arrival_ns[0]) == (-1, -1)
    assert figures.by_payload_type(0) == {}
    assert figures.packets_total == 0


def test_first_packet_has_no_jitter():
    figures = statistics(P(arrival_ms=7))
    assert jitter_ms(figures) == (0, 0, 0)
    assert figures.jitter_packets(0) == 0


def test_packets_as_even_as_their_timestamps_have_no_jitter():
    figures = statistics(*[P(sequence=i, arrival_ms=5 + 20 * i) for i in range(10)])
    assert jitter_ms(figures) == pytest.approx((0, 0, 0), abs=1e-9)
    assert figures.jitter_packets(0) == 9


def test_jitter_is_that_of_rfc_3550():
    # |D| is 5, 5, 0 and 16 ms; J = J + (|D| - J) / 16
    figures = statistics(
        P(timestamp=0, arrival_ms=0),
        P(timestamp=160, arrival_ms=25),
        P(timestamp=320, arrival_ms=40),
        P(timestamp=480, arrival_ms=60),
        P(timestamp=640, arrival_ms=96),
    )
    js = [0.3125, 0.60546875, 0.567626953125, 1.5321502685546875]
    assert jitter_ms(figures) == pytest.approx((js[3], sum(js) / 4, js[3]))


def test_greatest_jitter_stays_when_jitter_falls():
    figures = statistics(P(timestamp=0), *[P(timestamp=0, arrival_ms=16)] * 3)
    # J is 1, 15/16 and 225/256 ms
    assert jitter_ms(figures) == pytest.approx((0.87890625, 2.81640625 / 3, 1.0))


def test_reordered_and_repeated_packets_count_as_they_arrive():
    figures = statistics(
        P(timestamp=320, arrival_ms=0),
        P(timestamp=160, arrival_ms=0),
        P(timestamp=160, arrival_ms=0),
    )
    # the second stands 20 ms earlier than the first, yet arrives with it; the third repeats it
    assert jitter_ms(figures)[2] == pytest.approx(20 / 16)
    assert jitter_ms(figures)[0] == pytest.approx(20 / 16 * 15 / 16)


def test_timestamp_wrap_is_no_jitter():
    figures = statistics(
        P(timestamp=0xFFFF_FFFF - 79, arrival_ms=0), P(timestamp=80, arrival_ms=20)
    )
    assert jitter_ms(figures) == pytest.approx((0, 0, 0), abs=1e-9)


@pytest.mark.parametrize(
    ("step", "wait_ms", "is_jitter"),
    [(160, 1020, True), (160, 1021, False), (160, 90_000, False), (8160, 20, True),
     (8161, 20, False), (720_160, 90_020, True), (-8000, 20, False)],
)  # fmt: skip
def test_timestamps_that_stood_still_or_jumped_are_no_jitter(step, wait_ms, is_jitter):
    figures = statistics()
    push(figures, P(timestamp=0))
    push(figures, P(timestamp=step, arrival_ms=wait_ms))
    push(figures, P(timestamp=step + 160, arrival_ms=wait_ms + 20))
    assert figures.jitter_packets(0) == (2 if is_jitter else 1)
    expected = 1000 / 16 if is_jitter and step != 720_160 else 0
    assert figures.jitter_max_ns[0] / MS == pytest.approx(expected)


def test_packets_of_unknown_clock_do_not_count_for_jitter():
    figures = statistics(
        P(timestamp=0, arrival_ms=0),
        P(timestamp=99_999, arrival_ms=11, payload_type=101),
        P(timestamp=160, arrival_ms=36),
    )
    assert figures.jitter_packets(0) == 1
    assert jitter_ms(figures) == pytest.approx((1.0, 1.0, 1.0))
    assert figures.last_arrival_ns[0] == 36 * MS
    assert figures.by_payload_type(0) == {0: 2, 101: 1}


def test_only_packets_of_unknown_clock_have_no_jitter():
    figures = statistics(*[P(arrival_ms=i * i, payload_type=96) for i in range(5)])
    assert jitter_ms(figures) == (0, 0, 0)
    assert figures.jitter_packets(0) == 0
    assert figures.by_payload_type(0) == {96: 5}


def test_timestamps_count_by_the_clock_of_the_payload_type():
    figures = statistics(
        P(timestamp=0, arrival_ms=0, payload_type=31),
        P(timestamp=1800, arrival_ms=20, payload_type=31),
    )
    assert jitter_ms(figures) == pytest.approx((0, 0, 0), abs=1e-9)


def test_restart_compares_the_next_packet_with_nothing_and_keeps_the_figures():
    figures = statistics(P(timestamp=0, arrival_ms=0), P(timestamp=160, arrival_ms=36))
    figures.restart(np.array([0]))
    push(figures, P(timestamp=3_000_000, arrival_ms=40))
    assert jitter_ms(figures) == pytest.approx((1.0, 1.0, 1.0))
    push(figures, P(timestamp=3_000_160, arrival_ms=60))
    assert jitter_ms(figures) == pytest.approx((0.9375, 0.96875, 1.0))


def test_restart_of_one_row_leaves_the_others_alone():
    figures = statistics(P(row=0), P(row=1))
    figures.restart(np.array([1]))
    push(figures, P(row=0, arrival_ms=16), P(row=1, arrival_ms=16))
    assert [figures.jitter_packets(row) for row in (0, 1)] == [1, 0]


def test_packets_and_bytes_count_by_row_and_payload_type():
    figures = statistics(
        P(row=0, payload=bytes(160)),
        P(row=2, payload=bytes(80), payload_type=8),
        P(row=0, payload=bytes(4), payload_type=127),
        P(row=0, payload=b""),
    )
    assert figures.by_payload_type(0) == {0: 2, 127: 1}
    assert figures.by_payload_type(1) == {}
    assert figures.by_payload_type(2) == {8: 1}
    assert figures.payload_bytes[:3].tolist() == [164, 0, 80]
    assert figures.packets_total == 4


def test_first_and_last_arrival():
    figures = statistics(
        P(row=1, arrival_ms=0),
        P(row=0, arrival_ms=5),
        P(row=1, arrival_ms=7),
        P(row=1, arrival_ms=9),
    )
    push(figures, P(row=1, arrival_ms=11), P(row=2, arrival_ms=12))
    assert figures.first_arrival_ns[:3].tolist() == [5 * MS, 0, 12 * MS]
    assert figures.last_arrival_ns[:3].tolist() == [5 * MS, 11 * MS, 12 * MS]


def test_no_packets_change_nothing():
    figures = statistics(P(arrival_ms=5))
    figures.update(columns([]))
    assert figures.packets_total == 1
    assert figures.last_arrival_ns[0] == 5 * MS


def test_renewed_row_knows_nothing_of_its_past():
    figures = statistics(P(arrival_ms=1), P(arrival_ms=50))
    figures.renew(0)
    push(figures, P(timestamp=5_000_000, arrival_ms=100))
    assert jitter_ms(figures) == (0, 0, 0)
    assert figures.by_payload_type(0) == {0: 1}
    assert figures.payload_bytes[0] == 160
    assert figures.first_arrival_ns[0] == 100 * MS


def test_clock_rate_is_that_of_most_packets_where_the_settings_or_the_track_told_it_too():
    figures = Statistics({0: 8000, 96: 48_000})
    for row in range(4):
        figures.renew(row)
    assert figures.clock_rate_hz(0) == 8000
    push(figures, P(payload_type=96), P(sequence=1, payload_type=96), P(sequence=2))
    figures.learn_clock(1, 111, 16_000)
    push(figures, P(1, payload_type=111), P(2, payload_type=97), P(3))
    assert [figures.clock_rate_hz(row) for row in range(4)] == [48_000, 16_000, 8000, 8000]


def test_a_clock_that_is_learnt_counts_from_the_next_packet_on():
    figures = statistics(P(payload_type=111, timestamp=0), P(1, payload_type=111))
    figures.learn_clock(0, 111, 48_000)
    push(figures, P(payload_type=111, timestamp=960, arrival_ms=20))
    assert [figures.jitter_packets(row) for row in (0, 1)] == [0, 0]
    push(figures, P(payload_type=111, timestamp=1920, arrival_ms=56))
    push(figures, P(1, payload_type=111, timestamp=1, arrival_ms=99))
    assert [figures.jitter_packets(row) for row in (0, 1)] == [1, 0]
    assert jitter_ms(figures) == pytest.approx((1, 1, 1))
    figures.renew(0)
    push(figures, P(payload_type=111, timestamp=0), P(payload_type=111, arrival_ms=50))
    assert figures.jitter_packets(0) == 0


def test_clocks_of_dynamic_payload_types_can_be_told():
    figures = Statistics({96: 16_000})
    push(figures, P(payload_type=96, timestamp=0), P(payload_type=0, timestamp=9, arrival_ms=3))
    push(figures, P(payload_type=96, timestamp=320, arrival_ms=36))
    assert jitter_ms(figures) == pytest.approx((1, 1, 1))


@dataclass
class ModelTrack:
    """RFC 3550 section 6.4.1, one packet at a time."""

    jitters_ms: list[float] = field(default_factory=list)
    before: tuple[float, int] | None = None
    by_type: dict[int, int] = field(default_factory=dict)

    def push(self, p):
        self.by_type[p.payload_type] = self.by_type.get(p.payload_type, 0) + 1
        rate_hz = CLOCK_RATES_HZ.get(p.payload_type)
        if rate_hz is None:
            return
        timestamp = p.timestamp % 2**32
        if self.before is not None:
            arrival_ms, last = self.before
            step = (timestamp - last) % 2**32
            step -= 2**32 if step >= 2**31 else 0
            difference_ms = abs(p.arrival_ms - arrival_ms - step * 1000 / rate_hz)
            if difference_ms > 1000:
                self.before = (p.arrival_ms, timestamp)
                return
            jitter_ms = self.jitters_ms[-1] if self.jitters_ms else 0.0
            self.jitters_ms.append(jitter_ms + (difference_ms - jitter_ms) / 16)
        self.before = (p.arrival_ms, timestamp)


ARRIVAL = st.tuples(
    st.integers(0, ROWS - 1),
    st.one_of(st.just(160), st.integers(-2000, 2000), st.integers(0, 2**32 - 1)),
    st.integers(0, 100),
    st.sampled_from([0, 0, 0, 8, 13, 14, 101]),
)


@settings(deadline=None)
@given(st.lists(st.lists(ARRIVAL, max_size=12), max_size=6), st.integers(0, 2**32 - 1))
def test_figures_of_any_packets_equal_the_plain_model(batches, first):
    figures = statistics()
    models = [ModelTrack() for _ in range(ROWS)]
    timestamps = [first] * ROWS
    now_ms = 0
    for batch in batches:
        packets = []
        for row, step, wait_ms, payload_type in batch:
            now_ms += wait_ms
            timestamps[row] += step
            packets.append(
                P(row, arrival_ms=now_ms, timestamp=timestamps[row], payload_type=payload_type)
            )
            models[row].push(packets[-1])
        if packets:
            push(figures, *packets)
    for row, model in enumerate(models):
        js = model.jitters_ms or [0.0]
        expected = (js[-1], sum(js) / len(js), max(js))
        assert jitter_ms(figures, row) == pytest.approx(expected, rel=1e-9, abs=1e-6)
        assert figures.jitter_packets(row) == len(model.jitters_ms)
        assert figures.by_payload_type(row) == model.by_type
