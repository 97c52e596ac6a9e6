"""What the daemon answers to who asks over HTTP; see `strep.api.source.Source`."""

from __future__ import annotations

import json
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Unpack
from uuid import UUID

from strep import __version__
from strep.control.forks import CallOverError
from strep.control.webhooks import aiohttp_handler
from strep.metrics import exposition
from strep.receive.sockets import kernel_drops
from strep.store import AmbiguousCallError, UnknownCallError

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping, Sequence

    from strep.api.source import Forks, Handler
    from strep.figures import Overview
    from strep.http import Site
    from strep.store import CallSearch, Page
    from strep.switchboard import Switchboard
    from strep.workers import ManyWorkers, OneWorker


class Front:
    """Answers for workers, database and control plane. `sockets` are those of all workers."""

    def __init__(
        self,
        workers: OneWorker | ManyWorkers,
        board: Switchboard,
        sockets: Sequence[Sequence[socket.socket]],
    ) -> None:
        self.is_draining = False
        """Whether the daemon is about to stop."""
        self.site: Site | None = None
        """Where it answers, once it does."""
        self._workers = workers
        self._board = board
        self._sockets = sockets
        self._started_ns = time.monotonic_ns()
        self._drops_seen = 0
        self._is_dropping = False

    @property
    def control(self) -> Forks | None:
        """Who starts and stops forks."""
        return self._board.plane

    @property
    def webhooks(self) -> Handler | None:
        """The handler of webhooks."""
        receiver = self._board.webhooks
        return None if receiver is None else aiohttp_handler(receiver)

    async def health(self) -> Mapping[str, Any]:
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
            "kernel_drops": self.kernel_drops(overview),
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

    async def readiness(self) -> Mapping[str, Any]:
        """Return what `/readyz` says."""
        overview = await self._workers.overview()
        idle = [str(each.number) for each in overview.workers if each.state != "up"]
        reasons = {
            "the daemon is about to stop": self.is_draining,
            "calls and forks of the last daemon are not taken up yet": not self._board.is_started,
            f"workers that do not receive: {', '.join(idle)}": bool(idle),
            "the kernel drops datagrams: a receive buffer is full": self._is_dropping,
        }
        gauges = overview.total.sink_gauges
        full = [sink for sink, of in gauges.items() if of.get("recordings_disk_low")]
        reasons[f"the disk is too full for further recordings: {', '.join(full)}"] = bool(full)
        waits = [
            sink for sink, of in gauges.items() if of.get("recordings_put_off") and sink not in full
        ]
        reasons[f"recordings cannot be written: {', '.join(waits)}"] = bool(waits)
        told = [reason for reason, holds in reasons.items() if holds]
        return {"ready": not told, "reasons": told}

    async def exposition(self) -> bytes:
        """Return what `/metrics` says."""
        board = self._board
        overview = await self._workers.overview()
        return exposition(
            overview,
            self.kernel_drops(overview),
            memory=None if board.memory is None else board.memory.figures(),
            plane=None if board.plane is None else board.plane.figures(),
            webhooks=board.webhooks,
            rescued={"finished": board.rescuer.finished, "failed": board.rescuer.failed},
            http=None if self.site is None else self.site.closed,
        )

    async def open_calls(self) -> str:
        """Return the calls whose media is received now, as a text of JSON."""
        calls, missing = await self._workers.calls()
        return f'{{"calls": [{", ".join(calls)}], "missing_workers": {missing}}}'

    async def search_calls(self, **wanted: Unpack[CallSearch]) -> Page | None:
        """Search the database; see `Store.search`."""
        storage, memory = self._board.storage, self._board.memory
        if storage is None or memory is None:
            return None
        await memory.written()
        search = storage.store.search
        return await storage.execute(lambda: search(**wanted))

    async def call(self, call_id: str) -> Mapping[str, Any] | None:
        """Return what is known of a call; see `Store.details`."""
        storage, memory = self._board.storage, self._board.memory
        if storage is None or memory is None:
            return await self._open_call(call_id)
        await memory.written()
        try:
            details = await storage.execute(partial(storage.store.details, call_id))
        except UnknownCallError:
            return None
        return details.as_json()

    async def pause(self, call_id: str, *, is_paused: bool) -> Mapping[str, Any] | None:
        """Pause or resume a call's recordings; see `Switchboard.pause`."""
        call = await self.call(call_id)
        if call is None:
            return None
        call_leg_id = call["call_leg_id"]
        if call.get("is_open") is False:
            raise CallOverError(f"the call of leg {call_leg_id} is over")
        await self._board.pause(UUID(call_leg_id), is_paused=is_paused)
        return {"call_leg_id": call_leg_id, "is_paused": is_paused}

    def look_at_drops(self) -> tuple[int, int]:
        """Return how many datagrams the kernel dropped since the last look, and in all."""
        drops = self._kernel_drops()
        since = drops - self._drops_seen
        self._drops_seen = drops
        self._is_dropping = since > 0
        return since, drops

    def kernel_drops(self, overview: Overview) -> int:
        """Return how many datagrams the kernel dropped, on pairs of ports too."""
        return self._kernel_drops() + overview.total.pair_kernel_drops

    def _kernel_drops(self) -> int:
        return sum(kernel_drops(sock) for row in self._sockets for sock in row)

    async def _open_call(self, call_id: str) -> Mapping[str, Any] | None:
        if not call_id:
            return None
        calls: list[dict[str, Any]] = json.loads(await self.open_calls())["calls"]
        found = [
            call
            for call in calls
            if call["call_leg_id"].startswith(call_id.lower())
            or call.get("call_control_id") == call_id
        ]
        if len(found) > 1:
            raise AmbiguousCallError(f"several calls begin with {call_id}")
        return found[0] if found else None
