"""What is known of calls, joined from three sides that name them differently.

Commands name a call by its `call_control_id`, packets name its leg by `call_leg_id`, webhooks and
the answer to `dial` have both. Whatever comes first begins an entry, and what has both ids joins
two. Legs of which only packets have come wait in a small table of their own, which expires.

Pure: time is an argument, in nanoseconds since 1970 by a clock that never goes back. Everything
that the network can make grow is bounded and counted.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pipeline.utc import rfc3339
from strep.control.events import CallAnswered, CallHangup, CallInitiated

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

    from strep.control.events import CallEvent

Direction = Literal["incoming", "outgoing"]
Side = tuple[str, str]
"""Leg and direction of a track, such as `("A", "inbound")`."""

LIVE_NS = 5 * 3600 * 1_000_000_000
"""The carrier ends calls after four hours at most; an hour more, and a call's end was missed."""
ENDED_NS = 600 * 1_000_000_000
"""How long an ended call is remembered for what may come late of it."""

T = TypeVar("T")

_DIRECTIONS: dict[str | None, Direction] = {"incoming": "incoming", "outgoing": "outgoing"}
_STATES = {
    "call.initiated": "initiated",
    "call.answered": "answered",
    "call.bridged": "bridged",
}
_LATEST = datetime(2262, 1, 1, tzinfo=UTC)
"""Nanoseconds since 1970 have 64 bits until then."""


@dataclass(slots=True, kw_only=True, eq=False)
class Call:
    """A call leg; None is what nobody has told of it."""

    call_control_id: str | None = None
    call_leg_id: UUID | None = None
    call_session_id: str | None = None
    connection_id: str | None = None
    from_: str | None = None
    """A number or a SIP URI, as `to`."""
    to: str | None = None
    direction: Direction | None = None
    client_state: str | None = None
    """As the carrier has it, in base64."""
    codecs: str | None = None
    """What its media may be, as who asked for its fork said, separated by commas."""
    state: str | None = None
    """`initiated`, `answered`, `bridged` or `hangup`; or `lost`, where nothing was heard for longer
    than a call can last."""
    started_ns: int
    """When the call began or, where nobody said so, when it was first heard of."""
    answered_ns: int | None = None
    ended_ns: int | None = None
    hangup_cause: str | None = None
    hangup_source: str | None = None
    sip_hangup_cause: str | None = None
    tracks: set[Side] = field(default_factory=set)
    """Those that are open."""
    heard_ns: int
    """When there was the last sign of it."""
    occurred_ns: int = 0
    """When, by the carrier's clock, the latest of the events that told of it occurred."""

    @property
    def is_over(self) -> bool:
        """Whether its end was told."""
        return self.ended_ns is not None

    def facts(self) -> dict[str, Any]:
        """Return what is known, ready for JSON; what nobody has told is left out."""
        known = {
            "call_control_id": self.call_control_id,
            "call_leg_id": None if self.call_leg_id is None else str(self.call_leg_id),
            "call_session_id": self.call_session_id,
            "connection_id": self.connection_id,
            "from": self.from_,
            "to": self.to,
            "direction": self.direction,
            "client_state": self.client_state,
            "codecs": self.codecs,
            "state": self.state,
            "started_at": rfc3339(self.started_ns),
            "answered_at": None if self.answered_ns is None else rfc3339(self.answered_ns),
            "ended_at": None if self.ended_ns is None else rfc3339(self.ended_ns),
            "hangup_cause": self.hangup_cause,
            "hangup_source": self.hangup_source,
            "sip_hangup_cause": self.sip_hangup_cause,
        }
        return {key: value for key, value in known.items() if value is not None}


@dataclass(slots=True)
class _Pending:
    """A leg of which only packets have come."""

    since_ns: int
    tracks: set[Side]


@dataclass(slots=True)
class CallCounts:
    """What became of calls and of legs that were heard before anybody told of them."""

    expired: int = 0
    """Calls forgotten without their end having been told."""
    evicted: int = 0
    """Calls forgotten early, to make room."""
    conflicts: int = 0
    """Told pairs of ids that contradicted what was told before, and were not believed."""
    legs_joined: int = 0
    """Legs heard first and told of in time."""
    legs_expired: int = 0
    """Legs heard that nobody told of in time."""
    legs_refused: int = 0
    """Legs heard for which there was no room to wait."""


