from __future__ import annotations

import dataclasses
import logging
from uuid import UUID

import numpy as np
import pytest

from pipeline.block import AudioBlock, Event, Track, TrackSummary
from pipeline.codecs import PCMU
from pipeline.sinks.analyzers import AnalyzerSink
from pipeline.sinks.base import Analyzer

# An analyser is not told the figures, so any will do.
SUMMARY = TrackSummary(**{field.name: 0 for field in dataclasses.fields(TrackSummary)})


def track(row: int, direction: str = "inbound") -> Track:
    return Track(
        row=row,
        generation=0,
        call_leg_id=UUID("0ccc7b54-4df3-4bca-a65a-3da1ecc777f0"),
        leg="A",
        direction=direction,
        opened_ns=0,
        opened_unix_ns=0,
        source="192.0.2.1:4000",
        destination="192.0.2.2:9000",
        ssrc=1,
    )


def block(frames: dict[int, tuple[int, bytes]]) -> AudioBlock:
    """Frames of G.711 codes with their positions, by row."""
    zeros = np.zeros(len(frames), np.int64)
    payload = b"".join(codes for _, codes in frames.values())
    return AudioBlock(
        codec=PCMU,
        rows=np.array(list(frames), np.intp),
        position=np.array([position for position, _ in frames.values()], np.int64),
        gap_samples=zeros,
        lost=zeros,
        arrival_ns=zeros,
        payload=np.frombuffer(payload, np.uint8).reshape(len(frames), -1),
    )


# The mu-law codes used below: 0xFF is 0, 0x80 is 32124, 0x00 is -32124.


class Peak(Analyzer):
    def __init__(self, track: Track, floor: int = 0) -> None:
        super().__init__(track)
        self.peak = floor
        self.positions: list[int] = []

    def feed(self, pcm: np.ndarray, position: int) -> None:
        self.peak = max(self.peak, int(pcm.max()))
        self.positions.append(position)

    def finish(self) -> dict[str, object]:
        return {"peak": self.peak, "positions": self.positions}


class FailsOnSilence(Peak):
    def feed(self, pcm: np.ndarray, position: int) -> None:
        if not pcm.any():
            raise RuntimeError("nothing to hear")
        super().feed(pcm, position)


class FailsAtTheEnd(Peak):
    def finish(self) -> dict[str, object]:
        raise RuntimeError("no result")


class FailsForOutbound(Peak):
    def __init__(self, track: Track) -> None:
        super().__init__(track)
        if track.direction == "outbound":
            raise RuntimeError("not this one")


class Waits(Peak):
    def silence(self, position: int) -> None:
        if position > 9000:
            raise RuntimeError("waited too long")
        self.positions.append(-position)


class Scribbles(Analyzer):
    def feed(self, pcm: np.ndarray, position: int) -> None:
        pcm[0] = position


class Reports(Analyzer):
    def feed(self, pcm: np.ndarray, position: int) -> None:
        self.emit(Event("heard", self.track, position, 8000, {"samples": len(pcm)}))


def test_each_track_has_an_analyser_that_gets_its_frames_and_positions():
    sink = AnalyzerSink(Peak)
    one, two = track(3), track(7, "outbound")
    sink.open(one)
    sink.open(two)
    sink.write(block({3: (0, b"\xff\xff"), 7: (160, b"\x00\x80")}))
    sink.write(block({3: (2, b"\xff\xff")}))
    assert sink.close(one, SUMMARY) == {"peak": 0, "positions": [0, 2]}
    assert sink.close(two, SUMMARY) == {"peak": 32124, "positions": [160]}
    assert sink.errors == 0


def test_analysers_hear_of_passing_silence():
    sink = AnalyzerSink(Waits)
    tracks = [track(row) for row in (3, 7)]
    for one in tracks:
        sink.open(one)
    sink.silence(np.array([7, 5]), np.array([4000, 1]))
    sink.silence(np.array([3, 7]), np.array([9001, 8000]))
    assert [sink.close(one, SUMMARY) for one in tracks] == [
        None,
        {"peak": 0, "positions": [-4000, -8000]},
    ]
    assert sink.errors == 1


def test_options_reach_every_analyser():
    sink = AnalyzerSink(Peak, {"floor": 100})
    sink.open(track(0))
    assert sink.close(track(0), SUMMARY) == {"peak": 100, "positions": []}


def test_reused_row_gets_a_new_analyser():
    sink = AnalyzerSink(Peak)
    sink.open(track(0))
    sink.write(block({0: (0, b"\x80")}))
    sink.close(track(0), SUMMARY)
    sink.open(track(0))
    assert sink.close(track(0), SUMMARY) == {"peak": 0, "positions": []}


