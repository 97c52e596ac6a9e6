"""The daemon: puts sockets, workers, database, control plane and HTTP together.

It starts from the inside out, and stops so that nothing that happens is lost: webhooks are refused
first, then the workers finish their recordings and say so, then what is known is written.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, NamedTuple

import structlog

from strep import __version__, http, logs
from strep.api import application
from strep.api.access import check_exposure, find_token
from strep.control.key import find_key
from strep.front import Front
from strep.receive.sockets import bind, enlarge_receive_buffer
from strep.receive.steering import SteeringError, bind_group, worker_of
from strep.sinks import make_sinks
from strep.switchboard import Switchboard
from strep.wire import Endpoint
from strep.workerprocess import run_async
from strep.workers import ManyWorkers, OneWorker
from strep_kernel import load

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping, Sequence

    from pydantic import SecretStr

    from strep.config import Settings
    from strep.specs import Listener

logger = structlog.get_logger("strep")

DROPS_LOOK_S = 10.0
"""How often the kernel's drop count is looked at for the log."""


class Credentials(NamedTuple):
    """The keys that stand in no settings."""

    api_key: SecretStr | None
    """For commands; None without a control plane."""
    http_token: SecretStr | None
    """That HTTP asks for; None for nothing."""


def find_credentials(settings: Settings, environment: Mapping[str, str]) -> Credentials:
    """Return the credentials for these settings.

    Raises ConfigError where one is missing that is needed, or is none.
    """
    control, token = settings.control, find_token(settings.http_token_file, environment)
    if settings.http is not None:
        check_exposure(settings.http, token)
    key = None if control is None else find_key(None, control.api_key_file, environment)
    return Credentials(key, token)


def run(settings: Settings) -> int:
    """Run a daemon until SIGINT or SIGTERM; return the exit code.

    Raises `ConfigError`, `ListenError`, `HttpError`, `SinkError`, `StoreError` or `WorkerError`,
    each one sentence.
    """
    credentials = find_credentials(settings, os.environ)
    logs.configure(settings.log_format, settings.log_level)
    open_files = allow_open_files()
    if open_files < settings.max_tracks:
        logger.warning(
            "fewer files may be open than there may be tracks: raise it with ulimit -n",
            open_files=open_files,
            max_tracks=settings.max_tracks,
        )
    with ExitStack() as stack:
        daemon = Daemon(settings, open_sockets(settings, stack), credentials)
        return run_async(daemon.run())


class Daemon:
    """Workers, what they have to know and what is to be remembered of them, and HTTP.

    `sockets` has a row for each worker, with a socket for each listener. With several rows it is
    to be made before the process has threads or an event loop. Raises `SinkError`.
    """

    def __init__(
        self,
        settings: Settings,
        sockets: Sequence[Sequence[socket.socket]],
        credentials: Credentials,
    ) -> None:
        self._settings = settings
        self._sockets = sockets
        self._token = credentials.http_token
        if len(sockets) == 1:
            self._workers: OneWorker | ManyWorkers = OneWorker(settings, sockets[0])
        else:
            # tells what is wrong with them, and imports them before the workers are forked
            make_sinks(settings.sinks, settings.recordings)
            self._workers = ManyWorkers(settings, sockets)
        self._board = Switchboard(settings, self._workers, credentials.api_key)
        self._front = Front(self._workers, self._board, sockets)

    async def run(self) -> int:
        """Receive until SIGINT or SIGTERM; return the exit code.

        Raises as `run` does, and leaves no process behind.
        """
        told = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, told.set)
        try:
            await self._board.open()
            await self._workers.start(self._board)
            is_whole = await self._serve(told)
        finally:
            await self._board.close()
        total = (await self._workers.overview()).total
        logger.info(
            "stopped", datagrams=total.datagrams_read, packets=total.packets.get("packets", 0)
        )
        return int(self._workers.failed.is_set() or not is_whole)

    async def _serve(self, told: asyncio.Event) -> bool:
        """Serve until told to stop; tell whether all workers could finish."""
        site = None
        try:
            await self._board.start()
            if self._settings.http is not None:
                app = application(self._front, token=self._token)
                site = await http.start(app, self._settings.http)
            self._log_receiving()
            watcher = asyncio.create_task(self._watch_drops())
            await _first(told, self._workers.failed)
            watcher.cancel()
        finally:
            self._front.is_draining = True
            await self._board.drain()
            is_whole = await self._workers.stop()
            if site is not None:
                await site.cleanup()
            await self._board.stop()
        return is_whole

    def _log_receiving(self) -> None:
        settings = self._settings
        logger.info(
            "receiving",
            version=__version__,
            media=[str(Endpoint.of(*sock.getsockname()[:2])) for sock in self._sockets[0]],
            http=str(settings.http) if settings.http else None,
            recordings=str(settings.recordings),
            database=str(settings.database_file) if settings.database_file else None,
            sinks=[sink.name for sink in settings.sinks],
            workers=len(self._sockets),
            kernel="numpy" if load() is None else "compiled",
            control=settings.control is not None,
        )

    async def _watch_drops(self) -> None:
        """Say in the log when the kernel had to drop datagrams."""
        while True:
            await asyncio.sleep(DROPS_LOOK_S)
            since, in_all = self._front.look_at_drops()
            if since:
                logger.warning(
                    "the kernel dropped datagrams: the receive buffer was full",
                    dropped=since,
                    dropped_in_all=in_all,
                )


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
