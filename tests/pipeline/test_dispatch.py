"""Sinks on the receive loop and in threads of their own, good ones and bad ones."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import fields

import numpy as np
import pytest
from trackmaker import track

from pipeline.block import AudioBlock, Event, TrackSummary
from pipeline.codecs import PCMU
from pipeline.dispatch import WAKE_BYTES, Dispatcher
from pipeline.sinks.base import Sink, SinkError

WAIT_S = 30
"""Far longer than anything takes: what is waited for so long has failed."""

# The dispatcher passes the figures on without a look, so any will do.
SUMMARY = TrackSummary(**dict.fromkeys((f.name for f in fields(TrackSummary)), 0))
SECOND_NS = 1_000_000_000


def block(serial=0, *, frames=1, row=0):
    """Frames of 100 bytes, recognised by their position, on rows from `row` on."""
    n = frames
    return AudioBlock(
        codec=PCMU,
        rows=np.arange(row, row + n, dtype=np.intp),
        position=np.full(n, serial, np.int64),
        gap_samples=np.zeros(n, np.int64),
        lost=np.zeros(n, np.int64),
        arrival_ns=np.zeros(n, np.int64),
        payload=np.full((n, 100), serial % 256, np.uint8),
    )


def event(kind="noted"):
    return Event(kind, track(), 0, 8000)


class Recorder(Sink):
    """Writes down what it is told, on the caller's thread."""

    threaded = False

    def __init__(self):
        self.calls = []
        self.threads = set()

    def note(self, *call):
        self.calls.append(call)
        self.threads.add(threading.current_thread())

    def start(self):
        self.calls.append(("start",))

    def open(self, track):
        self.note("open", track.row)

    def write(self, block):
        self.note("write", int(block.position[0]))

    def event(self, event):
        self.note("event", event.kind)

    def silence(self, rows, until):
        self.note("silence", [rows.tolist(), until.tolist()])

    def tick(self, now_ns):
        self.note("tick", now_ns)

    def close(self, track, summary):
        assert summary is SUMMARY
        self.note("close", track.row)

    def stop(self):
        self.note("stop")

    def all(self, method):
        """What the calls of one method were about, in their order."""
        return [call[1] for call in self.calls if call[0] == method]


class ThreadedRecorder(Recorder):
    threaded = True


class Gated(ThreadedRecorder):
    """Takes its time over each block until the gate is open."""

    def __init__(self):
        super().__init__()
        self.gate = threading.Event()
        self.heard = threading.Event()

    def write(self, block):
        assert self.gate.wait(WAIT_S)
        super().write(block)

    def event(self, event):
        super().event(event)
        self.heard.set()


class Failing(Recorder):
    """Raises in these methods while `is_broken`."""

    def __init__(self, *methods):
        super().__init__()
        self.methods = methods
        self.is_broken = True

    def note(self, *call):
        super().note(*call)
        if self.is_broken and call[0] in self.methods:
            raise RuntimeError(f"cannot {call[0]}")


class ThreadedFailing(Failing):
    threaded = True


@contextmanager
def running(sinks, **options):
    """Run a dispatcher of these sinks; all that is queued is done when it ends."""
    dispatcher = Dispatcher(sinks, **options)
    dispatcher.start()
    try:
        yield dispatcher
    finally:
        dispatcher.stop()


BOTH_KINDS = pytest.mark.parametrize("kind", [Recorder, ThreadedRecorder])


@BOTH_KINDS
def test_calls_come_in_the_order_in_which_they_were_made(kind):
    sink = kind()
    with running({"sink": sink}) as dispatcher:
        dispatcher.open(track(3))
        dispatcher.write(block(7))
        dispatcher.emit(event("heard"))
        dispatcher.write(block(8))
        dispatcher.silence(np.array([3]), np.array([4000]))
        dispatcher.tick(5)
        dispatcher.close(track(3), SUMMARY)
        dispatcher.open(track(4))
    assert sink.calls == [
        ("start",),
        ("open", 3),
        ("write", 7),
        ("event", "heard"),
        ("write", 8),
        ("silence", [[3], [4000]]),
        ("tick", 5),
        ("close", 3),
        ("open", 4),
        ("stop",),
    ]


