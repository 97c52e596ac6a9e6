"""Hands tracks, blocks and events to the sinks, so that none of them can harm the packets.

A sink runs where its `threaded` says, or where it was told to: on the receive loop, in a thread of
its own behind a queue whose bytes are bounded, or in a process behind such a thread. A full queue
drops blocks, counted per sink; a sink that raises is counted, logged once, and switched off for a
track that alone makes it raise, or altogether when one of its methods does nothing else.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import Counter, deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.sinks.base import Sink
from pipeline.sinks.process import ProcessSink

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from uuid import UUID

    from numpy.typing import NDArray

    from pipeline.block import AudioBlock, Event, Track, TrackSummary

logger = logging.getLogger("pipeline.sinks")

DEFAULT_QUEUE_BYTES = 256 * 2**20
MAX_ERRORS_IN_A_ROW = 10
WAKE_BYTES = 1 * 2**20
"""A sink's thread wakes early for so much audio, while it is still in the cache."""
MAX_QUEUED_CALLS = 100_000
MAX_WAITING_EVENTS = 10_000
"""Who emits more than the receive loop delivers is slowed down from there on."""
MAX_EVENTS_AT_ONCE = 1_000
TICK_NS = 250_000_000
STOP_S = 10.0
"""How long the end waits until sinks have heard what is queued for them; then audio is left out."""
GIVE_UP_S = 5.0
"""How long it then waits for a sink that hangs in a call, before it goes on without it."""
_LEFT_OUT = frozenset({"write", "silence", "event", "tick"})
"""What a sink is not told any more that has not heard all when the end comes."""

Results = dict[str, "Mapping[str, Any]"]
"""What the sinks said of a closed track, by sink name."""


class Dispatcher:
    """All sinks of a receiver.

    `on_closed(track, summary, results)` is called once per closed track, when all sinks have
    closed it, on the thread of the last one. `facts(call_leg_id)` tells the sinks what is known of
    a call leg, on their threads. With `wait_when_full` a full queue holds up the
    caller instead of dropping: for captures, which can wait.
    """

    def __init__(
        self,
        sinks: Mapping[str, Sink],
        *,
        on_closed: Callable[[Track, TrackSummary, Results], None] | None = None,
        facts: Callable[[UUID], Mapping[str, Any] | None] | None = None,
        queue_bytes: int = DEFAULT_QUEUE_BYTES,
        wait_when_full: bool = False,
    ) -> None:
        self.runners: list[InlineRunner] = [
            _runner(name, sink, queue_bytes, wait_when_full=wait_when_full)
            for name, sink in sinks.items()
        ]
        self._listeners = [
            runner for runner in self.runners if type(runner.sink).event is not Sink.event
        ]
        """Of those whose sinks hear events."""
        self._on_closed = on_closed
        self._wait_when_full = wait_when_full
        self._closings: set[int] = set()
        """Tracks on their way out; changed by single operations, from any thread."""
        self._inbox: deque[Event] = deque()
        self._is_delivering = False
        self._owner = threading.get_ident()
        self._next_tick_ns = 0
        for sink in sinks.values():
            sink.emit = self.emit  # type: ignore[method-assign]
            if facts is not None:
                sink.facts = facts  # type: ignore[method-assign]

    def start(self) -> None:
        """Prepare all sinks. Raises `SinkError` where one cannot run."""
        self._owner = threading.get_ident()
        started: list[InlineRunner] = []
        try:
            for runner in self.runners:
                runner.sink.start()
                runner.start()
                started.append(runner)
        except BaseException:
            for runner in started:
                runner.stop()
            raise

    def open(self, track: Track) -> None:
        """Begin a track on all sinks."""
        for runner in self.runners:
            runner.call("open", track)

    def write(self, block: AudioBlock) -> None:
        """Hand on a block, which is valid during this call only."""
        kept: AudioBlock | None = None
        for runner in self.runners:
            if not isinstance(runner, ThreadRunner):
                runner.write(block)
        for runner in self.runners:
            if isinstance(runner, ThreadRunner):
                if runner.is_on:
                    kept = kept or block.copy()
                runner.write(kept or block)

    def silence(self, rows: NDArray[np.intp], until: NDArray[np.int64]) -> None:
        """Tell all sinks that nothing came on these tracks; the arrays are theirs from now on."""
        for runner in self.runners:
            runner.call("silence", rows, until)

    def emit(self, event: Event) -> None:
        """Send an event to all sinks; from any thread."""
        self._inbox.append(event)
        if threading.get_ident() == self._owner:
            self._deliver()
        elif len(self._inbox) > MAX_WAITING_EVENTS:
            time.sleep(0.001)

    def pause(self, call_leg_id: UUID, at_ns: int) -> None:
        """Have no sound of a call leg kept that arrives from then on."""
        for runner in self.runners:
            runner.call("pause", call_leg_id, at_ns)

    def resume(self, call_leg_id: UUID, at_ns: int) -> None:
        """Have the sound kept again that arrives from then on."""
        for runner in self.runners:
            runner.call("resume", call_leg_id, at_ns)

    @property
    def is_closing(self) -> bool:
        """Whether a track is closed that some sink has not closed yet."""
        return bool(self._closings)

    def tick(self, now_ns: int) -> None:
        """Let the sinks' threads run, and tell the time a few times a second."""
        self._deliver()
        if now_ns >= self._next_tick_ns:
            self._next_tick_ns = now_ns + TICK_NS
            for runner in self.runners:
                runner.call("tick", now_ns)
        for runner in self.runners:
            runner.wake(now_ns)

    def close(self, track: Track, summary: TrackSummary) -> None:
        """End a track on all sinks.

        Where queues are waited for, the sinks' threads come first, so that those on the loop have
        heard all that the others tell of the track before they end it.
        """
        closing = Closing(track, summary, len(self.runners), self._closed)
        self._closings.add(id(closing))
        if not self.runners:
            closing.finish()
        threads = [runner for runner in self.runners if isinstance(runner, ThreadRunner)]
        for thread in threads:
            thread.close(closing)
        if self._wait_when_full:
            for thread in threads:
                thread.finish()
            self._deliver(len(self._inbox))
        for runner in self.runners:
            if not isinstance(runner, ThreadRunner):
                runner.close(closing)

    def stop(self) -> None:
        """Let every sink finish what is queued and release everything."""
        self._deliver(len(self._inbox))
        if not self._wait_when_full:
            until_s = time.monotonic() + STOP_S
            for runner in self.runners:
                runner.hurry(until_s)
        for runner in self.runners:
            runner.finish()
        # what the sinks' threads said of what was queued
        self._deliver(len(self._inbox))
        for runner in self.runners:
            runner.stop()

    def _closed(self, closing: Closing) -> None:
        self._closings.discard(id(closing))
        if self._on_closed is not None:
            self._on_closed(closing.track, closing.summary, closing.results)

    def _deliver(self, waiting: int = 0) -> None:
        """Tell the sinks of these events, and of so many that come meanwhile."""
        # an event that a sink emits while it hears of another waits for its turn
        if self._is_delivering:
            return
        self._is_delivering = True
        try:
            left = waiting + MAX_EVENTS_AT_ONCE
            while self._inbox and left > 0:
                left -= 1
                event = self._inbox.popleft()
                for runner in self._listeners:
                    runner.hear(event)
        finally:
            self._is_delivering = False


