"""Packets in, blocks, events and figures out."""

from __future__ import annotations

from dataclasses import asdict, replace
from unittest.mock import ANY

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
from packetmaker import MS, P, columns
from trackmaker import track

from pipeline.dispatch import Dispatcher
from pipeline.pipeline import Pipeline
from pipeline.sinks.base import Sink

pytestmark = pytest.mark.usefixtures("kernel")


NO_TELEPHONE_EVENTS = {
    "telephone_event_types": (),
    "telephone_events": (),
    "telephone_events_dropped": 0,
    "telephone_events_malformed": 0,
}


class Recorder(Sink):
    """Writes down what it is told, frames one by one."""

    threaded = False

    def __init__(self):
        self.calls = []
        self.frames = []
        """(row, position, gap, lost) of each."""
        self.heard = {}
        """PCM by row."""
        self.summaries = []

    def open(self, track):
        self.calls.append(("open", track.row, track.generation))

    def write(self, block):
        frames = zip(
            block.rows.tolist(),
            block.position.tolist(),
            block.gap_samples.tolist(),
            block.lost.tolist(),
            strict=True,
        )
        for i, frame in enumerate(frames):
            self.frames.append(frame)
            self.calls.append(("write", *frame[:2]))
            self.heard.setdefault(frame[0], []).append(block.pcm[i].tobytes())

    def event(self, event):
        self.calls.append((event.kind, event.track.row, event.position_samples, dict(event.data)))

    def silence(self, rows, until):
        self.calls += [
            ("silence", *told) for told in zip(rows.tolist(), until.tolist(), strict=True)
        ]

    def tick(self, now_ns):
        self.calls.append(("tick", now_ns))

    def close(self, track, summary):
        self.calls.append(("close", track.row, track.generation))
        self.summaries.append(summary)


class Street:
    """A pipeline with a recorder at its end."""

    def __init__(self, *rows, sequence=100, **options):
        self.sink = Recorder()
        self.pipeline = Pipeline(Dispatcher({"recorder": self.sink}), **options)
        for row in rows:
            self.pipeline.open(track(row), sequence=sequence)

    def push(self, *packets):
        self.pipeline.push(columns(packets))
        return self

    def tick(self, now_ms):
        self.pipeline.tick(round(now_ms * MS))
        return self

    def close(self, row=0, reason="closed"):
        self.pipeline.close(row, reason)
        return self.sink.summaries[-1]

    @property
    def frames(self):
        return self.sink.frames

    @property
    def counters(self):
        return {name: n for name, n in self.pipeline.counters().as_dict().items() if n}


def stream(*sequences, row=0, start_ms=0, **fields):
    """Packets of these sequence numbers, 20 ms apart."""
    return [
        P(row=row, sequence=s, arrival_ms=start_ms + 20 * i, **fields)
        for i, s in enumerate(sequences)
    ]


def test_calls_of_a_track_come_in_order():
    street = Street(0).push(*stream(100, 101, 103)).tick(99)
    street.close()
    opened = {"source": "192.0.2.1:4000", "ssrc": "0x00000001"}
    assert street.sink.calls == [
        ("open", 0, 0),
        ("track_opened", 0, 0, opened),
        ("write", 0, 0),
        ("write", 0, 160),
        ("tick", 99 * MS),
        ("write", 0, 480),
        ("close", 0, 0),
        ("track_closed", 0, 640, {"reason": "closed", "packets": 3}),
    ]
    assert street.pipeline.tracks == {}


def test_packets_of_one_track_in_one_push_are_all_played_in_order():
    street = Street(0, 1).push(
        *stream(100, 101, payload=b"\x00" * 160),
        *stream(100, row=1),
        *stream(102, 103, start_ms=40, payload=b"\x80" * 160),
    )
    assert [f for f in street.frames if f[0] == 0] == [
        (0, 0, 0, 0),
        (0, 160, 0, 0),
        (0, 320, 0, 0),
        (0, 480, 0, 0),
    ]
    assert [f for f in street.frames if f[0] == 1] == [(1, 0, 0, 0)]
    samples = [set(np.frombuffer(pcm, np.int16).tolist()) for pcm in street.sink.heard[0]]
    assert samples == [{-32124}, {-32124}, {32124}, {32124}]
    assert street.counters == {"packets": 5, "released": 5}


