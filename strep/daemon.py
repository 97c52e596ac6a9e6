"""The daemon: puts sockets, workers and HTTP together, and takes them apart again."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import structlog

from strep import __version__, http, logs
from strep.metrics import exposition
from strep.receive.sockets import bind, enlarge_receive_buffer, kernel_drops
from strep.receive.steering import SteeringError, bind_group, worker_of
from strep.sinks import make_sinks
from strep.wire import Endpoint
from strep.worker import run_async
from strep.workers import ManyWorkers, OneWorker

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping, Sequence

    from strep.config import Settings
    from strep.specs import Listener

logger = structlog.get_logger("strep")

DROPS_LOOK_S = 10.0
"""How often the kernel's drop count is looked at for the log."""


def run(settings: Settings) -> int:
    """Run a daemon until SIGINT or SIGTERM; return the exit code.

    Raises `ListenError`, `HttpError`, `SinkError` or `WorkerError`, each one sentence.
    """
    logs.configure(settings.log_format, settings.log_level)
    open_files = allow_open_files()
    if open_files < settings.max_tracks:
        logger.warning(
            "fewer files may be open than there may be tracks: raise it with ulimit -n",
            open_files=open_files,
            max_tracks=settings.max_tracks,
        )
    with ExitStack() as stack:
        daemon = Daemon(settings, open_sockets(settings, stack))
        return run_async(daemon.run())


class Daemon:
    """Workers and the HTTP interface that speaks for them.

    `sockets` has a row for each worker, with a socket for each listener. With several rows it is
    to be made before the process has threads or an event loop. Raises `SinkError`.
    """

    def __init__(self, settings: Settings, sockets: Sequence[Sequence[socket.socket]]) -> None:
        self._settings = settings
        self._sockets = sockets
        if len(sockets) == 1:
            self._workers: OneWorker | ManyWorkers = OneWorker(settings, sockets[0])
        else:
            # tells what is wrong with them, and imports them before the workers are forked
            make_sinks(settings.sinks, settings.recordings)
            self._workers = ManyWorkers(settings, sockets)
        self._started_ns = time.monotonic_ns()

    async def run(self) -> int:
        """Receive until SIGINT or SIGTERM; return the exit code.

        Raises `HttpError`, `SinkError` or `WorkerError`, and leaves no process behind.
        """
        told = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, told.set)
        site = None
        await self._workers.start()
        try:
            if self._settings.http is not None:
                site = await http.start(http.application(self), self._settings.http)
            self._log_receiving()
            watcher = asyncio.create_task(self._watch_drops())
            await _first(told, self._workers.failed)
            watcher.cancel()
        finally:
            is_whole = await self._workers.stop()
            if site is not None:
                await site.cleanup()
        total = (await self._workers.overview()).total
        logger.info(
            "stopped", datagrams=total.datagrams_read, packets=total.packets.get("packets", 0)
        )
        return int(self._workers.failed.is_set() or not is_whole)

    @property
    def kernel_drops(self) -> int:
        """Datagrams that the kernel dropped because a receive buffer was full."""
        return sum(kernel_drops(sock) for row in self._sockets for sock in row)

    async def health(self) -> Mapping[str, object]:
        """Return what `/healthz` says."""
        overview = await self._workers.overview()
        total = overview.total
        states = {worker.state for worker in overview.workers}
        return {
            "status": "ok" if states == {"up"} else "degraded" if "up" in states else "down",
            "version": __version__,
            "uptime_s": round((time.monotonic_ns() - self._started_ns) / 1e9, 1),
            "tracks_open": total.tracks_open,
            "datagrams_read": total.datagrams_read,
            "kernel_drops": self.kernel_drops,
            "workers": [
                {
                    "worker": worker.number,
                    "pid": worker.pid,
                    "state": worker.state,
                    "tracks_open": worker.figures.tracks_open,
                    "datagrams_read": worker.figures.datagrams_read,
                }
                for worker in overview.workers
            ],
        }

    async def exposition(self) -> bytes:
        """Return what `/metrics` says."""
        return exposition(await self._workers.overview(), self.kernel_drops)

    async def calls(self) -> str:
        """Return what `/v1/calls` says."""
        calls, missing = await self._workers.calls()
        return f'{{"calls": [{", ".join(calls)}], "missing_workers": {missing}}}'

    def _log_receiving(self) -> None:
        settings = self._settings
        logger.info(
            "receiving",
            version=__version__,
            media=[str(Endpoint.of(*sock.getsockname()[:2])) for sock in self._sockets[0]],
            http=str(settings.http) if settings.http else None,
            recordings=str(settings.recordings),
            sinks=[sink.name for sink in settings.sinks],
            workers=len(self._sockets),
        )

    async def _watch_drops(self) -> None:
        """Say in the log when the kernel had to drop datagrams."""
        seen = 0
        while True:
            await asyncio.sleep(DROPS_LOOK_S)
            drops = self.kernel_drops
            if drops > seen:
                logger.warning(
                    "the kernel dropped datagrams: the receive buffer was full",
                    dropped=drops - seen,
                    dropped_in_all=drops,
                )
                seen = drops


async def _first(*events: asyncio.Event) -> None:
    """Wait until one of the events is set."""
    waiting = [asyncio.create_task(event.wait()) for event in events]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()


def open_sockets(settings: Settings, stack: ExitStack) -> list[list[socket.socket]]:
    """Return a row of sockets for each worker, one for each listener; `stack` closes them.

    There is one row where the kernel cannot steer packets to several. Raises `ListenError`.
    """
    count = usable_cores() if settings.workers == "auto" else settings.workers
    try:
        groups = _bind_all(settings.media, count, stack)
    except SteeringError as error:
        logger.warning(
            "packets cannot be steered to several workers: one receives them all",
            reason=str(error),
            workers=count,
        )
        groups = _bind_all(settings.media, 1, stack)
    for listener, group in zip(settings.media, groups, strict=True):
        given = [enlarge_receive_buffer(sock, settings.receive_buffer_bytes) for sock in group]
        if given[0].warning:
            logger.warning(given[0].warning, listener=str(listener.listen))
    return [list(row) for row in zip(*groups, strict=True)]


def _bind_all(
    listeners: Sequence[Listener], workers: int, stack: ExitStack
) -> list[list[socket.socket]]:
    """Return a row of sockets for each listener, one for each worker."""
    groups = []
    with ExitStack() as on_error:
        for listener in listeners:
            host, port = listener.listen
            if workers == 1:
                group = [bind(host, port)]
            else:
                call_leg_id = listener.call_leg_id
                rtp_to = None if call_leg_id is None else worker_of(call_leg_id, workers)
                group = bind_group(host, port, workers, rtp_to=rtp_to)
            for sock in group:
                on_error.enter_context(sock)
            groups.append(group)
        stack.enter_context(on_error.pop_all())
    return groups


def usable_cores() -> int:
    """Return how many cores this process may run on; a container's CPU quota is not seen."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def allow_open_files() -> int:
    """Raise the limit of open files as far as it goes, for a recording each; return it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # macOS refuses "unlimited"
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