@dataclass(slots=True)
class Closing:
    """A track on its way out of all sinks."""

    track: Track
    summary: TrackSummary
    waiting: int
    on_closed: Callable[[Closing], None]
    results: Results = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def closed_by(self, name: str, result: Mapping[str, Any] | None) -> None:
        """Take what a sink found; the last one finishes."""
        with self.lock:
            if result is not None:
                self.results[name] = result
            self.waiting -= 1
            is_last = self.waiting == 0
        if is_last:
            self.finish()

    def finish(self) -> None:
        """Say that all sinks have closed the track."""
        try:
            self.on_closed(self)
        except Exception:
            logger.exception("the end of track %s could not be recorded", self.track.call_leg_id)


class InlineRunner:
    """Calls a sink on the receive loop."""

    def __init__(self, name: str, sink: Sink) -> None:
        self.name = name
        self.sink = sink
        self._is_on = True
        self._frames = 0
        self._errors = 0
        self._errors_in_a_row: Counter[str] = Counter()  # by method
        self._skipped_frames = 0
        self._blamed: set[int] = set()
        """Rows of the frames that alone made the sink raise, since it last did not."""
        self._rows_off: set[int] = set()
        """Rows that are left out until their tracks are closed."""

    @property
    def is_on(self) -> bool:
        """False once the sink was switched off."""
        return self._is_on

    @property
    def frames(self) -> int:
        """Frames that the sink has taken."""
        return self._frames

    @property
    def errors(self) -> int:
        """How often the sink raised."""
        return self._errors

    @property
    def restarts(self) -> int:
        """How often the sink's process was started again."""
        return 0

    @property
    def dropped_frames(self) -> int:
        """Frames that the sink has not taken: queue full, or switched off."""
        return self._skipped_frames

    @property
    def queued_bytes(self) -> int:
        """Bytes of audio that wait for the sink."""
        return 0

    def start(self) -> None:
        """Begin to run."""

    def wake(self, now_ns: int) -> None:
        """Run what is queued."""

    def hurry(self, until_s: float) -> None:
        """Hear that the end is near: wait until then, and less for what hangs."""

    def finish(self) -> None:
        """Wait until what is queued has run."""

    def write(self, block: AudioBlock) -> None:
        """Hand a block to the sink."""
        self._run("write", block)

    def call(self, method: str, *args: object) -> None:
        """Call a method of the sink."""
        self._run(method, *args)

    def hear(self, event: Event) -> None:
        """Hand an event to the sink: `call`, in fewer steps, for each edge of speech there is."""
        if not self._is_on:
            return
        try:
            self.sink.event(event)
        except Exception as error:  # noqa: BLE001 -- whatever a user's code raises ends here
            self._failed("event", error)
        else:
            self._errors_in_a_row["event"] = 0

    def close(self, closing: Closing) -> None:
        """Close a track and collect the sink's results."""
        was_off = closing.track.row in self._rows_off
        result = self._run("close", closing.track, closing.summary)
        if isinstance(result, Future):
            result.add_done_callback(lambda done: self._close_late(closing, done))
        elif was_off:
            self._closed(closing, {**(result or {}), "switched_off": True})
        else:
            self._closed(closing, result)

    def stop(self) -> None:
        """Stop the sink."""
        self._run("stop")

    def _closed(self, closing: Closing, result: Mapping[str, Any] | None) -> None:
        """Say what the sink found; nothing where that is no JSON, which manifests are made of."""
        try:
            json.dumps(None if result is None else dict(result))
        except (TypeError, ValueError, RecursionError) as error:
            self._errors += 1
            logger.error(  # noqa: TRY400 -- a sentence says all
                "sink %s: what it found on a track is left out, as it is no JSON: %s",
                *(self.name, error),
            )
            result = None
        closing.closed_by(self.name, result)

    def _close_late(self, closing: Closing, done: Future[Mapping[str, Any] | None]) -> None:
        """Collect results that took long; on the thread that had them."""
        error = done.exception()
        if error is not None:
            self._errors += 1
            logger.error("sink %s could not close a track", self.name, exc_info=error)
        self._closed(closing, None if error is not None else done.result())

    def _run(self, method: str, *args: Any) -> Any:
        """Call the sink; whatever it raises is counted and ends here."""
        if method == "write":
            self._take(args[0])
            return None
        if not self._is_on and method != "stop":
            return None
        if method in {"open", "close"}:
            self._rows_off.discard(args[0].row)
        try:
            result = getattr(self.sink, method)(*args)
        except Exception as error:  # noqa: BLE001 -- whatever a user's code raises ends here
            self._failed(method, error)
            return None
        self._errors_in_a_row[method] = 0
        return result

    def _take(self, block: AudioBlock) -> None:
        """Hand a block to the sink; where it raises, find the track that makes it."""
        if not self._is_on:
            self._skipped_frames += len(block)
            return
        if self._rows_off:
            is_off = np.isin(block.rows, list(self._rows_off))
            if is_off.any():
                self._skipped_frames += int(is_off.sum())
                block = block.take(np.flatnonzero(~is_off))
                if not len(block):
                    return
        self._frames += len(block)
        error = self._error_of(block)
        if error is None:
            self._errors_in_a_row["write"] = 0
            self._blamed.clear()
        elif len(block) == 1 or not self.sink.blames_rows:
            self._blamed.update(block.rows.tolist())
            self._failed("write", error)
        else:
            self._find_fault(block, error)

    def _error_of(self, block: AudioBlock) -> Exception | None:
        try:
            self.sink.write(block)
        except Exception as error:  # noqa: BLE001 -- whatever a user's code raises ends here
            return error
        return None

    def _find_fault(self, block: AudioBlock, error: Exception) -> None:
        """Repeat a block that made the sink raise, row by row, and leave out those that do again.

        Where the first rows all raise, it is the sink's own fault, and the rest is given up.
        """
        rows = block.rows.tolist()
        bad: list[int] = []
        for i, row in enumerate(rows):
            if self._error_of(block.take(np.array([i]))) is not None:
                bad.append(row)
                if len(bad) == i + 1 == MAX_ERRORS_IN_A_ROW:
                    break
        is_own_fault = bad == rows[:MAX_ERRORS_IN_A_ROW]
        if is_own_fault:
            self._blamed.update(bad)
        self._failed("write", error)
        if is_own_fault:
            return
        self._errors_in_a_row["write"] = 0
        self._blamed.clear()
        for row in bad:
            self._leave_out(row)

    def _leave_out(self, row: int) -> None:
        self._rows_off.add(row)
        logger.error("sink %s is switched off for the track on row %d", self.name, row)

    def _failed(self, method: str, error: Exception) -> None:
        """Count what the sink raised, and switch it off when it does nothing else."""
        self._errors += 1
        self._errors_in_a_row[method] += 1
        if self._errors == 1:
            if isinstance(error, OSError):  # a full disk or a closed pipe is no defect to look for
                logger.error("sink %s raised in %s: %s", self.name, method, error)
            else:
                logger.error("sink %s raised in %s", self.name, method, exc_info=error)
        if self._errors_in_a_row[method] != MAX_ERRORS_IN_A_ROW or not self._is_on:
            return
        if method == "write" and len(self._blamed) == 1:
            self._errors_in_a_row[method] = 0
            self._leave_out(self._blamed.pop())
            return
        self._is_on = False
        logger.error(
            "sink %s is switched off after %d errors in a row", self.name, MAX_ERRORS_IN_A_ROW
        )


