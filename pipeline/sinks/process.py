"""A sink in a process of its own, as seen from the receiver.

The process has its own interpreter and memory: whatever the sink does to itself, blocking the
interpreter, leaking and exiting included, stays there. It hears everything through a socket, which
bounds what is under way; it is fed by the thread of its `ProcessRunner`, which alone waits for it.

A process that ends is started again after a pause, and told of the tracks that are open; what it
knew is lost. Their results say so: `interrupted` is how often the process ended meanwhile. After
MAX_DEATHS_IN_A_ROW, none of which came after LIVED_S, it stays away. A process that does not get on
for HANG_S is ended; when the receiver stops, for STOP_S.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from pipeline.sinks.base import Sink, SinkError
from pipeline.sinks.parcels import OUT_OF_MEMORY, Setup, message, packed

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    import numpy as np
    from numpy.typing import NDArray

    from pipeline.block import AudioBlock, Event, Track, TrackSummary

logger = logging.getLogger("pipeline.sinks")

PAUSE_S = 0.5
"""Before the first restart; twice as long before each that follows soon."""
MAX_PAUSE_S = 30.0
LIVED_S = 60.0
"""A process that lived so long died for a new reason."""
MAX_DEATHS_IN_A_ROW = 5
START_S = 60.0
HANG_S = 60.0
STOP_S = 5.0
LISTEN_S = 0.2
MAX_MESSAGE = 64 * 2**20
MAX_PAUSED = 10_000
_BOOT = (
    "import sys; sys.path[:] = sys.argv[2:]; "
    "from pipeline.sinks.host import main; main(int(sys.argv[1]))"
)

Result = dict[str, Any]


class ProcessSink(Sink):
    """Hands everything on to the sink `name`, which is made with `options` in a process."""

    threaded = True
    wake_ms = 50
    blames_rows = False

    def __init__(
        self,
        name: str,
        options: Mapping[str, object],
        defaults: Mapping[str, object],
        *,
        max_memory_mb: int = 0,
    ) -> None:
        self.label = name
        """What it is called in the log."""
        self.is_on = True
        """False once its process died too often, or has switched the sink off."""
        self.restarts = 0
        """How often its process was started again."""
        self.deaths = 0
        """How often it ended without being told to."""
        self.runs_in = "process"
        self._name, self._options, self._defaults = name, dict(options), dict(defaults)
        self._max_memory_mb = max_memory_mb
        self._child: _Child | None = None
        self._open: dict[int, tuple[Track, int]] = {}
        """By row: the track, and the number of deaths before it."""
        self._paused: dict[UUID, int] = {}
        self._errors_before = self._lost_before = 0
        self._deaths_in_a_row = 0
        self._restart_at = 0.0
        self._is_ending = False

    @property
    def is_up(self) -> bool:
        """Whether there is a process that listens."""
        return self._child is not None and not self._child.is_over.is_set()

    @property
    def pid(self) -> int | None:
        """The process, if there is one."""
        return None if self._child is None else self._child.process.pid

    @property
    def errors(self) -> int:
        """What the sink raised, and how often its process ended."""
        child = self._child
        return self.deaths + self._errors_before + (0 if child is None else child.errors)

    @property
    def lost_frames(self) -> int:
        """Frames that were sent to the process and that the sink has not taken."""
        child = self._child
        return self._lost_before + (0 if child is None else child.skipped_frames)

    def start(self) -> None:
        """Start the process; raises what the sink says against it."""
        self._child = self._launch()

    def open(self, track: Track) -> None:
        """Begin a track."""
        self._open[track.row] = (track, self.deaths)
        self._say("open", track, self.facts(track.call_leg_id))

    def write(self, block: AudioBlock) -> None:
        """Send a block."""
        if self._child is not None:
            self._child.sent_frames += len(block)
            self._say("write", packed(block))

    def silence(self, rows: NDArray[np.intp], until: NDArray[np.int64]) -> None:
        """Send it on."""
        self._say("silence", rows, until)

    def event(self, event: Event) -> None:
        """Send it on."""
        self._say("event", event)

    def tick(self, now_ns: int) -> None:
        """Send it on, ask whether the process gets on, and start it again when it is time."""
        self._revive()
        self._say("tick", now_ns)
        if self._child is not None:
            self._child.ask()

    def pause(self, call_leg_id: UUID, at_ns: int) -> None:
        """Send it on, and to a successor."""
        self._paused[call_leg_id] = at_ns
        if len(self._paused) > MAX_PAUSED:
            del self._paused[next(iter(self._paused))]
        self._say("pause", call_leg_id, at_ns)

    def resume(self, call_leg_id: UUID, at_ns: int) -> None:
        """Send it on."""
        self._paused.pop(call_leg_id, None)
        self._say("resume", call_leg_id, at_ns)

    def close(
        self, track: Track, summary: TrackSummary
    ) -> Result | Future[Mapping[str, Any] | None] | None:
        """Ask for the results, which come when the process has them, or is no more."""
        _, deaths_before = self._open.pop(track.row, (track, self.deaths))
        interrupted = self.deaths - deaths_before
        child = self._child
        if child is None or not self.is_up:
            return {"interrupted": max(1, interrupted)}
        return child.close(track, summary, self.facts(track.call_leg_id), interrupted)

    def stop(self) -> None:
        """Have the sink stop; a process that hangs is killed."""
        self.hurry()
        if self._child is not None:
            child, self._child = self._child, None
            child.stop()
            self._reap(child)
            if child.process.returncode:
                self._mourn(f"its process {child.ending()}", child.age_s)

    def hurry(self) -> None:
        """Wait less for a process that hangs, and start none again; from any thread."""
        self._is_ending = True
        if self._child is not None:
            self._child.limit_s = self._patience_s()

    def settle(self) -> None:
        """Wait until the process has done all that it was told, or is no more."""
        if self._child is not None:
            self._child.settle()

    def await_restart(self) -> None:
        """Wait until there is a process, or it stays away."""
        while not self.is_up and self.is_on and not self._is_ending:
            self._revive()
            time.sleep(0.05)

    def _patience_s(self) -> float:
        return STOP_S if self._is_ending else HANG_S

    def _say(self, *parts: Any) -> None:
        if self.is_up and self._child is not None:
            self._child.say(message(*parts))

    def _launch(self) -> _Child:
        child = _Child(self, self._name, self._options, self._defaults, self._max_memory_mb)
        of_sink = f"sink {self._name!r}: "
        try:
            refused = self._refusal(child)
        except (EOFError, OSError):
            child.discard()
            raise SinkError(f"{of_sink}its process {child.ending()} as it started") from None
        if refused is not None:
            child.discard()
            raise SinkError(of_sink + refused.removeprefix(of_sink))
        child.listen()
        return child

    def _refusal(self, child: _Child) -> str | None:
        """Wait until a process is ready; return why it is not. Raises where it ends."""
        limit_s = time.monotonic() + START_S
        while True:
            is_dead = child.process.poll() is not None
            if child.connection.poll(0.1):
                kind, *parts = child.receive()
                if kind == "log":
                    child.log(*parts)
                else:
                    return None if kind == "ready" else str(parts[0])
            elif is_dead:
                raise EOFError
            elif time.monotonic() > limit_s or self._is_ending:
                return "its process does not get ready"

    def _revive(self) -> None:
        """Notice a death, and start another process when the pause is over."""
        if self._child is not None and not self.is_up:
            child, self._child = self._child, None
            self._reap(child)
            self._mourn(f"its process {child.ending()}", child.age_s)
        if self._child is None and self.is_on and not self._is_ending:
            if time.monotonic() < self._restart_at:
                return
            try:
                self._child = self._launch()
            except SinkError as error:
                self._mourn(str(error).removeprefix(f"sink {self._name!r}: "), 0.0)
                return
            self.restarts += 1
            self._child.limit_s = self._patience_s()
            for call_leg_id, at_ns in self._paused.items():
                self._say("pause", call_leg_id, at_ns)
            for track, _ in self._open.values():
                self._say("open", track, self.facts(track.call_leg_id))

    def _mourn(self, what: str, age_s: float) -> None:
        self.deaths += 1
        if self._is_ending:
            logger.error("sink %s: %s at the end", self.label, what)
            return
        self._deaths_in_a_row = 1 if age_s > LIVED_S else self._deaths_in_a_row + 1
        if self._deaths_in_a_row >= MAX_DEATHS_IN_A_ROW:
            self.is_on = False
            logger.error(
                "sink %s: %s; it is switched off after %d such ends in a row",
                *(self.label, what, MAX_DEATHS_IN_A_ROW),
            )
            return
        pause_s = min(PAUSE_S * 2 ** (self._deaths_in_a_row - 1), MAX_PAUSE_S)
        self._restart_at = time.monotonic() + pause_s
        logger.error(
            "sink %s: %s; results of %d open tracks are partial, it starts again in %g s",
            *(self.label, what, len(self._open), pause_s),
        )

    def _reap(self, child: _Child) -> None:
        child.is_over.wait()
        self._errors_before += child.errors
        self._lost_before += child.skipped_frames + child.sent_frames - child.done_frames
        child.connection.close()


class _Child:
    """One life of the process: what is sent on the sink's thread, what is heard on its own."""

    def __init__(
        self,
        sink: ProcessSink,
        name: str,
        options: Mapping[str, object],
        defaults: Mapping[str, object],
        max_memory_mb: int,
    ) -> None:
        self.limit_s = HANG_S
        """How long it may take to get on."""
        self.sent_frames = 0
        self.done_frames = 0
        self.skipped_frames = 0
        self.errors = 0
        self.is_over = threading.Event()
        """It is no more, and all that it said was heard."""
        self.why = ""
        self._sink = sink
        self._max_memory_mb = max_memory_mb
        self._born = time.monotonic()
        self._closings: dict[int, tuple[Future[Mapping[str, Any] | None], int]] = {}
        self._changing = threading.Lock()
        self._number = 0
        self._asked = self._answered = 0
        self._asked_at = self._heard_at = self._born
        self._sending_since: float | None = None
        self._has_answered = threading.Condition()
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-c", _BOOT, str(theirs.fileno()), *sys.path]
            self.process = subprocess.Popen(  # noqa: S603 -- our own interpreter
                command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()]
            )
        self._socket = ours
        self.connection = Connection(os.dup(ours.fileno()))
        setup = Setup(name, options, defaults, max_memory_mb)
        with contextlib.suppress(OSError):
            self.connection.send_bytes(pickle.dumps(setup))

    @property
    def age_s(self) -> float:
        return time.monotonic() - self._born

    def listen(self) -> None:
        """Begin to hear what it says."""
        self._heard_at = time.monotonic()
        thread = threading.Thread(
            target=self._listen, name=f"sink-{self._sink.label}-heard", daemon=True
        )
        thread.start()

    def say(self, data: bytes) -> None:
        """Send a message; waits while the process has no time. What cannot be sent is lost."""
        self._sending_since = time.monotonic()
        try:
            self.connection.send_bytes(data)
        except OSError:
            # its end is noticed by who listens; it is over for who sends from now on
            self.is_over.wait()
        finally:
            self._sending_since = None

    def ask(self, kind: str = "asked") -> None:
        """Ask it to say when it has done what it was told."""
        if self.is_over.is_set():
            return
        if self._asked == self._answered:
            self._asked_at = time.monotonic()
        self._asked += 1
        self.say(message(kind, self._asked))

    def settle(self) -> None:
        """Wait until it has done what it was told, or is no more."""
        self.ask()
        with self._has_answered:
            while self._answered < self._asked and not self.is_over.is_set():
                self._has_answered.wait(0.1)

    def close(
        self,
        track: Track,
        summary: TrackSummary,
        facts: Mapping[str, Any] | None,
        interrupted: int,
    ) -> Future[Mapping[str, Any] | None]:
        """Have a track closed."""
        future: Future[Mapping[str, Any] | None] = Future()
        with self._changing:
            self._number += 1
            number = self._number
            if self.is_over.is_set():
                future.set_result({"interrupted": interrupted + 1})
                return future
            self._closings[number] = (future, interrupted)
        self.say(message("close", number, track, summary, facts))
        return future

    def stop(self) -> None:
        """Have the sink stop, and wait for it."""
        self.ask("stop")
        self.is_over.wait()

    def kill(self) -> None:
        """End it at once."""
        with contextlib.suppress(OSError):
            self.process.kill()

    def discard(self) -> None:
        """End it before it was listened to."""
        self.kill()
        self.process.wait()
        self.connection.close()
        self._socket.close()

    def receive(self) -> Any:
        """Return the next message."""
        return pickle.loads(self.connection.recv_bytes(MAX_MESSAGE))  # noqa: S301 -- our own child

    def log(self, level: int, text: str) -> None:
        """Log what it logged."""
        logger.log(level, "sink %s: %s", self._sink.label, text)

    def ending(self) -> str:
        """Say how it ended."""
        code = self.process.returncode
        if self.why:
            return self.why
        if code == OUT_OF_MEMORY and self._max_memory_mb:
            return f"took more than {self._max_memory_mb} MB of memory and was ended"
        if code is not None and code < 0:
            return f"was ended by {signal.Signals(-code).name}"
        return f"exited with {code}"

    def _listen(self) -> None:
        try:
            while True:
                is_dead = self.process.poll() is not None
                if self.connection.poll(LISTEN_S):
                    self._hear(*self.receive())
                elif is_dead:
                    break
                else:
                    self._watch()
        except (EOFError, OSError):
            pass
        except Exception:
            self.why = "said what cannot be understood, and was ended"
            logger.exception("sink %s: its process cannot be understood", self._sink.label)
        self._end()

    def _watch(self) -> None:
        """End it if it has not got on for too long."""
        since = self._sending_since
        if since is None and self._asked != self._answered:
            since = self._asked_at
        if since is None:
            return
        if time.monotonic() - max(since, self._heard_at) > self.limit_s:
            self.why = f"hung for {self.limit_s:g} s and was ended"
            self.kill()

    def _hear(self, kind: str, *parts: Any) -> None:
        self._heard_at = time.monotonic()
        match kind:
            case "event":
                self._sink.emit(parts[0])
            case "closed":
                number, result = parts
                with self._changing:
                    future, interrupted = self._closings.pop(number)
                if interrupted:
                    result = {**(result or {}), "interrupted": interrupted}
                future.set_result(result)
            case "log":
                self.log(*parts)
            case "ack":
                number, taken, self.skipped_frames, self.errors, is_on = parts
                self.done_frames = taken + self.skipped_frames
                if not is_on:
                    self._sink.is_on = False
                with self._has_answered:
                    self._answered = number
                    self._has_answered.notify_all()

    def _end(self) -> None:
        """Tell all who wait that it is no more."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes who sends
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()
            self.process.wait()
        self._socket.close()
        with self._changing:
            self.is_over.set()
            closings, self._closings = list(self._closings.values()), {}
        for future, interrupted in closings:
            future.set_result({"interrupted": interrupted + 1})
        with self._has_answered:
            self._has_answered.notify_all()