def test_inline_sink_runs_on_the_callers_thread():
    sink = Recorder()
    with running({"sink": sink}) as dispatcher:
        dispatcher.open(track())
        assert sink.calls == [("start",), ("open", 0)]
        dispatcher.write(block())
        dispatcher.tick(0)
    assert sink.threads == {threading.current_thread()}


def test_threaded_sink_runs_in_one_thread_of_its_own():
    sinks = {"one": ThreadedRecorder(), "two": ThreadedRecorder()}
    with running(sinks) as dispatcher:
        dispatcher.open(track())
        dispatcher.write(block())
        dispatcher.tick(0)
        dispatcher.close(track(), SUMMARY)
    (one,), (two,) = (sink.threads for sink in sinks.values())
    assert len({one, two, threading.current_thread()}) == 3
    assert (one.name, two.name) == ("sink-one", "sink-two")
    assert not one.is_alive()


def test_threaded_sink_runs_when_a_tick_wakes_it():
    sink = Gated()
    sink.gate.set()
    with running({"sink": sink}) as dispatcher:
        dispatcher.write(block(1))
        dispatcher.emit(event())
        dispatcher.tick(0)
        assert sink.heard.wait(WAIT_S)
        assert sink.all("write") == [1]
        # nothing is queued now: this tick is too soon after the last to be told
        dispatcher.tick(1)
    assert sink.all("tick") == [0]


class Patient(Gated):
    """Lets audio gather for 100 ms."""

    wake_ms = 100

    def __init__(self):
        super().__init__()
        self.gate.set()


def test_sink_that_lets_audio_gather_runs_once_in_wake_ms():
    sink = Patient()
    with running({"sink": sink}) as dispatcher:
        dispatcher.emit(event("first"))
        dispatcher.tick(SECOND_NS)
        assert sink.heard.wait(WAIT_S)
        sink.heard.clear()
        dispatcher.emit(event("second"))
        dispatcher.tick(SECOND_NS + 99_000_000)
        assert not sink.heard.wait(0.1)
        dispatcher.tick(SECOND_NS + 100_000_000)
        assert sink.heard.wait(WAIT_S)
    assert sink.all("event") == ["first", "second"]


