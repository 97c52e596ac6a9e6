"""The conversation sink: what is told when, and what the results say."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trackmaker import track

from pipeline.block import Event, TrackSummary
from pipeline.dispatch import Dispatcher
from pipeline.sinks import SinkError
from pipeline.sinks.conversation import MAX_PENDING, ConversationSink
from pipeline.talk import mutual_silence, talk_over

RATE_HZ = 8000
SECOND_NS = 1_000_000_000


def summary(duration_s):
    figures = dict.fromkeys((field.name for field in fields(TrackSummary)), 0)
    return TrackSummary(
        **{**figures, "duration_samples": round(duration_s * RATE_HZ), "sample_rate_hz": RATE_HZ}
    )


class Call:
    """A call leg on a sink, whose parties' speech is told in seconds of the call."""

    def __init__(self, *, outbound_s=0.0, sink=ConversationSink, **options):
        self.sink = sink(**options)
        self.told = []
        self.sink.emit = self.told.append
        self.tracks = {"inbound": self.track(0, "inbound", 0.0)}
        self.sink.open(self.tracks["inbound"])
        if outbound_s is not None:
            self.tracks["outbound"] = self.track(1, "outbound", outbound_s)
            self.sink.open(self.tracks["outbound"])

    @staticmethod
    def track(row, direction, at_s, generation=0):
        return replace(
            track(row, generation=generation),
            direction=direction,
            opened_ns=round(at_s * SECOND_NS) + 77 * SECOND_NS,
            opened_unix_ns=1_767_225_600 * SECOND_NS + round(at_s * SECOND_NS),
        )

    def edge(self, direction, kind, at_s):
        own = self.tracks[direction]
        position = round((at_s + 77 - own.opened_ns / SECOND_NS) * RATE_HZ)
        self.sink.event(Event(f"speech_{kind}", own, position, RATE_HZ))

    def starts(self, direction, at_s):
        self.edge(direction, "started", at_s)

    def stops(self, direction, at_s):
        self.edge(direction, "stopped", at_s)

    def says(self, direction, start_s, end_s):
        self.starts(direction, start_s)
        self.stops(direction, end_s)

    def until(self, at_s):
        self.sink.tick(round((at_s + 77) * SECOND_NS))

    def close(self, direction, end_s):
        own = self.tracks[direction]
        return self.sink.close(own, summary(end_s + 77 - own.opened_ns / SECOND_NS))

    @property
    def events(self):
        return [(event.kind, *event.data.values()) for event in self.told]


def test_talk_over_and_silence_are_told_and_returned():
    call = Call(silence_s=3.0, overlap_ms=300, settle_ms=500)
    call.starts("inbound", 1.0)
    call.starts("outbound", 2.0)
    call.stops("inbound", 3.5)
    call.stops("outbound", 5.0)
    call.until(30)
    assert call.events == [
        ("talk_over_started", 2.0),
        ("talk_over_stopped", 2.0, 3.5),
        ("mutual_silence_started", 5.0),
    ]
    assert call.close("inbound", 20.0) is None
    assert call.close("outbound", 20.0) == {
        "started_at": "2026-01-01T00:00:00.000Z",
        "talk_over": [[2.0, 3.5]],
        "silence": [[5.0, 20.0]],
        "talk_over_s": 1.5,
        "silence_s": 15.0,
        "speech_dropped": 0,
    }


def test_silence_at_the_beginning_and_at_the_end_counts():
    call = Call(silence_s=2.0)
    call.until(0)
    call.says("inbound", 4.0, 6.0)
    call.close("outbound", 9.0)
    assert call.close("inbound", 9.0)["silence"] == [[0.0, 4.0], [6.0, 9.0]]
    assert call.events == [
        ("mutual_silence_started", 0.0),
        ("mutual_silence_stopped", 0.0, 4.0),
        ("mutual_silence_started", 6.0),
        ("mutual_silence_stopped", 6.0, 9.0),
    ]


def test_silence_is_told_by_the_clock_when_it_is_certain():
    call = Call(silence_s=5.0, settle_ms=500)
    call.says("inbound", 0.0, 2.0)
    call.until(7.4)
    assert call.events == []
    call.until(7.5)
    assert call.events == [("mutual_silence_started", 2.0)]
    (event,) = call.told
    assert (event.track, event.position_samples) == (call.tracks["inbound"], 16_000)


def test_talk_over_is_told_once_it_has_lasted_and_nobody_may_have_stopped():
    call = Call(overlap_ms=300, settle_ms=500)
    call.starts("inbound", 1.0)
    call.starts("outbound", 2.0)
    call.until(2.75)
    assert call.events == []
    call.until(2.8)
    assert call.events == [("talk_over_started", 2.0)]
    assert call.told[0].track is call.tracks["outbound"]  # who spoke up last
    assert call.told[0].position_samples == 16_000


