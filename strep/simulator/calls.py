"""Calls as the carrier knows them, and the switchboard that all that happens to them goes over.

Pure: what is to be done in the world (webhooks, media) is put down as effects, and time is an
argument, in seconds of the simulation.
"""

from __future__ import annotations

import heapq
import random
from base64 import urlsafe_b64encode
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import count
from typing import TYPE_CHECKING, Any, Literal, TypeAlias
from uuid import UUID

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable
    from datetime import datetime

    from strep.simulator.dialogue import Gathering, Prompt
    from strep.simulator.scenario import Scenario
    from strep.specs import Address

StreamType = Literal["raw", "decrypted"]
MANY_TIMERS = 10_000
"""Only among more of them is it worth while to look for those of calls that are over."""


class State(StrEnum):
    """What a call is doing."""

    INITIATED = "initiated"
    RINGING = "ringing"
    ANSWERED = "answered"
    BRIDGED = "bridged"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Fork:
    """Where the media of a call goes: to `target` as STREP, or to `rx` and `tx` as plain RTP."""

    stream_type: StreamType
    target: Address | None
    rx: Address | None
    tx: Address | None


@dataclass(slots=True)
class Recording:
    """The carrier's own recording, of which there is no audio here."""

    recording_id: UUID
    channels: str
    format: str
    started_s: float
    paused: bool = False


@dataclass(slots=True, eq=False, kw_only=True)
class Call:
    """One leg of a call."""

    control_id: str
    """Names the call in commands."""
    leg_id: UUID
    """Names it in packets."""
    session_id: UUID
    connection_id: str
    direction: Literal["incoming", "outgoing"]
    from_: str
    to: str
    scenario: Scenario
    seed: int
    """Of everything random in it."""
    webhook_url: str | None
    webhook_method: str
    begun_s: float
    client_state: str | None = None
    state: State = State.INITIATED
    answered_s: float | None = None
    ended_s: float | None = None
    hangup_cause: str | None = None
    partner: Call | None = None
    """The call that it is bridged with."""
    parks: bool = False
    """Whether it stays when the partner leaves."""
    queue: str | None = None
    forks: dict[StreamType, Fork] = field(default_factory=dict)
    recording: Recording | None = None
    stream_url: str | None = None
    prompts: deque[Prompt]
    """What is played, and what waits to be."""
    overlay: Prompt | None = None
    gathering: Gathering | None = None
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What commands were answered, by their command_id."""

    @property
    def is_up(self) -> bool:
        """Whether it was answered and goes on."""
        return self.state in {State.ANSWERED, State.BRIDGED}

    @property
    def ended(self) -> bool:
        """Whether it is over."""
        return self.state is State.ENDED


@dataclass(frozen=True, slots=True)
class Notice:
    """A webhook to be sent."""

    call: Call
    url: str | None
    method: str
    event: dict[str, Any]
    """The document's `data`."""


@dataclass(frozen=True, slots=True)
class MediaChange:
    """A fork is to send the media of so many legs: 0 when it is over, 2 while it is bridged."""

    call: Call
    fork: Fork
    legs: int


Effect: TypeAlias = Notice | MediaChange


class Switchboard:
    """Ids, timers and effects. `wall` gives the wall clock's time for one of the simulation's."""

    def __init__(self, *, seed: int, wall: Callable[[float], datetime]) -> None:
        self.wall = wall
        self.effects: list[Effect] = []
        self._random = random.Random(seed)  # noqa: S311 -- reproducible ids of pretended calls
        self._timers: list[tuple[float, int, Call, Callable[[float], None]]] = []
        self._most_timers = MANY_TIMERS
        self._order = count()

    def new_id(self) -> UUID:
        """Return a UUID, the same ones for the same seed."""
        return UUID(int=self._random.getrandbits(128), version=4)

    def new_control_id(self) -> str:
        """Return a call_control_id, which looks like the carrier's own."""
        octets = self._random.getrandbits(8 * 39).to_bytes(39, "big")
        return f"v3:{urlsafe_b64encode(octets).decode()}"

    def notify(self, call: Call, event_type: str, now_s: float, **payload: Any) -> None:
        """Send a webhook; None in the payload stands for no such key."""
        common = {
            "call_control_id": call.control_id,
            "call_leg_id": str(call.leg_id),
            "call_session_id": str(call.session_id),
            "client_state": call.client_state,
            "connection_id": call.connection_id,
        }
        event = {
            "event_type": event_type,
            "id": str(self.new_id()),
            "occurred_at": rfc3339(self.wall(now_s)),
            "payload": {k: v for k, v in {**common, **payload}.items() if v is not None},
            "record_type": "event",
        }
        self.effects.append(Notice(call, call.webhook_url, call.webhook_method, event))

    def send_media(self, call: Call, fork: Fork, legs: int) -> None:
        """Let a fork send the media of so many legs."""
        self.effects.append(MediaChange(call, fork, legs))

    def later(self, call: Call, due_s: float, do: Callable[[float], None]) -> None:
        """Do something at a time, unless the call has ended by then."""
        if len(self._timers) > self._most_timers:
            self._timers = [timer for timer in self._timers if not timer[2].ended]
            heapq.heapify(self._timers)
            self._most_timers = max(MANY_TIMERS, 2 * len(self._timers))
        heapq.heappush(self._timers, (due_s, next(self._order), call, do))

    @property
    def next_s(self) -> float | None:
        """When the next timer is due."""
        return self._timers[0][0] if self._timers else None

    def tick(self, now_s: float) -> None:
        """Do what is due, each at its own time."""
        while self._timers and self._timers[0][0] <= now_s:
            due_s, _, call, do = heapq.heappop(self._timers)
            if not call.ended:
                do(due_s)


def rfc3339(moment: datetime) -> str:
    """Return a moment of UTC as in `2018-02-02T22:25:27.521992Z`."""
    return f"{moment:%Y-%m-%dT%H:%M:%S.%f}Z"
