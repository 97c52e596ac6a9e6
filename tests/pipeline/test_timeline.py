from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packetmaker import MS, P, columns
from trackmaker import track

from pipeline.dispatch import Dispatcher
from pipeline.pipeline import Pipeline
from pipeline.timeline import POINTS, Timelines

pytestmark = pytest.mark.usefixtures("kernel")

S_MS = 1000


class Line:
    """A pipeline with tracks, and the timelines of those that were closed."""

    def __init__(self, tracks=1, *, opened_ms=0, max_gap_s=60):
        self.pipeline = Pipeline(Dispatcher({}, on_closed=self._closed), max_gap_s=max_gap_s)
        self.timelines = {}
        self.summaries = []
        for row in range(tracks):
            self.pipeline.open(
                dataclasses.replace(track(row), opened_ns=round(opened_ms * MS)), sequence=0
            )

    def _closed(self, closed, summary, results):
        del results
        self.timelines[closed.row] = summary.timeline
        self.summaries.append(summary)

    def push(self, *packets):
        self.pipeline.push(columns(packets))
        return self

    def tick(self, at_ms):
        self.pipeline.tick(round(at_ms * MS))
        return self

    def close(self, row=0):
        self.pipeline.close(row, "closed")
        return self.timelines[row]


def speech(numbers, *, start_ms=0, row=0):
    return [P(row=row, sequence=n, arrival_ms=start_ms + 20 * n) for n in numbers]


def test_points_are_seconds_since_the_opening():
    timeline = Line().push(*speech(range(125))).close()
    assert timeline.interval_s == 1.0
    assert timeline.packets == (50, 50, 25)
    assert timeline.lost == (0, 0, 0)
    assert timeline.jitter_ms == (0, 0, 0)


def test_lost_packets_stand_in_the_second_in_which_they_were_given_up():
    there = [n for n in range(150) if n not in {60, 61, 62, 120}]
    timeline = Line().push(*speech(there)).close()
    assert timeline.packets == (50, 47, 49)
    assert timeline.lost == (0, 3, 1)


def test_jitter_is_that_at_the_end_of_the_second():
    packets = [P(sequence=n, arrival_ms=20 * n + (16 if n == 99 else 0)) for n in range(150)]
    timeline = Line().push(*packets).close()
    # |D| of 16 ms in the last packet of the second: J = 16 / 16
    assert timeline.jitter_ms[:2] == (0, 1.0)


def test_silence_leaves_points_empty():
    late = [P(sequence=50 + n, timestamp=n, arrival_ms=5000 + 20 * n) for n in range(50)]
    timeline = Line().push(*speech(range(50)), *late).tick(6500).close()
    assert timeline.packets == (50, 0, 0, 0, 0, 50)


def test_two_points_become_one_where_there_are_too_many():
    line = Line()
    for second in range(POINTS + 1):
        line.push(*speech(range(50 * second, 50 * second + 50)))
    timeline = line.close()
    assert timeline.interval_s == 2.0
    assert timeline.packets == (100,) * (POINTS // 2) + (50,)


def test_a_packet_after_a_year_changes_but_the_length_of_the_points():
    year_ms = 365 * 86_400 * S_MS
    line = Line(max_gap_s=10**8)
    timeline = line.push(P(sequence=0), P(sequence=1, arrival_ms=year_ms)).close()
    assert timeline.interval_s == 2**17
    assert sum(timeline.packets) == 2
    assert timeline.packets[0] == timeline.packets[-1] == 1
    assert len(timeline.packets) == 365 * 86_400 // 2**17 + 1


def test_counts_stay_at_the_most_that_a_point_holds():
    line = Line()
    line.pipeline.statistics.payload_types[0, 0] = 70_000
    assert line.push(P(sequence=0)).close().packets == (65_535,)


def test_a_row_begins_anew():
    line = Line().push(*speech(range(125)))
    line.close()
    line.pipeline.open(dataclasses.replace(track(0), opened_ns=3000 * MS), sequence=0)
    assert line.push(*speech(range(10), start_ms=3000)).close().packets == (10,)


def test_tracks_that_began_at_other_moments_are_sampled_at_others():
    line = Line()
    line.pipeline.open(dataclasses.replace(track(1), opened_ns=400 * MS), sequence=0)
    line.push(*sorted(speech(range(100)) + speech(range(80), row=1, start_ms=400), key=arrival))
    assert line.close(0).packets == (50, 50)
    # its points begin at a multiple of 125 ms: 375 ms
    assert line.close(1).packets == (49, 31)


def arrival(packet):
    return packet.arrival_ms


def test_a_segment_has_points_and_losses_of_its_own():
    line = Line()
    far_ms = 10 * 60_000
    behind = [
        P(sequence=60 + n, timestamp=8 * far_ms + 160 * n, arrival_ms=far_ms + 20 * n)
        for n in range(70)
    ]
    line.push(*speech(n for n in range(60) if n not in {20, 21})).tick(far_ms - 1).push(*behind)
    line.close()
    segments = line.summaries
    assert [(each.reason, each.lost, each.loss_runs) for each in segments] == [
        ("gap", 2, 1),
        ("closed", 0, 0),
    ]
    assert [each.timeline.packets for each in segments] == [(48, 10), (50, 20)]
    assert [each.timeline.lost for each in segments] == [(2, 0), (0, 0)]


def test_nothing_is_due_without_tracks():
    line = Line()
    assert line.pipeline.timelines.due_ns == 1000 * MS
    line.push(P())
    line.close()
    assert line.pipeline.timelines.due_ns > 2**62


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.integers(1, 30), st.integers(0, 400)), min_size=1, max_size=60),
    st.integers(1, 60),
    st.integers(0, 2000),
)
def test_timelines_hold_all_packets_however_they_were_batched(steps, size, opened_ms):
    """Packets with any steps of sequence number and time between them."""
    packets, sequence, at_ms = [], 0, opened_ms
    for step, elapsed_ms in steps:
        packets.append(P(sequence=sequence, arrival_ms=at_ms))
        sequence += step
        at_ms += elapsed_ms
    once = Line(opened_ms=opened_ms).push(*packets)
    lost = int(once.pipeline.bank.lost[0])
    line = Line(opened_ms=opened_ms)
    for start in range(0, len(packets), size):
        line.push(*packets[start : start + size])
    timeline = once.close()
    assert sum(timeline.packets) == len(packets)
    assert sum(timeline.lost) >= lost
    assert line.close() == timeline


def test_memory_of_a_track_is_bounded():
    rows = 1024
    timelines = Timelines(Pipeline(Dispatcher({})).statistics, Pipeline(Dispatcher({})).bank)
    timelines.ensure(rows)
    columns_bytes = sum(getattr(timelines, name).nbytes for name in timelines.fresh)
    assert columns_bytes / rows <= 2560
    assert timelines.points.dtype == np.uint16