def test_short_overlaps_and_pauses_are_none():
    call = Call(silence_s=3.0, overlap_ms=300)
    call.says("inbound", 0.0, 4.0)
    call.says("outbound", 3.75, 6.0)
    call.says("inbound", 8.5, 9.0)
    call.until(9.5)
    call.close("inbound", 9.0)
    results = call.close("outbound", 9.0)
    assert (results["talk_over"], results["silence"], call.events) == ([], [], [])


def test_tracks_are_placed_by_their_arrival():
    call = Call(outbound_s=2.5)
    call.says("inbound", 0.0, 4.0)
    call.sink.event(Event("speech_started", call.tracks["outbound"], 0, RATE_HZ))
    call.sink.event(Event("speech_stopped", call.tracks["outbound"], 80_000, RATE_HZ))
    call.close("inbound", 4.0)
    assert call.close("outbound", 12.5)["talk_over"] == [[2.5, 4.0]]


def test_call_with_one_track_has_silence_only():
    call = Call(outbound_s=None, silence_s=1.0)
    call.says("inbound", 0.0, 2.0)
    call.says("inbound", 2.5, 4.0)
    results = call.close("inbound", 10.0)
    assert (results["talk_over"], results["silence"]) == ([], [[4.0, 10.0]])


def test_speech_that_is_open_when_its_track_ends_stops_there():
    call = Call(silence_s=1.0)
    call.starts("inbound", 1.0)
    call.starts("outbound", 2.0)
    call.close("inbound", 4.0)
    results = call.close("outbound", 6.0)
    assert (results["talk_over"], results["silence"]) == ([[2.0, 4.0]], [[0.0, 1.0]])


def test_late_news_leave_results_exact():
    call = Call(silence_s=2.0, settle_ms=0)
    call.until(20)
    call.says("inbound", 5.0, 15.0)
    call.says("outbound", 7.0, 9.0)
    call.close("inbound", 20.0)
    results = call.close("outbound", 20.0)
    assert results["talk_over"] == [[7.0, 9.0]]
    assert results["silence"] == [[0.0, 5.0], [15.0, 20.0]]