def test_no_packets_do_nothing():
    street = Street(0).push()
    assert street.frames == []
    assert street.counters == {}


@pytest.mark.parametrize(("options", "due_ms"), [({}, 80), ({"reorder_ms": 50}, 70)])
def test_tick_gives_up_what_reorder_ms_is_over_for(options, due_ms):
    street = Street(0, **options).push(*stream(100, 102)).tick(due_ms - 0.1)
    assert street.frames == [(0, 0, 0, 0)]
    assert street.counters == {"packets": 2, "released": 1, "held": 1}
    street.tick(due_ms)
    assert street.frames == [(0, 0, 0, 0), (0, 320, 160, 1)]
    assert street.counters == {"packets": 2, "released": 2, "lost": 1, "silence_samples": 160}


@pytest.mark.parametrize(("options", "most"), [({}, 960_000), ({"max_gap_s": 1}, 8000)])
def test_gaps_are_filled_up_to_max_gap_s(options, most):
    street = Street(0, **options)
    ms = most // 8
    street.push(P(sequence=100, timestamp=0))
    street.push(P(sequence=101, timestamp=160 + most, arrival_ms=20 + ms))
    street.push(P(sequence=102, timestamp=321 + 2 * most, arrival_ms=41 + 2 * ms))
    assert street.frames == [(0, 0, 0, 0), (0, 160 + most, most, 0), (0, 0, 0, 0)]


def test_segments_are_tracks_of_their_own():
    opened = []
    street = Street(0, max_gap_s=10, on_segment=opened.append)
    street.push(*stream(100, 101, 103))  # 102 is lost
    street.tick(200)
    street.push(
        P(sequence=104, timestamp=104 * 160 + 160_000, arrival_ms=20_080),
        P(sequence=105, timestamp=105 * 160 + 160_000, arrival_ms=20_100),
    )
    last = street.close()
    assert opened == [
        replace(
            track(0),
            generation=1,
            opened_ns=20_080 * MS,
            opened_unix_ns=20_080 * MS,
            segment=1,
            began="gap",
            gap_s=20.0,
        )
    ]
    first = street.sink.summaries[0]
    assert (first.reason, first.packets, first.released, first.lost) == ("gap", 3, 3, 1)
    assert (first.duration_samples, first.last_arrival_ns) == (640, 60 * MS)
    assert (last.reason, last.packets, last.released, last.lost) == ("closed", 2, 2, 0)
    assert (last.duration_samples, last.silence_samples) == (320, 0)
    assert (last.first_arrival_ns, last.last_arrival_ns) == (20_080 * MS, 20_100 * MS)
    assert [call[:3] for call in street.sink.calls if call[0] in {"open", "close"}] == [
        ("open", 0, 0),
        ("close", 0, 0),
        ("open", 0, 1),
        ("close", 0, 1),
    ]
    assert ("track_opened", 0, 0, {"source": "192.0.2.1:4000", "ssrc": "0x00000001",
            "segment": 1, "began": "gap", "gap_s": 20.0}) in street.sink.calls  # fmt: skip
    assert street.counters == {"packets": 5, "released": 5, "lost": 1, "silence_samples": 160}


def test_hold_whose_timestamps_stand_still_is_said():
    street = Street(0).push(*stream(100, 101), *stream(102, 103, start_ms=90_000))
    assert len(street.frames) == 2
    street.tick(91_000)
    assert street.frames[2:] == [(0, 720_000, 719_680, 0), (0, 720_160, 0, 0)]
    assert ("track_realigned", 0, 320, {"gap_s": 89.96}) in street.sink.calls
    assert street.close().realignments == 1
    assert street.counters["realignments"] == 1


def test_sinks_hear_of_passing_silence_a_few_times_a_second():
    street = Street(0).push(*stream(100, 101))
    for ms in range(0, 1000, 10):
        street.tick(ms)
    told = [call[1:] for call in street.sink.calls if call[0] == "silence"]
    assert told == [(0, 320 + 8 * (ms - 240)) for ms in (250, 500, 750)]
    street.push(P(sequence=102, arrival_ms=1000)).tick(1000)
    street.close()
    street.tick(5000)
    assert told == [call[1:] for call in street.sink.calls if call[0] == "silence"]


