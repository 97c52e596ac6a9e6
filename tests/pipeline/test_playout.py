"""Playout: where frames stand in time, by example, and equality with a plain model on anything."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packetmaker import MS, P, columns

from pipeline.codecs import PCMA, PCMU
from pipeline.packets import Released
from pipeline.playout import Playout

pytestmark = pytest.mark.usefixtures("kernel")

HOUR_S = 3600


@dataclass(frozen=True)
class Frame:
    row: int
    position: int
    gap_samples: int
    lost: int
    arrival_ns: int
    codec: str
    payload: bytes
    pcm: bytes


def play(playout, *packets, lost=None, restarted=False):
    """Release packets together; return the frames of each block that came of it."""
    counts = None if lost is None else np.array(lost, np.int64)
    return [
        [
            Frame(
                int(block.rows[i]),
                int(block.position[i]),
                int(block.gap_samples[i]),
                int(block.lost[i]),
                int(block.arrival_ns[i]),
                block.codec.name,
                block.payload[i].tobytes(),
                block.pcm[i].tobytes(),
            )
            for i in range(len(block))
        ]
        for block in playout.play(Released(columns(packets), counts, restarted))
    ]


class Line:
    """A playout with one track, on a network that by default delays nothing."""

    def __init__(self, *, first=0, **options):
        self.playout = Playout(**options)
        self.first = first

    def send(self, samples, **fields):
        """Release the packet `samples` after the first timestamp: its (position, gap, lost).

        None where it has no audio, or waits.
        """
        frames = self.send_all(samples, **fields)
        assert len(frames) <= 1
        return frames[0] if frames else None

    def send_all(
        self,
        samples,
        *,
        arrival_ms=None,
        payload=bytes(160),
        payload_type=0,
        lost=0,
        restarted=False,
    ):
        """Release a packet; return (position, gap, lost) of all frames that are played then."""
        blocks = play(
            self.playout,
            P(
                timestamp=self.first + samples,
                arrival_ms=samples / 8 if arrival_ms is None else arrival_ms,
                payload=payload,
                payload_type=payload_type,
            ),
            lost=[lost] if lost else None,
            restarted=restarted,
        )
        return [(f.position, f.gap_samples, f.lost) for block in blocks for f in block]

    @property
    def figures(self):
        """Silences, samples of silence, losses, duration."""
        playout = self.playout
        return (
            int(playout.timestamp_gaps[0]),
            int(playout.silence_samples[0]),
            playout.losses.get(0, []),
            int(playout.end[0]),
        )


@pytest.mark.parametrize("first", [0, 1, 123_456, 2**31 - 1, 2**31, 2**32 - 1])
def test_first_frame_stands_at_0_whatever_its_timestamp(first):
    line = Line(first=first)
    assert line.send(0) == (0, 0, 0)
    assert line.figures == (0, 0, [], 160)


def test_frames_in_sequence_stand_end_to_end():
    line = Line(first=7)
    assert [line.send(s) for s in (0, 160, 320)] == [(0, 0, 0), (160, 0, 0), (320, 0, 0)]
    assert line.figures == (0, 0, [], 480)


def test_timestamps_tell_the_position_and_arrival_does_not():
    line = Line()
    line.send(0, arrival_ms=0)
    assert line.send(160, arrival_ms=900) == (160, 0, 0)
    assert line.send(800, arrival_ms=901) == (800, 480, 0)


def test_timestamp_gap_without_a_loss_is_silence():
    line = Line()
    line.send(0)
    assert line.send(8000) == (8000, 7840, 0)
    assert line.figures == (1, 7840, [], 8160)


def test_gap_of_a_single_sample_is_silence():
    line = Line()
    line.send(0)
    assert line.send(161) == (161, 1, 0)
    assert line.figures == (1, 1, [], 321)


def test_lost_packets_leave_their_length_and_are_no_silence():
    line = Line()
    line.send(0)
    assert line.send(480, lost=2) == (480, 320, 2)
    assert line.figures == (0, 320, [(160, 2)], 640)


def test_loss_in_which_no_time_passes_is_a_loss_too():
    line = Line()
    line.send(0)
    assert line.send(160, lost=1) == (160, 0, 1)
    assert line.figures == (0, 0, [(160, 1)], 320)


def test_loss_before_the_first_audio_frame_stands_at_0():
    line = Line()
    line.send(0, payload_type=101)
    assert line.send(320, lost=1) == (0, 0, 1)
    assert line.figures == (0, 0, [(0, 1)], 160)


def test_discontinuous_transmission_is_silence_until_speech_goes_on():
    line = Line()
    line.send(0)
    # comfort noise as of RFC 3389, then nothing, then speech
    assert line.send(160, payload_type=13, payload=b"\x40") is None
    assert line.send(8000) == (8000, 7840, 0)
    assert line.send(8160) == (8160, 0, 0)
    assert line.figures == (1, 7840, [], 8320)


def test_overlapping_frame_stands_where_its_timestamp_says():
    line = Line()
    line.send(0)
    line.send(160)
    assert line.send(240) == (240, -80, 0)
    assert line.send(400) == (400, 0, 0)
    assert line.figures == (0, 0, [], 560)


@pytest.mark.parametrize(
    ("step_back", "expected"), [(8000, (12_160, -8000, 0)), (8001, (20_160, 0, 0))]
)
def test_step_back_is_believed_up_to_a_second(step_back, expected):
    line = Line()
    line.send(0)
    line.send(20_000)
    assert line.send(20_160 - step_back, arrival_ms=20_160 / 8) == expected


@pytest.mark.parametrize(("timestamp", "expected"), [(0, (0, -160, 0)), (-1, (160, 0, 0))])
def test_no_frame_stands_before_the_first(timestamp, expected):
    line = Line(first=5000)
    line.send(0)
    assert line.send(timestamp, arrival_ms=20) == expected


@pytest.mark.parametrize(
    ("gap", "expected"), [(20_000, (20_160, 20_000, 0)), (20_001, (4160, 4000, 0))]
)
def test_gap_is_believed_until_it_runs_two_seconds_ahead_of_the_arrivals(gap, expected):
    line = Line()
    line.send(0)
    # it arrives half a second after it was due
    assert line.send(160 + gap, arrival_ms=520) == expected


def test_gaps_that_run_ahead_do_so_by_two_seconds_in_all():
    line = Line()
    line.send(0)
    assert line.send(8160, arrival_ms=20) == (8160, 8000, 0)
    assert line.send(16_320, arrival_ms=40) == (16_320, 8000, 0)
    # all further silence has to pass
    assert line.send(24_480, arrival_ms=60) == (16_480, 0, 0)
    assert line.send(32_640, arrival_ms=580) == (16_640, 0, 0)
    assert line.send(40_800, arrival_ms=3600) == (24_800, 8000, 0)


def test_audio_that_comes_early_is_played_and_sets_the_clock_right():
    line = Line()
    line.send(0, arrival_ms=900)
    for i in range(1, 100):
        assert line.send(160 * i, arrival_ms=900) == (160 * i, 0, 0)
    # the first had only been late: silence goes on from here
    assert line.send(32_000, arrival_ms=2900) == (32_000, 16_000, 0)


@pytest.mark.parametrize(
    ("gap", "frame", "told"),
    [
        (960_000, (960_320, 960_000, 0), []),
        (960_001, (0, 0, 0), [(0, "gap", 960_001 / 8000, 1_920_161)]),
    ],
)
def test_gap_beyond_max_gap_s_begins_a_segment(gap, frame, told):
    segments = []
    line = Line(
        max_gap_s=120,
        begin_segment=lambda row, began, gap_s, packet: segments.append(
            (row, began, gap_s, int(packet.timestamp[0]))
        ),
    )
    line.send(959_840)
    line.send(960_000)
    assert line.send(960_160 + gap) == frame
    assert segments == told
    assert Playout().max_gap_s == 120


def test_time_between_arrivals_begins_a_segment_too():
    segments = []
    line = Line(max_gap_s=10, begin_segment=lambda *told: segments.append(told[:3]))
    line.send(0)
    assert line.send(3_000_000_000, arrival_ms=3_600_020, restarted=True) == (0, 0, 0)
    assert segments == [(0, "gap", 3600.0)]
    assert line.send(3_000_000_160, arrival_ms=3_600_040) == (160, 0, 0)
    assert line.figures == (0, 0, [], 320)


def test_hold_whose_timestamps_stand_still_is_filled_by_the_arrivals():
    realigned = []
    line = Line(realigned=lambda *told: realigned.append(told))
    line.send(0, arrival_ms=0)
    # a minute later it goes on, as if nothing had been
    for i in range(1, 27):
        assert line.send(160 * i, arrival_ms=60_000 + 20 * i) is None
    # 520 ms later it is sure that no burst makes up for it: all stand where they came
    frames = line.send_all(160 * 27, arrival_ms=60_540)
    assert frames == [(480_000 + 160 * i, 480_000 * (i == 1), 0) for i in range(1, 28)]
    assert realigned == [(0, 480_000)]
    assert line.figures == (1, 480_000, [], 484_480)
    assert line.playout.realignments[0] == 1
    assert not line.playout.needs_care[0]


def test_network_that_stalls_and_delivers_in_a_burst_moves_nothing():
    line = Line()
    line.send(0, arrival_ms=0)
    for i in range(1, 12):
        assert line.send(160 * i, arrival_ms=3000 + i) is None
    frames = line.send_all(160 * 12, arrival_ms=3012)
    frames += [line.send(160 * i, arrival_ms=3012 + i / 10) for i in range(13, 160)]
    frames += [line.send(160 * i) for i in range(160, 170)]
    assert frames == [(160 * i, 0, 0) for i in range(1, 170)]
    assert line.figures == (0, 0, [], 27_200)
    assert line.playout.realignments[0] == 0
    assert not line.playout.needs_care[0]


def test_queue_that_is_emptied_half_as_fast_again_as_it_was_filled_moves_nothing():
    line = Line()
    line.send(0, arrival_ms=0)
    frames = [
        frame
        for i in range(1, 450)
        for frame in line.send_all(160 * i, arrival_ms=max(20 * i, 3000 + 20 * i / 1.5))
    ]
    assert frames == [(160 * i, 0, 0) for i in range(1, 450)]
    assert line.playout.realignments[0] == 0


def test_frame_that_comes_far_too_late_waits_no_longer_than_for_the_clock():
    line = Line()
    line.send(0, arrival_ms=0)
    assert line.send(160, arrival_ms=5020) is None
    tick = line.playout.tick
    assert list(tick(5_580_000_000, reorder_ns=60_000_000)) == []
    [block] = tick(5_580_000_001, reorder_ns=60_000_000)
    assert (block.position.tolist(), block.gap_samples.tolist()) == ([40_160], [40_000])
    assert list(tick(9_000_000_000)) == []


def test_what_waits_is_played_at_the_end():
    line = Line()
    line.send(0, arrival_ms=0)
    line.send(160, arrival_ms=5020)
    [block] = line.playout.close(0)
    assert block.position.tolist() == [40_160]


def test_a_second_of_lateness_is_not_too_much_and_more_is_only_after_a_pause():
    line = Line()
    line.send(0)
    assert line.send(160, arrival_ms=1020) == (160, 0, 0)
    assert line.send(320, arrival_ms=1540) == (320, 0, 0)
    assert line.send(480, arrival_ms=2100) is None
    assert line.send_all(640, arrival_ms=2620)[0] == (480 + 12_320, 12_320, 0)


def test_what_waits_is_bounded():
    line = Line()
    line.send(0, payload=b"1")
    for i in range(63):
        assert line.send(1 + i, arrival_ms=5000, payload=b"1") is None
    assert len(line.send_all(64, arrival_ms=5000, payload=b"1")) == 64


def test_silence_passes_by_the_clock():
    playout = Playout(max_gap_s=10)
    play(playout, P(row=0, timestamp=0), P(row=2, timestamp=0, arrival_ms=500))
    after_ns = 200_000_000
    assert playout.overdue(220_000_000, after_ns) is None
    rows, until = playout.overdue(720_000_000, after_ns)
    assert (rows.tolist(), until.tolist()) == ([0], [160 + 4000])
    rows, until = playout.overdue(1_220_000_000, after_ns)
    assert (rows.tolist(), until.tolist()) == ([0, 2], [160 + 8000, 160 + 4000])
    rows, until = playout.overdue(10_920_000_000, after_ns)
    assert (rows.tolist(), until.tolist()) == ([0, 2], [80_160, 80_160])
    # no longer than the longest gap
    assert playout.overdue(12_000_000_000, after_ns) is None


def test_timestamps_go_on_from_the_frame_behind_an_unbelievable_gap():
    line = Line(max_gap_s=1)
    line.send(0)
    assert line.send(1_000_000, arrival_ms=30) == (240, 80, 0)
    assert line.send(1_000_160, arrival_ms=99) == (400, 0, 0)
    assert line.figures == (1, 80, [], 560)


def test_frame_that_arrives_early_follows_at_once():
    line = Line(max_gap_s=10)
    line.send(0, arrival_ms=0)
    assert line.send(1_000_000, arrival_ms=5) == (160, 0, 0)


def test_new_sequence_goes_on_by_arrival():
    line = Line()
    line.send(0)
    assert line.send(3_000_000_000, arrival_ms=120, restarted=True) == (960, 800, 0)
    assert line.send(3_000_000_160, arrival_ms=140) == (1120, 0, 0)
    assert line.figures == (1, 800, [], 1280)


def test_timestamps_of_a_new_sequence_are_not_believed_however_likely():
    line = Line()
    line.send(0)
    assert line.send(8160, arrival_ms=20, restarted=True) == (160, 0, 0)
    line = Line()
    line.send(0)
    assert line.send(160, arrival_ms=1020, restarted=True) == (8160, 8000, 0)


def test_new_sequence_begins_with_its_first_audio():
    line = Line()
    line.send(0)
    assert line.send(160, arrival_ms=20, payload_type=101, restarted=True) is None
    assert line.send(320, arrival_ms=120) == (960, 800, 0)
    # and only with that one
    assert line.send(640, arrival_ms=500) == (1280, 160, 0)


def test_new_sequence_on_one_track_leaves_the_others_alone():
    playout = Playout()
    play(playout, P(row=0, timestamp=0), P(row=1, timestamp=0))
    play(playout, P(row=1, timestamp=0, payload_type=101), restarted=True)
    # row 1 still waits for the audio of its new sequence
    frames = play(playout, P(row=0, timestamp=8000, arrival_ms=20))[0]
    assert (frames[0].position, frames[0].gap_samples) == (8000, 7840)
    frames = play(playout, P(row=1, timestamp=8000, arrival_ms=30))[0]
    assert (frames[0].position, frames[0].gap_samples) == (240, 80)


def test_new_sequence_before_any_audio_begins_at_0():
    line = Line()
    line.send(0, payload_type=101)
    assert line.send(5000, arrival_ms=900, restarted=True) == (0, 0, 0)


@pytest.mark.parametrize(
    ("payload_type", "payload"), [(14, bytes(160)), (127, bytes(160)), (0, b""), (8, b"")]
)
def test_packet_without_audio_leaves_a_gap_of_the_right_length(payload_type, payload):
    line = Line()
    line.send(0)
    assert line.send(160, payload_type=payload_type, payload=payload) is None
    assert line.send(320, payload_type=payload_type, payload=payload) is None
    assert line.send(480) == (480, 320, 0)
    assert line.figures == (1, 320, [], 640)


def test_losses_before_packets_without_audio_belong_to_the_next_frame():
    line = Line()
    line.send(0)
    assert line.send(320, payload_type=101, lost=1) is None
    assert line.send(640, payload=b"", lost=2) is None
    assert line.send(960, lost=4) == (960, 800, 7)
    assert line.send(1120) == (1120, 0, 0)
    assert line.figures == (0, 800, [(160, 7)], 1280)


def test_postponed_losses_stay_with_their_track():
    playout = Playout()
    play(playout, P(row=0), P(row=1), P(row=2))
    packets = [P(row=row, sequence=2, payload_type=101) for row in range(3)]
    assert play(playout, *packets, lost=[1, 0, 3]) == []
    [frames] = play(playout, *[P(row=row, sequence=3) for row in (2, 1)])
    assert [(f.row, f.lost) for f in frames] == [(2, 3), (1, 0)]
    [frames] = play(playout, *[P(row=row, sequence=4) for row in (0, 2)], lost=[1, 0])
    assert [(f.row, f.lost) for f in frames] == [(0, 2), (2, 0)]
    assert playout.losses == {2: [(160, 3)], 0: [(160, 2)]}


def test_timestamp_wrap_is_no_gap():
    line = Line(first=2**32 - 240)
    assert [line.send(s) for s in (0, 160, 320)] == [(0, 0, 0), (160, 0, 0), (320, 0, 0)]


def test_gap_across_the_timestamp_wrap_has_its_length():
    line = Line(first=2**32 - 4000)
    line.send(0)
    assert line.send(8000) == (8000, 7840, 0)
    assert line.send(7000) == (7000, -1160, 0)


@pytest.mark.parametrize("ms", [10, 20, 30, 40, 50, 60])
def test_packets_of_any_time_stand_end_to_end(ms):
    line = Line()
    samples = 8 * ms
    for i in range(5):
        assert line.send(i * samples, payload=bytes(samples)) == (i * samples, 0, 0)


def test_packet_time_may_change_from_packet_to_packet():
    line = Line()
    assert line.send(0, payload=bytes(160)) == (0, 0, 0)
    assert line.send(160, payload=bytes(480)) == (160, 0, 0)
    assert line.send(640, payload=bytes(80)) == (640, 0, 0)
    assert line.send(720, payload=bytes(241)) == (720, 0, 0)
    assert line.send(961, payload=bytes(160)) == (961, 0, 0)
    assert line.figures == (0, 0, [], 1121)


def test_arrival_is_due_one_packet_time_after_the_frame_before():
    line = Line(max_gap_s=1)
    line.send(0, payload=bytes(480))
    assert line.send(1_000_000, arrival_ms=61) == (488, 8, 0)


def test_codec_may_change_from_packet_to_packet():
    playout = Playout()
    [[first]] = play(playout, P(timestamp=0, payload=b"\x00" * 160))
    [[second]] = play(playout, P(timestamp=160, payload=b"\x2a" * 160, payload_type=8))
    assert (first.codec, first.position) == ("PCMU", 0)
    assert np.frombuffer(first.pcm, np.int16).tolist() == [-32124] * 160
    assert (second.codec, second.position, second.gap_samples) == ("PCMA", 160, 0)
    assert np.frombuffer(second.pcm, np.int16).tolist() == [-32256] * 160


def test_equal_frames_are_one_block_in_their_order():
    playout = Playout()
    packets = [P(row=r, payload=bytes([r]) * 4, arrival_ms=r) for r in (3, 0, 2)]
    [frames] = play(playout, *packets)
    assert [f.row for f in frames] == [3, 0, 2]
    assert [f.payload for f in frames] == [b"\x03" * 4, b"\x00" * 4, b"\x02" * 4]
    assert [f.arrival_ns for f in frames] == [3_000_000, 0, 2_000_000]


def test_a_mixture_of_codecs_and_sizes_gives_one_block_each():
    packets = columns(
        [
            P(row=0, payload=b"\x00\x80"),
            P(row=1, payload=b"\xaa\x2a", payload_type=8),
            P(row=2, payload=b"\xff"),
            P(row=3, payload=b"\x80\x00"),
            P(row=4, payload=b"\x01\x02", payload_type=96),
            P(row=5, payload=b""),
            P(row=6, payload=b"\x2a\x2a", payload_type=8),
            P(row=7, payload=b"\x7f\x00"),
        ]
    )
    # row 7 has a longer header: its payload is one byte further on
    packets.store[7, 5:7] = (0x80, 0x80)
    packets.offset[7] = 5
    found = [
        (block.codec, block.rows.tolist(), block.lost.tolist(), block.pcm.tolist())
        for block in Playout().play(Released(packets, lost=np.arange(8)))
    ]
    assert sorted(found, key=lambda block: block[1]) == [
        (PCMU, [0, 3, 7], [0, 3, 7], [[-32124, 32124], [32124, -32124], [32124, 32124]]),
        (PCMA, [1, 6], [1, 6], [[32256, -32256], [-32256, -32256]]),
        (PCMU, [2], [2], [[0]]),
    ]


def test_only_packets_without_audio_give_no_block():
    assert play(Playout(), P(row=0, payload_type=101), P(row=1, payload=b"")) == []


@pytest.mark.parametrize("which", [[0, 1, 2], [1, 2, 3], [0, 2, 3], [3, 2, 1], [1, 3, 2], [2]])
def test_payloads_are_found_wherever_they_lie(which):
    packets = columns([P(row=i, payload=bytes([0x10 * i, 0x80 + i, i])) for i in range(4)])
    [block] = Playout().play(Released(packets.take(np.array(which))))
    assert block.rows.tolist() == which
    assert block.payload.tolist() == [[0x10 * i, 0x80 + i, i] for i in which]
    assert block.pcm.tolist() == PCMU.table[block.payload].tolist()
    assert block.payload.flags.c_contiguous


def test_many_and_large_frames_after_few_and_small_ones_are_whole():
    playout = Playout()
    for rows, size in ((1, 2), (5, 160), (3, 480), (40, 80)):
        packets = [P(row=r, payload=bytes([r + 1]) * size) for r in range(rows)]
        [frames] = play(playout, *packets)
        assert [f.payload for f in frames] == [p.payload for p in packets]
        assert [f.pcm for f in frames] == [
            PCMU.table[np.frombuffer(p.payload, np.uint8)].tobytes() for p in packets
        ]


def test_remembered_losses_are_bounded():
    line = Line()
    line.send(0)
    for i in range(1, 1003):
        assert line.send(320 * i, lost=1) == (320 * i, 160, 1)
    losses = line.playout.losses[0]
    assert len(losses) == 1000
    assert (losses[0], losses[-1]) == ((160, 1), (160 + 320 * 999, 1))


def test_totals_add_up_over_tracks():
    playout = Playout()
    play(playout, P(row=0, timestamp=0), P(row=1, timestamp=0), P(row=2, timestamp=0))
    play(
        playout,
        P(row=0, timestamp=320),
        P(row=1, timestamp=480),
        P(row=2, timestamp=320),
        lost=[0, 0, 1],
    )
    assert playout.timestamp_gaps_total == 2
    assert playout.silence_samples_total == 160 + 320 + 160
    assert playout.timestamp_gaps[:3].tolist() == [1, 1, 0]
    assert playout.silence_samples[:3].tolist() == [160, 320, 160]


def test_renewed_row_knows_nothing_of_its_past():
    playout = Playout()
    play(playout, P(row=0, timestamp=0), P(row=1, timestamp=0))
    play(playout, P(row=0, timestamp=320), P(row=1, timestamp=320), lost=[1, 1])
    play(playout, P(row=0, timestamp=640, payload_type=101), lost=[5], restarted=True)
    playout.renew(0)
    assert playout.losses == {1: [(160, 1)]}
    [[frame]] = play(playout, P(row=0, timestamp=900_000, arrival_ms=500))
    assert (frame.position, frame.gap_samples, frame.lost) == (0, 0, 0)
    # nor is its next gap judged as that of a new sequence
    [[frame]] = play(playout, P(row=0, timestamp=900_320, arrival_ms=900))
    assert (frame.position, frame.gap_samples) == (320, 160)
    assert playout.silence_samples[:2].tolist() == [160, 160]


def test_four_hours_of_a_sender_100_ppm_fast_stay_where_the_timestamps_say():
    # Every second of the receiver's clock: 8000.8 samples of the sender's. A frame every five
    # seconds and silence in between keep the test short; the timestamps wrap on the way.
    line = Line(first=2**32 - 1_000_000)
    for second in range(0, 4 * HOUR_S + 5, 5):
        samples = round(second * 8000.8)
        assert line.send(samples, arrival_ms=1000 * second)[0] == samples
    # 1.44 s ahead of the receiver's clock after four hours
    assert line.playout.end[0] - 160 == 4 * HOUR_S * 8000 + 11_520
    assert line.playout.rows == 64
    assert line.playout.losses == {}


@dataclass
class ModelTrack:
    """One track's media time, one packet at a time, in whole samples of 125,000 ns."""

    max_gap_s: int
    end: int = 0
    next_timestamp: int = 0
    next_arrival_ns: int = 0
    late_ns: int = 0
    postponed: int = 0
    is_new: bool = False
    has_stopped: bool = False
    has_stalled: bool = False
    timestamp_gaps: int = 0
    silence_samples: int = 0
    realignments: int = 0
    losses: list[tuple[int, int]] = field(default_factory=list)
    waiting: list[tuple[P, int]] = field(default_factory=list)
    frames: list[tuple] = field(default_factory=list)

    def take(self, p, lost, *, restarted=False):
        if not self.waiting:
            self.play(p, lost, restarted=restarted)
            return
        first = self.waiting[0][0]
        elapsed_ns = p.arrival_ns - first.arrival_ns
        if elapsed_ns > 500 * MS or restarted:
            self.settle(is_burst=False)
            self.take(p, lost, restarted=restarted)
            return
        self.waiting.append((p, lost))
        is_burst = signed(p.timestamp - first.timestamp) * 125_000 - elapsed_ns >= 200 * MS
        if is_burst or len(self.waiting) == 64:
            self.settle(is_burst=is_burst)

    def settle(self, *, is_burst):
        waiting, self.waiting = self.waiting, []
        self.has_stalled, self.has_stopped = is_burst, not is_burst
        for p, lost in waiting:
            self.take(p, lost)

    def close(self):
        while self.waiting:
            self.settle(is_burst=False)

    def play(self, p, lost, *, restarted):
        self.is_new |= restarted
        if p.payload_type not in {0, 8} or not p.payload:
            self.postponed += lost
            return
        gap = waited_ns = late_ns = 0
        if self.end:
            waited_ns, before_ns = p.arrival_ns - self.next_arrival_ns, self.late_ns
            gap = signed(p.timestamp - self.next_timestamp)
            is_ahead = gap * 125_000 - waited_ns - before_ns > 2000 * MS
            is_odd = gap < 0
            if self.is_new or gap < -min(8000, self.end) or (gap > 0 and is_ahead):
                gap, is_odd = max(0, waited_ns + min(0, before_ns)) // 125_000, True
            if self.has_stopped:
                gap, is_odd = max(0, waited_ns + min(before_ns, 1000 * MS)) // 125_000, True
            late_ns = before_ns + waited_ns - gap * 125_000
            if gap <= 0:
                late_ns = max(late_ns, min(0, before_ns))
            is_judged = self.has_stalled or self.has_stopped
            if late_ns > 1000 * MS and waited_ns > 500 * MS and not is_judged:
                self.waiting.append((p, lost))
                return
            self.realignments += is_odd
        self.is_new = self.has_stopped = self.has_stalled = False
        if gap > self.max_gap_s * 8000:
            self.begin_segment()
            gap = waited_ns = late_ns = 0
        lost, self.postponed = lost + self.postponed, 0
        if lost:
            self.losses.append((self.end, lost))
        elif gap > 0:
            self.timestamp_gaps += 1
        self.silence_samples += max(0, gap)
        frame_ns = len(p.payload) * 125_000
        leak_ns = max(0, waited_ns + frame_ns) >> 10
        self.late_ns = late_ns - max(-leak_ns, min(leak_ns, late_ns))
        self.frames.append((self.end + gap, gap, lost, p.arrival_ns, p.payload))
        self.end += gap + len(p.payload)
        self.next_timestamp = p.timestamp + len(p.payload)
        self.next_arrival_ns = p.arrival_ns + frame_ns

    def begin_segment(self):
        self.end = self.silence_samples = self.timestamp_gaps = self.realignments = 0
        self.losses = []