def test_analyser_that_raises_is_switched_off_for_its_track_only(caplog):
    sink = AnalyzerSink(FailsOnSilence)
    good, bad = track(1), track(2, "outbound")
    sink.open(good)
    sink.open(bad)
    sink.write(block({2: (0, b"\xff\xff"), 1: (0, b"\x80\x80")}))
    sink.write(block({2: (2, b"\xff\xff"), 1: (2, b"\x80\x80")}))
    assert sink.close(bad, SUMMARY) is None
    assert sink.close(good, SUMMARY) == {"peak": 32124, "positions": [0, 2]}
    assert sink.errors == 1
    [record] = caplog.records
    assert (record.name, record.levelno) == ("pipeline.sinks", logging.ERROR)
    assert record.getMessage() == (
        "FailsOnSilence raised and is switched off for call leg "
        "0ccc7b54-4df3-4bca-a65a-3da1ecc777f0, leg A, outbound"
    )
    assert "RuntimeError: nothing to hear" in caplog.text
    assert "test_analyzers.py" in caplog.text


def test_next_track_of_a_row_is_analysed_after_a_failure():
    sink = AnalyzerSink(FailsOnSilence)
    sink.open(track(0))
    sink.write(block({0: (0, b"\xff\xff")}))
    sink.close(track(0), SUMMARY)
    sink.open(track(0))
    sink.write(block({0: (0, b"\x80\x80")}))
    assert sink.close(track(0), SUMMARY) == {"peak": 32124, "positions": [0]}
    assert sink.errors == 1


def test_analyser_that_cannot_be_made_leaves_its_track_without_one(caplog):
    sink = AnalyzerSink(FailsForOutbound)
    sink.open(track(0))
    sink.open(track(1, "outbound"))
    sink.write(block({0: (0, b"\x80"), 1: (0, b"\x80")}))
    assert sink.close(track(1, "outbound"), SUMMARY) is None
    assert sink.close(track(0), SUMMARY) == {"peak": 32124, "positions": [0]}
    assert sink.errors == 1
    assert "RuntimeError: not this one" in caplog.text


def test_failure_at_the_end_is_counted_and_gives_no_result(caplog):
    sink = AnalyzerSink(FailsAtTheEnd)
    sink.open(track(0))
    assert sink.close(track(0), SUMMARY) is None
    assert sink.errors == 1
    assert "RuntimeError: no result" in caplog.text


def test_analyser_cannot_change_what_other_sinks_hear():
    sink = AnalyzerSink(Scribbles)
    sink.open(track(0))
    shared = block({0: (5, b"\x80\x80")})
    sink.write(shared)
    assert sink.errors == 1
    assert shared.pcm.tolist() == [[32124, 32124]]
    assert shared.pcm.flags.writeable


def test_events_of_an_analyser_go_where_those_of_the_sink_go():
    heard: list[Event] = []
    sink = AnalyzerSink(Reports)
    sink.emit = heard.append
    sink.open(track(0))
    sink.write(block({0: (320, b"\xff\xff")}))
    assert heard == [Event("heard", track(0), 320, 8000, {"samples": 2})]


@pytest.mark.parametrize("frames", [{4: (0, b"\xff")}, {}])
def test_frames_of_unknown_rows_are_nobodys(frames):
    sink = AnalyzerSink(Peak)
    sink.open(track(0))
    sink.write(block(frames or {9: (0, b"\x80")}))
    assert sink.close(track(0), SUMMARY) == {"peak": 0, "positions": []}


class Keys(Analyzer):
    def __init__(self, track: Track) -> None:
        super().__init__(track)
        self.digits = ""

    def feed(self, pcm: np.ndarray, position: int) -> None:
        pass

    def event(self, event: Event) -> None:
        if event.kind == "dtmf":
            self.digits += event.data["digit"]

    def finish(self) -> dict[str, str]:
        return {"digits": self.digits}


def test_events_are_told_to_the_analyser_of_their_track() -> None:
    sink = AnalyzerSink(Keys)
    sink.open(track(0))
    sink.open(track(1))
    sink.event(Event("dtmf", track(0), 0, 8000, {"digit": "5"}))
    sink.event(Event("dtmf", track(1), 0, 8000, {"digit": "6"}))
    sink.event(Event("dtmf", dataclasses.replace(track(0), generation=7), 0, 8000, {"digit": "7"}))
    sink.event(Event("dtmf", track(9), 0, 8000, {"digit": "8"}))
    assert sink.close(track(0), SUMMARY) == {"digits": "5"}
    assert sink.close(track(1), SUMMARY) == {"digits": "6"}


def test_analyser_that_raises_at_an_event_is_switched_off(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sink = AnalyzerSink(Keys)
    sink.open(track(0))
    sink.event(Event("dtmf", track(0), 0, 8000, {}))
    assert sink.errors == 1
    assert "Keys raised and is switched off" in caplog.text
    assert sink.close(track(0), SUMMARY) is None