def test_drift_of_a_sender_is_told_in_ppm():
    street = Street(0, 1)
    rows = ((0, 20 / (1 + 50e-6)), (1, 20 / (1 - 80e-6)))
    for second in range(60):
        packets = [
            P(row=row, sequence=100 + k, arrival_ms=ms * k)
            for row, ms in rows
            for k in range(50 * second, 50 * second + 50)
        ]
        street.push(*sorted(packets, key=lambda p: p.arrival_ms)).tick(1000 * second + 999)
        if second == 5:
            assert street.pipeline.summary(0, "end").drift_ppm is None
    assert street.close(0).drift_ppm == pytest.approx(50, abs=0.1)
    assert street.close(1).drift_ppm == pytest.approx(-80, abs=0.1)


def test_drift_is_told_through_jitter_and_new_sources_but_not_where_they_hide_it():
    random = np.random.default_rng(3)
    street = Street(0, 1)
    rows = ((0, 4), (1, 180))
    for second in range(240):
        packets = [
            P(
                row=row,
                # after two minutes another source goes on, with timestamps of its own
                ssrc=1 + (k >= 1200),
                sequence=100 + k + (k >= 1200) * 9999,
                timestamp=800 * k + (k >= 1200) * 123_456_789,
                arrival_ms=100 / (1 + 120e-6) * k + random.uniform(0, jitter_ms),
            )
            for row, jitter_ms in rows
            for k in range(10 * second, 10 * second + 10)
        ]
        # in order of sequence: the network delays, and does not reorder
        street.push(*packets).tick(1000 * second + 999)
    assert street.close(0).drift_ppm == pytest.approx(120, abs=10)
    assert street.close(1).drift_ppm is None


def test_changes_in_the_midst_of_a_track_are_told_with_their_places():
    packets = [
        *stream(*range(100, 150)),
        *stream(*range(150, 200), start_ms=1000, payload_type=8),
        *stream(*range(900, 950), start_ms=2000, ssrc=7, payload_type=8),
        # the timestamps stood still for half a minute
        *stream(*range(950, 1000), start_ms=33_000, ssrc=7, payload_type=8),
        *stream(*range(5000, 5050), start_ms=34_000, ssrc=7),
    ]
    street = Street(0)
    for packet in packets:
        street.push(packet).tick(packet.arrival_ms)
    summary = street.close()
    assert [(each.position, each.kind, each.detail) for each in summary.changes] == [
        (8000, "codec", "PCMA"),
        (16_000, "source", "0x00000007"),
        (24_000, "hold", 30.0),
        (272_000, "restart", None),
        (272_000, "codec", "PCMU"),
    ]
    assert summary.duration_samples == 280_000


def test_changes_belong_to_their_segment_and_are_capped():
    street = Street(0, max_gap_s=1)
    street.push(*stream(100, 101), *stream(102, start_ms=40, payload_type=8))
    street.push(P(sequence=103, arrival_ms=5060, timestamp=103 * 160 + 40_000, payload_type=8))
    first = street.sink.summaries[-1]
    assert [(each.position, each.kind) for each in first.changes] == [(320, "codec")]
    for n in range(200):
        street.push(P(sequence=104 + n, arrival_ms=5080 + 20 * n, payload_type=8 * (n % 2),
                      timestamp=(104 + n) * 160 + 40_000))  # fmt: skip
    assert len(street.close().changes) == 100


def test_drift_of_a_short_call_is_told_to_some_ppm():
    random = np.random.default_rng(7)
    rows = range(8)
    street = Street(*rows)
    for tick in range(100 * 5):
        packets = [
            P(
                row=row,
                sequence=100 + k,
                arrival_ms=20 / (1 + 50e-6) * k + random.uniform(0, 10),
            )
            for row in rows
            for k in range(10 * tick, 10 * tick + 10)
        ]
        street.push(*packets).tick(200 * tick + 199)
    assert [street.close(row).drift_ppm for row in rows] == pytest.approx([50] * 8, abs=12)