class ThreadRunner(InlineRunner):
    """Calls a sink in a thread of its own, in the order in which it was told.

    Wakes once a tick rather than once a block. Each counter has one writer: the caller's thread
    or the sink's.
    """

    def __init__(self, name: str, sink: Sink, *, queue_bytes: int, wait_when_full: bool) -> None:
        super().__init__(name, sink)
        self.max_bytes = queue_bytes
        self._wait_when_full = wait_when_full
        self._wake_ns = round(sink.wake_ms * 1e6)
        self._next_wake_ns = 0
        self._queue: deque[Callable[[], object]] = deque()
        self._bytes_in = 0
        self._bytes_out = 0
        self._refused_frames = 0
        self._has_work = threading.Event()
        self._has_room = threading.Event()
        self._is_stopping = False
        self._until_s = float("inf")
        """When the end waits no more until the sink has heard all."""
        self._is_late = False
        """It had not: only what ends tracks is still told."""
        self._is_given_up = False
        self._closing: dict[int, Closing] = {}
        """Tracks that are to be closed; who takes one out says what is known of it."""
        self._frames_in = 0
        self._frames_out = 0
        self._thread = threading.Thread(target=self._loop, name=f"sink-{name}", daemon=True)

    @property
    def dropped_frames(self) -> int:
        """Frames that the sink has not taken: queue full, or switched off."""
        return self._refused_frames + self._skipped_frames

    @property
    def queued_bytes(self) -> int:
        """Bytes of audio that wait for the sink."""
        return self._bytes_in - self._bytes_out

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self, now_ns: int) -> None:
        """Let the thread run what is queued, if it is time or much is."""
        if self._queue and (now_ns >= self._next_wake_ns or self.queued_bytes > WAKE_BYTES):
            self._next_wake_ns = now_ns + self._wake_ns
            self._has_work.set()

    def hurry(self, until_s: float) -> None:
        """Begin to run all that is queued; leave out what has not run by then."""
        if self.sink.is_awaited:
            return
        self._until_s = until_s
        self._has_work.set()

    def finish(self) -> None:
        """Wait until what is queued has run; a thread that is not there has nothing to run."""
        is_done = threading.Event()
        self._queue.append(is_done.set)
        self._has_work.set()
        while self._thread.is_alive() and not is_done.wait(0.1):
            if time.monotonic() > self._until_s:
                self._is_late = True
            if time.monotonic() > self._until_s + GIVE_UP_S:
                self._give_up()
                return
        if self._is_late:
            logger.error(
                "sink %s had not heard all at the end: what waited after %g s was left out",
                *(self.name, STOP_S),
            )

    def write(self, block: AudioBlock) -> None:
        """Queue a block, which is the sinks' own."""
        if not self.is_on:
            self._refused_frames += len(block)
            return
        size = block.nbytes
        while (
            self._wait_when_full and self.queued_bytes > self.max_bytes and self._thread.is_alive()
        ):
            self._has_room.clear()
            self._has_work.set()
            self._has_room.wait(0.1)
        if self.queued_bytes + size > self.max_bytes and not self._wait_when_full:
            self._refused_frames += len(block)
            return
        self._bytes_in += size
        self._frames_in += len(block)
        self._queue.append(lambda: self._write(block, size))

    def call(self, method: str, *args: object) -> None:
        """Queue a call of a method of the sink.

        What is told to a sink that hangs does not grow without end: ticks, silence and events are
        left out beyond MAX_QUEUED_CALLS. Tracks are bounded by themselves.
        """
        if method in {"tick", "silence", "event"} and len(self._queue) > MAX_QUEUED_CALLS:
            return
        self._queue.append(lambda: self._run(method, *args))

    def hear(self, event: Event) -> None:
        """Queue an event."""
        self.call("event", event)

    def close(self, closing: Closing) -> None:
        """Queue the closing of a track."""
        self._closing[id(closing)] = closing
        self._queue.append(lambda: super(ThreadRunner, self).close(closing))

    def stop(self) -> None:
        """Finish what is queued, stop the sink and end the thread."""
        self._is_stopping = True
        self._has_work.set()
        is_bounded = self._until_s != float("inf")
        if self._thread.is_alive() and not self._is_given_up:
            self._thread.join(GIVE_UP_S if is_bounded else None)
            if self._thread.is_alive():
                self._give_up()

    def _closed(self, closing: Closing, result: Mapping[str, Any] | None) -> None:
        if self._closing.pop(id(closing), None) is not None:
            super()._closed(closing, result)

    def _give_up(self) -> None:
        """Go on without a sink that hangs in a call: its thread ends with the process."""
        self._is_given_up, self._is_on = True, False
        self._errors += 1
        waiting = list(self._closing.values())
        missed = self._frames_in - self._frames_out
        self._refused_frames += missed
        logger.error(
            "sink %s hangs at the end and is left behind: it misses %d frames and the end of %d"
            " tracks",
            *(self.name, missed, len(waiting)),
        )
        for closing in waiting:
            self._closed(closing, {"left_behind": True})

    def _run(self, method: str, *args: Any) -> Any:
        if self._is_late and method in _LEFT_OUT:
            if method == "write":
                self._skipped_frames += len(args[0])
            return None
        return super()._run(method, *args)

    def _write(self, block: AudioBlock, size: int) -> None:
        self._run("write", block)
        self._bytes_out += size
        self._frames_out += len(block)

    def _loop(self) -> None:
        while True:
            self._has_work.wait()
            self._has_work.clear()
            # looked at first: what was queued before `stop` is then sure to be seen
            is_stopping = self._is_stopping
            while self._queue:
                self._queue.popleft()()
                self._has_room.set()
            if is_stopping:
                break
        self._run("stop")


