"""Sinks in processes of their own: real ones, and everything that they can do to themselves."""

from __future__ import annotations

import os
import threading
import time
from contextlib import contextmanager
from dataclasses import fields

import numpy as np
import pytest
from trackmaker import CALL_LEG_ID, track

from pipeline.block import AudioBlock, Event, TrackSummary
from pipeline.codecs import PCMU, Codec
from pipeline.dispatch import (
    MAX_EVENTS_AT_ONCE,
    STOP_S,
    Dispatcher,
    InlineRunner,
    ThreadRunner,
)
from pipeline.sinks import process
from pipeline.sinks.base import Sink, SinkError
from pipeline.sinks.load import load
from pipeline.sinks.parcels import packed, unpacked
from pipeline.sinks.process import ProcessSink

WAIT_S = 30
"""Far longer than anything takes."""
SUMMARY = TrackSummary(**dict.fromkeys((f.name for f in fields(TrackSummary)), 0))


def block(position=0, *, rows=(0,), size=160):
    n = len(rows)
    return AudioBlock(
        codec=PCMU,
        rows=np.array(rows, np.intp),
        position=np.full(n, position, np.int64),
        gap_samples=np.zeros(n, np.int64),
        lost=np.arange(n, dtype=np.int64),
        arrival_ns=np.full(n, 5, np.int64),
        payload=np.full((n, size), 0x80, np.uint8),  # 32,124 each
    )


class Heard(Sink):
    """Another sink, on the loop: what it was told."""

    threaded = False

    def __init__(self):
        self.events = []
        self.frames = 0

    def write(self, block):
        self.frames += len(block)

    def event(self, event):
        self.events.append(event)


class Bench:
    """A dispatcher with a sink in a process and another on the loop."""

    def __init__(self, cls, options, **dispatching):
        self.closed = {}
        self.has_closed = threading.Condition()
        self.other = Heard()
        self.sink = load(f"unrulysinks:{cls}", {"run": "process", **options})
        assert isinstance(self.sink, ProcessSink)
        self.dispatcher = Dispatcher(
            {"bad": self.sink, "good": self.other},
            on_closed=self._closed,
            facts={CALL_LEG_ID: {"from": "1"}}.get,
            **dispatching,
        )
        self.runner = self.dispatcher.runners[0]
        self.now_ns = 0

    def _closed(self, track, _, results):
        with self.has_closed:
            self.closed[track.row] = results.get("bad")
            self.has_closed.notify_all()

    def tick(self):
        self.now_ns += 300_000_000
        self.dispatcher.tick(self.now_ns)

    def until(self, condition):
        """Let the time of the receiver pass until something is so."""
        end = time.monotonic() + WAIT_S
        while not condition():
            assert time.monotonic() < end
            self.tick()
            time.sleep(0.005)

    def result(self, row=0):
        """Close a track and return what the sink said."""
        self.dispatcher.close(track(row), SUMMARY)
        self.until(lambda: row in self.closed)
        return self.closed[row]


@contextmanager
def bench(cls="Sums", *, is_stopped=True, **options):
    dispatching = options.pop("dispatching", {})
    bench = Bench(cls, options, **dispatching)
    bench.dispatcher.start()
    try:
        yield bench
    finally:
        if is_stopped:
            bench.dispatcher.stop()


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(process, "PAUSE_S", 0.01)
    monkeypatch.setattr(process, "STOP_S", 0.3)
    monkeypatch.setattr(process, "LISTEN_S", 0.05)
    monkeypatch.setattr(process, "MAX_DEATHS_IN_A_ROW", 2)


def test_block_is_the_same_behind_its_way():
    sent = AudioBlock(
        codec=Codec(name="G722", sample_rate_hz=16000, samples_per_unit=2),
        rows=np.array([3, 1]),
        position=np.array([320, 2**40]),
        gap_samples=np.array([0, -5]),
        lost=np.array([2, 0]),
        arrival_ns=np.array([7, 2**62]),
        payload=np.arange(8, dtype="<i2").reshape(2, 4).view(np.uint8),
        origin="concealed",
    )
    came = unpacked(packed(sent))
    for name in ("rows", "position", "gap_samples", "lost", "arrival_ns", "pcm"):
        assert getattr(came, name).tolist() == getattr(sent, name).tolist()
    assert (came.origin, came.samples, came.sample_rate_hz) == ("concealed", 4, 16000)
    assert (came.codec.name, came.codec.samples_per_unit) == ("G722", 2)
    assert unpacked(packed(block())).codec is PCMU
    assert unpacked(packed(sent)).codec is came.codec


