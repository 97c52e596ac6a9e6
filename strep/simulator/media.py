"""The media of all forks: planned a little ahead, sent by one task.

A track is planned half a second at a time: its stream makes the packets, its network says which
arrive and when, the ledger writes them down. What arrives waits in one heap for all tracks, and
goes out when it is due. Time is that of the simulation, which `speed` lets run faster than ours.
"""

from __future__ import annotations

import asyncio
import errno
import heapq
import logging
import socket
import time
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from strep.media import SAMPLES_PER_MS, datagrams
from strep.network import Network
from strep.sender import MAX_BURST, SHORTEST_WAIT_S
from strep.simulator.ledger import Fate, Ledger, Span, TrackLog, payloads_of
from strep.simulator.stream import EVENT_BYTES, NO_FRAME, Stream
from strep.wire import Direction, Leg, StrepHeader

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from numpy.typing import NDArray

    from strep.network import DelayTrace
    from strep.simulator.audio import Audio
    from strep.simulator.scenario import Scenario
    from strep.specs import Address

PLAN_S = 0.5
"""How much is planned at a time, on our clock; a track is planned anew half of it ahead."""
MOST_TRACKS = 10_000
"""Beyond it the oldest of those that are over are forgotten."""
SEND_BUFFER_BYTES = 2**21
IDLE_WAIT_S = 0.005
"""How long the task sleeps at most while tracks run: their first packets come without notice."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackPlan:
    """What a track is to send."""

    call_control_id: str
    call_leg_id: UUID
    leg: Leg
    direction: Direction
    is_strep: bool
    to: Address
    scenario: Scenario
    audio: Audio
    trace: DelayTrace | None
    seed: tuple[int, ...]
    answered_s: float
    """When the call was answered, where the time of its media begins."""


@dataclass(slots=True, eq=False)
class _Track:
    """What is kept of a track when it is over, too."""

    number: int
    plan: TrackPlan
    spans: list[Span] = field(default_factory=list)
    stopped: bool = False


@dataclass(slots=True, eq=False)
class _Sender:
    """What makes the packets of a track."""

    track: _Track
    stream: Stream
    network: Network
    header: StrepHeader | None
    planned_s: float
    """Since the answer; what is made before is planned."""


@dataclass(slots=True, eq=False)
class _Departures:
    """Datagrams of one track, in the order in which they leave."""

    track: _Track
    datagrams: NDArray[np.uint8]
    length: list[int]
    due_s: list[float]
    row: NDArray[np.int64]
    """The number of each in the ledger; a duplicate's is that of its original."""
    made_s: NDArray[np.float64]
    next: int = 0


_Departure: TypeAlias = tuple[float, int, _Departures]
"""When the next one leaves, a number that no other has, and what leaves."""


