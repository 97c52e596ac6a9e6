"""The daemon's workers: one in its own process, or several that it starts, asks and replaces."""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING

import structlog

from strep.figures import Overview, WorkerView
from strep.nursery import Nursery
from strep.receive.steering import worker_of
from strep.worker import Worker, preload
from strep.workerprocess import main
from strep.workplace import WorkerError, Workplace

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable, Mapping, Sequence
    from uuid import UUID

    from strep.callbook import Earlier, Facts
    from strep.config import Settings
    from strep.control.ports import PortPair
    from strep.tracknews import What
    from strep.worker import Live
    from strep.workplace import Hearer

logger = structlog.get_logger("strep")

START_WITHIN_S = 30.0
STOP_WITHIN_S = 60.0
"""How long workers may take to finish their recordings."""
GIVE_UP_WITHIN_S = 5.0
"""The same when not all of them could begin."""
POLL_S = 1.0
"""How often figures are asked for: what a killed worker counted since then is missing."""


class OneWorker:
    """The worker of a daemon that has one: no further process."""

    def __init__(self, settings: Settings, sockets: Sequence[socket.socket]) -> None:
        self._worker = Worker(settings, sockets, tell=self._tell)
        self._hearer: Hearer | None = None
        self.failed = asyncio.Event()
        """Never set: this worker fails with the daemon."""

    async def start(self, hearer: Hearer) -> None:
        """Begin to receive; raises `SinkError`."""
        self._hearer = hearer
        self._worker.start()
        hearer.worker_begun(0)

    async def stop(self) -> bool:
        """Finish all recordings; True."""
        self._worker.stop()
        return True

    def place_of(self, call_leg_id: UUID) -> int:  # noqa: ARG002 -- as in ManyWorkers
        """Return the number of the worker that receives a leg."""
        return 0

    async def overview(self) -> Overview:
        """Return what was counted."""
        return Overview([WorkerView(0, os.getpid(), "up", self._worker.figures())])

    async def calls(self) -> tuple[list[str], list[int]]:
        """Return the open calls, see `open_calls`, and the workers that did not answer: none."""
        return [some async for some in self._worker.calls()], []

    def announce(self, call_leg_id: UUID, facts: Facts) -> None:
        """Let a leg be known; see `Worker`, as for what follows."""
        self._worker.announce(call_leg_id, facts)

    def forget(self, call_leg_id: UUID) -> None:
        """Let a leg be known no more."""
        self._worker.forget(call_leg_id)

    def close_call(self, call_leg_id: UUID) -> None:
        """Close the leg's tracks."""
        self._worker.close_call(call_leg_id)

    def remind(self, call_leg_id: UUID, earlier: Mapping[str, Earlier]) -> None:
        """Tell the leg's earlier recordings."""
        self._worker.remind(call_leg_id, earlier)

    async def pause(self, call_leg_id: UUID, *, is_paused: bool) -> None:
        """Keep no sound of the leg that arrives from now on, or keep it again."""
        self._worker.pause(call_leg_id, is_paused=is_paused)

    def drain_calls(self, further: Iterable[UUID]) -> None:
        """Take no new call legs but `further`."""
        self._worker.drain_calls(further)

    def reload(self, live: Live) -> None:
        """Take in settings that changed."""
        self._worker.reload(live)

    async def open_ports(self, pair: PortPair, call_leg_id: UUID) -> None:
        """Receive the leg's plain RTP; raises OSError where a port cannot be opened."""
        self._worker.open_ports(pair, call_leg_id)

    async def close_ports(self, pair: PortPair) -> None:
        """Receive on these ports no more."""
        self._worker.close_ports(pair)

    def _tell(self, what: What, entry: str) -> None:
        if self._hearer is not None:
            hear = self._hearer.track_opened if what == "opened" else self._hearer.track_closed
            hear(json.loads(entry), 0)


