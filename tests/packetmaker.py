"""Packets as columns for tests, from plain tuples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.packets import Packets

if TYPE_CHECKING:
    from collections.abc import Sequence

MS = 1_000_000


@dataclass(frozen=True)
class P:
    """One RTP packet; by default 20 ms of PCMU whose timestamp follows the sequence number."""

    row: int = 0
    sequence: int = 0
    arrival_ms: float = 0
    ssrc: int = 1
    payload_type: int = 0
    timestamp: int | None = None
    payload: bytes = bytes(160)

    @property
    def arrival_ns(self) -> int:
        return round(self.arrival_ms * MS)


def columns(packets: Sequence[P]) -> Packets:
    """Return packets as columns over a store of their own, payloads at offset 4."""
    longest = max((len(p.payload) for p in packets), default=0)
    store = np.full((len(packets), longest + 8), 0xA5, np.uint8)
    for i, p in enumerate(packets):
        store[i, 4 : 4 + len(p.payload)] = np.frombuffer(p.payload, np.uint8)
    timestamps = [p.sequence * 160 if p.timestamp is None else p.timestamp for p in packets]
    return Packets(
        rows=np.array([p.row for p in packets], np.intp),
        ssrc=np.array([p.ssrc for p in packets], np.int64),
        sequence=np.array([p.sequence & 0xFFFF for p in packets], np.int64),
        timestamp=np.array([t & 0xFFFFFFFF for t in timestamps], np.int64),
        payload_type=np.array([p.payload_type for p in packets], np.intp),
        arrival_ns=np.array([p.arrival_ns for p in packets], np.int64),
        store=store,
        slot=np.arange(len(packets)),
        offset=np.full(len(packets), 4, np.intp),
        length=np.array([len(p.payload) for p in packets], np.intp),
    )
