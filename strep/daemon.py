"""The daemon: puts sockets, receiver, sinks and HTTP together, and takes them apart again."""

from __future__ import annotations

import asyncio
import resource
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from pipeline.dispatch import Dispatcher
from pipeline.manifest import add_track
from pipeline.sinks.load import load
from strep import __version__, http, logs
from strep.metrics import Metrics
from strep.receive.drain import Drain, Port
from strep.receive.readers import open_reader
from strep.receive.receiver import Binding, Receiver
from strep.receive.sockets import bind, enlarge_receive_buffer
from strep.wire import Direction, Leg

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pipeline.block import Track, TrackSummary
    from pipeline.dispatch import Results
    from pipeline.sinks.base import Sink
    from strep.config import Settings
    from strep.specs import Listener, SinkSpec

logger = structlog.get_logger("strep")

DROPS_LOOK_S = 10.0
"""How often the kernel's drop count is looked at for the log."""


def make_sinks(specs: Iterable[SinkSpec], directory: Path) -> dict[str, Sink]:
    """Make the sinks by name, a second one of a name as `name-2`; raises `SinkError`.

    `directory` is where those write that have an option of that name and were not told.
    """
    sinks: dict[str, Sink] = {}
    for spec in specs:
        name, copy = spec.name, 1
        while name in sinks:
            copy += 1
            name = f"{spec.name}-{copy}"
        sinks[name] = load(spec.name, spec.options, {"directory": directory})
    return sinks


def write_manifests(track: Track, summary: TrackSummary, results: Results) -> None:
    """Add a closed track to the manifest of each recording that it has."""
    for result in results.values():
        if "manifest" in result:
            add_track(Path(result["manifest"]), track, summary, results)


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


def open_port(listener: Listener, *, receive_buffer_bytes: int) -> Port:
    """Open the socket of one listener; raises `ListenError`."""
    sock = bind(listener.listen.host, listener.listen.port)
    warning = enlarge_receive_buffer(sock, receive_buffer_bytes).warning
    if warning:
        logger.warning(warning, listener=str(listener.listen))
    binding = None
    if listener.call_leg_id is not None and listener.direction is not None:
        binding = Binding(
            listener.call_leg_id, Leg[listener.leg], Direction[listener.direction.upper()]
        )
    return Port(open_reader(sock), binding)


class Daemon:
    """A receiver with its sockets, sinks and HTTP interface, from settings.

    `start` raises `ListenError`, `HttpError` or `SinkError`, each one sentence, and leaves
    nothing open; `stop` finishes all recordings.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
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
        self.drain = Drain(self.receiver, [], tick_ms=settings.tick_ms)
        self._started_ns = time.monotonic_ns()
        self._site: Any = None
        self._watcher: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Open everything and begin to receive."""
        settings = self.settings
        try:
            for listener in settings.media:
                self.drain.ports.append(
                    open_port(listener, receive_buffer_bytes=settings.receive_buffer_bytes)
                )
            if settings.http is not None:
                app = http.application(Metrics(self.receiver, self.drain), self.health)
                self._site = await http.start(app, settings.http)
            self.dispatcher.start()
        except BaseException:
            for port in self.drain.ports:
                port.reader.close()
            if self._site is not None:
                await self._site.cleanup()
            raise
        self.drain.start()
        self._watcher = asyncio.create_task(self._watch_drops())
        logger.info(
            "receiving",
            version=__version__,
            media=[str(port.reader.local) for port in self.drain.ports],
            http=str(settings.http) if settings.http else None,
            recordings=str(settings.recordings),
            sinks=[runner.name for runner in self.dispatcher.runners],
        )

    async def stop(self) -> None:
        """Read what is left, close all tracks, finish the sinks and close everything."""
        if self._watcher is not None:
            self._watcher.cancel()
        self.drain.stop()
        self.receiver.stop()
        if self._site is not None:
            await self._site.cleanup()
        counters = self.receiver.pipeline.counters()
        logger.info("stopped", datagrams=self.receiver.read, packets=counters.packets)

    def health(self) -> Mapping[str, object]:
        """Return what `/healthz` says."""
        return {
            "status": "ok",
            "version": __version__,
            "uptime_s": round((time.monotonic_ns() - self._started_ns) / 1e9, 1),
            "tracks_open": len(self.receiver.table),
            "datagrams_read": self.receiver.read,
            "kernel_drops": self.drain.kernel_drops,
        }

    async def _watch_drops(self) -> None:
        """Say in the log when the kernel had to drop datagrams."""
        seen = 0
        while True:
            await asyncio.sleep(DROPS_LOOK_S)
            drops = self.drain.kernel_drops
            if drops > seen:
                logger.warning(
                    "the kernel dropped datagrams: the receive buffer was full",
                    dropped=drops - seen,
                    dropped_in_all=drops,
                )
                seen = drops


def allow_open_files() -> int:
    """Raise the limit of open files as far as it goes, for a recording each; return it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # macOS refuses "unlimited"
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


async def run(settings: Settings) -> None:
    """Run a daemon until SIGINT or SIGTERM."""
    logs.configure(settings.log_format, settings.log_level)
    open_files = allow_open_files()
    if open_files < settings.max_tracks:
        logger.warning(
            "fewer files may be open than there may be tracks: raise it with ulimit -n",
            open_files=open_files,
            max_tracks=settings.max_tracks,
        )
    daemon = Daemon(settings)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await daemon.start()
    await stop.wait()
    await daemon.stop()
