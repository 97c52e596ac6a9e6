"""The control plane: joins the carrier's commands and webhooks with what the workers receive.

It lives on the daemon's event loop. What happens (an event, a track, a request, the passing of
time) is taken in at once, by pure objects; what follows from it is done by tasks. So nobody waits
for the carrier or for a disk but those who asked for something.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID

import structlog

from strep.control.calls import Calls, moment_ns
from strep.control.driver import Driver
from strep.control.errors import AuthenticationError
from strep.control.events import (
    EVENT_TYPES,
    CallAnswered,
    CallEvent,
    CallForkStarted,
    CallForkStopped,
    CallHangup,
    CallInitiated,
)
from strep.control.figures import PlaneFigures
from strep.control.forks import (
    CallOverError,
    ForkError,
    ForkParameterError,
    UnknownForkError,
)
from strep.control.opener import PortOpener

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from strep.control.calls import Call
    from strep.control.driver import Carrier
    from strep.control.events import Event
    from strep.control.forks import Change, Fork, StreamType, Way
    from strep.control.memory import Memory
    from strep.control.ports import PortPair
    from strep.control.settings import ControlSettings
    from strep.store import StoredTrack

logger = structlog.get_logger("strep.control")

TICK_S = 0.1
"""How often the plane looks at the time."""


class Workers(PortOpener, Protocol):
    """Who receives the media. What is told of a leg is told again when it changes."""

    def announce(self, call_leg_id: UUID, facts: Mapping[str, Any]) -> None:
        """Let a leg be known: its packets are admitted, and `facts` (JSON) go to its manifests."""
        ...

    def forget(self, call_leg_id: UUID) -> None:
        """Let a leg be known no more."""
        ...

    def close_call(self, call_leg_id: UUID) -> None:
        """Close the leg's tracks, so that its recordings are finished."""
        ...


