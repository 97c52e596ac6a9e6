"""Joins the workers with the database and the control plane.

It hears of workers and their tracks, and tells them what they have to know of calls. Without a
control plane it keeps tracks in the database; without a database it does nothing.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID

import structlog

from strep.control.client import CallControl
from strep.control.memory import Memory
from strep.control.plane import ControlPlane, Workers
from strep.control.webhooks import WebhookReceiver
from strep.history import History
from strep.pauses import PauseFiles
from strep.recovery import find_recordings
from strep.rescue import Rescuer, places
from strep.sinks import folders
from strep.storage import Storage
from strep.store import StoreError

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping
    from pathlib import Path

    from pydantic import SecretStr

    from strep.callbook import Earlier
    from strep.config import Settings
    from strep.control.ports import PortPair
    from strep.control.settings import ControlSettings
    from strep.store import StoredTrack

logger = structlog.get_logger("strep")

TICK_S = 1.0
"""How often the database is tried again that could not be written."""
FORGET_EVERY_S = 3600.0
"""How often old calls are looked for."""
NS_A_DAY = 86_400 * 1_000_000_000
WEBHOOKS_WITHIN_S = 5.0
"""How long webhooks that were taken in may take to be processed at the end."""
FIRST_REOPENING_S, LAST_REOPENING_S = 0.1, 5.0
"""How soon a new worker tries again to open the ports of a fork: later each time."""


def _opening(track: StoredTrack) -> tuple[str, str, str, int]:
    """Return what tells a track from others."""
    return track.call_leg_id, track.leg, track.direction, track.opened_ns


class Team(Workers, Protocol):
    """The workers: `OneWorker` or `ManyWorkers`."""

    def place_of(self, call_leg_id: UUID) -> int:
        """Return the number of the worker that receives a leg."""
        ...

    def remind(self, call_leg_id: UUID, earlier: Mapping[str, Earlier]) -> None:
        """Tell the leg's earlier recordings."""
        ...

    async def pause(self, call_leg_id: UUID, *, is_paused: bool) -> None:
        """Keep no sound of the leg that arrives from now on, or keep it again."""
        ...


