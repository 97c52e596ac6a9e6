"""The inside of a sink's process: hears what the receiver says and tells it to the sink.

Runs in an interpreter of its own, started by `pipeline.sinks.process`. What the sink raises is
dealt with as on the receive loop; here only memory is limited, too. The process ends when it is
told to, when its sink asks for more memory than it may have, and when the receiver is no more.
"""

from __future__ import annotations

import logging
import os
import pickle
import resource
import signal
import threading
import time
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.dispatch import Closing, InlineRunner
from pipeline.sinks.analyzers import AnalyzerSink
from pipeline.sinks.base import SinkError
from pipeline.sinks.load import load
from pipeline.sinks.parcels import OUT_OF_MEMORY, Setup, message, unpacked

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from pipeline.block import Event, Track
    from pipeline.sinks.base import Sink

ORPHAN_S = 5.0
MAX_LOG = 8192


def main(descriptor: int) -> None:
    """Run the sink that the first message names."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # it ends by word, when all is said
    os.set_inheritable(descriptor, False)
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    connection = Connection(descriptor)
    host = _Host(connection)
    logging.getLogger().addHandler(_Teller(host))
    try:
        setup: Setup = pickle.loads(connection.recv_bytes())  # noqa: S301 -- from its parent
        try:
            sink = load(setup.name, setup.options, setup.defaults)
            sink.emit = host.emit  # type: ignore[method-assign]
            sink.facts = host.facts  # type: ignore[method-assign]
            sink.start()
        except SinkError as error:
            host.say("refused", str(error))
            return
        except Exception as error:  # noqa: BLE001 -- said by the parent
            host.say("refused", f"sink {setup.name!r} cannot start: {error!r}")
            return
        if setup.max_memory_mb:
            _limit_memory(setup.max_memory_mb * 2**20)
            if isinstance(sink, AnalyzerSink):
                sink.passes_memory_errors = True
        host.say("ready")
        host.run(setup.name, sink, is_limited=setup.max_memory_mb > 0)
    except (EOFError, OSError):
        pass  # the receiver is no more


class _Host:
    """Both directions of the connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sending = threading.RLock()
        self._facts: dict[UUID, Mapping[str, Any] | None] = {}
        self._open: Counter[UUID] = Counter()

    def say(self, *parts: Any) -> None:
        """Send a message to the receiver; from any thread."""
        data = message(*parts)
        with self._sending:
            self._connection.send_bytes(data)

    def emit(self, event: Event) -> None:
        self.say("event", event)

    def facts(self, call_leg_id: UUID, /) -> Mapping[str, Any] | None:
        return self._facts.get(call_leg_id)

    def run(self, name: str, sink: Sink, *, is_limited: bool) -> None:
        """Do as told, until told to stop."""
        runner = _HostedRunner(name, sink, is_limited=is_limited)
        while True:
            kind, *parts = pickle.loads(self._connection.recv_bytes())  # noqa: S301 -- its parent
            match kind:
                case "write":
                    runner.write(unpacked(parts[0]))
                case "open":
                    track, facts = parts
                    self._open[track.call_leg_id] += 1
                    self._facts[track.call_leg_id] = facts
                    runner.call("open", track)
                case "close":
                    number, track, summary, facts = parts
                    self._facts[track.call_leg_id] = facts
                    runner.close(Closing(track, summary, 1, self._answer(number, name)))
                    self._forget(track)
                case "asked":
                    self._acknowledge(parts[0], runner)
                case "stop":
                    runner.stop()
                    self._acknowledge(parts[0], runner)
                    return
                case _:
                    runner.call(kind, *parts)

    def _acknowledge(self, number: int, runner: InlineRunner) -> None:
        self.say("ack", number, runner.frames, runner.dropped_frames, runner.errors, runner.is_on)

    def _answer(self, number: int, name: str) -> Any:
        def closed(closing: Closing) -> None:
            result = closing.results.get(name)
            self.say("closed", number, None if result is None else dict(result))

        return closed

    def _forget(self, track: Track) -> None:
        self._open[track.call_leg_id] -= 1
        if self._open[track.call_leg_id] <= 0:
            del self._open[track.call_leg_id]
            self._facts.pop(track.call_leg_id, None)


class _HostedRunner(InlineRunner):
    """Ends the process where there is no memory left for the sink."""

    def __init__(self, name: str, sink: Sink, *, is_limited: bool) -> None:
        super().__init__(name, sink)
        self._is_limited = is_limited

    def _failed(self, method: str, error: Exception) -> None:
        if self._is_limited and isinstance(error, MemoryError):
            os._exit(OUT_OF_MEMORY)
        super()._failed(method, error)


class _Teller(logging.Handler):
    """Has the receiver log what is logged here."""

    def __init__(self, host: _Host) -> None:
        super().__init__(logging.WARNING)
        self._host = host

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._host.say("log", record.levelno, self.format(record)[:MAX_LOG])
        except OSError:
            self.handleError(record)


def _limit_memory(more: int) -> None:
    """Let the process take so many bytes more of address space than it has."""
    pages = Path("/proc/self/statm")
    now = int(pages.read_text().split()[0]) * resource.getpagesize() if pages.exists() else 0
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = now + more
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    try:
        resource.setrlimit(resource.RLIMIT_AS, (wanted, hard))
    except (OSError, ValueError) as error:
        logging.getLogger("pipeline.sinks").warning("memory cannot be limited: %s", error)


def _end_with_parent(parent: int) -> None:
    """End a while after the receiver did, even where the sink hangs."""
    while os.getppid() == parent:
        time.sleep(1)
    time.sleep(ORPHAN_S)
    os._exit(1)