class ControlPlane:
    """What the daemon knows of calls and does with their forks; asyncio, one thread.

    `clock` gives nanoseconds since 1970 and never goes back: the monotonic clock, moved once.
    """

    def __init__(
        self,
        settings: ControlSettings,
        *,
        carrier: Carrier,
        workers: Workers,
        memory: Memory,
        clock: Callable[[], int],
    ) -> None:
        self.calls = Calls(pending_ns=_ns(settings.pending_leg_s))
        self.announced: dict[UUID, Mapping[str, Any]] = {}
        """What the workers were told of which legs; a new worker has to be told it."""
        self._settings = settings
        self._workers = workers
        self._memory = memory
        self._clock = clock
        self._driver = Driver(
            settings,
            carrier=carrier,
            opener=workers,
            memory=memory,
            clock=clock,
            on_change=self._on_change,
            on_call_over=self._on_call_over,
        )
        self._closings: OrderedDict[UUID, int] = OrderedDict()
        """Legs whose tracks are to be closed, and when, in this order: when nothing can be under
        way to them any more."""
        self._webhooks: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._foreign_forks = 0
        self._ticker: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Go on where the last daemon ended, and begin to look at the time.

        To be called when the workers receive, before webhooks are taken in. Raises `StoreError`.
        """
        now_ns = self._clock()
        calls, forks = await self._memory.load(now_ns, _ns(self._settings.first_media_timeout_s))
        for call in calls:
            self.calls.add(call)
            self._share(call)
        await self._driver.restore(forks)
        for call in calls:
            self._share(call)  # now with its fork
        self._ticker = asyncio.create_task(self._tick_forever())

    async def stop(self) -> None:
        """Leave forks as they are, for the next daemon, and write what is known of them.

        To be called when the workers have ended and all that they said was taken in.
        """
        if self._ticker is not None:
            self._ticker.cancel()
            with suppress(asyncio.CancelledError):
                await self._ticker
        await self._driver.stop()
        if not await self._memory.written():
            logger.error("not all of calls and forks could be written to the store")

    # -- what users want

    async def start_fork(
        self,
        call_control_id: str,
        *,
        call_leg_id: UUID | None = None,
        way: Way | None = None,
        stream_type: StreamType | None = None,
        client_state: str | None = None,
        codecs: str | None = None,
    ) -> Fork:
        """Start a fork; return it when the carrier has answered, or as in doubt if it has not.

        What is None is as the settings say; `client_state` is Base64; `codecs` is what the call's
        media may be, see `declared_format`. Raises `ForkError` where there can be none, and the
        error of the command where the carrier refuses it.
        """
        try:
            fork = self._driver.request(
                call_control_id,
                self._leg_of(call_control_id, call_leg_id),
                "asked",
                way=way,
                stream_type=stream_type,
                client_state=client_state,
            )
        except ForkError as error:
            self._refused[error.kind] += 1
            raise
        call = self.calls.known(call_control_id, fork.call_leg_id, self._clock())
        call.codecs = codecs or call.codecs
        self._learned(call)
        return await self._tried(fork)

    async def stop_fork(self, fork_id: UUID) -> Fork:
        """Stop a fork; return it when the carrier has answered, or as in doubt if it has not.

        One that is closed is returned as it is. Raises `UnknownForkError`, and the command's error
        where the carrier refuses the key.
        """
        fork = self.fork(fork_id)
        fork.stop(self._clock())
        self._driver.follow(fork)
        return await self._tried(fork)

    def fork(self, fork_id: UUID) -> Fork:
        """Return a fork; raises `UnknownForkError`."""
        fork = self._driver.get(fork_id)
        if fork is None:
            raise UnknownForkError(f"there is no fork {fork_id}, or it was closed long ago")
        return fork

    def forks(self) -> list[Fork]:
        """Return the open forks and those that were closed lately, in the order of requests."""
        return sorted(self._driver, key=lambda fork: fork.changes[0].at_ns)

    # -- what the carrier says

    def on_event(self, event: Event) -> None:
        """Take in a webhook's event, which was verified."""
        now_ns = self._clock()
        known_type = event.event_type in EVENT_TYPES
        self._webhooks[event.event_type if known_type else "other"] += 1
        if not isinstance(event, CallEvent):
            return
        before = self.calls.by_leg(event.call_leg_id)
        was_answered = before is not None and before.answered_ns is not None
        was_over = before is not None and before.is_over
        call = self.calls.told(event, now_ns)
        fork = self._driver.latest(call.call_control_id)
        occurred_ns = moment_ns(event.occurred_at, now_ns)
        match event:
            case CallForkStarted() | CallForkStopped() if fork is None:
                self._foreign_forks += 1
                if isinstance(event, CallForkStopped):
                    self._close_later(event.call_leg_id)
            case CallForkStarted() if fork is not None:
                fork.carrier_started(now_ns, occurred_ns)
            case CallForkStopped() if fork is not None:
                fork.carrier_stopped(now_ns, occurred_ns)
            case CallHangup() if fork is not None:
                fork.call_over(now_ns)
            case CallAnswered() if fork is None and not was_answered:
                self._fork_by_rule(call)
            case CallInitiated() if fork is None and was_answered:
                # overtaken by the answer, it may bring the direction that a rule asks for
                self._fork_by_rule(call)
        if call.is_over and not was_over:
            self._close_later(event.call_leg_id)
        self._learned(call)

    # -- what the workers receive

    def track_opened(self, entry: Mapping[str, Any], worker: int = 0) -> None:
        """Take in that a worker opened a track; see `StoredTrack.of` for the entry."""
        now_ns = self._clock()
        self._memory.keep_track(entry, worker)
        call = self.calls.track_opened(*_leg_and_side(entry), now_ns)
        if call is not None:
            self._learned(call)

    def track_closed(self, entry: Mapping[str, Any], worker: int = 0) -> None:
        """Take in that a worker closed a track; see `StoredTrack.of` for the entry."""
        now_ns = self._clock()
        self._memory.keep_track(entry, worker)
        if entry.get("reason") in {"gap", "rate"}:
            return  # its next segment was opened before
        call = self.calls.track_closed(*_leg_and_side(entry), now_ns)
        if call is not None and not call.tracks and entry.get("reason") == "idle":
            fork = self._driver.latest(call.call_control_id)
            if fork is not None:
                fork.silent(now_ns)
                self._driver.follow(fork)

    def worker_died(self, worker: int) -> list[StoredTrack]:
        """Take in that a worker left its tracks open, and return them.

        `announced` and `open_ports` are for its successor.
        """
        interrupted = self._memory.interrupt_tracks(worker)
        for track in interrupted:
            side = (track.leg, track.direction)
            self.calls.track_closed(UUID(track.call_leg_id), side, self._clock())
        return interrupted

    @property
    def open_ports(self) -> Mapping[PortPair, UUID]:
        """The port pairs that are open, and the call leg that each is for."""
        return self._driver.ports.open

    # -- the passing of time

    def tick(self, now_ns: int) -> None:
        """Do what is due by now."""
        self._driver.tick(now_ns)
        while self._closings and next(iter(self._closings.values())) <= now_ns:
            self._close(next(iter(self._closings)))
        for call in self.calls.tick(now_ns):
            self._memory.keep_call(call)
            fork = self._driver.latest(call.call_control_id)
            if call.call_leg_id is not None and (fork is None or not fork.is_open):
                self._forget(call.call_leg_id)
        self._memory.write()

    def take_no_new(self) -> list[UUID]:
        """Drain: refuse new forks from now on; return the call legs whose forks are open."""
        self._driver.is_draining = True
        legs = (fork.call_leg_id for fork in self._driver.unsettled if fork.is_open)
        return [leg for leg in legs if leg is not None]

    @property
    def awaits_media(self) -> bool:
        """Whether there are forks of which no packet has come yet, and one still may."""
        return any(fork.state in {"requested", "started"} for fork in self._driver.unsettled)

    def reload(self, settings: ControlSettings) -> None:
        """Take in settings that differ in what can change; see `strep.reload`."""
        self._settings = self._driver.settings = settings

    def figures(self) -> PlaneFigures:
        """Return what was counted so far, and what there is now."""
        driver, pool = self._driver, self._driver.ports.pool
        unsettled = driver.unsettled
        return PlaneFigures(
            webhooks=dict(self._webhooks),
            fork_changes=dict(driver.changes),
            commands=dict(driver.commands),
            refused=dict(self._refused),
            foreign_forks=self._foreign_forks,
            calls=replace(self.calls.counts),
            forks=Counter(fork.state for fork in unsettled if fork.is_open),
            forks_in_doubt=sum(fork.in_doubt for fork in unsettled),
            calls_known=len(self.calls),
            legs_pending=self.calls.pending,
            port_pairs=len(pool),
            port_pairs_held=pool.held,
            port_pairs_resting=pool.resting,
        )

    # -- helpers

    async def _tick_forever(self) -> None:
        while True:
            try:
                self.tick(self._clock())
            except Exception:
                # a defect of ours: said with its traceback, and the daemon goes on
                logger.exception("control plane")
            await asyncio.sleep(TICK_S)

    async def _tried(self, fork: Fork) -> Fork:
        error = await self._driver.tried(fork)
        if error is not None and (fork.state == "failed" or isinstance(error, AuthenticationError)):
            raise error
        return fork

    def _leg_of(self, call_control_id: str, call_leg_id: UUID | None) -> UUID | None:
        """Return a call's leg: the one that was told, or else the given one. Raises `ForkError`."""
        call = self.calls.by_control_id(call_control_id)
        if call is not None and call.is_over:
            raise CallOverError("the call is over")
        if call is not None and call.call_leg_id is not None:
            if call_leg_id not in {None, call.call_leg_id}:
                raise ForkParameterError(
                    f"call_leg_id {call_leg_id} is not this call's, which has {call.call_leg_id}"
                )
            return call.call_leg_id
        other = None if call_leg_id is None else self.calls.by_leg(call_leg_id)
        if other is not None and other.call_control_id not in {None, call_control_id}:
            raise ForkParameterError(f"call_leg_id {call_leg_id} is another call's")
        return call_leg_id

    def _fork_by_rule(self, call: Call) -> None:
        if call.call_control_id is None or call.is_over:
            return
        rule = next((each for each in self._settings.auto_fork if each.fits(call)), None)
        if rule is None:
            return
        call.codecs = rule.codecs.replace("+", ",") or call.codecs
        try:
            self._driver.request(call.call_control_id, call.call_leg_id, "rule")
        except ForkError as error:
            self._refused[error.kind] += 1
            logger.warning(
                "an answered call cannot be forked",
                call_leg_id=str(call.call_leg_id),
                reason=error.kind,
                error=str(error),
            )

    def _learned(self, call: Call) -> None:
        """Do what follows from something new about a call."""
        now_ns = self._clock()
        fork = self._driver.latest(call.call_control_id)
        if fork is not None:
            if call.call_leg_id is not None:
                fork.named(call.call_leg_id, now_ns)
            if call.tracks:
                fork.packet(now_ns)
            self._driver.follow(fork)
        self._memory.keep_call(call)
        self._share(call)

    def _share(self, call: Call) -> None:
        """Tell the workers what is known of a call, unless they know it."""
        if call.call_leg_id is None:
            return
        if call.is_over and not call.tracks and call.call_leg_id not in self.announced:
            return  # it was forgotten with good reason
        facts = call.facts()
        fork = self._driver.latest(call.call_control_id)
        if fork is not None:
            facts["fork_id"] = str(fork.id)
        if self.announced.get(call.call_leg_id) != facts:
            self.announced[call.call_leg_id] = facts
            self._workers.announce(call.call_leg_id, facts)

    def _on_change(self, fork: Fork, change: Change) -> None:
        """Do what follows from a fork's new state."""
        if fork.call_leg_id is None:
            return
        if change.state == "requested":
            # what the call's last fork left is finished before the new one begins
            if fork.call_leg_id in self._closings:
                self._close(fork.call_leg_id)
        elif change.state == "stopped" and fork.at_ns("flowing") is not None:
            self._close_later(fork.call_leg_id)

    def _on_call_over(self, fork: Fork) -> None:
        """Do what follows when a webhook or the answer to a command said that a call is over."""
        call = self.calls.known(fork.call_control_id, fork.call_leg_id, self._clock())
        self.calls.over(call, self._clock())
        self._memory.keep_call(call)
        self._share(call)
        if call.call_leg_id is not None:
            self._close_later(call.call_leg_id)

    def _close_later(self, call_leg_id: UUID) -> None:
        self._closings.setdefault(call_leg_id, self._clock() + _ns(self._settings.stop_grace_s))

    def _close(self, call_leg_id: UUID) -> None:
        del self._closings[call_leg_id]
        call = self.calls.by_leg(call_leg_id)
        if call is not None:
            # at once, so that they are not taken for those of a fork that follows
            call.tracks.clear()
        self._workers.close_call(call_leg_id)
        if call is None or call.is_over:
            self._forget(call_leg_id)

    def _forget(self, call_leg_id: UUID) -> None:
        if self.announced.pop(call_leg_id, None) is not None:
            self._workers.forget(call_leg_id)


def _leg_and_side(entry: Mapping[str, Any]) -> tuple[UUID, tuple[str, str]]:
    return UUID(entry["call_leg_id"]), (entry["leg"], entry["direction"])


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)
