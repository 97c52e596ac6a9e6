"""Telephone-events: one event per key press, whatever becomes of its packets."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packetmaker import MS, P, columns
from trackmaker import track

from pipeline.dispatch import Dispatcher
from pipeline.pipeline import Pipeline
from pipeline.sinks.base import Sink
from pipeline.telephone_events import MAX_EVENTS, Report, parse

pytestmark = pytest.mark.usefixtures("kernel")


def report(event, duration, *, end=False, reserved=False, volume=10):
    return struct.pack("!BBH", event, end << 7 | reserved << 6 | volume, duration)


class Hearer(Sink):
    """Keeps the events of telephone-events, and where frames stand."""

    threaded = False

    def __init__(self):
        self.events = []
        self.frames = []

    def write(self, block):
        self.frames += zip(block.position.tolist(), block.gap_samples.tolist(), strict=True)

    def event(self, event):
        if event.kind in {"dtmf", "telephone_event"}:
            self.events.append(event)


class Phone:
    """A sender: audio of 20 ms and events in one sequence on one clock, 20 ms apart."""

    def __init__(self, *, batches=True, **options):
        self.sink = Hearer()
        self.pipeline = Pipeline(Dispatcher({"hearer": self.sink}), **options)
        self.pipeline.open(track(0), sequence=0)
        self.sequence = 0
        self.now_ms = 0
        self.clock = 1000
        self.ssrc = 1
        self.packets = []
        self.batches = batches

    def send(self, payload, payload_type, timestamp, *, lost=False, ms=20):
        packet = P(
            sequence=self.sequence,
            arrival_ms=self.now_ms,
            timestamp=timestamp,
            payload=payload,
            payload_type=payload_type,
            ssrc=self.ssrc,
        )
        self.sequence += 1
        self.now_ms += ms
        if not lost:
            self.packets.append(packet)

    def talk(self, ms=100):
        for _ in range(ms // 20):
            self.send(bytes(160), 0, self.clock)
            self.clock += 160
        return self

    def press(self, event, duration=800, *, lost=(), payload_type=101, ends=3, times=1):
        """Send reports every 20 ms, the last thrice; `lost` are indices, negative from the end."""
        durations = [*range(160, duration, 160), *[duration] * ends]
        for i, each in enumerate(durations):
            is_end = i >= len(durations) - ends
            payload = report(event, each, end=is_end) * times
            is_lost = i in lost or i - len(durations) in lost
            self.send(payload, payload_type, self.clock, lost=is_lost, ms=1 if is_end else 20)
        self.now_ms += 20 - ends
        self.clock += duration
        return self

    def wait(self, ms):
        self.now_ms += ms
        self.clock += 8 * ms
        return self

    def run(self, *, split=1000, tick=True):
        """Push all that was sent, some at a time, and say what time it is after each."""
        while self.packets:
            now, self.packets = self.packets[:split], self.packets[split:]
            self.pipeline.push(columns(now))
            if tick:
                self.pipeline.tick(now[-1].arrival_ns + 1)
        return self

    def close(self):
        self.run()
        self.pipeline.summary(0, "closed")
        self.pipeline.close(0, "closed")
        return self

    def summary(self):
        return self.pipeline.summary(0, "closed")

    def heard(self):
        return [
            (e.data["digit"], e.data["start_s"], e.data["duration_ms"]) for e in self.sink.events
        ]


def test_key_press_is_one_event_with_start_and_duration():
    phone = Phone().talk(100).press(5, 800).talk(100).run()
    (event,) = phone.sink.events
    assert event.kind == "dtmf"
    assert dict(event.data) == {
        "digit": "5",
        "start_s": 0.1,
        "duration_ms": 100.0,
        "kind": "telephone-event",
    }
    assert (event.position_samples, event.sample_rate_hz) == (800, 8000)


def test_all_sixteen_keys():
    phone = Phone().talk(40)
    for event in range(16):
        phone.press(event).talk(60)
    assert "".join(digit for digit, *_ in phone.run().heard()) == "0123456789*#ABCD"


def test_events_are_never_audio_nor_loss_and_leave_their_gap():
    phone = Phone().talk(40).press(1, 800).talk(40).run()
    assert phone.sink.frames == [(0, 0), (160, 0), (1120, 800), (1280, 0)]
    summary = phone.summary()
    assert (summary.lost, summary.unknown_payload, summary.losses) == (0, 0, ())
    assert summary.codecs == ("PCMU", "telephone-event")
    assert summary.telephone_event_types == (101,)


def test_events_do_not_disturb_jitter():
    plain = Phone().talk(400).run().summary()
    phone = Phone().talk(200).press(1, 800).talk(200).run().summary()
    assert plain.jitter_max_ms == 0
    # where three end packets came in 3 ms, and the next audio as if they had taken 20
    assert phone.jitter_max_ms < 2


@pytest.mark.parametrize(
    "lost",
    [(-1,), (-2, -1), (0,), (0, 1, 2), (1, -2), (0, 1, 2, 3, -1, -2), (0, 1, 2, 3, -3, -2)],
)
def test_event_is_heard_once_with_its_duration_whatever_is_lost_but_one_end(lost):
    phone = Phone().talk(100).press(7, 800, lost=lost).talk(400).run()
    phone.pipeline.tick(10_000 * MS)
    assert phone.heard() == [("7", 0.1, 100.0)]


def test_event_without_its_end_packets_is_over_when_audio_comes_from_beyond():
    phone = Phone().talk(100).press(7, 800, lost=(-1, -2, -3)).talk(180).run()
    # the last report that came says 80 ms: up to 0.18 s, and audio has come up to 0.38 s
    assert phone.heard() == []
    phone.talk(20).run()
    assert phone.heard() == [("7", 0.1, 80.0)]


def test_event_without_its_end_packets_is_over_with_the_next():
    phone = (
        Phone()
        .press(7, 800, lost=(-1, -2, -3))
        .wait(50)
        .press(8, 400)
        .run()
        .wait(0)
        .talk(100)
        .run()
    )
    assert phone.heard() == [("7", 0.0, 80.0), ("8", 0.15, 50.0)]


def test_event_without_its_end_packets_is_over_when_nothing_comes():
    phone = Phone().talk(20).press(7, 800, lost=(-1, -2, -3)).run()
    last_ms = 20 + 3 * 20
    phone.pipeline.tick((last_ms + 1000) * MS)
    assert phone.heard() == []
    phone.pipeline.tick((last_ms + 1000) * MS + 1)
    assert phone.heard() == [("7", 0.02, 80.0)]


def test_event_that_is_open_when_its_track_ends_is_told_before_the_summary():
    phone = Phone().press(7, 800, lost=(-1, -2, -3)).close()
    assert phone.heard() == [("7", 0.0, 80.0)]


def test_two_presses_of_one_key_are_two():
    phone = Phone().talk(40).press(4, 400).wait(40).press(4, 400).run()
    assert phone.heard() == [("4", 0.04, 50.0), ("4", 0.13, 50.0)]


def test_two_presses_of_one_key_are_two_without_any_end_packet():
    phone = Phone().talk(40).press(4, 480, ends=0).wait(40).press(4, 480, ends=0).talk(400).run()
    assert [digit for digit, *_ in phone.heard()] == ["4", "4"]


def test_reports_come_out_of_order_and_twice():
    phone = Phone().talk(100).press(9, 800).talk(400)
    packets = phone.packets
    packets[6], packets[7] = packets[7], packets[6]
    packets[10], packets[12] = packets[12], packets[10]
    times = sorted(p.arrival_ms for p in packets)
    phone.packets = [
        P(**{**{f: getattr(p, f) for f in p.__slots__}, "arrival_ms": ms})
        if hasattr(p, "__slots__")
        else P(**{**p.__dict__, "arrival_ms": ms})
        for p, ms in zip(packets, times, strict=True)
        for _ in range(2)
    ]
    assert phone.run(split=3).heard() == [("9", 0.1, 100.0)]


def test_long_event_comes_in_segments_and_is_one():
    phone = Phone().talk(40)
    start = phone.clock
    for duration in (0x4000, 0x8000, 0xC000, 0xFFFF):
        phone.send(report(3, duration), 101, start, ms=500)
    for duration in (0x1000, 0x2000):
        phone.send(report(3, duration), 101, start + 0xFFFF, ms=500)
    phone.send(report(3, 0x2000, end=True), 101, start + 0xFFFF)
    assert phone.run().heard() == [("3", 0.04, round(1000 * (0xFFFF + 0x2000) / 8000, 3))]


def test_long_event_whose_last_report_of_a_segment_was_lost_is_one():
    phone = Phone().talk(40)
    start = phone.clock
    phone.send(report(3, 0xFF00), 101, start)
    phone.send(report(3, 0x1000, end=True), 101, start + 0xFFFF)
    assert phone.run().heard() == [("3", 0.04, round(1000 * (0xFFFF + 0x1000) / 8000, 3))]


def test_packet_may_hold_several_events():
    phone = Phone().talk(20)
    payload = report(1, 400, end=True) + report(2, 800, end=True)
    phone.send(payload, 101, phone.clock)
    phone.send(payload, 101, phone.clock)
    assert phone.run().heard() == [("1", 0.02, 50.0), ("2", 0.07, 100.0)]


def test_flash_is_an_event_of_its_own_and_no_key():
    phone = Phone().talk(20).press(16, 400).press(99, 160).run()
    assert [(e.kind, dict(e.data)) for e in phone.sink.events] == [
        ("telephone_event", {"event": 16, "name": "flash", "start_s": 0.02, "duration_ms": 50.0}),
        ("telephone_event", {"event": 99, "name": "99", "start_s": 0.07, "duration_ms": 20.0}),
    ]
    assert phone.summary().telephone_events == ()


def test_events_before_any_audio_count_from_the_first():
    phone = Phone().press(1, 800).wait(500).press(2, 800).wait(100_000).press(3, 400).run()
    assert phone.heard() == [("1", 0.0, 100.0), ("2", 0.6, 100.0), ("3", 100.7, 50.0)]


def test_timestamp_that_cannot_be_believed_gives_way_to_arrival():
    phone = Phone().talk(100)
    phone.clock += 2**31
    phone.press(6, 800).run()
    assert phone.heard() == [("6", pytest.approx(0.08, abs=0.021), 100.0)]


def test_event_of_another_source_stands_where_it_arrived():
    phone = Phone().talk(100).wait(60)
    phone.ssrc, phone.clock, phone.sequence = 2, 77, 30_000
    phone.press(6, 800).talk(40).run()
    ((digit, start_s, duration_ms),) = phone.heard()
    assert (digit, duration_ms) == ("6", 100.0)
    assert start_s == pytest.approx(0.16, abs=0.021)


def test_restart_of_the_sequence_ends_an_event():
    phone = Phone().talk(100).press(1, 800, lost=(-1, -2, -3))
    phone.ssrc, phone.clock, phone.sequence = 2, 77, 30_000
    phone.talk(60).run()
    assert phone.heard() == [("1", 0.1, 80.0)]


def test_other_payload_types_are_events_if_they_are_told():
    phone = Phone(telephone_events={96: 8000}).talk(40)
    phone.press(1, payload_type=96).press(2, payload_type=101).run()
    assert [digit for digit, *_ in phone.heard()] == ["1"]
    summary = phone.summary()
    assert (summary.unknown_payload, summary.codecs) == (7, ("PCMU", "telephone-event", "unknown"))


def test_durations_count_in_the_clock_of_the_events():
    phone = Phone(telephone_events={110: 48_000}).talk(200)
    for duration in (960, 1920, 2880):
        phone.send(report(1, duration), 110, 5 * phone.clock)
    phone.send(report(1, 4800, end=True), 110, 5 * phone.clock)
    ((digit, start_s, duration_ms),) = phone.run().heard()
    assert (digit, duration_ms) == ("1", 100.0)
    assert start_s == pytest.approx(0.2, abs=0.021)


def test_payload_type_is_learnt_by_its_shape_if_that_is_wanted():
    phone = Phone(learn_telephone_events=True).talk(100)
    phone.press(1, 800, payload_type=97).talk(100).press(2, 160, payload_type=97).talk(100).run()
    assert phone.heard() == [("1", 0.1, 100.0), ("2", 0.3, 20.0)]
    summary = phone.summary()
    assert summary.unknown_payload == 0
    assert summary.telephone_event_types == (97,)


def test_payload_type_is_not_learnt_unless_that_is_wanted():
    phone = Phone().talk(100).press(1, 800, payload_type=97).talk(100).run()
    assert phone.heard() == []
    assert phone.summary().unknown_payload == 7


@pytest.mark.parametrize(
    "payloads",
    [
        [report(1, 160)] * 40,
        [report(1, 160 * i, reserved=True) for i in range(1, 9)],
        [report(16, 160 * i) for i in range(1, 9)],
        [report(1, 160 * i) * 2 for i in range(1, 9)],
        [report(1, 1600 - 160 * i) for i in range(1, 9)],
        [report(i, 160 * i) for i in range(1, 9)],
        [b"\x01\x0a\x00", b"", b"x" * 40],
    ],
)
def test_other_payload_is_not_learnt(payloads):
    phone = Phone(learn_telephone_events=True).talk(40)
    for payload in payloads:
        phone.send(payload, 97, phone.clock)
    assert phone.close().sink.events == []


def test_payload_of_another_length_is_counted_and_no_event():
    phone = Phone().talk(40)
    for payload in (b"\x01\x8a\x03", b"x" * 1061, bytes(68), b""):
        phone.send(payload, 101, phone.clock)
    phone.close()
    assert phone.sink.events == []
    assert phone.pipeline.telephone_events.malformed(0) == 4


def test_more_events_than_anybody_presses_are_counted():
    phone = Phone()
    for i in range(MAX_EVENTS + 5):
        phone.send(report(i % 16, 160, end=True), 101, 1600 * i)
    phone.run()
    summary = phone.summary()
    assert len(phone.sink.events) == len(summary.telephone_events) == MAX_EVENTS
    assert summary.telephone_events_dropped == 5


def test_row_is_used_again_without_a_trace():
    phone = Phone().talk(40).press(1, 800, lost=(-1, -2, -3)).close()
    phone.pipeline.open(track(0, generation=1), sequence=phone.sequence)
    phone.talk(40).run()
    assert len(phone.sink.events) == 1
    assert phone.summary().telephone_events == ()


@settings(max_examples=15, deadline=None)
@given(
    presses=st.lists(
        st.tuples(
            st.integers(0, 20),
            st.integers(1, 20),
            st.lists(st.integers(-4, 4), max_size=5),
            st.sampled_from([0, 40, 400, 3000]),
        ),
        max_size=8,
    ),
    split=st.integers(1, 40),
)
def test_batches_and_ticks_change_nothing(presses, split):
    def outcome(split, tick):
        phone = Phone().talk(40)
        for event, hops, lost, wait_ms in presses:
            phone.press(event, 160 * hops, lost=lost)
            if wait_ms % 400 == 0:
                phone.talk(wait_ms)
            else:
                phone.wait(wait_ms)
        phone.run(split=split, tick=tick).close()
        return [(e.kind, e.position_samples, dict(e.data)) for e in phone.sink.events]

    assert outcome(split, tick=True) == outcome(1000, tick=False)


@settings(max_examples=25, deadline=None)
@given(
    packets=st.lists(
        st.tuples(
            st.binary(max_size=12),
            st.sampled_from([0, 96, 101, 101, 101]),
            st.sampled_from([0, 160, 800, 2**31, 2**32 - 160]),
            st.sampled_from([0, 0, 0, 1, 5, 30_000]),
        ),
        max_size=40,
    )
)
def test_nothing_that_is_sent_raises_or_is_told_twice(packets):
    phone = Phone(learn_telephone_events=True)
    for payload, payload_type, step, skip in packets:
        phone.sequence += skip
        phone.clock = phone.clock + step & 0xFFFFFFFF
        phone.send(payload, payload_type, phone.clock)
    phone.close()
    told = [(e.kind, e.position_samples, str(e.data)) for e in phone.sink.events]
    assert len(told) <= len(packets) * 3
    for _, position, _ in told:
        assert position >= 0


@given(payload=st.binary(max_size=70), timestamp=st.integers(0, 2**32 - 1))
def test_parser_takes_any_payload(payload, timestamp):
    reports = parse(payload, timestamp)
    assert len(reports) == (len(payload) // 4 if len(payload) % 4 == 0 else 0)
    assert all(0 <= each.timestamp < 2**32 for each in reports)


def test_parser_reads_the_fields():
    assert parse(bytes.fromhex("0b 8a 03 20"), 7) == [Report(7, 11, is_end=True, duration=800)]
    assert parse(bytes.fromhex("0f 4a 00 a0"), 7) == [Report(7, 15, is_end=False, duration=160)]