class ManyWorkers:
    """Workers in processes of their own; `sockets` has a row for each.

    To be made before the process has threads or an event loop, because it forks the nursery.
    """

    def __init__(self, settings: Settings, sockets: Sequence[Sequence[socket.socket]]) -> None:
        def work(number: int, channel: socket.socket) -> int:
            # the port of a daemon that died is free when the last worker has closed its own
            for other in range(len(sockets)):
                if other != number:
                    for sock in sockets[other]:
                        sock.close()
            return main(settings, sockets[number], number, channel)

        preload()  # workers share the memory, and one that is started anew has it at once
        self._nursery = Nursery(work)
        self._places = [Workplace(number, self._nursery) for number in range(len(sockets))]
        self._tasks: list[asyncio.Task[None]] = []
        self._keepers: list[asyncio.Task[None]] = []
        self._pairs: dict[PortPair, Workplace] = {}
        """Who has opened which ports."""
        self.failed = asyncio.Event()
        """Set when no worker could be started any more."""

    async def start(self, hearer: Hearer) -> None:
        """Start all workers and return when they receive; raises `WorkerError`."""
        for place in self._places:
            place.hearer = hearer
        self._tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._poll())]
        self._keepers = [asyncio.create_task(place.keep()) for place in self._places]
        try:
            async with asyncio.timeout(START_WITHIN_S):
                await asyncio.gather(*(place.began() for place in self._places))
        except TimeoutError:
            await self._stop(GIVE_UP_WITHIN_S)
            raise WorkerError(f"the workers did not start in {START_WITHIN_S:.0f} s") from None
        except WorkerError:
            await self._stop(GIVE_UP_WITHIN_S)
            raise

    async def stop(self) -> bool:
        """Let all workers finish their recordings; False where one had to be killed."""
        return await self._stop(STOP_WITHIN_S)

    async def overview(self) -> Overview:
        """Return what was counted: the last that is known of workers that do not answer."""
        await asyncio.gather(*(place.ask_figures() for place in self._places))
        return Overview(
            [place.view() for place in self._places],
            restarts=sum(place.restarts for place in self._places),
        )

    async def calls(self) -> tuple[list[str], list[int]]:
        """Return the open calls, see `open_calls`, and the workers that did not answer."""
        answers = await asyncio.gather(*(place.ask_calls() for place in self._places))
        return (
            [some for answer in answers if answer is not None for some in answer],
            [number for number, answer in enumerate(answers) if answer is None],
        )

    def place_of(self, call_leg_id: UUID) -> int:
        """Return the number of the worker that receives a leg."""
        return worker_of(call_leg_id, len(self._places))

    def announce(self, call_leg_id: UUID, facts: Facts) -> None:
        """Let a leg be known; see `Worker`, as for what follows."""
        self._place(call_leg_id).tell(announce=str(call_leg_id), facts=facts)

    def forget(self, call_leg_id: UUID) -> None:
        """Let a leg be known no more."""
        self._place(call_leg_id).tell(forget=str(call_leg_id))

    def close_call(self, call_leg_id: UUID) -> None:
        """Close the leg's tracks."""
        self._place(call_leg_id).tell(close_call=str(call_leg_id))

    def remind(self, call_leg_id: UUID, earlier: Mapping[str, Earlier]) -> None:
        """Tell the leg's earlier recordings."""
        self._place(call_leg_id).tell(remind=str(call_leg_id), earlier=earlier)

    async def pause(self, call_leg_id: UUID, *, is_paused: bool) -> None:
        """Keep no sound of the leg that arrives from now on, or keep it again.

        Raises `PauseError` where its worker does not answer.
        """
        await self._place(call_leg_id).pause(call_leg_id, is_paused=is_paused)

    def drain_calls(self, further: Iterable[UUID]) -> None:
        """Take no new call legs but `further`.

        A worker that takes the place of one that dies meanwhile takes any, so that the calls which
        that one had go on.
        """
        legs: list[list[str]] = [[] for _ in self._places]
        for call_leg_id in further:
            legs[self.place_of(call_leg_id)].append(str(call_leg_id))
        for place in self._places:
            place.tell(drain_calls=legs[place.number])

    def reload(self, live: Live) -> None:
        """Take in settings that changed."""
        for place in self._places:
            place.reload(live)

    async def open_ports(self, pair: PortPair, call_leg_id: UUID) -> None:
        """Receive the leg's plain RTP; raises OSError where a port cannot be opened."""
        place = self._place(call_leg_id)
        await place.open_ports(pair, call_leg_id)
        self._pairs[pair] = place

    async def close_ports(self, pair: PortPair) -> None:
        """Receive on these ports no more."""
        place = self._pairs.pop(pair, None)
        if place is not None:
            await place.close_ports(pair)

    def _place(self, call_leg_id: UUID) -> Workplace:
        return self._places[self.place_of(call_leg_id)]

    async def _stop(self, within_s: float) -> bool:
        for place in self._places:
            place.stop()
        _, late = await asyncio.wait(self._keepers, timeout=within_s)
        if late:
            for place in self._places:
                place.kill()
            await asyncio.wait(late, timeout=1)
        rest = (*self._tasks, *late)
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        self._nursery.close()
        return not late

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            await asyncio.gather(*(place.ask_figures() for place in self._places))

    async def _listen(self) -> None:
        await self._nursery.listen()
        logger.error("the process that starts workers has died: the daemon ends")
        self.failed.set()
