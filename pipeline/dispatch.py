"""Hands tracks, blocks and events to the sinks, so that none of them can harm the packets.

A sink runs where its `threaded` says: on the receive loop, or in a thread of its own behind a
queue whose bytes are bounded. A full queue drops blocks, counted per sink; a sink that raises is
counted, logged once, and switched off when one of its methods does nothing else.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from uuid import UUID

    import numpy as np
    from numpy.typing import NDArray

    from pipeline.block import AudioBlock, Event, Track, TrackSummary
    from pipeline.sinks.base import Sink

logger = logging.getLogger("pipeline.sinks")

DEFAULT_QUEUE_BYTES = 256 * 2**20
MAX_ERRORS_IN_A_ROW = 10
WAKE_BYTES = 4 * 2**20
"""A sink's thread wakes early for so much audio, while it is still in the cache."""
MAX_QUEUED_CALLS = 100_000
TICK_NS = 250_000_000

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
        self.runners: list[InlineRunner | ThreadRunner] = [
            ThreadRunner(name, sink, queue_bytes=queue_bytes, wait_when_full=wait_when_full)
            if sink.threaded
            else InlineRunner(name, sink)
            for name, sink in sinks.items()
        ]
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
        closing = _Closing(track, summary, len(self.runners), self._closed)
        self._closings.add(id(closing))
        if not self.runners:
            closing.finish()
        threads = [runner for runner in self.runners if isinstance(runner, ThreadRunner)]
        for thread in threads:
            thread.close(closing)
        if self._wait_when_full:
            for thread in threads:
                thread.finish()
            self._deliver()
        for runner in self.runners:
            if not isinstance(runner, ThreadRunner):
                runner.close(closing)

    def stop(self) -> None:
        """Let every sink finish what is queued and release everything."""
        self._deliver()
        for runner in self.runners:
            runner.finish()
        # what the sinks' threads said of what was queued
        self._deliver()
        for runner in self.runners:
            runner.stop()

    def _closed(self, closing: _Closing) -> None:
        self._closings.discard(id(closing))
        if self._on_closed is not None:
            self._on_closed(closing.track, closing.summary, closing.results)

    def _deliver(self) -> None:
        # an event that a sink emits while it hears of another waits for its turn
        if self._is_delivering:
            return
        self._is_delivering = True
        try:
            while self._inbox:
                event = self._inbox.popleft()
                for runner in self.runners:
                    runner.call("event", event)
        finally:
            self._is_delivering = False


@dataclass(slots=True)
class _Closing:
    """A track on its way out of all sinks."""

    track: Track
    summary: TrackSummary
    waiting: int
    on_closed: Callable[[_Closing], None]
    results: Results = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def closed_by(self, name: str, result: Mapping[str, Any] | None) -> None:
        with self.lock:
            if result is not None:
                self.results[name] = result
            self.waiting -= 1
            is_last = self.waiting == 0
        if is_last:
            self.finish()

    def finish(self) -> None:
        try:
            self.on_closed(self)
        except Exception:
            logger.exception("the end of track %s could not be recorded", self.track.call_leg_id)


class InlineRunner:
    """Calls a sink on the receive loop."""

    def __init__(self, name: str, sink: Sink) -> None:
        self.name = name
        self.sink = sink
        self.is_on = True
        """False once the sink was switched off."""
        self.frames = 0
        """Frames that the sink has taken."""
        self.errors = 0
        self._errors_in_a_row: Counter[str] = Counter()  # by method
        self._skipped_frames = 0

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

    def finish(self) -> None:
        """Wait until what is queued has run."""

    def write(self, block: AudioBlock) -> None:
        """Hand a block to the sink."""
        self._run("write", block)

    def call(self, method: str, *args: object) -> None:
        """Call a method of the sink."""
        self._run(method, *args)

    def close(self, closing: _Closing) -> None:
        """Close a track and collect the sink's results."""
        result = self._run("close", closing.track, closing.summary)
        if isinstance(result, Future):
            result.add_done_callback(lambda done: self._close_late(closing, done))
        else:
            closing.closed_by(self.name, result)

    def stop(self) -> None:
        """Stop the sink."""
        self._run("stop")

    def _close_late(self, closing: _Closing, done: Future[Mapping[str, Any] | None]) -> None:
        """Collect results that took long; on the thread that had them."""
        error = done.exception()
        if error is not None:
            self.errors += 1
            logger.error("sink %s could not close a track", self.name, exc_info=error)
        closing.closed_by(self.name, None if error is not None else done.result())

    def _run(self, method: str, *args: Any) -> Any:
        """Call the sink; whatever it raises is counted and ends here."""
        if method == "write":
            if not self.is_on:
                self._skipped_frames += len(args[0])
                return None
            self.frames += len(args[0])
        elif not self.is_on and method != "stop":
            return None
        try:
            result = getattr(self.sink, method)(*args)
        except Exception:
            self.errors += 1
            self._errors_in_a_row[method] += 1
            if self.errors == 1:
                logger.exception("sink %s raised in %s", self.name, method)
            if self._errors_in_a_row[method] == MAX_ERRORS_IN_A_ROW and self.is_on:
                self.is_on = False
                logger.error(  # noqa: TRY400 -- the traceback was logged with the first error
                    "sink %s is switched off after %d errors in a row",
                    self.name,
                    MAX_ERRORS_IN_A_ROW,
                )
            return None
        self._errors_in_a_row[method] = 0
        return result


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

    def finish(self) -> None:
        """Wait until what is queued has run; a thread that is not there has nothing to run."""
        is_done = threading.Event()
        self._queue.append(is_done.set)
        self._has_work.set()
        while self._thread.is_alive() and not is_done.wait(0.1):
            pass

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
        self._queue.append(lambda: self._write(block, size))

    def call(self, method: str, *args: object) -> None:
        """Queue a call of a method of the sink.

        What is told to a sink that hangs does not grow without end: ticks, silence and events are
        left out beyond MAX_QUEUED_CALLS. Tracks are bounded by themselves.
        """
        if method in {"tick", "silence", "event"} and len(self._queue) > MAX_QUEUED_CALLS:
            return
        self._queue.append(lambda: self._run(method, *args))

    def close(self, closing: _Closing) -> None:
        """Queue the closing of a track."""
        self._queue.append(lambda: super(ThreadRunner, self).close(closing))

    def stop(self) -> None:
        """Finish what is queued, stop the sink and end the thread."""
        self._is_stopping = True
        self._has_work.set()
        if self._thread.is_alive():
            self._thread.join()

    def _write(self, block: AudioBlock, size: int) -> None:
        self._run("write", block)
        self._bytes_out += size

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
