"""Analysis of a capture: through the very same path as live media, on the capture's clock."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipeline.dispatch import Dispatcher
from pipeline.manifest import track_entry
from pipeline.playout import DEFAULT_MAX_GAP_S
from strep.receive.capture import CaptureReader
from strep.receive.receiver import Receiver
from strep.sinks import recorded_files, write_manifests
from strep.wire import PacketBatch
from strep.wire.batch import LARGE_SLOT_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from pipeline.block import Track, TrackSummary
    from pipeline.dispatch import Results
    from pipeline.filling import ComfortNoise, Concealment
    from pipeline.formats import Format
    from pipeline.sinks.base import Sink

IDLE_TIMEOUT_S = 3600.0
"""Longer than live: nothing is gained by closing a track before its capture ends."""
MAX_TRACKS = 65_536


@dataclass(slots=True)
class Report:
    """What a capture holds."""

    capture: str
    datagrams: dict[str, int] = field(default_factory=dict)
    """Datagrams by what became of them, `accepted` or the reason why not."""
    rtcp: dict[str, int] = field(default_factory=dict)
    """What became of those that are RTCP: `matched` to a track, `unknown`, `malformed`, `skipped`
    because too many came at once."""
    skipped: dict[str, int] = field(default_factory=dict)
    """Frames that hold no UDP datagram, by reason."""
    cut: str | None = None
    """One sentence where the capture ends in the middle; what came before was analysed."""
    tracks: list[dict[str, Any]] = field(default_factory=list)
    """One entry per track, in the order in which they began; see `pipeline.manifest`."""
    recordings: list[str] = field(default_factory=list)
    """Paths of all files that were recorded, each once."""

    def as_json(self) -> dict[str, Any]:
        """Return the report for `json.dump`."""
        return {
            "capture": self.capture,
            "datagrams": {k: n for k, n in self.datagrams.items() if n or k == "accepted"},
            "rtcp": {k: n for k, n in self.rtcp.items() if n},
            "skipped": self.skipped,
            "cut": self.cut,
            "recordings": self.recordings,
            "tracks": self.tracks,
        }


def analyze(
    capture: Path,
    sinks: Mapping[str, Sink],
    *,
    reorder_ms: float = 60,
    payload_types: Mapping[int, Format] | None = None,
    max_gap_s: float = DEFAULT_MAX_GAP_S,
    telephone_events: Mapping[int, int] | None = None,
    learn_telephone_events: bool = False,
    concealment: Concealment = "silence",
    comfort_noise: ComfortNoise = "silence",
    progress: Callable[[float], None] | None = None,
) -> Report:
    """Read a capture to its end and return what it holds.

    `telephone_events` maps payload types to clocks, as in `Pipeline`, and `payload_types` say what
    dynamic ones stand for. `progress` is told the fraction read. Raises `CaptureError` and
    `SinkError`.
    """
    closed: list[tuple[Track, dict[str, Any]]] = []
    recordings: set[str] = set()

    def on_closed(track: Track, summary: TrackSummary, results: Results) -> None:
        write_manifests(track, summary, results)
        recordings.update(recorded_files(results))
        closed.append((track, track_entry(track, summary, results)))

    dispatcher = Dispatcher(sinks, on_closed=on_closed, wait_when_full=True)
    receiver = Receiver(
        dispatcher,
        max_tracks=MAX_TRACKS,
        idle_timeout_s=IDLE_TIMEOUT_S,
        reorder_ms=reorder_ms,
        max_gap_s=max_gap_s,
        telephone_events=telephone_events,
        learn_telephone_events=learn_telephone_events,
        payload_types=payload_types,
        concealment=concealment,
        comfort_noise=comfort_noise,
    )
    batch = PacketBatch(slot_bytes=LARGE_SLOT_BYTES)
    with CaptureReader(capture) as reader:
        dispatcher.start()
        try:
            while count := reader.read(batch):
                receiver.receive(batch)
                receiver.tick(int(batch.arrival_ns[:count].max()))
                if progress is not None:
                    progress(reader.progress)
        finally:
            receiver.stop()
    closed.sort(key=lambda entry: (entry[0].opened_ns, entry[0].row))
    datagrams = receiver.datagrams
    for waiting in ("on_probation", "pending"):
        datagrams.pop(waiting)  # none is left once all tracks are closed
    return Report(
        capture=str(capture),
        datagrams=datagrams,
        rtcp=dict(receiver.rtcp.counts),
        skipped=dict(reader.skipped),
        cut=reader.cut,
        tracks=[entry for _, entry in closed],
        recordings=sorted(recordings),
    )