class ProcessRunner(ThreadRunner):
    """Feeds the process of a `ProcessSink` from a thread, which alone waits for it."""

    sink: ProcessSink

    def __init__(
        self, name: str, sink: ProcessSink, *, queue_bytes: int, wait_when_full: bool
    ) -> None:
        super().__init__(name, sink, queue_bytes=queue_bytes, wait_when_full=wait_when_full)
        sink.label = name

    @property
    def is_on(self) -> bool:
        """False once the sink was switched off, or its process died too often."""
        return self._is_on and self.sink.is_on

    @property
    def errors(self) -> int:
        """How often the sink raised, and its process ended."""
        return self._errors + self.sink.errors

    @property
    def restarts(self) -> int:
        """How often the sink's process was started again."""
        return self.sink.restarts

    @property
    def frames(self) -> int:
        """Frames that the sink has taken, or will have soon."""
        return self._frames - self.sink.lost_frames

    @property
    def dropped_frames(self) -> int:
        """Frames that the sink has not taken: queue full, no process, or switched off."""
        return super().dropped_frames + self.sink.lost_frames

    def hurry(self, until_s: float) -> None:
        """Wait less for a process that hangs, and start none again."""
        super().hurry(until_s)
        self.sink.hurry()

    def finish(self) -> None:
        """Wait until the process has done all, or is no more."""
        self._queue.append(self.sink.settle)
        super().finish()

    def _take(self, block: AudioBlock) -> None:
        if self._wait_when_full:
            self.sink.await_restart()
        if self.sink.is_up:
            super()._take(block)
        else:
            self._skipped_frames += len(block)


def _runner(name: str, sink: Sink, queue_bytes: int, *, wait_when_full: bool) -> InlineRunner:
    """Return what runs a sink where it is to run."""
    if isinstance(sink, ProcessSink):
        return ProcessRunner(name, sink, queue_bytes=queue_bytes, wait_when_full=wait_when_full)
    is_threaded = sink.threaded if sink.runs_in is None else sink.runs_in == "thread"
    if is_threaded:
        return ThreadRunner(name, sink, queue_bytes=queue_bytes, wait_when_full=wait_when_full)
    return InlineRunner(name, sink)