def test_sink_hears_and_says_in_its_process_what_it_would_here():
    with bench(scale="2") as it:
        it.dispatcher.pause(CALL_LEG_ID, 9)
        for row in (0, 1):
            it.dispatcher.open(track(row))
        it.dispatcher.write(block(160, rows=(0, 1)))
        it.dispatcher.write(block(320, rows=(1,)))
        it.dispatcher.silence(np.array([1]), np.array([800]))
        it.dispatcher.emit(Event("noted", track(), 0, 8000))
        first, second = it.result(0), it.result(1)
        it.until(lambda: len(it.other.events) == 3)
        assert it.sink.pid not in {None, os.getpid()}
        assert first == {
            "packets": 0,
            "samples": 320,
            "sum": 160 * 32124,
            "position": 160,
            "heard": [f"pause {CALL_LEG_ID.node:x} 9", "silence [1] [800]", "noted"],
            "facts": {"from": "1"},
            "pid": it.sink.pid,
        }
        assert (second["samples"], second["position"]) == (640, 320)
        summed = it.other.events[1]
        assert (summed.kind, summed.track, summed.data) == (
            *("summed", track()),
            {"pid": it.sink.pid},
        )
        runner = it.runner
    assert (runner.frames, runner.dropped_frames, runner.errors, runner.restarts) == (3, 0, 0, 0)
    assert runner.is_on


def test_process_ends_with_the_receiver_and_all_was_heard():
    with bench(is_stopped=False) as it:
        it.dispatcher.open(track())
        for position in range(0, 32000, 160):
            it.dispatcher.write(block(position + 10))
        it.dispatcher.close(track(), SUMMARY)
        pid = it.sink.pid
        it.dispatcher.stop()
    assert it.closed[0]["samples"] == 32000
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_process_that_ends_is_said_counted_and_started_again(caplog, monkeypatch):
    monkeypatch.setattr(process, "MAX_DEATHS_IN_A_ROW", 3)
    with bench("Obeys") as it:
        it.dispatcher.pause(CALL_LEG_ID, 9)
        for row in (0, 1):
            it.dispatcher.open(track(row))
        it.dispatcher.write(block(1, rows=(0, 1)))
        it.until(lambda: it.runner.restarts == 1 and it.sink.is_up)
        it.dispatcher.write(block(640, rows=(1,)))
        told = it.result(1)
        it.dispatcher.open(track(2))
        assert "interrupted" not in it.result(2)
        assert it.runner.errors == 1
        it.dispatcher.write(block(5))
        it.until(lambda: it.runner.restarts == 2 and it.sink.is_up)
        assert it.result(0)["interrupted"] == 2
        assert it.runner.is_on
        assert it.other.frames == 4
    assert (told["samples"], told["interrupted"]) == (160, 1)
    assert told["heard"][:1] == [f"pause {CALL_LEG_ID.node:x} 9"]
    assert (it.runner.frames, it.runner.dropped_frames) == (1, 3)
    assert "sink bad: its process exited with 3; results of 2 open tracks are" in caplog.text
    assert "sink bad: its process was ended by SIGSEGV; results of 1 open tracks" in caplog.text


def test_track_that_is_closed_while_there_is_no_process_says_so(monkeypatch):
    monkeypatch.setattr(process, "PAUSE_S", 600)
    with bench("Obeys") as it:
        for row in (0, 1):
            it.dispatcher.open(track(row))
        it.dispatcher.write(block(1))
        it.until(lambda: it.runner.errors == 1)
        it.dispatcher.write(block(160))
        assert it.result(0) == {"interrupted": 1}
        it.dispatcher.open(track(2))
        assert it.result(2) == {"interrupted": 1}
    assert (it.runner.frames, it.runner.dropped_frames) == (0, 2)
    assert it.runner.restarts == 0


def test_process_that_cannot_be_started_again_is_tried_later(monkeypatch, caplog):
    def fail(*_, **__):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(process, "MAX_DEATHS_IN_A_ROW", 100)
    with bench("Obeys") as it:
        it.dispatcher.open(track(0))
        with monkeypatch.context() as patch:
            patch.setattr(process.subprocess, "Popen", fail)
            it.dispatcher.write(block(1))
            it.until(lambda: it.runner.errors == 3)
            it.dispatcher.open(track(1))
            it.runner.finish()
        it.until(lambda: it.sink.is_up)
        it.dispatcher.write(block(160, rows=(1,)))
        told = it.result(1)
    assert told["samples"] == 160
    assert told["interrupted"] >= 1
    assert it.runner.restarts == 1
    assert "its process cannot be started: Too many open files" in caplog.text


def test_process_that_dies_again_and_again_stays_away(caplog):
    with bench("Obeys") as it:
        it.dispatcher.open(track())

        def has_given_up():
            it.dispatcher.write(block(1))
            return not it.runner.is_on

        it.until(has_given_up)
        assert it.result() == {"interrupted": 2}
    assert (it.runner.errors, it.runner.restarts) == (2, 1)
    assert "it is switched off after 2 such ends in a row" in caplog.text


def test_process_that_hangs_holds_up_nobody_and_is_ended(monkeypatch, caplog):
    monkeypatch.setattr(process, "HANG_S", 0.3)
    with bench("Obeys", dispatching={"queue_bytes": 16_000}) as it:
        it.dispatcher.open(track())
        it.dispatcher.write(block(2))
        for _ in range(6000):
            it.dispatcher.write(block(160))
        # whoever waited for it would have dropped nothing
        assert it.runner.queued_bytes <= 16_000
        assert it.runner.dropped_frames > 0
        assert it.other.frames == 6001
        it.until(lambda: it.runner.restarts == 1 and it.sink.is_up)
        assert it.result()["interrupted"] == 1
    assert it.runner.frames + it.runner.dropped_frames == 6001
    assert "its process hung for 0.3 s and was ended" in caplog.text