class Switchboard:
    """See the module. To be opened, started when the workers receive, and closed in any case.

    `api_key` is the one for commands, for settings with a control plane.
    """

    def __init__(self, settings: Settings, workers: Team, api_key: SecretStr | None = None) -> None:
        self.storage: Storage | None = None
        """None where no database is kept."""
        self.memory: Memory | None = None
        self.plane: ControlPlane | None = None
        """None where no calls are controlled."""
        self.webhooks: WebhookReceiver | None = None
        self.is_started = False
        self._settings = settings
        self._workers = workers
        self._api_key = api_key
        self._pause_files = PauseFiles(settings.recordings)
        self._pausing = ThreadPoolExecutor(1, thread_name_prefix="pauses")
        """One after the other: the last that was asked for counts."""
        self._client: CallControl | None = None
        self._history: History | None = None
        self.rescuer = Rescuer(places(settings.sinks, settings.recordings))
        self._rescue_thread = ThreadPoolExecutor(1, thread_name_prefix="rescue")
        self._rescuing: asyncio.Task[None] | None = None
        self._interrupted: list[StoredTrack] = []
        """Tracks that the last daemon, or a worker that died, left open."""
        self._is_draining = False
        self._ended: set[UUID] = set()
        """Call legs that were recorded until the end."""
        self._processing: asyncio.Task[None] | None = None
        self._ticker: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Open the database and mark what the last daemon left open. Raises `StoreError`."""
        file = self._settings.database_file
        if file is None:
            return
        storage = self.storage = await Storage.open(file)
        interrupted = await storage.execute(storage.store.interrupt_tracks)
        self.memory = Memory(storage.store, storage.execute)
        self._interrupted = interrupted
        self._history = History(storage, self.memory, self._folders(), self._workers.remind)
        self._history.interrupted(interrupted)
        self._ticker = asyncio.create_task(self._tick())
        if self._settings.control is not None:
            await self._open_plane(self._settings.control, self.memory)

    async def start(self) -> None:
        """Go on with the calls and forks of the last daemon. Raises `StoreError`.

        The recordings that it left are finished meanwhile.
        """
        self._rescuing = asyncio.create_task(self._rescue())
        if self.plane is not None:
            await self.plane.start()
        if self.webhooks is not None:
            self._processing = asyncio.create_task(self.webhooks.run())
        self.is_started = True

    def take_no_new(self) -> list[UUID]:
        """Drain: refuse new forks; return the call legs whose forks are open."""
        return [] if self.plane is None else self.plane.take_no_new()

    @property
    def awaits_media(self) -> bool:
        """Whether the media of a fork is still to come."""
        return self.plane is not None and self.plane.awaits_media

    def reload(self, settings: Settings) -> None:
        """Take in settings that differ in what can change; the workers have done so."""
        before, self._settings = self._settings, settings
        if self.plane is not None and settings.control is not None:
            self.plane.reload(settings.control)
            if (
                before.control is not None
                and before.control.admission != settings.control.admission
            ):
                for call_leg_id, facts in self.plane.announced.items():
                    self._workers.announce(call_leg_id, facts)

    async def drain(self) -> None:
        """Take in no more webhooks; to be called before the workers are stopped."""
        self._is_draining = True
        if self.webhooks is not None:
            self.webhooks.close()
        if self._processing is not None:
            _, late = await asyncio.wait([self._processing], timeout=WEBHOOKS_WITHIN_S)
            if late:
                logger.error("not all webhooks could be processed")
                self._processing.cancel()

    async def stop(self) -> None:
        """Leave forks as they are; to be called when the workers have ended."""
        for task in self._tasks:
            task.cancel()
        if self.plane is not None:
            await self.plane.stop()
        self.rescuer.stop()
        if self._rescuing is not None:
            await self._rescuing
        if self._history is not None:
            await self._history.settled()
            await self._history.complete(self._ended)

    async def close(self) -> None:
        """Write what is left and close the database."""
        if self._ticker is not None:
            self._ticker.cancel()
            with suppress(asyncio.CancelledError):
                await self._ticker
        if self._client is not None:
            await self._client.__aexit__(None, None, None)
        if self.memory is not None and not await self.memory.written():
            logger.error("not all that happened could be written to the database")
        self._pausing.shutdown()
        self._rescue_thread.shutdown()
        if self.storage is not None:
            await self.storage.close()

    async def pause(self, call_leg_id: UUID, *, is_paused: bool) -> None:
        """Have a leg's recordings paused or resumed, which is in force when this returns.

        Raises `PauseError` where that is not sure. What is paused stays so in the next daemon.
        """
        note = self._pause_files.put if is_paused else self._pause_files.remove
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._pausing, note, call_leg_id)
        except OSError as error:
            logger.warning(
                "a pause, or its end, cannot be noted: it ends with the worker",
                call_leg_id=str(call_leg_id),
                error=str(error),
            )
        await self._workers.pause(call_leg_id, is_paused=is_paused)

    # -- what the workers say

    def track_opened(self, entry: Mapping[str, Any], worker: int) -> None:
        """Take in that a worker opened a track."""
        if self.plane is not None:
            self.plane.track_opened(entry, worker)
        elif self.memory is not None:
            self.memory.keep_track(entry, worker)
        if self._history is not None:
            self._history.look_up(UUID(entry["call_leg_id"]))

    def track_closed(self, entry: Mapping[str, Any], worker: int) -> None:
        """Take in that a worker closed a track."""
        if self.plane is not None:
            self.plane.track_closed(entry, worker)
        elif self.memory is not None:
            self.memory.keep_track(entry, worker)
        if entry["reason"] == "end":
            self._ended.add(UUID(entry["call_leg_id"]))
        elif self._history is not None:
            # the next track of the leg may have been opened before
            self._history.look_up(UUID(entry["call_leg_id"]))

    def worker_begun(self, worker: int) -> None:
        """Tell a new worker all that it has to know."""
        if self.plane is None:
            return
        for call_leg_id, facts in self.plane.announced.items():
            if self._workers.place_of(call_leg_id) == worker:
                self._workers.announce(call_leg_id, facts)
        for pair, call_leg_id in self.plane.open_ports.items():
            if self._workers.place_of(call_leg_id) == worker:
                self._spawn(self._open_again(pair, call_leg_id))

    def worker_died(self, worker: int) -> None:
        """Take in that a worker left its tracks open, and have its recordings finished."""
        interrupted: list[StoredTrack] = []
        if self.plane is not None:
            interrupted = self.plane.worker_died(worker)
        elif self.memory is not None:
            interrupted = self.memory.interrupt_tracks(worker)
        if self._history is not None:
            self._history.interrupted(interrupted)
        if self._rescuing is not None and not self._is_draining:
            self._interrupted += interrupted
            self._rescuing = asyncio.create_task(self._rescue_after(self._rescuing))

    # -- helpers

    def _folders(self) -> list[Path]:
        return folders(self._settings.sinks, self._settings.recordings)

    async def _rescue_after(self, before: asyncio.Task[None]) -> None:
        await before
        await self._rescue()

    async def _rescue(self) -> None:
        """Finish the recordings that a killed process left, and have them in the call list."""
        tracks, self._interrupted = self._interrupted, []

        def finish() -> list[StoredTrack]:
            found = {_opening(track): track for track in find_recordings(self._folders(), tracks)}
            open_ones = [found.get(_opening(track), track) for track in tracks]
            return self.rescuer.finish([each for each in open_ones if each.manifest is None])

        try:
            if self._history is not None:
                await self._history.settled()
            run = asyncio.get_running_loop().run_in_executor
            finished = await run(self._rescue_thread, finish)
            for track in finished:
                if self.memory is not None:
                    self.memory.add_track(track)
            if self._history is not None:
                await self._history.tell_calls(finished)
                legs = {UUID(track.call_leg_id) for track in finished}
                for call_leg_id in legs:
                    self._history.look_up(call_leg_id)
                await self._history.settled()
                await self._history.complete(legs)
            if self.rescuer.finished or self.rescuer.failed:
                logger.info(
                    "recordings that a killed process had left are finished",
                    finished=self.rescuer.finished,
                    failed=self.rescuer.failed,
                )
        except Exception:
            # a defect of ours: said with its traceback, and the daemon goes on
            logger.exception("recordings that were left")

    async def _open_plane(self, control: ControlSettings, memory: Memory) -> None:
        self._client = CallControl(
            key=self._api_key,
            base_url=control.base_url,
            total_timeout_s=control.command_timeout_s,
        )
        await self._client.__aenter__()
        # the wall clock's time at the start, and from there on the monotonic clock
        offset_ns = time.time_ns() - time.monotonic_ns()
        self.plane = ControlPlane(
            control,
            carrier=self._client,
            workers=self._workers,
            memory=memory,
            clock=lambda: time.monotonic_ns() + offset_ns,
        )
        self.webhooks = WebhookReceiver(
            self.plane.on_event,
            public_key=control.webhook_public_key,
            allow_unsigned=control.allow_unsigned_webhooks,
        )

    async def _open_again(self, pair: PortPair, call_leg_id: UUID) -> None:
        """Open a fork's ports in a new worker, however long it takes, while the fork has them."""
        wait_s = FIRST_REOPENING_S
        while self.plane is not None and self.plane.open_ports.get(pair) == call_leg_id:
            try:
                await self._workers.open_ports(pair, call_leg_id)
            except OSError as error:
                logger.warning(
                    "a fork's ports cannot be opened again for now",
                    rx=pair.rx,
                    tx=pair.tx,
                    error=str(error),
                    wait_s=wait_s,
                )
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, LAST_REOPENING_S)
            else:
                return

    async def _tick(self) -> None:
        forget_at_s = 0.0
        while True:
            await asyncio.sleep(TICK_S)
            if self.memory is not None:
                self.memory.write()
            if time.monotonic() >= forget_at_s:
                forget_at_s = time.monotonic() + FORGET_EVERY_S
                await self.forget_old_calls(time.time_ns())

    async def forget_old_calls(self, now_ns: int) -> None:
        """Delete from the database what is older than the settings say; files stay."""
        days = self._settings.keep_calls_days
        if days is None or self.storage is None:
            return
        before_ns = now_ns - days * NS_A_DAY
        try:
            forgotten = await self.storage.execute(partial(self.storage.store.forget, before_ns))
        except StoreError as error:
            logger.warning("old calls cannot be deleted from the database", error=str(error))
        else:
            if forgotten:
                logger.info("old calls deleted from the database", calls=forgotten, days=days)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