def test_sink_that_lets_audio_gather_runs_early_for_much_audio():
    sink = Patient()
    with running({"sink": sink}) as dispatcher:
        dispatcher.emit(event("first"))
        dispatcher.tick(SECOND_NS)
        assert sink.heard.wait(WAIT_S)
        sink.heard.clear()
        dispatcher.write(block(frames=WAKE_BYTES // 100 + 1))
        dispatcher.emit(event("second"))
        dispatcher.tick(SECOND_NS + 1)
        assert sink.heard.wait(WAIT_S)


@BOTH_KINDS
def test_many_blocks_come_in_order_and_are_counted(kind):
    sink = kind()
    with running({"sink": sink}) as dispatcher:
        for serial in range(500):
            dispatcher.write(block(serial, frames=3))
            if serial % 50 == 0:
                dispatcher.tick(serial)
    assert sink.all("write") == list(range(500))
    [runner] = dispatcher.runners
    assert (runner.name, runner.frames, runner.dropped_frames, runner.errors) == (
        "sink",
        1500,
        0,
        0,
    )
    assert runner.queued_bytes == 0


def test_time_is_told_four_times_a_second():
    sink = Recorder()
    with running({"sink": sink}) as dispatcher:
        for ms in range(0, 1001, 10):
            dispatcher.tick(5 * SECOND_NS + ms * 1_000_000)
    ticks_ms = [(ns - 5 * SECOND_NS) / 1e6 for ns in sink.all("tick")]
    assert ticks_ms == [0, 250, 500, 750, 1000]


def test_sink_that_cannot_start_says_so_and_nothing_goes_on():
    class Unusable(Recorder):
        def start(self):
            raise SinkError("the folder /recordings cannot be written")

    threaded = ThreadedRecorder()
    dispatcher = Dispatcher({"threaded": threaded, "unusable": Unusable()})
    with pytest.raises(SinkError, match="the folder /recordings cannot be written"):
        dispatcher.start()
    dispatcher.stop()
    assert threaded.calls == [("start",), ("stop",)]


# Blocks


class Keeper(ThreadedRecorder):
    """Keeps what was in the blocks."""

    def write(self, block):
        super().write(block)
        self.kept = (block.rows.tolist(), block.payload.tobytes(), block.pcm.tobytes())


@pytest.mark.parametrize("is_decoded", [False, True])
def test_queued_block_is_independent_of_the_original(is_decoded):
    class Decoder(Recorder):
        def write(self, block):
            assert block.pcm.shape == (2, 100)

    sinks = {"one": Keeper(), "two": Keeper()} | ({"decoder": Decoder()} if is_decoded else {})
    with running(sinks) as dispatcher:
        original = block(7, frames=2)
        dispatcher.write(original)
        for array in (original.rows, original.position, original.payload, original.pcm):
            array.view(np.uint8)[:] = 0xA5
    expected = ([0, 1], b"\x07" * 200, PCMU.table[np.full(200, 7)].tobytes())
    assert sinks["one"].kept == sinks["two"].kept == expected
    assert sinks["one"].all("write") == [7]


def test_full_queue_drops_blocks_and_blocks_nobody():
    slow, other, inline = Gated(), ThreadedRecorder(), Recorder()
    sinks = {"slow": slow, "other": other, "inline": inline}
    with running(sinks, queue_bytes=1000) as dispatcher:
        runners = {runner.name: runner for runner in dispatcher.runners}
        dispatcher.open(track(1))
        for serial in range(8):
            dispatcher.write(block(serial, frames=4))
            dispatcher.tick(serial)
        assert inline.all("write") == list(range(8))
        # two blocks of 400 bytes have room, of which the first is being written
        assert runners["slow"].queued_bytes == 800
        assert runners["slow"].dropped_frames == 24
        dispatcher.close(track(1), SUMMARY)
        slow.gate.set()
    assert slow.all("write") == [0, 1]
    # what is no block is never dropped
    assert (slow.all("open"), slow.all("close"), slow.calls[-1]) == ([1], [1], ("stop",))
    assert (runners["slow"].frames, runners["slow"].dropped_frames) == (8, 24)
    assert (runners["inline"].frames, runners["inline"].dropped_frames) == (32, 0)


def test_queue_that_was_full_takes_blocks_again():
    sink = Gated()
    with running({"sink": sink}, queue_bytes=200) as dispatcher:
        [runner] = dispatcher.runners
        for serial in range(4):
            dispatcher.write(block(serial))
        sink.gate.set()
        dispatcher.emit(event())
        dispatcher.tick(0)
        # the event stands behind the blocks in the queue
        assert sink.heard.wait(WAIT_S)
        assert runner.queued_bytes == 0
        dispatcher.write(block(4))
        assert runner.queued_bytes == 100
    assert sink.all("write") == [0, 1, 4]
    assert runner.dropped_frames == 2


def test_queue_is_full_by_bytes_and_exactly_full_is_not_beyond():
    sink = Gated()
    with running({"sink": sink}, queue_bytes=300) as dispatcher:
        [runner] = dispatcher.runners
        for serial in range(3):
            dispatcher.write(block(serial))
        assert (runner.queued_bytes, runner.dropped_frames) == (300, 0)
        dispatcher.write(block(3))
        assert (runner.queued_bytes, runner.dropped_frames) == (300, 1)
        sink.gate.set()


def test_caller_that_can_wait_loses_nothing():
    sink = ThreadedRecorder()
    with running({"sink": sink}, queue_bytes=100, wait_when_full=True) as dispatcher:
        for serial in range(300):
            dispatcher.write(block(serial))
    assert sink.all("write") == list(range(300))
    assert dispatcher.runners[0].dropped_frames == 0


def test_caller_that_can_wait_is_held_up_by_a_full_queue():
    sink = Gated()
    with running({"sink": sink}, queue_bytes=100, wait_when_full=True) as dispatcher:

        def write():
            for serial in range(5):
                dispatcher.write(block(serial))

        writer = threading.Thread(target=write)
        writer.start()
        writer.join(0.2)
        assert writer.is_alive()
        assert dispatcher.runners[0].queued_bytes <= 200
        sink.gate.set()
        writer.join(WAIT_S)
        assert not writer.is_alive()
    assert sink.all("write") == [0, 1, 2, 3, 4]


# Errors


FAILING = pytest.mark.parametrize("kind", [Failing, ThreadedFailing])


@FAILING
def test_sink_that_raises_is_counted_and_logged_once_with_its_traceback(kind, caplog):
    bad, good = kind("write", "open"), Recorder()
    with running({"bad": bad, "good": good}) as dispatcher:
        dispatcher.open(track())
        for serial in range(4):
            dispatcher.write(block(serial))
    [runner, _] = dispatcher.runners
    assert (runner.errors, runner.frames, runner.is_on) == (5, 4, True)
    assert good.all("write") == [0, 1, 2, 3]
    [record] = caplog.records
    assert (record.name, record.levelno) == ("pipeline.sinks", logging.ERROR)
    assert record.getMessage() == "sink bad raised in open"
    assert str(record.exc_info[1]) == "cannot open"


@FAILING
def test_sink_is_switched_off_after_10_errors_in_a_row(kind, caplog):
    bad, good = kind("write"), ThreadedRecorder()
    with running({"bad": bad, "good": good}) as dispatcher:
        for serial in range(12):
            dispatcher.write(block(serial, frames=2))
        dispatcher.emit(event())
        dispatcher.open(track())
        dispatcher.tick(0)
    [runner, _] = dispatcher.runners
    assert (runner.errors, runner.is_on) == (10, False)
    assert (runner.frames, runner.dropped_frames) == (20, 4)
    # each block, and each of its rows
    assert bad.all("write") == [serial for serial in range(10) for _ in range(3)]
    assert bad.calls[-1] == ("stop",)
    assert good.all("write") == list(range(12))
    assert [record.getMessage() for record in caplog.records] == [
        "sink bad raised in write",
        "sink bad is switched off after 10 errors in a row",
    ]


@FAILING
def test_every_frame_is_taken_or_dropped_also_when_a_sink_is_off_already(kind):
    bad = kind("write", "event")
    told = threading.Event()
    with running({"bad": bad}, on_closed=lambda *_: told.set()) as dispatcher:
        for serial in range(10):
            dispatcher.write(block(serial, row=serial % 2))
        dispatcher.close(track(), SUMMARY)
        dispatcher.tick(0)
        assert told.wait(WAIT_S)
        [runner] = dispatcher.runners
        assert not runner.is_on
        for serial in range(5):
            dispatcher.write(block(serial, frames=3))
    assert (runner.frames, runner.dropped_frames) == (10, 15)


class FailingOnRows(Recorder):
    """Raises where one of these rows is in the block; notes the rows of the others."""

    def __init__(self, *rows):
        super().__init__()
        self.rows = set(rows)

    def write(self, block):
        if self.rows & set(block.rows.tolist()):
            raise RuntimeError("this row")
        self.note("write", block.rows.tolist())


class ThreadedFailingOnRows(FailingOnRows):
    threaded = True


FAILING_ON_ROWS = pytest.mark.parametrize("kind", [FailingOnRows, ThreadedFailingOnRows])


@FAILING_ON_ROWS
def test_track_that_makes_a_sink_raise_is_left_out_and_the_others_go_on(kind, caplog):
    sink = kind(1, 3)
    with running({"sink": sink}) as dispatcher:
        for row in range(4):
            dispatcher.open(track(row))
        dispatcher.write(block(frames=4))
        for _ in range(12):
            dispatcher.write(block(frames=4))
        dispatcher.write(block(row=1))
    [runner] = dispatcher.runners
    # once as a whole, then row by row; the others together from then on
    assert sink.all("write") == [[0], [2], *[[0, 2]] * 12]
    assert (runner.errors, runner.is_on) == (1, True)
    assert (runner.frames, runner.dropped_frames) == (4 + 24, 24 + 1)
    assert [record.getMessage() for record in caplog.records] == [
        "sink sink raised in write",
        "sink sink is switched off for the track on row 1",
        "sink sink is switched off for the track on row 3",
    ]


@FAILING_ON_ROWS
def test_next_track_on_a_row_that_was_left_out_is_heard(kind):
    sink, closings = kind(1), Closings()
    with running({"sink": sink}, on_closed=closings) as dispatcher:
        dispatcher.write(block(frames=2))
        dispatcher.close(track(1), SUMMARY)
        dispatcher.open(track(1, generation=1))
        sink.event = lambda _: sink.rows.clear()
        dispatcher.emit(event("mended"))
        dispatcher.write(block(frames=2))
    assert sink.all("write") == [[0], [0, 1]]
    assert closings == [(track(1), SUMMARY, {"sink": {"switched_off": True}})]


@FAILING_ON_ROWS
def test_only_track_of_ten_errors_in_a_row_is_left_out_and_the_sink_stays_on(kind):
    sink = kind(1)
    with running({"sink": sink}) as dispatcher:
        for _ in range(15):
            dispatcher.write(block(row=1))
        dispatcher.write(block(row=2))
    [runner] = dispatcher.runners
    assert (runner.errors, runner.frames, runner.dropped_frames) == (10, 11, 5)
    assert runner.is_on
    assert sink.all("write") == [[2]]


def test_sink_that_is_broken_is_not_asked_about_each_of_its_rows():
    sink = Failing("write")
    with running({"sink": sink}) as dispatcher:
        for serial in range(10):
            dispatcher.write(block(serial, frames=1000))
    [runner] = dispatcher.runners
    assert (runner.errors, runner.is_on, runner.frames) == (10, False, 10_000)
    assert len(sink.all("write")) == 10 * (1 + 10)


def test_sink_that_cannot_be_told_twice_is_not():
    sink = FailingOnRows(1)
    sink.blames_rows = False
    with running({"sink": sink}) as dispatcher:
        for _ in range(2):
            dispatcher.write(block(frames=2))
    assert sink.all("write") == []
    assert (dispatcher.runners[0].errors, dispatcher.runners[0].frames) == (2, 4)


@FAILING
def test_ten_errors_with_a_success_among_them_switch_nothing_off(kind):
    class Sometimes(kind):
        def note(self, *call):
            # the tenth block is fine
            self.is_broken = call != ("write", 9)
            super().note(*call)

    sink = Sometimes("write")
    with running({"sink": sink}) as dispatcher:
        for serial in range(19):
            dispatcher.write(block(serial))
    [runner] = dispatcher.runners
    assert (runner.errors, runner.frames, runner.is_on) == (18, 19, True)


@FAILING
def test_sink_that_raises_in_stop_ends_all_the_same(kind, caplog):
    other = ThreadedRecorder()
    with running({"bad": kind("stop"), "other": other}) as dispatcher:
        dispatcher.open(track())
    assert other.calls == [("start",), ("open", 0), ("stop",)]
    assert [record.getMessage() for record in caplog.records] == ["sink bad raised in stop"]


def test_what_the_system_refuses_a_sink_is_one_line_without_a_traceback(caplog):
    class Refused(Recorder):
        def note(self, *call):
            if call == ("stop",):
                raise BrokenPipeError(32, "Broken pipe")

    with running({"bad": Refused()}) as dispatcher:
        dispatcher.open(track())
    (record,) = caplog.records
    assert record.getMessage() == "sink bad raised in stop: [Errno 32] Broken pipe"
    assert record.exc_info is None


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_stop_does_not_hang_on_a_sink_that_ended_its_thread():
    class Leaves(ThreadedRecorder):
        def note(self, *call):
            super().note(*call)
            raise SystemExit

    other = ThreadedRecorder()
    with running({"leaves": Leaves(), "other": other}) as dispatcher:
        dispatcher.write(block(5))
    assert other.calls == [("start",), ("write", 5), ("stop",)]


class Slow(ThreadedRecorder):
    """Sleeps over each block."""

    def write(self, block):
        threading.Event().wait(0.02)
        super().write(block)


def test_what_a_slow_sink_has_not_heard_at_the_end_is_left_out_and_counted(monkeypatch, caplog):
    monkeypatch.setattr("pipeline.dispatch.STOP_S", 0.1)
    slow, ended = Slow(), []
    dispatcher = Dispatcher({"slow": slow}, on_closed=lambda *what: ended.append(what[2]))
    dispatcher.start()
    dispatcher.open(track())
    for serial in range(1000):
        dispatcher.write(block(serial))
    dispatcher.close(track(), SUMMARY)
    dispatcher.stop()
    heard = len(slow.all("write"))
    (runner,) = dispatcher.runners
    assert 0 < heard < 100
    assert runner.dropped_frames == 1000 - heard
    assert slow.calls[-2:] == [("close", 0), ("stop",)]
    assert ended == [{}]
    assert "sink slow had not heard all at the end" in caplog.text


def test_a_sink_that_hangs_is_left_behind_at_the_end(monkeypatch, caplog):
    monkeypatch.setattr("pipeline.dispatch.STOP_S", 0.1)
    monkeypatch.setattr("pipeline.dispatch.GIVE_UP_S", 0.1)
    hangs, other, ended = Gated(), ThreadedRecorder(), []
    sinks = {"hangs": hangs, "other": other}
    dispatcher = Dispatcher(sinks, on_closed=lambda *what: ended.append(what[2]))
    dispatcher.start()
    dispatcher.open(track())
    for serial in range(3):
        dispatcher.write(block(serial))
    dispatcher.close(track(), SUMMARY)
    dispatcher.stop()
    assert ended == [{"hangs": {"left_behind": True}}]
    assert other.calls[1:] == [
        ("open", 0), ("write", 0), ("write", 1), ("write", 2), ("close", 0), ("stop",)
    ]  # fmt: skip
    runner = dispatcher.runners[0]
    assert (runner.is_on, runner.errors, runner.dropped_frames) == (False, 1, 3)
    assert "left behind: it misses 3 frames and the end of 1 tracks" in caplog.text
    hangs.gate.set()
    runner._thread.join(WAIT_S)
    assert ended == [{"hangs": {"left_behind": True}}]  # and not once more


# The end of a track


class Answers(Recorder):
    def __init__(self, result):
        super().__init__()
        self.result = result

    def close(self, track, summary):
        super().close(track, summary)
        return self.result


class ThreadedAnswers(Answers):
    threaded = True


class Closings(list):
    """What was told of closed tracks."""

    def __init__(self):
        super().__init__()
        self.told = threading.Event()

    def __call__(self, closed, summary, results):
        self.append((closed, summary, results))
        self.told.set()


def test_results_of_all_sinks_are_told_once_per_track():
    closings = Closings()
    sinks = {
        "wav": ThreadedAnswers({"path": "a.wav"}),
        "vad": Answers({"speech": [[0.0, 1.5]]}),
        "silent": Answers(None),
        "slow": ThreadedAnswers({}),
    }
    with running(sinks, on_closed=closings) as dispatcher:
        dispatcher.close(track(1), SUMMARY)
        dispatcher.tick(0)
        assert closings.told.wait(WAIT_S)
        dispatcher.close(track(2), SUMMARY)
    results = {"wav": {"path": "a.wav"}, "vad": {"speech": [[0.0, 1.5]]}, "slow": {}}
    assert closings == [(track(1), SUMMARY, results), (track(2), SUMMARY, results)]


def test_end_is_told_when_the_last_sink_has_closed_the_track():
    closings = Closings()
    slow = Gated()
    with running({"slow": slow, "inline": Answers({"n": 1})}, on_closed=closings) as dispatcher:
        dispatcher.write(block())
        dispatcher.close(track(), SUMMARY)
        dispatcher.tick(0)
        assert closings == []
        slow.gate.set()
        assert closings.told.wait(WAIT_S)
    assert closings == [(track(), SUMMARY, {"inline": {"n": 1}})]


def test_end_is_told_without_any_sink():
    closings = Closings()
    with running({}, on_closed=closings) as dispatcher:
        dispatcher.open(track())
        dispatcher.write(block())
        dispatcher.tick(0)
        dispatcher.close(track(), SUMMARY)
        assert closings == [(track(), SUMMARY, {})]


def test_nobody_need_listen_to_the_end():
    sink = ThreadedRecorder()
    with running({"sink": sink}) as dispatcher:
        dispatcher.close(track(4), SUMMARY)
    assert sink.all("close") == [4]


@FAILING
def test_end_is_told_when_a_sink_raises_or_is_off(kind):
    closings = Closings()
    sinks = {"bad": kind("close", "write"), "good": Answers({"n": 1})}
    with running(sinks, on_closed=closings) as dispatcher:
        dispatcher.close(track(1), SUMMARY)
        for serial in range(10):
            dispatcher.write(block(serial, row=serial % 2))
        dispatcher.close(track(2), SUMMARY)
    assert not dispatcher.runners[0].is_on
    assert sinks["bad"].all("close") == [1]
    assert closings == [(track(row), SUMMARY, {"good": {"n": 1}}) for row in (1, 2)]


@pytest.mark.parametrize("kind", [Answers, ThreadedAnswers])
def test_end_that_cannot_be_recorded_is_logged_and_the_sinks_go_on(kind, caplog):
    def fail(*_):
        raise OSError("disk full")

    sink = kind({})
    with running({"sink": sink}, on_closed=fail) as dispatcher:
        dispatcher.close(track(1), SUMMARY)
        dispatcher.close(track(2), SUMMARY)
    assert sink.all("close") == [1, 2]
    assert dispatcher.runners[0].errors == 0
    message = f"the end of track {track().call_leg_id} could not be recorded"
    assert [record.getMessage() for record in caplog.records] == [message] * 2
    assert str(caplog.records[0].exc_info[1]) == "disk full"


class Finds:
    """Finds something on each track: on the first what is no JSON."""

    def close(self, track, summary):
        super().close(track, summary)
        return {"peak": np.int16(7)} if track.row == 1 else {"peak": 7}


class InlineFinds(Finds, Recorder):
    pass


class ThreadedFinds(Finds, ThreadedRecorder):
    pass


@pytest.mark.parametrize("kind", [InlineFinds, ThreadedFinds])
def test_results_that_are_no_json_are_left_out_and_harm_no_others(kind, caplog):
    found = {}

    def closed(track, _, results):
        found[track.row] = results

    with running({"odd": kind(), "good": InlineFinds()}, on_closed=closed) as dispatcher:
        for row in (1, 2):
            dispatcher.close(track(row), SUMMARY)
    assert found == {1: {}, 2: {"odd": {"peak": 7}, "good": {"peak": 7}}}
    assert [runner.errors for runner in dispatcher.runners] == [1, 1]
    assert sorted(record.getMessage() for record in caplog.records) == [
        f"sink {name}: what it found on a track is left out, as it is no JSON: Object of type"
        " int16 is not JSON serializable"
        for name in ("good", "odd")
    ]


# Events


class Speaker(Recorder):
    """Emits an event for each block."""

    def write(self, block):
        super().write(block)
        self.emit(event("spoke"))


class ThreadedSpeaker(Speaker):
    threaded = True

    def __init__(self):
        super().__init__()
        self.has_spoken = threading.Event()

    def write(self, block):
        super().write(block)
        self.has_spoken.set()


def test_event_of_an_inline_sink_reaches_all_its_own_included():
    sinks = {"before": Recorder(), "speaker": Speaker(), "after": ThreadedRecorder()}
    with running(sinks) as dispatcher:
        dispatcher.write(block())
        assert sinks["before"].all("event") == sinks["speaker"].all("event") == ["spoke"]
    assert sinks["after"].all("event") == ["spoke"]


def test_event_of_a_sinks_thread_reaches_all_on_their_own_threads():
    sinks = {"inline": Recorder(), "speaker": ThreadedSpeaker(), "threaded": ThreadedRecorder()}
    with running(sinks) as dispatcher:
        dispatcher.write(block())
        dispatcher.tick(0)
        assert sinks["speaker"].has_spoken.wait(WAIT_S)
        assert sinks["inline"].all("event") == []
        dispatcher.tick(1)
        assert sinks["inline"].all("event") == ["spoke"]
    for sink in sinks.values():
        assert sink.all("event") == ["spoke"]
        assert len(sink.threads) == 1


def test_event_of_a_sinks_thread_reaches_all_when_the_end_is_near():
    sinks = {"inline": Recorder(), "speaker": ThreadedSpeaker(), "threaded": ThreadedRecorder()}
    with running(sinks) as dispatcher:
        dispatcher.write(block())
    for sink in sinks.values():
        assert sink.all("event") == ["spoke"]
        assert sink.calls[-1] == ("stop",)


def test_event_from_another_thread_waits_for_the_tick():
    sink = Recorder()
    with running({"sink": sink}) as dispatcher:
        other = threading.Thread(target=dispatcher.emit, args=(event("from outside"),))
        other.start()
        other.join(WAIT_S)
        assert sink.all("event") == []
        dispatcher.tick(0)
        assert sink.all("event") == ["from outside"]


class Answering(Recorder):
    """Answers a question."""

    def event(self, heard):
        super().event(heard)
        if heard.kind == "question":
            self.emit(event("answer"))


class ThreadedAnswering(Answering):
    threaded = True


def test_event_that_answers_an_event_waits_until_all_have_heard_the_first():
    first, second = Answering(), Recorder()
    with running({"first": first, "second": second}) as dispatcher:
        dispatcher.emit(event("question"))
        assert first.all("event") == second.all("event") == ["question", "answer"]


def test_event_that_answers_an_event_from_a_thread_is_heard_when_the_end_is_near():
    threaded, inline = ThreadedAnswering(), Recorder()
    with running({"threaded": threaded, "inline": inline}) as dispatcher:
        other = threading.Thread(target=dispatcher.emit, args=(event("question"),))
        other.start()
        other.join(WAIT_S)
    assert threaded.all("event") == inline.all("event") == ["question", "answer"]


def test_event_before_the_start_is_heard():
    sink = Recorder()
    dispatcher = Dispatcher({"sink": sink})
    dispatcher.emit(event("early"))
    dispatcher.start()
    dispatcher.stop()
    assert sink.all("event") == ["early"]


def test_dispatcher_belongs_to_the_thread_that_starts_it():
    sink = Recorder()
    made = []
    maker = threading.Thread(target=lambda: made.append(Dispatcher({"sink": sink})))
    maker.start()
    maker.join(WAIT_S)
    [dispatcher] = made
    dispatcher.start()
    dispatcher.emit(event("at once"))
    assert sink.all("event") == ["at once"]
    dispatcher.stop()


class StartFails(Recorder):
    def start(self):
        raise SinkError("no")


def test_sinks_that_did_start_are_stopped_when_another_cannot():
    first, thread = Recorder(), ThreadedRecorder()
    dispatcher = Dispatcher({"first": first, "thread": thread, "last": StartFails()})
    with pytest.raises(SinkError, match=r"^no$"):
        dispatcher.start()
    assert first.calls[-1][0] == thread.calls[-1][0] == "stop"


class WriteFails(Recorder):
    def write(self, _):
        raise RuntimeError("always")


def test_a_sink_that_only_ever_fails_to_write_is_switched_off_between_ticks():
    dispatcher = Dispatcher({"sink": WriteFails()})
    dispatcher.start()
    for i in range(12):
        dispatcher.write(block(i, row=i % 2))
        dispatcher.tick(i * 300_000_000)
    runner = dispatcher.runners[0]
    assert (runner.is_on, runner.errors, runner.dropped_frames) == (False, 10, 2 * len(block(0)))
    dispatcher.stop()


class Late(Recorder):
    """Gives results when it is asked to."""

    def close(self, *_):
        self.result = Future()
        return self.result


@pytest.mark.parametrize("threaded", [False, True])
def test_results_may_come_later_and_hold_up_nothing_else(threaded):
    late, other = Late(), Recorder()
    late.threaded = threaded
    closed = []
    dispatcher = Dispatcher(
        {"late": late, "other": other}, on_closed=lambda *told: closed.append(told)
    )
    dispatcher.start()
    dispatcher.open(track())
    dispatcher.close(track(), SUMMARY)
    for runner in dispatcher.runners:
        runner.finish()
    assert ("close", 0) in other.calls
    assert closed == []
    assert dispatcher.is_closing
    late.result.set_result({"found": 1})
    assert [results["late"] for _, _, results in closed] == [{"found": 1}]
    assert not dispatcher.is_closing
    dispatcher.stop()


def test_results_that_never_come_are_an_error_and_the_track_is_closed(caplog):
    late = Late()
    closed = []
    dispatcher = Dispatcher({"late": late}, on_closed=lambda *told: closed.append(told))
    dispatcher.start()
    dispatcher.open(track())
    dispatcher.close(track(), SUMMARY)
    late.result.set_exception(OSError("the disk is gone"))
    assert [results for _, _, results in closed] == [{}]
    assert dispatcher.runners[0].errors == 1
    assert "the disk is gone" in caplog.text
    dispatcher.stop()


def test_pauses_and_facts_reach_all_sinks():
    class Paused(Recorder):
        def pause(self, call_leg_id, at_ns):
            self.note("pause", call_leg_id, at_ns, self.facts(call_leg_id))

        def resume(self, call_leg_id, at_ns):
            self.note("resume", call_leg_id, at_ns)

    sinks = {"here": Paused(), "there": Paused(), "none": Recorder()}
    sinks["there"].threaded = True
    leg = track().call_leg_id
    assert Recorder().facts(leg) is None
    dispatcher = Dispatcher(sinks, facts={leg: {"from": "1"}}.get)
    dispatcher.start()
    dispatcher.pause(leg, 5)
    dispatcher.resume(leg, 6)
    dispatcher.stop()
    for name in ("here", "there"):
        assert [call for call in sinks[name].calls if call[0] in {"pause", "resume"}] == [
            ("pause", leg, 5, {"from": "1"}),
            ("resume", leg, 6),
        ]