def test_process_that_hangs_at_the_end_is_killed(caplog):
    with bench("Obeys", is_stopped=False) as it:
        it.dispatcher.open(track())
        it.dispatcher.write(block(2))
        it.dispatcher.close(track(), SUMMARY)
        pid, began = it.sink.pid, time.monotonic()
        it.dispatcher.stop()
    assert time.monotonic() - began < STOP_S
    assert it.closed[0] == {"interrupted": 1}
    assert "sink bad: its process hung for 0.3 s and was ended at the end" in caplog.text
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_sink_that_raises_in_its_process_is_counted_logged_and_switched_off(caplog):
    with bench("Obeys") as it:
        for row in (0, 1):
            it.dispatcher.open(track(row))
        for position in (3, 160):
            it.dispatcher.write(block(position))
        it.until(lambda: it.runner.errors == 1)
        assert it.result()["samples"] == 320
        assert it.runner.is_on
        it.dispatcher.open(track(0))
        for i in range(10):
            it.dispatcher.write(block(3, rows=(i % 2,)))
        it.until(lambda: not it.runner.is_on)
        it.dispatcher.write(block(160))
    assert (it.runner.errors, it.runner.frames, it.runner.dropped_frames) == (11, 12, 1)
    assert it.runner.restarts == 0
    assert "sink bad: sink unrulysinks:Obeys raised in write" in caplog.text
    assert "RuntimeError: cannot" in caplog.text
    assert "sink unrulysinks:Obeys is switched off after 10 errors in a row" in caplog.text


def test_process_that_floods_the_receiver_is_slowed_down(caplog):
    with bench("Floods") as it:
        it.dispatcher.open(track())
        it.dispatcher.write(block())
        it.until(lambda: len(it.other.events) > 3000)
        for _ in range(50):
            it.dispatcher.write(block(160))
            heard = len(it.other.events)
            it.tick()
            assert len(it.other.events) - heard <= MAX_EVENTS_AT_ONCE
        assert it.other.frames == 51
    assert sum(record.getMessage() == "sink bad: flood" for record in caplog.records) < 100


def test_analyser_that_takes_too_much_memory_is_ended(caplog):
    with bench("Leaks", max_memory_mb="300") as it:
        it.dispatcher.open(track())
        it.dispatcher.write(block(160))
        it.dispatcher.write(block(4))
        it.until(lambda: it.runner.restarts == 1 and it.sink.is_up)
        assert it.result()["interrupted"] == 1
    assert "its process took more than 300 MB of memory and was ended" in caplog.text


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        ("Refuses", "there is no such device"),
        ("ExitsAtOnce", "sink 'unrulysinks:ExitsAtOnce': its process exited with 4 as it started"),
    ],
)
def test_sink_that_cannot_start_says_so_at_once(cls, message):
    it = Bench(cls, {})
    with pytest.raises(SinkError, match=message):
        it.dispatcher.start()


def test_who_can_wait_waits_for_a_process_that_is_started_again():
    with bench("Obeys", dispatching={"wait_when_full": True}) as it:
        it.dispatcher.open(track())
        it.dispatcher.write(block(1))
        it.runner.finish()
        for _ in range(5):
            it.dispatcher.write(block(160))
        it.dispatcher.close(track(), SUMMARY)
        assert (it.closed[0]["samples"], it.closed[0]["interrupted"]) == (800, 1)
    assert (it.runner.frames, it.runner.dropped_frames) == (5, 1)


@pytest.mark.parametrize(
    ("options", "runner"),
    [
        ({"run": "inline"}, InlineRunner),
        ({"run": "thread"}, ThreadRunner),
        ({}, ThreadRunner),
    ],
)
def test_sink_runs_where_it_is_told_to(options, runner):
    sink = load("unrulysinks:Sums", {**options, "scale": "3"})
    assert sink.scale == 3
    assert type(Dispatcher({"sink": sink}).runners[0]) is runner


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("wav", {"run": "process"}, "sink 'wav' cannot run in a process of its own"),
        ("vad", {"run": "fork"}, "sink 'vad': run=fork is none of inline, thread and process"),
        ("vad", {"max_memory_mb": "9"}, "sink 'vad': max_memory_mb needs run=process"),
        (
            "vad",
            {"run": "process", "max_memory_mb": "-1"},
            "sink 'vad': max_memory_mb=-1 is no whole number from 0 on",
        ),
        (
            "unrulysinks:Sums",
            {"run": "process", "scale": "big"},
            (
                "sink 'unrulysinks:Sums': scale=big is wrong: "
                "input should be a valid integer, unable to parse string as an integer"
            ),
        ),
    ],
)
def test_wrong_options_are_said_before_anything_starts(name, options, message):
    with pytest.raises(SinkError) as error:
        load(name, options)
    assert str(error.value) == message
