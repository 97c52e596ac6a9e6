"""What the control plane keeps on disk, written off the event loop, and reads after a restart.

Of a call or a fork only the newest state is to be written, so that what waits for a slow disk is no
more than one record of each. Tracks are another matter: each one counts, up to a bound.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast
from uuid import UUID

import structlog

from strep.control.calls import ENDED_NS, LIVE_NS, Call
from strep.control.figures import MemoryFigures
from strep.control.forks import Change, Fork
from strep.control.ports import PortPair
from strep.store import INTERRUPTED, StoredCall, StoredFork, StoredTrack, StoreError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from contextlib import AbstractContextManager

    from strep.control.forks import Why
    from strep.store import Page

logger = structlog.get_logger("strep.control")

T = TypeVar("T")
Record = StoredCall | StoredFork | StoredTrack
Key = tuple[str, str, str, int]
"""What tells a track from all others: its call_leg_id, leg, direction and opening."""

MAX_TRACKS_WAITING = 100_000


class Keeper(Protocol):
    """The part of `strep.store.Store` that is used here."""

    def together(self) -> AbstractContextManager[None]: ...  # noqa: D102 -- as in Store
    def put_call(self, call: StoredCall) -> None: ...  # noqa: D102 -- as in Store
    def put_fork(self, fork: StoredFork) -> None: ...  # noqa: D102 -- as in Store
    def put_track(self, track: StoredTrack) -> None: ...  # noqa: D102 -- as in Store
    def unsettled_forks(self) -> list[StoredFork]: ...  # noqa: D102 -- as in Store
    def calls_ended_since(self, moment_ns: int) -> list[StoredCall]: ...  # noqa: D102 -- as in Store
    def search(self, *, is_open: bool, limit: int | None) -> Page: ...  # noqa: D102


class Execute(Protocol):
    """Runs work in the one thread that the store is used from."""

    def __call__(self, work: Callable[[], T], /) -> Awaitable[T]:
        """Return what the work returns, when it is done."""
        ...


class Memory:
    """Calls, forks and tracks in a store; asyncio, one thread, but for `execute`'s."""

    def __init__(self, store: Keeper, execute: Execute) -> None:
        self._store = store
        self._execute = execute
        self._latest: dict[str, StoredCall | StoredFork] = {}
        """What is to be written, by the id of its call leg or fork."""
        self._tracks: deque[StoredTrack] = deque()
        self._open_tracks: dict[tuple[int, *Key], StoredTrack] = {}
        """By their worker and what tells them from others."""
        self._given = 0
        """How many records were given to be written..."""
        self._written = 0
        """...and how many of them are on disk, or superseded."""
        self._writing: asyncio.Task[None] | None = None
        self._is_failing = False
        self.errors = 0
        """How often the store could not be written."""
        self.dropped_tracks = 0
        """Tracks that will not be found in the store, because too many waited for it."""

    @property
    def waiting(self) -> int:
        """How many records wait to be written."""
        return len(self._latest) + len(self._tracks)

    def figures(self) -> MemoryFigures:
        """Return what was counted so far, and what there is now."""
        return MemoryFigures(self.errors, self.dropped_tracks, self.waiting)

    def keep_call(self, call: Call) -> None:
        """Write what is known of a call, where its leg is known."""
        if call.call_leg_id is not None:
            self._keep_latest(str(call.call_leg_id), _stored_call(call))

    def keep_fork(self, fork: Fork) -> None:
        """Write what is known of a fork."""
        self._keep_latest(str(fork.id), _stored_fork(fork))

    def keep_track(self, entry: Mapping[str, Any], worker: int) -> None:
        """Write a track that was opened or closed; see `StoredTrack.of`."""
        track = StoredTrack.of(entry, worker)
        if track.reason is None:
            self._open_tracks[worker, *_key(track)] = track
        else:
            self._open_tracks.pop((worker, *_key(track)), None)
        self.add_track(track)

    def add_track(self, track: StoredTrack) -> None:
        """Write what is known of a track, be it open or not."""
        if len(self._tracks) >= MAX_TRACKS_WAITING:
            self.dropped_tracks += 1
            return
        self._tracks.append(track)
        self._given += 1
        self.write()

    def open_legs(self) -> set[str]:
        """Return the ids of the call legs that have open tracks."""
        return {track.call_leg_id for track in self._open_tracks.values()}

    def write(self) -> None:
        """Begin to write what waits, unless that is under way."""
        if self._writing is None and self.waiting:
            self._writing = asyncio.create_task(self._write())

    async def written(self) -> bool:
        """Wait until all that was given before is on disk; False where that could not be."""
        wanted, errors = self._given, self.errors
        self.write()
        while self._written < wanted and self.errors == errors and self._writing is not None:
            await asyncio.shield(self._writing)
        return self._written >= wanted

    async def load(self, now_ns: int, first_media_timeout_ns: int) -> tuple[list[Call], list[Fork]]:
        """Return the calls that were open and forks that were not settled when the last one ended.

        Its open tracks are interrupted already. Calls that cannot last any longer are marked as
        over. Those that have just ended are returned too, for what may come late of them. Raises
        `StoreError`.
        """

        def read() -> tuple[list[StoredCall], list[StoredCall], list[StoredFork]]:
            page = self._store.search(is_open=True, limit=None)
            ended = self._store.calls_ended_since(now_ns - ENDED_NS)
            return [each.call for each in page.calls], ended, self._store.unsettled_forks()

        calls, ended, forks = await self._execute(read)
        for call in calls:
            if call.started_ns <= now_ns - LIVE_NS:
                over = replace(call, state="lost", ended_ns=call.started_ns + LIVE_NS)
                self._keep_latest(call.call_leg_id, over)
        recent = [call for call in calls if call.started_ns > now_ns - LIVE_NS]
        return (
            [_call(stored, now_ns) for stored in (*recent, *ended)],
            [_fork(stored, first_media_timeout_ns) for stored in forks],
        )

    def interrupt_tracks(self, worker: int) -> list[StoredTrack]:
        """Mark the open tracks of a worker that died, and return them."""
        interrupted = [
            replace(track, reason=INTERRUPTED)
            for (of, *_), track in self._open_tracks.items()
            if of == worker
        ]
        for track in interrupted:
            del self._open_tracks[worker, *_key(track)]
            self.add_track(track)
        return interrupted

    def _keep_latest(self, key: str, record: StoredCall | StoredFork) -> None:
        self._latest[key] = record
        self._given += 1
        self.write()

    async def _write(self) -> None:
        """Write until nothing waits; after an error, what could not be written waits on."""
        try:
            while self.waiting:
                latest, self._latest = self._latest, {}
                tracks, self._tracks = self._tracks, deque()
                given = self._given
                # calls first: forks and tracks are theirs
                records: list[Record] = sorted(
                    latest.values(), key=lambda each: isinstance(each, StoredFork)
                )
                records += tracks
                try:
                    await self._execute(partial(self._put, records))
                except StoreError as error:
                    self._latest = latest | self._latest
                    self._tracks = tracks + self._tracks
                    self.errors += 1
                    if not self._is_failing:
                        logger.warning("the store cannot be written for now", error=str(error))
                    self._is_failing = True
                    return
                if self._is_failing:
                    logger.info("the store can be written again")
                self._is_failing = False
                self._written = given
        finally:
            self._writing = None

    def _put(self, records: list[Record]) -> None:
        with self._store.together():
            for record in records:
                match record:
                    case StoredCall():
                        self._store.put_call(record)
                    case StoredFork():
                        self._store.put_fork(record)
                    case StoredTrack():
                        self._store.put_track(record)


