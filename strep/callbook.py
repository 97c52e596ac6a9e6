"""What a worker was told of call legs, for the manifests of their recordings."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    Facts = Mapping[str, Any]
    """What is known of a call, ready for JSON."""
    Earlier = Sequence[Mapping[str, Any]]
    """Earlier recordings of a call leg, ready for JSON."""


@dataclass(slots=True)
class Page:
    """What was told of a call leg."""

    facts: Facts | None = None
    """None where the leg is not, or no more, announced and nothing was told before."""
    earlier: Mapping[str, Earlier] | None = None
    """By the recording's leg, A or B."""
    is_announced: bool = False
    tracks: int = 0
    """Those that the sinks have not closed yet."""


class CallBook:
    """A page for each call leg that is announced, or has tracks that are not closed yet.

    So what was told stays until the last recording of the leg is finished, which happens after the
    leg was forgotten. From any thread.
    """

    def __init__(self) -> None:
        self._pages: dict[UUID, Page] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._pages)

    def announce(self, call_leg_id: UUID, facts: Facts) -> None:
        """Take in what is known of a leg, instead of what was known before."""
        with self._lock:
            page = self._pages.setdefault(call_leg_id, Page())
            page.facts, page.is_announced = facts, True

    def forget(self, call_leg_id: UUID) -> None:
        """Let go of a leg, as soon as its recordings are finished."""
        with self._lock:
            page = self._pages.get(call_leg_id)
            if page is not None:
                page.is_announced = False
                self._turn(call_leg_id, page)

    def remind(self, call_leg_id: UUID, earlier: Mapping[str, Earlier]) -> None:
        """Take in a leg's earlier recordings, while it has tracks."""
        with self._lock:
            page = self._pages.get(call_leg_id)
            if page is not None and page.tracks:
                page.earlier = earlier

    def opened(self, call_leg_id: UUID) -> None:
        """Take in that a track was opened."""
        with self._lock:
            self._pages.setdefault(call_leg_id, Page()).tracks += 1

    def closed(self, call_leg_id: UUID) -> None:
        """Take in that a track was closed by all sinks and its manifest written."""
        with self._lock:
            page = self._pages[call_leg_id]
            page.tracks -= 1
            self._turn(call_leg_id, page)

    def facts(self, call_leg_id: UUID) -> Facts | None:
        """Return what is known of a leg."""
        page = self._pages.get(call_leg_id)
        return None if page is None else page.facts

    def earlier(self, call_leg_id: UUID, leg: str) -> Earlier:
        """Return the earlier recordings of a call leg's leg A or B."""
        page = self._pages.get(call_leg_id)
        return () if page is None or page.earlier is None else page.earlier.get(leg, ())

    def _turn(self, call_leg_id: UUID, page: Page) -> None:
        if not page.is_announced and not page.tracks:
            del self._pages[call_leg_id]