def test_comfort_noise_is_no_unknown_payload():
    street = Street(0).push(
        P(sequence=100),
        P(sequence=101, arrival_ms=20, payload_type=13, payload=b"\x40"),
        P(sequence=102, arrival_ms=40, payload_type=99, payload=b"\x40"),
    )
    assert street.close().unknown_payload == 1


def test_summary_of_a_plain_track():
    street = Street(0).push(*stream(100, 101, 102, start_ms=5))
    assert asdict(street.close(reason="idle")) == {
        "reason": "idle",
        "packets": 3,
        "payload_bytes": 480,
        "released": 3,
        "lost": 0,
        "late": 0,
        "duplicate": 0,
        "reordered": 0,
        "resets": 0,
        "unknown_payload": 0,
        "timestamp_gaps": 0,
        "silence_samples": 0,
        "jitter_last_ms": pytest.approx(0, abs=1e-9),
        "jitter_mean_ms": pytest.approx(0, abs=1e-9),
        "jitter_max_ms": pytest.approx(0, abs=1e-9),
        "first_arrival_ns": 5 * MS,
        "last_arrival_ns": 45 * MS,
        "duration_samples": 480,
        "sample_rate_hz": 8000,
        "payload_types": {0: 3},
        "codecs": ("PCMU",),
        "ssrcs": (1,),
        "losses": (),
        **NO_TELEPHONE_EVENTS,
        "loss_runs": 0,
        "longest_loss": 0,
        "bursts": 0,
        "burst_packets": 0,
        "burst_lost": 0,
        "mouth_to_ear_ms": 0.0,
        "timeline": {"interval_s": 1.0, "packets": (3,), "lost": (0,), "jitter_ms": (0.0,)},
        "rtcp": None,
        "codec": "PCMU",
        "undecoded": 0,
        "drift_ppm": None,
        "realignments": 0,
        "concealed_samples": 0,
        "concealed": (),
        "comfort_noise_samples": 0,
        "changes": (),
    }


def test_summary_of_a_track_to_which_everything_happened():
    street = Street(0)
    street.push(
        P(sequence=100, arrival_ms=0),
        P(sequence=102, arrival_ms=40),
        P(sequence=101, arrival_ms=40),  # reordered
        P(sequence=101, arrival_ms=40),  # duplicate
        P(sequence=104, arrival_ms=80),  # 103 is lost
        P(sequence=105, arrival_ms=140, payload_type=96, payload=bytes(4)),
        P(sequence=103, arrival_ms=150),  # late
        P(sequence=106, arrival_ms=160, payload_type=8),
        P(sequence=107, arrival_ms=200, timestamp=108 * 160, payload_type=8),  # 20 ms of silence
        P(sequence=109, arrival_ms=220, timestamp=110 * 160, payload=b""),  # waits: 108 is missing
    )
    running = street.pipeline.summary(0, "end")
    assert (running.packets, running.released, running.lost) == (10, 7, 1)
    summary = street.close(reason="end")
    assert asdict(summary) | {"jitter_last_ms": 0, "jitter_mean_ms": 0, "jitter_max_ms": 0} == {
        "reason": "end",
        "packets": 10,
        "payload_bytes": 8 * 160 + 4,
        "released": 8,
        "lost": 2,
        "late": 1,
        "duplicate": 1,
        "reordered": 1,
        "resets": 0,
        "unknown_payload": 1,
        "timestamp_gaps": 2,
        "silence_samples": 480,
        "jitter_last_ms": 0,
        "jitter_mean_ms": 0,
        "jitter_max_ms": 0,
        "first_arrival_ns": 0,
        "last_arrival_ns": 220 * MS,
        "duration_samples": 9 * 160,
        "sample_rate_hz": 8000,
        "payload_types": {0: 7, 8: 2, 96: 1},
        "codecs": ("PCMU", "PCMA", "unknown"),
        "ssrcs": (1,),
        "losses": ((480, 1),),
        **NO_TELEPHONE_EVENTS,
        "loss_runs": 2,
        "longest_loss": 1,
        "bursts": 1,
        "burst_packets": 6,
        "burst_lost": 2,
        "mouth_to_ear_ms": 0.0,
        "timeline": {"interval_s": 1.0, "packets": (10,), "lost": (2,), "jitter_ms": (ANY,)},
        "rtcp": None,
        "codec": "PCMU",
        "undecoded": 0,
        "drift_ppm": None,
        "realignments": 0,
        "concealed_samples": 0,
        "concealed": (),
        "comfort_noise_samples": 0,
        "changes": ({"position": 960, "kind": "codec", "detail": "PCMA"},),
    }
    assert street.frames == [
        (0, 0, 0, 0),
        (0, 160, 0, 0),
        (0, 320, 0, 0),
        (0, 640, 160, 1),
        (0, 960, 160, 0),
        (0, 1280, 160, 0),
    ]
    assert street.counters == {
        "packets": 10,
        "released": 8,
        "late": 1,
        "duplicate": 1,
        "lost": 2,
        "reordered": 1,
        "timestamp_gaps": 2,
        "silence_samples": 480,
    }