class Calls:
    """All calls that were told of and not forgotten, and the legs that wait to be told of."""

    def __init__(
        self, *, pending_ns: int, max_calls: int = 50_000, max_pending: int = 4_096
    ) -> None:
        self.counts = CallCounts()
        self._pending_ns = pending_ns
        self._max_calls = max_calls
        self._max_pending = max_pending
        self._by_control_id: dict[str, Call] = {}
        self._by_leg: dict[UUID, Call] = {}
        self._live: OrderedDict[int, Call] = OrderedDict()
        """By `id()`; who was heard of last comes last."""
        self._ended: OrderedDict[int, Call] = OrderedDict()
        """By `id()`; who was heard of last comes last."""
        self._pending: OrderedDict[UUID, _Pending] = OrderedDict()
        """Who came last comes last."""
        self._forgotten: list[Call] = []
        """Those that `tick` has not yet told."""

    def __len__(self) -> int:
        """Return how many calls are known, ended ones included."""
        return len(self._live) + len(self._ended)

    def __iter__(self) -> Iterator[Call]:
        """Go through the calls that are not known to be over."""
        return iter(self._live.values())

    @property
    def pending(self) -> int:
        """How many legs wait to be told of."""
        return len(self._pending)

    def by_control_id(self, call_control_id: str) -> Call | None:
        """Return the call of this id, None where there is none."""
        return self._by_control_id.get(call_control_id)

    def by_leg(self, call_leg_id: UUID) -> Call | None:
        """Return the call of this leg, None where there is none."""
        return self._by_leg.get(call_leg_id)

    def facts(self, call_leg_id: UUID) -> dict[str, Any]:
        """Return what is known of a leg's call; see `Call.facts`."""
        call = self._by_leg.get(call_leg_id)
        return {} if call is None else call.facts()

    # -- what is told

    def add(self, call: Call) -> None:
        """Add a call that was known before a restart, unless it is known already."""
        ids = (call.call_control_id, call.call_leg_id)
        if ids[0] in self._by_control_id or ids[1] in self._by_leg:
            return
        self._enter(call)

    def known(self, call_control_id: str | None, call_leg_id: UUID | None, now_ns: int) -> Call:
        """Return the call of these ids, one of which may be None; it is begun or joined by them.

        Of a pair of which one is known to belong to something else, only that one's call counts.
        """
        one = None if call_control_id is None else self._by_control_id.get(call_control_id)
        other = None if call_leg_id is None else self._by_leg.get(call_leg_id)
        if one is not other or one is None:
            one = self._join(one, other, call_control_id, call_leg_id, now_ns)
        self._touch(one, now_ns)
        return one

    def told(self, event: CallEvent, now_ns: int) -> Call:
        """Take in a webhook's event, whatever the order in which events come."""
        call = self.known(event.call_control_id, event.call_leg_id, now_ns)
        occurred_ns = moment_ns(event.occurred_at, now_ns)
        is_latest = occurred_ns >= call.occurred_ns
        call.call_session_id = call.call_session_id or event.call_session_id
        call.connection_id = call.connection_id or event.connection_id
        call.from_ = call.from_ or event.from_
        call.to = call.to or event.to
        if is_latest:
            call.occurred_ns = occurred_ns
            call.client_state = event.client_state or call.client_state
        state = _STATES.get(event.event_type)
        if state is not None and not call.is_over and (is_latest or call.state is None):
            call.state = state
        match event:
            case CallInitiated():
                call.started_ns = moment_ns(event.start_time, occurred_ns)
                call.direction = _DIRECTIONS.get(event.direction, call.direction)
            case CallAnswered():
                call.answered_ns = occurred_ns
            case CallHangup():
                call.hangup_cause = event.hangup_cause
                call.hangup_source = event.hangup_source
                call.sip_hangup_cause = event.sip_hangup_cause
                call.state = "hangup"
                self._end(call, occurred_ns)
        return call

    def over(self, call: Call, now_ns: int) -> None:
        """Take in that a call was found to be over."""
        if not call.is_over:
            call.state = "hangup"
            self._end(call, now_ns)

    # -- what is heard

    def track_opened(self, call_leg_id: UUID, side: Side, now_ns: int) -> Call | None:
        """Take in that packets come; None where nobody has told of this leg."""
        call = self._by_leg.get(call_leg_id)
        if call is not None:
            call.tracks.add(side)
            self._touch(call, now_ns)
            return call
        pending = self._pending.get(call_leg_id)
        if pending is not None:
            pending.tracks.add(side)
        elif len(self._pending) < self._max_pending:
            self._pending[call_leg_id] = _Pending(now_ns, {side})
        else:
            self.counts.legs_refused += 1
        return None

    def track_closed(self, call_leg_id: UUID, side: Side, now_ns: int) -> Call | None:
        """Take in that no more packets come; None where nobody has told of this leg."""
        call = self._by_leg.get(call_leg_id)
        if call is not None:
            call.tracks.discard(side)
            self._touch(call, now_ns)
        elif call_leg_id in self._pending:
            self._pending[call_leg_id].tracks.discard(side)
        return call

    # -- what is forgotten

    def tick(self, now_ns: int) -> list[Call]:
        """Bring the passing of time; return the calls that are forgotten now."""
        while (oldest := _first(self._ended)) and now_ns - oldest.heard_ns >= ENDED_NS:
            self._forget(oldest)
        while (oldest := _first(self._live)) and now_ns - oldest.heard_ns >= LIVE_NS:
            self._forget(oldest)
            oldest.state, oldest.ended_ns = "lost", oldest.heard_ns
            self.counts.expired += 1
        while (leg := _first(self._pending)) and now_ns - leg.since_ns >= self._pending_ns:
            self._pending.popitem(last=False)
            self.counts.legs_expired += 1
        forgotten, self._forgotten = self._forgotten, []
        return forgotten

    # -- helpers

    def _join(
        self,
        one: Call | None,
        other: Call | None,
        call_control_id: str | None,
        call_leg_id: UUID | None,
        now_ns: int,
    ) -> Call:
        """Return the call of a pair of ids that are not yet known as those of one call."""
        if one is not None and call_leg_id is not None and one.call_leg_id is not None:
            self.counts.conflicts += 1
            return one
        if other is not None and call_control_id is not None and other.call_control_id is not None:
            self.counts.conflicts += 1
            return one or other
        if one is not None and other is not None:
            self._drop(one)
            self._drop(other)
            _fill(one, other)
            self._enter(one)
            return one
        call = one or other
        if call is None:
            call = Call(
                call_control_id=call_control_id,
                call_leg_id=call_leg_id,
                started_ns=now_ns,
                heard_ns=now_ns,
            )
            self._enter(call)
        else:
            call.call_control_id = call.call_control_id or call_control_id
            call.call_leg_id = call.call_leg_id or call_leg_id
            self._index(call)
        return call

    def _enter(self, call: Call) -> None:
        if len(self) >= self._max_calls:
            oldest = _first(self._ended) or _first(self._live)
            if oldest is not None:
                self.counts.evicted += 1
                self._forget(oldest)
        self._index(call)
        (self._ended if call.is_over else self._live)[id(call)] = call

    def _index(self, call: Call) -> None:
        if call.call_control_id is not None:
            self._by_control_id[call.call_control_id] = call
        if call.call_leg_id is not None:
            self._by_leg[call.call_leg_id] = call
            pending = self._pending.pop(call.call_leg_id, None)
            if pending is not None:
                call.tracks |= pending.tracks
                self.counts.legs_joined += 1

    def _touch(self, call: Call, now_ns: int) -> None:
        call.heard_ns = now_ns
        (self._ended if call.is_over else self._live).move_to_end(id(call))

    def _end(self, call: Call, ended_ns: int) -> None:
        if call.ended_ns is None:
            del self._live[id(call)]
            self._ended[id(call)] = call
        call.ended_ns = ended_ns

    def _forget(self, call: Call) -> None:
        self._drop(call)
        if call.call_control_id is not None:
            del self._by_control_id[call.call_control_id]
        if call.call_leg_id is not None:
            del self._by_leg[call.call_leg_id]
        self._forgotten.append(call)

    def _drop(self, call: Call) -> None:
        del (self._ended if call.is_over else self._live)[id(call)]


def moment_ns(moment: datetime | None, otherwise_ns: int) -> int:
    """Return a moment in nanoseconds since 1970; `otherwise_ns` where there is none to be kept."""
    if moment is None or not 0 <= moment.timestamp() < _LATEST.timestamp():
        return otherwise_ns
    return round(moment.timestamp() * 1e6) * 1000


def _first(table: OrderedDict[Any, T]) -> T | None:
    return next(iter(table.values()), None)


def _fill(call: Call, other: Call) -> None:
    """Add to a call what another entry of the same call knows."""
    for each in fields(Call):
        if getattr(call, each.name) is None:
            setattr(call, each.name, getattr(other, each.name))
    if other.occurred_ns > call.occurred_ns:
        call.occurred_ns = other.occurred_ns
        call.client_state = other.client_state or call.client_state
        call.state = other.state or call.state
    if call.is_over:
        call.state = "hangup"
    call.started_ns = min(call.started_ns, other.started_ns)
    call.tracks |= other.tracks