def test_each_start_is_told_with_a_stop():
    call = Call(silence_s=1.0, overlap_ms=100, settle_ms=0)
    for at_s in range(0, 60, 4):
        call.starts("inbound", at_s)
        call.starts("outbound", at_s + 1)
        call.until(at_s + 2)
        call.stops("outbound", at_s + 1.5)
        call.stops("inbound", at_s + 2)
        call.until(at_s + 3.5)
    call.close("inbound", 60)
    call.close("outbound", 60)
    kinds = [kind for kind, *_ in call.events]
    for what in ("talk_over", "mutual_silence"):
        own = [kind for kind in kinds if kind.startswith(what)]
        assert own == [f"{what}_started", f"{what}_stopped"] * (len(own) // 2)
        assert len(own) == 30


def test_with_two_voice_activity_sinks_a_party_speaks_where_any_says_so():
    call = Call()
    call.starts("inbound", 1.0)
    call.starts("inbound", 2.0)
    call.stops("inbound", 3.0)
    call.stops("inbound", 4.0)
    call.says("outbound", 0.0, 10.0)
    call.close("inbound", 10.0)
    assert call.close("outbound", 10.0)["talk_over"] == [[1.0, 4.0]]


def test_track_that_comes_back_goes_on_with_an_open_conversation():
    call = Call()
    call.says("inbound", 0.0, 5.0)
    assert call.close("inbound", 5.0) is None
    call.tracks["inbound"] = call.track(0, "inbound", 8.0, generation=1)
    call.sink.open(call.tracks["inbound"])
    call.says("inbound", 9.0, 12.0)
    call.says("outbound", 4.0, 10.0)
    call.close("inbound", 12.0)
    assert call.close("outbound", 12.0)["talk_over"] == [[4.0, 5.0], [9.0, 10.0]]


def test_track_that_comes_back_after_the_end_begins_another_conversation():
    call = Call(outbound_s=None)
    call.says("inbound", 0.0, 5.0)
    assert call.close("inbound", 5.0)["started_at"] == "2026-01-01T00:00:00.000Z"
    call.tracks["inbound"] = call.track(0, "inbound", 300.0, generation=1)
    call.sink.open(call.tracks["inbound"])
    assert call.close("inbound", 310.0) == {
        "started_at": "2026-01-01T00:05:00.000Z",
        "talk_over": [],
        "silence": [[0.0, 10.0]],
        "talk_over_s": 0,
        "silence_s": 10.0,
        "speech_dropped": 0,
    }


def test_news_of_a_track_that_is_over_are_ignored():
    call = Call(outbound_s=None, silence_s=1.0)
    old = call.tracks["inbound"]
    call.close("inbound", 1.0)
    call.tracks["inbound"] = call.track(0, "inbound", 5.0, generation=1)
    call.sink.open(call.tracks["inbound"])
    call.sink.event(Event("speech_started", old, 0, RATE_HZ))
    call.sink.event(Event("speech_stopped", old, 80_000, RATE_HZ))
    assert call.close("inbound", 15.0)["silence"] == [[0.0, 10.0]]


def test_legs_do_not_hear_each_other():
    sink = ConversationSink()
    one, other = track(0), replace(track(1), leg="B", direction="outbound")
    for each in (one, other):
        sink.open(each)
        sink.event(Event("speech_started", each, 0, RATE_HZ))
    assert [sink.close(each, summary(10))["talk_over"] for each in (one, other)] == [[], []]


def test_speech_beyond_the_limit_is_counted():
    call = Call(outbound_s=None, max_segments=3)
    for at_s in range(5):
        call.says("inbound", at_s, at_s + 0.5)
    assert call.close("inbound", 6.0)["speech_dropped"] == 2


def test_what_waits_to_be_settled_is_bounded():
    call = Call(outbound_s=None)
    for at_s in range(10 * MAX_PENDING):  # nobody tells the time
        call.says("inbound", 1000 + at_s, 1000.5 + at_s)
    assert call.sink._turns.pending <= MAX_PENDING


@pytest.mark.parametrize(
    "options", [{"silence_s": 0}, {"overlap_ms": -1}, {"settle_ms": 1e9}, {"max_segments": 0}]
)
def test_wrong_options_are_named(options):
    with pytest.raises(SinkError, match=next(iter(options))):
        ConversationSink(**options)


class SlowVad(ConversationSink):
    """A voice activity sink with a thread of its own, which says everything at the end."""

    threaded = True

    def open(self, track):
        pass

    def tick(self, now_ns):
        pass

    def close(self, track, summary):
        del summary
        self.emit(Event("speech_started", track, 8000, RATE_HZ))
        self.emit(Event("speech_stopped", track, 16_000, RATE_HZ))


@pytest.mark.parametrize("order", [("conversation", "slow"), ("slow", "conversation")])
def test_in_captures_it_hears_all_that_a_thread_tells(order):
    sinks = {"conversation": ConversationSink(silence_s=1.0), "slow": SlowVad()}
    closed = []
    dispatcher = Dispatcher(
        {name: sinks[name] for name in order},
        on_closed=lambda _track, _summary, results: closed.append(results),
        wait_when_full=True,
    )
    dispatcher.start()
    dispatcher.open(track())
    dispatcher.close(track(), summary(10))
    dispatcher.stop()
    assert closed[0]["conversation"]["silence"] == [[0.0, 1.0], [2.0, 10.0]]


speech = st.lists(
    st.tuples(st.integers(1, 30), st.integers(1, 30)).map(list), min_size=0, max_size=10
)


@given(speech, speech, st.integers(0, 20))
@settings(max_examples=60)
def test_events_and_results_equal_those_of_the_whole_call(one, other, late):
    # in tenths of a second; each party's news come in order, up to `late` tenths after the fact
    call = Call(silence_s=2.0, overlap_ms=500, settle_ms=2000)
    parties, news = [], []
    for direction, pauses in (("inbound", one), ("outbound", other)):
        at, spans = 0, []
        for pause, length in pauses:
            spans.append((at + pause, at + pause + length))
            at += pause + length
        parties.append(np.array(spans, np.int64).reshape(-1, 2))
        for a, b in spans:
            news += [(a + late, direction, "started", a), (b + late, direction, "stopped", b)]
    for told, direction, kind, at in sorted(news):
        call.until(told / 10)
        call.edge(direction, kind, at / 10)
    end = max([61, *(int(each.max()) for each in parties if each.size)])
    call.close("inbound", end / 10)
    results = call.close("outbound", end / 10)
    over, silence = talk_over(parties, 5) / 10, mutual_silence(parties, 0, end, 20) / 10
    assert np.allclose(np.reshape(results["talk_over"], (-1, 2)), over)
    assert np.allclose(np.reshape(results["silence"], (-1, 2)), silence)
    for kind, expected in (("talk_over", over), ("mutual_silence", silence)):
        stopped = [facts for name, *facts in call.events if name == f"{kind}_stopped"]
        assert np.allclose(np.reshape(stopped, (-1, 2)), expected)
