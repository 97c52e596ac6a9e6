"""Replay of a capture: its RTP, sent as a carrier would fork it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from uuid import UUID

import numpy as np

from strep.receive.capture import CaptureReader
from strep.receive.receiver import flow_ids
from strep.sender import SendReport, send_paced
from strep.wire import DropReason, Kind, PacketBatch, StrepHeader

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

Wrapping = Literal["strep", "rtp"] | None
"""Send all packets with a STREP header, all without, or each as it was captured."""


@dataclass(frozen=True, slots=True)
class Replay:
    """The datagrams of a capture, ready to be sent."""

    datagrams: list[bytes]
    due_s: list[float]
    """When each is due, from the first one on, never decreasing."""
    stream: list[int]
    """Which of the capture's streams each belongs to, from 0."""
    streams: int
    skipped: int
    """Datagrams of the capture that are no RTP."""
    cut: str | None
    """One sentence where the capture ends in the middle."""


def load(capture: Path, wrapping: Wrapping = None) -> Replay:
    """Read the RTP of a capture. Raises `CaptureError`.

    A stream is what one source sends to one destination with one SSRC; wrapped in STREP, it is
    leg A inbound of the call_leg_id that `strep analyze` gives it too.
    """
    datagrams: list[bytes] = []
    due_ns: list[int] = []
    stream_of: list[int] = []
    headers: dict[UUID, tuple[int, bytes]] = {}
    skipped = 0
    batch = PacketBatch(slot_bytes=65536)
    with CaptureReader(capture) as reader:
        while count := reader.read(batch):
            batch.parse()
            accepted = np.flatnonzero(batch.reason[:count] == DropReason.ACCEPTED)
            skipped += count - len(accepted)
            for row, flow in zip(accepted.tolist(), _flows(batch, accepted), strict=True):
                number, header = headers.setdefault(flow, (len(headers), StrepHeader(flow).pack()))
                datagrams.append(_wrapped(batch, row, header, wrapping))
                due_ns.append(int(batch.arrival_ns[row]))
                stream_of.append(number)
    start_ns = due_ns[0] if due_ns else 0
    due_s = np.maximum.accumulate((np.array(due_ns, np.int64) - start_ns) / 1e9)
    return Replay(datagrams, due_s.tolist(), stream_of, len(headers), skipped, reader.cut)


async def send(
    replay: Replay,
    to: tuple[str, int],
    *,
    speed: float = 1.0,
    progress: Callable[[int], None] | None = None,
) -> SendReport:
    """Send a loaded capture, each stream from a port of its own; see `send_paced`."""
    return await send_paced(
        replay.datagrams, replay.due_s, to, speed=speed, sources=replay.stream, progress=progress
    )


def _flows(batch: PacketBatch, rows: NDArray[np.intp]) -> list[UUID]:
    """Return the call_leg_id of each packet: its own, or that of its flow of plain RTP."""
    ids = flow_ids(batch.source[rows], batch.destination[rows], batch.ssrc[rows])
    is_strep = batch.kind[rows] == Kind.STREP
    ids[:, is_strep] = batch.call_leg_id[:, rows[is_strep]]
    return [UUID(bytes=octets.tobytes()) for octets in ids.T]


def _wrapped(batch: PacketBatch, row: int, header: bytes, wrapping: Wrapping) -> bytes:
    datagram = batch.datagram(row)
    is_strep = batch.kind[row] == Kind.STREP
    if wrapping == "strep" and not is_strep:
        return header + datagram
    if wrapping == "rtp" and is_strep:
        return bytes(datagram[datagram[1] :])
    return bytes(datagram)