def _key(track: StoredTrack) -> Key:
    return track.call_leg_id, track.leg, track.direction, track.opened_ns


def _stored_call(call: Call) -> StoredCall:
    return StoredCall(
        call_leg_id=str(call.call_leg_id),
        call_control_id=call.call_control_id,
        call_session_id=call.call_session_id,
        connection_id=call.connection_id,
        from_number=call.from_,
        to_number=call.to,
        direction=call.direction,
        client_state=call.client_state,
        state=call.state,
        started_ns=call.started_ns,
        answered_ns=call.answered_ns,
        ended_ns=call.ended_ns,
        hangup_cause=call.hangup_cause,
        codecs=call.codecs,
        told_ns=call.occurred_ns or None,
    )


def _call(stored: StoredCall, now_ns: int) -> Call:
    return Call(
        call_leg_id=UUID(stored.call_leg_id),
        call_control_id=stored.call_control_id,
        call_session_id=stored.call_session_id,
        connection_id=stored.connection_id,
        from_=stored.from_number,
        to=stored.to_number,
        direction=stored.direction,
        client_state=stored.client_state,
        state=stored.state,
        started_ns=stored.started_ns,
        answered_ns=stored.answered_ns,
        ended_ns=stored.ended_ns,
        hangup_cause=stored.hangup_cause,
        codecs=stored.codecs,
        occurred_ns=stored.told_ns or 0,
        heard_ns=now_ns,
    )


def _stored_fork(fork: Fork) -> StoredFork:
    return StoredFork(
        id=str(fork.id),
        call_control_id=fork.call_control_id,
        call_leg_id=None if fork.call_leg_id is None else str(fork.call_leg_id),
        state=fork.state,
        why=fork.why,
        way=fork.way,
        stream_type=fork.stream_type,
        rx_port=None if fork.pair is None else fork.pair.rx,
        tx_port=None if fork.pair is None else fork.pair.tx,
        requested_ns=fork.changes[0].at_ns,
        started_ns=fork.at_ns("started"),
        flowing_ns=fork.at_ns("flowing"),
        stopped_ns=None if fork.is_open else fork.changes[-1].at_ns,
        command_id=fork.command_id("fork_start"),
        client_state=fork.client_state,
        attempt=fork.attempt,
        ask=fork.ask,
        carrier_started_ns=fork.carrier_started_ns,
    )


def _fork(stored: StoredFork, first_media_timeout_ns: int) -> Fork:
    """Return the fork with what is known of its past."""
    is_requested, why = stored.state == "requested", cast("Why", stored.why)
    changes = [Change("requested", why if is_requested else "asked", stored.requested_ns)]
    if stored.started_ns is not None:
        changes.append(Change("started", "webhook", stored.started_ns))
    if stored.flowing_ns is not None:
        changes.append(Change("flowing", "packet", stored.flowing_ns))
    if stored.stopped_ns is not None:
        changes.append(Change(stored.state, why, stored.stopped_ns))
    return Fork(
        id=UUID(stored.id),
        call_control_id=stored.call_control_id,
        call_leg_id=None if stored.call_leg_id is None else UUID(stored.call_leg_id),
        way=stored.way,
        pair=None if stored.rx_port is None else PortPair(stored.rx_port, stored.rx_port + 1),
        stream_type="decrypted" if stored.stream_type == "decrypted" else "raw",
        client_state=stored.client_state,
        attempt=stored.attempt or 1,
        first_media_timeout_ns=first_media_timeout_ns,
        changes=changes,
        ask=stored.ask,
        carrier_started_ns=stored.carrier_started_ns,
    )