def signed(distance):
    return (distance + 2**31) % 2**32 - 2**31


ROWS = 3
MAX_GAP_S = 3
PACKET = st.fixed_dictionaries(
    {
        "row": st.integers(0, ROWS - 1),
        # relative to the time that has passed on the row, or to a frame that follows at once
        "pace": st.sampled_from(["clock", "frozen", "frozen"]),
        "step": st.one_of(
            st.just(0),
            st.just(0),
            st.sampled_from([-8001, -8000, 16_000, 16_001, 24_001, 2**31 - 1, -(2**31)]),
            st.integers(-500, 500),
            st.integers(-(2**31), 2**31 - 1),
        ),
        "wait_ms": st.sampled_from([0, 0, 1, 5, 20, 20, 60, 250, 1050, 2999, 5000]),
        "size": st.sampled_from([0, 1, 80, 160, 160, 160, 480]),
        "payload_type": st.sampled_from([0, 0, 0, 8, 14, 101]),
        "lost": st.sampled_from([0, 0, 0, 1, 5]),
    }
)
RELEASE = st.tuples(
    st.lists(PACKET, min_size=1, max_size=ROWS, unique_by=lambda packet: packet["row"]),
    st.sampled_from([False] * 5 + [True]),
)


@settings(deadline=None)
@given(st.lists(RELEASE, max_size=30), st.integers(0, 2**32 - 1))
def test_frames_of_any_packets_stand_where_the_plain_model_says(releases, first):
    playout = Playout(max_gap_s=MAX_GAP_S)
    models = [ModelTrack(MAX_GAP_S, next_timestamp=first) for _ in range(ROWS)]
    heard = [[] for _ in range(ROWS)]

    def keep(blocks):
        for block in blocks:
            for i, row in enumerate(block.rows.tolist()):
                columns = (block.position, block.gap_samples, block.lost, block.arrival_ns)
                values = [int(column[i]) for column in columns]
                heard[row].append((*values, block.payload[i].tobytes()))

    now_ms = 0
    last = [(first, 0)] * ROWS
    for release, restarted in releases:
        packets = []
        for serial, packet in enumerate(release):
            now_ms += packet["wait_ms"]
            timestamp, then_ms = last[packet["row"]]
            if packet["pace"] == "clock":
                timestamp += 8 * (now_ms - then_ms)
            timestamp += packet["step"]
            last[packet["row"]] = timestamp + packet["size"], now_ms + packet["size"] // 8
            p = P(
                row=packet["row"],
                timestamp=timestamp % 2**32,
                arrival_ms=now_ms,
                payload_type=packet["payload_type"],
                payload=bytes([serial]) * packet["size"],
            )
            packets.append(p)
            models[p.row].take(p, packet["lost"], restarted=restarted)
        lost = [packet["lost"] for packet in release]
        counts = np.array(lost, np.int64) if any(lost) else None
        keep(playout.play(Released(columns(packets), counts, restarted)))
    for row, model in enumerate(models):
        model.close()
        keep(playout.close(row))
        assert heard[row] == model.frames
        assert playout.end[row] == model.end
        assert playout.late_ns[row] == model.late_ns
        assert playout.timestamp_gaps[row] == model.timestamp_gaps
        assert playout.silence_samples[row] == model.silence_samples
        assert playout.realignments[row] == model.realignments
        assert playout.losses.get(row, []) == model.losses