def test_summary_has_the_jitter_of_rfc_3550():
    # |D| is 5 and 5 ms; J = J + (|D| - J) / 16
    street = Street(0).push(
        P(sequence=100, arrival_ms=0),
        P(sequence=101, arrival_ms=25),
        P(sequence=102, arrival_ms=40),
    )
    summary = street.close()
    assert summary.jitter_last_ms == pytest.approx(0.60546875)
    assert summary.jitter_mean_ms == pytest.approx((0.3125 + 0.60546875) / 2)
    assert summary.jitter_max_ms == pytest.approx(0.60546875)


def test_codecs_are_named_once():
    street = Street(0).push(
        P(sequence=100, payload_type=96), P(sequence=101, payload_type=50), P(sequence=102)
    )
    summary = street.close()
    assert summary.codecs == ("PCMU", "unknown")
    assert summary.codec == "unknown"
    assert summary.unknown_payload == 2


def test_codec_is_that_of_most_packets():
    street = Street(0).push(*stream(100, 101, payload_type=8), *stream(102, start_ms=40))
    assert street.close().codec == "PCMA"
    street = Street(0)
    assert street.close().codec == "unknown"


def test_telephone_events_are_no_codec_beside_another():
    street = Street(0).push(P(sequence=100), *stream(101, 102, payload_type=101, start_ms=20))
    summary = street.close()
    assert (summary.codec, summary.codecs) == ("PCMU", ("PCMU", "telephone-event"))
    street = Street(0).push(P(sequence=100, payload_type=101))
    assert street.close().codec == "telephone-event"


def test_new_source_is_listed_and_both_its_first_packets_count():
    street = Street(0).push(*stream(100, 101))
    street.push(*stream(7000, ssrc=2, start_ms=100))
    assert street.counters == {"packets": 2, "released": 2, "on_probation": 1}
    street.push(*stream(7001, 7002, ssrc=2, start_ms=120))
    assert street.counters == {
        "packets": 5,
        "released": 5,
        "resets": 1,
        "timestamp_gaps": 1,
        "silence_samples": 480,
        "realignments": 1,
    }
    summary = street.close()
    assert (summary.packets, summary.released, summary.resets) == (5, 5, 1)
    assert summary.payload_types == {0: 5}
    assert summary.payload_bytes == 800
    assert summary.ssrcs == (1, 2)
    # the new one is 60 ms behind the old one's end, and its clock is compared with itself only
    assert [position for _, position, _, _ in street.frames] == [0, 160, 800, 960, 1120]
    assert summary.jitter_max_ms == pytest.approx(0, abs=1e-9)


def test_jump_of_the_same_source_adds_no_source():
    street = Street(0).push(*stream(100, 30_000, 30_001))
    summary = street.close()
    assert (summary.resets, summary.ssrcs, summary.packets) == (1, (1,), 3)


def test_source_that_comes_back_is_listed_again():
    street = Street(0).push(
        *stream(100),
        *stream(7, 8, ssrc=2, start_ms=20),
        *stream(5000, 5001, ssrc=1, start_ms=60),
    )
    assert street.close().ssrcs == (1, 2, 1)