class Media:
    """All tracks. `now_s` is asked for the time of the simulation, in seconds."""

    def __init__(self, now_s: Callable[[], float], *, speed: float, ledger: Ledger) -> None:
        self.ledger = ledger
        self.datagrams = 0
        """Sent so far."""
        self.failed = 0
        """That the operating system would not send."""
        self.worst_lateness_s = 0.0
        """The longest that a datagram left after its time, on our clock."""
        self._now_s = now_s
        self._speed = speed
        self._tracks: dict[int, _Track] = {}
        self._numbers = count(1)
        self._unplanned: list[tuple[float, int, _Sender]] = []
        self._departures: list[_Departure] = []
        self._order = count()
        self._sockets: dict[socket.AddressFamily, socket.socket] = {}
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()

    @property
    def running(self) -> int:
        """Tracks that send."""
        return sum(not sender.track.stopped for _, _, sender in self._unplanned)

    def start(self, plan: TrackPlan) -> int:
        """Begin a track with what its stream makes from now on; returns its number."""
        begin_s = max(0.0, self._now_s() - plan.answered_s)
        track = _Track(next(self._numbers), plan)
        self._tracks[track.number] = track
        if len(self._tracks) > MOST_TRACKS:
            oldest = next((n for n, each in self._tracks.items() if each.stopped), None)
            if oldest is not None:
                del self._tracks[oldest]
        types = plan.leg == Leg.A and plan.direction == Direction.INBOUND
        header = StrepHeader(plan.call_leg_id, leg=plan.leg, direction=plan.direction)
        sender = _Sender(
            track=track,
            stream=Stream(plan.audio, plan.scenario, seed=plan.seed, types=types, begin_s=begin_s),
            network=Network(
                plan.scenario.network.impairments,
                seed=np.random.default_rng([*plan.seed, 1]),
                trace=plan.trace,
            ),
            header=header if plan.is_strep else None,
            planned_s=begin_s,
        )
        # tracks that begin together are planned at different times from then on
        self._plan(sender, PLAN_S * self._speed * (0.75 + track.number % 8 / 8))
        self._idle.clear()
        self._wake.set()
        return track.number

    def stop(self, number: int) -> None:
        """End a track: what has been made still arrives, nothing more is made."""
        track = self._tracks[number]
        track.stopped = True
        now_s = self._now_s()
        # no more than two stretches are ever planned ahead
        self.ledger.cancel(track.spans[-2:], now_s)
        entries = [
            _made_before(entry, now_s) if entry[2].track is track else entry
            for entry in self._departures
        ]
        self._departures = [entry for entry in entries if entry is not None]
        heapq.heapify(self._departures)

    def log(self, number: int, *, summary: bool = False) -> TrackLog:
        """Return what a track sent and dropped; a summary leaves out the payloads.

        Raises KeyError for a number that no track has, or one that was forgotten.
        """
        track = self._tracks[number]
        plan = track.plan
        packet_ms = plan.scenario.audio.packet_ms
        rows = self.ledger.read(track.spans)
        samples = packet_ms * SAMPLES_PER_MS
        return TrackLog(
            track=number,
            call_control_id=plan.call_control_id,
            call_leg_id=str(plan.call_leg_id),
            leg=plan.leg.name,
            direction=plan.direction.label,
            wrapping="strep" if plan.is_strep else "rtp",
            to=str(plan.to),
            packet_ms=packet_ms,
            running=not track.stopped or bool((rows["fate"] == Fate.PENDING).any()),
            forgotten=self.ledger.forgotten(track.spans),
            columns=rows,
            payloads=() if summary else payloads_of(rows, plan.audio, samples),
        )

    def numbers(self) -> list[int]:
        """Return the numbers of all tracks, ended ones too."""
        return list(self._tracks)

    async def drain(self) -> None:
        """Wait until all tracks have been stopped and all that was made has left."""
        await self._idle.wait()

    async def run(self) -> None:
        """Plan and send until cancelled."""
        try:
            while True:
                wait_s = self.step()
                if wait_s is not None:
                    await asyncio.sleep(wait_s)
                    continue
                self._idle.set()
                self._wake.clear()
                await self._wake.wait()
        finally:
            self.close()

    def close(self) -> None:
        """Close the sockets."""
        for udp in self._sockets.values():
            udp.close()
        self._sockets.clear()

    def step(self) -> float | None:
        """Plan and send what is due; return how long to wait for more, on our clock.

        None is until a track begins. At most one track is planned and `MAX_BURST` datagrams are
        sent: 0 says that others are to have their turn first.
        """
        if not self._departures and not self._unplanned:
            return None
        now_s = self._now_s()
        if self._unplanned and self._unplanned[0][0] <= now_s:
            # one at a time, so that nothing due waits for all of them
            _, _, sender = heapq.heappop(self._unplanned)
            if not sender.track.stopped:
                self._plan(sender, PLAN_S * self._speed)
        if self._departures and self._departures[0][0] <= now_s:
            return 0.0 if self._send_burst(now_s) else SHORTEST_WAIT_S
        if self._unplanned and self._unplanned[0][0] <= now_s:
            return 0.0
        wait_s = IDLE_WAIT_S
        if self._departures:
            wait_s = min(wait_s, (self._departures[0][0] - now_s) / self._speed)
        return max(wait_s, SHORTEST_WAIT_S)

    def _plan(self, sender: _Sender, stretch_s: float) -> None:
        """Make the next packets of a track and lay down when they leave."""
        sender.planned_s += stretch_s
        plan = sender.track.plan
        packets = sender.stream.until(sender.planned_s)
        made_s = packets.made_s + plan.answered_s
        span = self.ledger.add(packets, made_s)
        sender.track.spans.append(span)
        arrivals = sender.network.traverse(made_s, spared=packets.settling)
        lost = np.ones(len(made_s), bool)
        lost[arrivals.packet] = False
        self.ledger.settle(np.flatnonzero(lost) + span.first, Fate.LOST)
        if len(arrivals.packet):
            rows = datagrams(
                packets.payload,
                payload_type=packets.payload_type,
                ssrc=packets.ssrc,
                sequence=packets.sequence,
                timestamp=packets.timestamp,
                marker=packets.marker,
                strep=sender.header,
            )
            unused = np.where(packets.frame == NO_FRAME, packets.payload.shape[1] - EVENT_BYTES, 0)
            departures = _Departures(
                track=sender.track,
                datagrams=rows[arrivals.packet],
                length=(rows.shape[1] - unused)[arrivals.packet].tolist(),
                due_s=arrivals.time_s.tolist(),
                row=arrivals.packet + span.first,
                made_s=made_s[arrivals.packet],
            )
            heapq.heappush(self._departures, (departures.due_s[0], next(self._order), departures))
        again_s = plan.answered_s + sender.planned_s - PLAN_S * self._speed / 2
        heapq.heappush(self._unplanned, (again_s, next(self._order), sender))

    def _send_burst(self, now_s: float) -> bool:
        """Send what is due, at most `MAX_BURST`; False where the operating system takes no more.

        The heap costs each datagram a step in Python, beside the system call that it needs anyway.
        """
        late_s = (now_s - self._departures[0][0]) / self._speed
        self.worst_lateness_s = max(self.worst_lateness_s, late_s)
        sent: list[int] = []
        has_room = True
        while self._departures and len(sent) < MAX_BURST:
            due_s, order, departures = self._departures[0]
            if due_s > now_s:
                break
            index = departures.next
            try:
                datagram = departures.datagrams[index, : departures.length[index]]
                to = departures.track.plan.to
                self._socket(to).sendto(datagram.data, to)
            except OSError as error:
                has_room = error.errno not in {errno.ENOBUFS, errno.EAGAIN}
                if not has_room:
                    break
                self._fail(departures, index, error)
            else:
                sent.append(int(departures.row[index]))
            departures.next += 1
            if departures.next < len(departures.due_s):
                following = departures.due_s[departures.next]
                heapq.heapreplace(self._departures, (following, order, departures))
            else:
                heapq.heappop(self._departures)
        self.ledger.mark_sent(np.array(sent, np.int64), time.time_ns())
        self.datagrams += len(sent)
        return has_room

    def _fail(self, departures: _Departures, index: int, error: OSError) -> None:
        if not self.failed:
            to = departures.track.plan.to
            _logger.warning("media cannot be sent to %s: %s", to, error.strerror)
        self.failed += 1
        self.ledger.settle(departures.row[index : index + 1], Fate.FAILED)

    def _socket(self, to: Address) -> socket.socket:
        family = socket.AF_INET6 if ":" in to.host else socket.AF_INET
        if family not in self._sockets:
            udp = socket.socket(family, socket.SOCK_DGRAM)
            udp.setblocking(False)
            with suppress(OSError):
                udp.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
            self._sockets[family] = udp
        return self._sockets[family]


def _made_before(entry: _Departure, end_s: float) -> _Departure | None:
    """Return an entry of the heap without what is made at `end_s` or later; None if that is all."""
    _, order, departures = entry
    kept = np.flatnonzero(departures.made_s[departures.next :] < end_s) + departures.next
    if not len(kept):
        return None
    due_s = [departures.due_s[i] for i in kept]
    left = _Departures(
        track=departures.track,
        datagrams=departures.datagrams[kept],
        length=[departures.length[i] for i in kept],
        due_s=due_s,
        row=departures.row[kept],
        made_s=departures.made_s[kept],
    )
    return due_s[0], order, left
