"""A worker in a process of its own, and what it and its parent say to each other.

They talk over a channel in lines of JSON. The parent says

    {"ask": "figures"}, {"ask": "calls"}
    {"announce": ID, "facts": {...}}, {"forget": ID}, {"close_call": ID}
    {"remind": ID, "earlier": {"A": [...]}}
    {"pause": ID, "is_paused": true}
    {"open_ports": [rx, tx], "call_leg_id": ID}, {"close_ports": [rx, tx]}
    {"drain_calls": [ID, ...]}, {"reload": [...]}

where ID is a call_leg_id and each is the method of `Worker` of that name; what is reloaded are the
fields of `Live`. The worker says

    {"ready": true}        it receives; or else {"error": "..."} in words for the operator
    {"figures": {...}}     the fields of `Figures`
    {"calls": "..."}       open calls as of `open_calls`, any number of times, then null
    {"opened": {...}}      an entry of `TrackNews`, as {"closed": {...}}
    {"ports": [rx, tx], "error": null}    the ports were opened or closed, or why they were not
    {"paused": ID, "is_paused": true}     it is so from now on

The end of the parent's side of the channel, closed or torn, means: finish all recordings and end.
"""

from __future__ import annotations

import asyncio
import json
import signal
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any
from uuid import UUID

import structlog

from pipeline.sinks.base import SinkError
from strep import logs
from strep.worker import Live, Worker

try:
    from uvloop import run as run_async
except ImportError:
    from asyncio import run as run_async  # type: ignore[assignment]

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from strep.config import Settings
    from strep.tracknews import What

__all__ = ["LINE_BYTES", "line", "main", "run_async"]

EXIT_SINKS = 2
"""Exit code of a process whose sinks cannot run."""
LINE_BYTES = 2**22
"""More than any line has."""
MAX_UNSENT_BYTES = 2**26
"""News of tracks that wait for a parent which does not read."""

logger = structlog.get_logger("strep")


def main(
    settings: Settings, sockets: Sequence[socket.socket], number: int, channel: socket.socket
) -> int:
    """Be a worker until the parent or SIGTERM ends it; return the exit code.

    SIGINT is left to the parent: a terminal sends it to all processes.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logs.configure(settings.log_format, settings.log_level, worker=number)
    return run_async(_attend(settings, sockets, number, channel))


def line(message: dict[str, Any]) -> bytes:
    """Return a message as a line of the channel."""
    return json.dumps(message).encode() + b"\n"


async def _attend(
    settings: Settings, sockets: Sequence[socket.socket], number: int, channel: socket.socket
) -> int:
    reader, writer = await asyncio.open_unix_connection(sock=channel, limit=LINE_BYTES)
    attendant = _Attendant(writer)
    try:
        worker = Worker(settings, sockets, number, tell=attendant.tell)
        worker.start()
    except SinkError as error:
        attendant.say(error=str(error))
        await _hang_up(writer)
        return EXIT_SINKS
    listening = asyncio.create_task(attendant.listen(worker, reader))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, listening.cancel)
    attendant.say(ready=True)
    with suppress(asyncio.CancelledError):
        await listening
    worker.stop()
    attendant.say(figures=attendant.figures(worker))
    await _hang_up(writer)
    return 0


class _Attendant:
    """Speaks for a worker with its parent."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._unsent = 0
        """News of tracks that were left out."""

    def say(self, **what: Any) -> None:
        """Send a message."""
        self._writer.write(line(what))

    def tell(self, what: What, entry: str) -> None:
        """Send news of a track, if the parent takes any."""
        unsent_bytes = self._writer.transport.get_write_buffer_size()
        if self._writer.is_closing() or unsent_bytes > MAX_UNSENT_BYTES:
            self._unsent += 1
        else:
            self._writer.write(f'{{"{what}": {entry}}}\n'.encode())

    def figures(self, worker: Worker) -> dict[str, Any]:
        """Return the worker's figures."""
        figures = asdict(worker.figures())
        figures["news_dropped"] += self._unsent
        return figures

    async def listen(self, worker: Worker, reader: asyncio.StreamReader) -> None:
        """Do what the parent says until its side of the channel ends."""
        listing: asyncio.Task[None] | None = None
        try:
            with suppress(OSError):
                while text := await reader.readline():
                    match json.loads(text):
                        case {"ask": "figures"}:
                            self.say(figures=self.figures(worker))
                        case {"ask": "calls"} if listing is None or listing.done():
                            listing = asyncio.create_task(self._list_calls(worker))
                        case {"pause": call_leg_id, "is_paused": is_paused}:
                            worker.pause(UUID(call_leg_id), is_paused=is_paused)
                            self.say(paused=call_leg_id, is_paused=is_paused)
                        case message:
                            self._obey(worker, message)
        finally:
            if listing is not None:
                listing.cancel()

    def _obey(self, worker: Worker, message: dict[str, Any]) -> None:
        try:
            match message:
                case {"announce": call_leg_id, "facts": facts}:
                    worker.announce(UUID(call_leg_id), facts)
                case {"forget": call_leg_id}:
                    worker.forget(UUID(call_leg_id))
                case {"close_call": call_leg_id}:
                    worker.close_call(UUID(call_leg_id))
                case {"remind": call_leg_id, "earlier": earlier}:
                    worker.remind(UUID(call_leg_id), earlier)
                case {"open_ports": [rx, tx], "call_leg_id": call_leg_id}:
                    self._try((rx, tx), lambda: worker.open_ports((rx, tx), UUID(call_leg_id)))
                case {"close_ports": [rx, tx]}:
                    self._try((rx, tx), lambda: worker.close_ports((rx, tx)))
                case {"drain_calls": call_leg_ids}:
                    worker.drain_calls(map(UUID, call_leg_ids))
                case {"reload": fields}:
                    live = Live(*fields)
                    logs.configure(live.log_format, live.log_level, worker=worker.number)
                    worker.reload(live)
        except Exception:
            # a defect of ours: said with its traceback, and the worker goes on
            logger.exception("what the daemon said could not be done", message=message)

    def _try(self, pair: tuple[int, int], work: Callable[[], None]) -> None:
        try:
            work()
        except OSError as error:
            self.say(ports=pair, error=str(error))
        else:
            self.say(ports=pair, error=None)

    async def _list_calls(self, worker: Worker) -> None:
        with suppress(OSError):  # the parent is no more
            async for some in worker.calls():
                self.say(calls=some)
                await self._writer.drain()
            self.say(calls=None)


async def _hang_up(writer: asyncio.StreamWriter) -> None:
    """Send what is left, unless nobody is there to take it."""
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
