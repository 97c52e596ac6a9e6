"""A worker: receives on its sockets and feeds the sinks.

With one worker it lives in the daemon's own process; of several, each has a process, `main`, which
talks with its parent over a channel in lines of JSON. The parent asks `figures` or `calls`; the
worker says

    {"ready": true}        it receives; or else {"error": "..."} in words for the operator
    {"figures": {...}}     the fields of `Figures`
    {"calls": "..."}       open calls as of `open_calls`, any number of times, then null

The end of the parent's side of the channel, closed or torn, means: finish all recordings and end.
"""

from __future__ import annotations

import asyncio
import json
import signal
import time
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import structlog

from pipeline.dispatch import Dispatcher
from pipeline.sinks.base import SinkError
from strep import logs
from strep.calls import open_calls
from strep.figures import Figures
from strep.receive.drain import Drain, Port
from strep.receive.readers import open_reader
from strep.receive.receiver import Binding, Receiver
from strep.sinks import make_sinks, write_manifests
from strep.wire import Direction, Leg, PacketBatch

try:
    from uvloop import run as run_async
except ImportError:
    from asyncio import run as run_async  # type: ignore[assignment]

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Sequence

    from pipeline.block import Track, TrackSummary
    from pipeline.dispatch import Results
    from strep.config import Settings
    from strep.specs import Listener

__all__ = ["Worker", "main", "run_async"]

EXIT_SINKS = 2
"""Exit code of a process whose sinks cannot run."""

logger = structlog.get_logger("strep")


class Worker:
    """Receiver, drain and sinks, from settings; `sockets` are those of `settings.media`.

    Raises `SinkError`, as `start` does. The sockets are closed by `stop`.
    """

    def __init__(
        self, settings: Settings, sockets: Sequence[socket.socket], number: int = 0
    ) -> None:
        self.number = number
        self.dispatcher = Dispatcher(
            make_sinks(settings.sinks, settings.recordings), on_closed=log_closed
        )
        self.receiver = Receiver(
            self.dispatcher,
            max_tracks=settings.max_tracks,
            idle_timeout_s=settings.idle_timeout_s,
            reorder_ms=settings.reorder_ms,
            max_gap_s=settings.max_gap_s,
            unix_offset_ns=time.time_ns() - time.monotonic_ns(),
        )
        ports = [
            Port(open_reader(sock), 0 if bound is None else self.receiver.bind(bound))
            for sock, bound in zip(sockets, map(_binding, settings.media), strict=True)
        ]
        self.drain = Drain(
            self.receiver,
            ports,
            tick_ms=settings.tick_ms,
            batch=PacketBatch(slot_bytes=settings.slot_bytes),
        )

    def start(self) -> None:
        """Begin to receive, on the running event loop."""
        self.dispatcher.start()
        self.drain.start()

    def stop(self) -> None:
        """Read what is left, close all tracks and finish the sinks; waits for their disks."""
        self.drain.stop()
        self.receiver.stop()

    def figures(self) -> Figures:
        """Return what was counted so far, and what there is now."""
        receiver, runners = self.receiver, self.dispatcher.runners
        packets = receiver.pipeline.counters().as_dict()
        waiting = {name: packets.pop(name) for name in ("held", "on_probation")}
        datagrams = receiver.datagrams
        datagrams.pop("on_probation")
        return Figures(
            datagrams_read=receiver.read,
            datagrams=datagrams,
            packets=packets,
            tracks_opened=receiver.tracks_opened,
            tracks_closed={str(why): count for why, count in receiver.tracks_closed.items()},
            sink_frames={runner.name: runner.frames for runner in runners},
            sink_dropped_frames={runner.name: runner.dropped_frames for runner in runners},
            sink_errors={runner.name: runner.errors for runner in runners},
            cpu_s=time.process_time(),
            tracks_open=len(receiver.table),
            waiting=waiting,
            sink_queue_bytes={runner.name: runner.queued_bytes for runner in runners},
            sink_off={runner.name: int(not runner.is_on) for runner in runners},
        )

    def calls(self) -> AsyncIterator[str]:
        """Give out the open calls; see `open_calls`."""
        return open_calls(self.receiver.pipeline, self.number)


def log_closed(track: Track, summary: TrackSummary, results: Results) -> None:
    """Write the manifests and one line on a track that was closed."""
    write_manifests(track, summary, results)
    recording = next((r["recording"] for r in results.values() if "recording" in r), None)
    logger.info(
        "track closed",
        call_leg_id=str(track.call_leg_id),
        leg=track.leg,
        direction=track.direction,
        reason=summary.reason,
        duration_s=round(summary.duration_s, 3),
        packets=summary.packets,
        lost=summary.lost,
        late=summary.late,
        recording=recording,
    )


def main(
    settings: Settings, sockets: Sequence[socket.socket], number: int, channel: socket.socket
) -> int:
    """Be a worker in a process of its own until the parent or SIGTERM ends it.

    Returns the exit code. SIGINT is left to the parent: a terminal sends it to all processes.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logs.configure(settings.log_format, settings.log_level, worker=number)
    return run_async(_attend(settings, sockets, number, channel))


async def _attend(
    settings: Settings, sockets: Sequence[socket.socket], number: int, channel: socket.socket
) -> int:
    reader, writer = await asyncio.open_unix_connection(sock=channel)
    try:
        worker = Worker(settings, sockets, number)
        worker.start()
    except SinkError as error:
        _say(writer, error=str(error))
        await _hang_up(writer)
        return EXIT_SINKS
    answers = asyncio.create_task(_answer(worker, reader, writer))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, answers.cancel)
    _say(writer, ready=True)
    with suppress(asyncio.CancelledError):
        await answers
    worker.stop()
    _say(writer, figures=asdict(worker.figures()))
    await _hang_up(writer)
    return 0


async def _answer(
    worker: Worker, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Answer the parent until its side of the channel ends."""

    async def list_calls() -> None:
        with suppress(OSError):  # the parent is no more
            async for some in worker.calls():
                _say(writer, calls=some)
                await writer.drain()
            _say(writer, calls=None)

    listing: asyncio.Task[None] | None = None
    try:
        with suppress(OSError):
            while line := await reader.readline():
                if json.loads(line)["ask"] == "figures":
                    _say(writer, figures=asdict(worker.figures()))
                elif listing is None or listing.done():
                    listing = asyncio.create_task(list_calls())
    finally:
        if listing is not None:
            listing.cancel()


def _say(writer: asyncio.StreamWriter, **what: Any) -> None:
    writer.write(json.dumps(what).encode() + b"\n")


async def _hang_up(writer: asyncio.StreamWriter) -> None:
    """Send what is left, unless nobody is there to take it."""
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


def _binding(listener: Listener) -> Binding | None:
    """Return whose plain RTP a listener receives, if it is told."""
    if listener.call_leg_id is None or listener.direction is None:
        return None
    return Binding(listener.call_leg_id, Leg[listener.leg], Direction[listener.direction.upper()])
