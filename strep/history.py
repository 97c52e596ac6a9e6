"""What was recorded of a call leg before: looked up for whoever records it now.

A call goes on in another file after its tracks were closed, its worker has died or the daemon was
started again. So whenever a track opens, the database is asked for earlier recordings of its call
leg, and its worker is told, for the manifest. What came to be known too late for that, because the
daemon ended or the earlier recording was still to be finished, is added to the manifest afterwards;
so is who called whom, to that of a recording that its worker did not live to finish.
"""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from pipeline.utc import rfc3339
from strep.recovery import find_recordings
from strep.sinks import complete_manifest
from strep.store import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from uuid import UUID

    from strep.callbook import Earlier
    from strep.control.memory import Memory
    from strep.storage import Storage
    from strep.store import Store, StoredTrack

logger = structlog.get_logger("strep")

MAX_WAITING = 10_000
"""Call legs that wait to be looked up; beyond, manifests lack earlier recordings."""
MOST_EARLIER = 100
"""Recordings of a leg that are told, the latest ones."""


class History:
    """Looks up and tells earlier recordings; asyncio, one thread.

    `remind(call_leg_id, earlier)` tells the worker; `folders` are where recordings may be.
    """

    def __init__(
        self,
        storage: Storage,
        memory: Memory,
        folders: Sequence[Path],
        remind: Callable[[UUID, Mapping[str, Earlier]], None],
    ) -> None:
        self._storage = storage
        self._memory = memory
        self._folders = folders
        self._remind = remind
        self._wanted: dict[UUID, None] = {}
        self._interrupted: list[StoredTrack] = []
        self._working: asyncio.Task[None] | None = None

    def look_up(self, call_leg_id: UUID) -> None:
        """Have the earlier recordings of a leg told."""
        if len(self._wanted) < MAX_WAITING:
            self._wanted[call_leg_id] = None
            self._work()

    def interrupted(self, tracks: Iterable[StoredTrack]) -> None:
        """Have the recordings found of tracks that nobody closed."""
        self._interrupted += tracks
        if self._interrupted:
            self._work()

    async def complete(self, legs: Iterable[UUID]) -> None:
        """Name earlier recordings in manifests that were written before those were known.

        Of these legs, but for those that have open tracks: their workers write the manifests.
        """
        busy = self._memory.open_legs()
        idle = [each for each in legs if str(each) not in busy]
        await self._memory.written()
        try:
            await self._storage.execute(partial(_complete, self._storage.store, idle))
        except StoreError as error:
            logger.warning("earlier recordings cannot be looked up", error=str(error))

    async def tell_calls(self, tracks: Iterable[StoredTrack]) -> None:
        """Say whose they are in the manifests of tracks that nobody closed."""
        manifests = {t.manifest: t.call_leg_id for t in tracks if t.manifest is not None}
        await self._memory.written()
        try:
            await self._storage.execute(partial(_tell_calls, self._storage.store, manifests))
        except StoreError as error:
            logger.warning("calls cannot be looked up", error=str(error))

    async def settled(self) -> None:
        """Wait until all that was asked for is done."""
        while self._working is not None:
            await asyncio.wait([self._working])

    def _work(self) -> None:
        if self._working is None:
            self._working = asyncio.create_task(self._work_off())

    async def _work_off(self) -> None:
        try:
            while self._interrupted or self._wanted:
                interrupted, self._interrupted = self._interrupted, []
                wanted, self._wanted = self._wanted, {}
                try:
                    if interrupted:
                        await self._find(interrupted)
                    if wanted:
                        await self._tell(wanted)
                except StoreError as error:
                    logger.warning("earlier recordings cannot be looked up", error=str(error))
        except Exception:
            # a defect of ours: said with its traceback, and the daemon goes on
            logger.exception("earlier recordings")
        finally:
            self._working = None

    async def _find(self, tracks: Sequence[StoredTrack]) -> None:
        found = await self._storage.execute(partial(find_recordings, self._folders, tracks))
        for track in found:
            self._memory.add_track(track)

    async def _tell(self, legs: Iterable[UUID]) -> None:
        await self._memory.written()
        all_earlier = await self._storage.execute(partial(_look_up, self._storage.store, legs))
        for call_leg_id, earlier in all_earlier.items():
            self._remind(call_leg_id, earlier)


def _look_up(store: Store, legs: Iterable[UUID]) -> dict[UUID, dict[str, list[dict[str, Any]]]]:
    """Return the recordings of those legs that have any, by A and B."""
    found = {leg: _recordings(store.tracks(str(leg))) for leg in legs}
    return {leg: recordings for leg, recordings in found.items() if recordings}


def _complete(store: Store, legs: Iterable[UUID]) -> None:
    for call_leg_id in legs:
        tracks = store.tracks(str(call_leg_id))
        recordings = _recordings(tracks)
        began_ns: dict[tuple[str, str], int] = {}
        for track in tracks:
            if track.manifest is not None:
                key = track.leg, track.manifest
                began_ns[key] = min(track.opened_ns, began_ns.get(key, track.opened_ns))
        for (leg, manifest), at_ns in began_ns.items():
            earlier = [each for each in recordings.get(leg, ()) if _is_before(each, rfc3339(at_ns))]
            _complete_manifest(manifest, earlier=earlier)


def _tell_calls(store: Store, manifests: Mapping[str, str]) -> None:
    for manifest, call_leg_id in manifests.items():
        call = store.call(call_leg_id)
        if call is not None:
            _complete_manifest(manifest, call=call)


def _complete_manifest(manifest: str, **further: Any) -> None:
    try:
        complete_manifest(Path(manifest), **further)
    except (OSError, LookupError, TypeError, ValueError) as error:
        logger.warning("manifest not completed", path=manifest, error=str(error))


def _is_before(recording: Mapping[str, Any], at: str) -> bool:
    """Tell whether a recording was over by then, or begun by then by who is no more."""
    return str(recording["ended_at"] or recording["started_at"]) <= at


def _recordings(tracks: Iterable[StoredTrack]) -> dict[str, list[dict[str, Any]]]:
    """Return the recordings of tracks by A and B, in the order in which they began."""
    by_recording: dict[tuple[str, str], list[StoredTrack]] = {}
    for track in tracks:
        if track.recording is not None:
            by_recording.setdefault((track.leg, track.recording), []).append(track)
    recordings: dict[str, list[dict[str, Any]]] = {}
    for (leg, recording), parts in by_recording.items():
        ends = [part.ended_ns for part in parts if part.ended_ns is not None]
        recordings.setdefault(leg, []).append(
            {
                "recording": recording,
                "started_at": rfc3339(min(part.opened_ns for part in parts)),
                "ended_at": rfc3339(max(ends)) if len(ends) == len(parts) else None,
            }
        )
    return {leg: each[-MOST_EARLIER:] for leg, each in recordings.items()}