def test_sources_are_remembered_up_to_100():
    street = Street(0).push(*stream(100))
    for ssrc in range(2, 103):
        street.push(*stream(7, 8, ssrc=ssrc, start_ms=40 * ssrc))
    summary = street.close()
    assert summary.resets == 101
    assert summary.ssrcs == tuple(range(3, 103))


def test_stray_packets_count_for_no_track():
    street = Street(0).push(*stream(100), *stream(7, ssrc=2), *stream(9, ssrc=3))
    assert street.counters == {"packets": 1, "released": 1, "on_probation": 1, "stray": 1}
    summary = street.close()
    assert (summary.packets, summary.payload_bytes, summary.last_arrival_ns) == (1, 160, 0)
    assert street.counters == {"packets": 1, "released": 1, "stray": 2}


def test_idle_rows_are_the_open_tracks_that_heard_nothing_since():
    street = Street(0, 1, 2, 3)
    street.push(*[P(row=r, sequence=100, arrival_ms=10 * r) for r in range(4)])
    assert street.pipeline.idle_rows(0) == []
    assert street.pipeline.idle_rows(20 * MS) == [0, 1]
    assert street.pipeline.idle_rows(20 * MS + 1) == [0, 1, 2]
    street.close(1)
    assert street.pipeline.idle_rows(1000 * MS) == [0, 2, 3]
    street.push(P(row=0, sequence=101, arrival_ms=1000))
    assert street.pipeline.idle_rows(1000 * MS) == [2, 3]


def test_stray_packets_keep_no_track_from_being_idle():
    street = Street(0).push(P(sequence=100), P(sequence=7, ssrc=2, arrival_ms=1000))
    assert street.pipeline.idle_rows(1) == [0]


def test_closing_plays_what_waits_and_leaves_the_other_tracks_alone():
    street = Street(0, 1).push(*stream(100, 102), *stream(100, 102, row=1))
    summary = street.close(1)
    assert [f for f in street.frames if f[0] == 1] == [(1, 0, 0, 0), (1, 320, 160, 1)]
    assert [f for f in street.frames if f[0] == 0] == [(0, 0, 0, 0)]
    assert (summary.packets, summary.released, summary.lost) == (2, 2, 1)
    assert summary.losses == ((160, 1),)
    assert street.counters["held"] == 1
    assert list(street.pipeline.tracks) == [0]


def test_reused_row_knows_nothing_of_its_past():
    street = Street(0).push(*stream(100, 101, 101, 103), *stream(9, ssrc=2, start_ms=80))
    before = street.close()
    assert (before.packets, before.duplicate, before.lost) == (4, 1, 1)
    second = track(0, generation=1, ssrc=7)
    street.pipeline.open(second, sequence=60_000)
    assert street.pipeline.tracks == {0: second}
    street.push(*stream(60_000, 60_001, start_ms=500, ssrc=7, payload_type=8))
    summary = street.close()
    assert summary == replace(
        summary,
        packets=2,
        payload_bytes=320,
        released=2,
        lost=0,
        duplicate=0,
        resets=0,
        silence_samples=0,
        timestamp_gaps=0,
        first_arrival_ns=500 * MS,
        last_arrival_ns=520 * MS,
        duration_samples=320,
        payload_types={8: 2},
        codecs=("PCMA",),
        ssrcs=(7,),
        losses=(),
    )
    assert summary.jitter_max_ms == pytest.approx(0, abs=1e-9)
    assert street.frames[-2:] == [(0, 0, 0, 0), (0, 160, 0, 0)]
    # the totals go on
    assert street.counters["packets"] == 6


def test_rows_far_apart_find_room():
    rows = (3, 64, 1024)
    street = Street(*rows).push(*[P(row=row, sequence=100) for row in reversed(rows)])
    assert sorted(street.frames) == [(row, 0, 0, 0) for row in rows]
    assert [street.close(row).packets for row in rows] == [1, 1, 1]


def test_tracks_that_come_and_go_leave_nothing_behind():
    street = Street()
    sizes = set()
    for generation in range(200):
        street.pipeline.open(track(0, generation=generation), sequence=100)
        street.push(*stream(100, 102, 104, start_ms=100 * generation))
        street.close()
        bank = street.pipeline.bank
        sizes.add((bank.rows, len(bank.pool.payload), bank.held, bank.on_probation))
    assert sizes == {(64, 256, 0, 0)}
    assert street.counters["packets"] == street.counters["released"] == 600
    assert len(street.pipeline.playout.losses) <= 1


