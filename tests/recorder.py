"""Calls recorded by the real receiver and sinks, on a clock that stands still until it is moved."""

from __future__ import annotations

from typing import TYPE_CHECKING

from packetmaker import MS
from wirecases import rtp, strep

from pipeline.dispatch import Dispatcher
from pipeline.sinks.vad import VadSink
from pipeline.sinks.wav import WavSink
from strep.receive.receiver import Receiver
from strep.sinks import write_manifests
from strep.wire import PacketBatch

if TYPE_CHECKING:
    from pathlib import Path
    from uuid import UUID

T0_NS = 1_767_225_600_000_000_000
"""2026-01-01T00:00:00Z: the clock's 0."""
SIDES = {"inbound": 0xC4, "outbound": 0xC5}


class InlineWav(WavSink):
    """Writes as it is told, in no thread of its own."""

    threaded = False


class Recorder:
    """`closed` has a track, its summary and its results for each track that was closed."""

    def __init__(self, folder: Path, **options: str) -> None:
        self.closed = []
        wav = InlineWav(directory=folder, flush_s=0.02, fsync_s=0, **options)
        dispatcher = Dispatcher({"wav": wav, "vad": VadSink()}, on_closed=self._on_closed)
        dispatcher.start()
        self.receiver = Receiver(dispatcher, unix_offset_ns=T0_NS)

    def receive(self, call: UUID, *directions: str, at_ms: int, packets: int = 10) -> None:
        """Receive 20 ms packets of a call, the first at `at_ms`, and have them on disk."""
        batch = PacketBatch(2 * packets, 512)
        for i in range(packets):
            for direction in directions:
                packet = rtp(bytes([i + 1]) * 160, sequence=i, timestamp=160 * i, ssrc=1)
                arrival_ns = (at_ms + 20 * i) * MS
                batch.add(strep(packet, call, first=SIDES[direction]), arrival_ns)
        self.receiver.receive(batch)
        self.receiver.tick((at_ms + 20 * packets + 1000) * MS)

    def _on_closed(self, track, summary, results) -> None:
        write_manifests(track, summary, results)
        self.closed.append((track, summary, results))