def test_batching_changes_nothing():
    random = np.random.default_rng(11)
    arrivals = [
        P(
            row=int(random.integers(3)),
            sequence=100 + ms // 4 + int(random.integers(-3, 4)),
            arrival_ms=ms,
            payload=bytes([ms % 256]) * 160,
            payload_type=int(random.choice([0, 0, 0, 8, 101])),
        )
        for ms in range(600)
    ]
    outcomes = []
    for size in (1, 7, 600):
        street = Street(0, 1, 2)
        for start in range(0, len(arrivals), size):
            street.push(*arrivals[start : start + size])
        summaries = [street.close(row) for row in range(3)]
        frames = [[f for f in street.frames if f[0] == row] for row in range(3)]
        outcomes.append((summaries, frames, street.sink.heard, street.counters))
    assert outcomes[0] == outcomes[1] == outcomes[2]


ROWS = 3
ARRIVAL = st.tuples(
    st.integers(0, ROWS - 1),
    st.one_of(
        st.just(0),
        st.just(0),
        st.integers(-4, 5),
        st.sampled_from([-101, -65, 64, 2999, 3000]),
        st.integers(-32768, 32767),
    ),
    st.sampled_from((1, 1, 1, 1, 2)),
    st.integers(0, 70),
    st.sampled_from((0, 0, 0, 8)),
)


class PacketsAreConserved(RuleBasedStateMachine):
    """Whatever arrives: no packet is forgotten, none is counted twice."""

    @initialize()
    def begin(self):
        self.street = Street(*range(ROWS))
        self.pushed = 0
        self.now_ms = 0
        self.finished = []
        self.due = [100] * ROWS

    @rule(arrivals=st.lists(ARRIVAL, max_size=30))
    def push(self, arrivals):
        packets = []
        for row, offset, ssrc, wait_ms, payload_type in arrivals:
            self.now_ms += wait_ms
            sequence = self.due[row] + offset
            self.due[row] += offset in {0, 1}
            packets.append(
                P(row, sequence, self.now_ms, ssrc=ssrc, payload_type=payload_type, payload=b"12")
            )
        self.pushed += len(packets)
        self.street.push(*packets)

    @rule(wait_ms=st.sampled_from([0, 10, 60, 10_001]))
    def tick(self, wait_ms):
        self.now_ms += wait_ms
        self.street.tick(self.now_ms)

    @rule(row=st.integers(0, ROWS - 1))
    def close_and_reuse(self, row):
        summary = self.street.close(row)
        assert summary.packets == summary.released + summary.late + summary.duplicate
        self.finished.append(summary)
        generation = len(self.finished)
        self.street.pipeline.open(
            track(row, generation=generation), sequence=self.due[row] & 0xFFFF
        )

    @invariant()
    def every_packet_is_somewhere(self):
        totals = self.street.pipeline.counters()
        assert totals.packets == totals.released + totals.late + totals.duplicate + totals.held
        assert self.pushed == totals.packets + totals.on_probation + totals.stray

    @invariant()
    def summaries_add_up_to_the_totals(self):
        totals = self.street.pipeline.counters()
        running = [self.street.pipeline.summary(row, "end") for row in range(ROWS)]
        for name in (
            "packets",
            "released",
            "late",
            "duplicate",
            "lost",
            "reordered",
            "resets",
            "timestamp_gaps",
            "silence_samples",
        ):
            figures = [getattr(summary, name) for summary in self.finished + running]
            assert sum(figures) == getattr(totals, name), name

    @invariant()
    def every_released_packet_and_every_loss_was_heard(self):
        totals = self.street.pipeline.counters()
        waiting = self.street.pipeline.playout.waiting
        assert len(self.street.frames) + waiting == totals.released
        if not waiting:
            assert sum(lost for _, _, _, lost in self.street.frames) == totals.lost


def test_packets_are_conserved_whatever_arrives():
    run_state_machine_as_test(
        PacketsAreConserved,
        settings=settings(max_examples=80, stateful_step_count=20, deadline=None),
    )
