"""What the daemon measures, for Prometheus: read from the receiver's own counters at each scrape.

Names carry their unit; docs/operations.md says what each means and what to do about it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from strep import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.metrics_core import Metric

    from strep.receive.drain import Drain
    from strep.receive.receiver import Receiver

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_PACKETS = {
    "packets": "RTP packets that belong to a track",
    "released": "Packets released in order",
    "late": "Packets that came after they had been given up",
    "duplicate": "Packets that came twice",
    "lost": "Packets given up",
    "reordered": "Packets that came after a later one, but in time",
    "resets": "Restarts of a sequence: another SSRC, or a jump that was continued",
    "timestamp_gaps": "Silences told by the timestamps (DTX, hold)",
    "silence_samples": "Samples of silence and loss between frames",
}
_WAITING = {
    "held": "Packets that wait behind a hole",
    "on_probation": "Packets that may begin a new sequence",
}


class _ReceiverCollector(Collector):
    def __init__(self, receiver: Receiver, drain: Drain) -> None:
        self._receiver = receiver
        self._drain = drain

    def collect(self) -> Iterator[Metric]:
        receiver = self._receiver
        yield InfoMetricFamily("strep", "The running version", value={"version": __version__})
        yield CounterMetricFamily(
            "strep_datagrams_read", "Datagrams read from the sockets", receiver.read
        )
        datagrams = CounterMetricFamily(
            "strep_datagrams", "Datagrams by what became of them", labels=["reason"]
        )
        counts = receiver.datagrams
        counts.pop("on_probation")
        for reason, count in counts.items():
            datagrams.add_metric([reason], count)
        yield datagrams
        yield CounterMetricFamily(
            "strep_kernel_drops",
            "Datagrams that the kernel dropped because the receive buffer was full",
            self._drain.kernel_drops,
        )
        counters = receiver.pipeline.counters().as_dict()
        for name, text in _PACKETS.items():
            label = f"strep_packets_{name}" if name not in {"packets", "silence_samples"} else ""
            yield CounterMetricFamily(label or f"strep_{name}", text, counters[name])
        for name, text in _WAITING.items():
            yield GaugeMetricFamily(f"strep_packets_{name}", text, counters[name])
        yield GaugeMetricFamily("strep_tracks_open", "Open tracks", len(receiver.table))
        yield CounterMetricFamily("strep_tracks_opened", "Tracks opened", receiver.tracks_opened)
        closed = CounterMetricFamily("strep_tracks_closed", "Tracks closed", labels=["reason"])
        for reason, count in receiver.tracks_closed.items():
            closed.add_metric([reason], count)
        yield closed
        yield from self._sinks()

    def _sinks(self) -> Iterator[Metric]:
        frames = CounterMetricFamily(
            "strep_sink_frames", "Frames that a sink has taken", labels=["sink"]
        )
        dropped = CounterMetricFamily(
            "strep_sink_dropped_frames",
            "Frames that a sink missed: its queue was full, or it was switched off",
            labels=["sink"],
        )
        errors = CounterMetricFamily(
            "strep_sink_errors", "Errors that a sink raised", labels=["sink"]
        )
        queued = GaugeMetricFamily(
            "strep_sink_queue_bytes", "Audio that waits for a sink", labels=["sink"]
        )
        is_on = GaugeMetricFamily(
            "strep_sink_up", "0 where a sink was switched off after errors", labels=["sink"]
        )
        for runner in self._receiver.pipeline.dispatcher.runners:
            label = [runner.name]
            frames.add_metric(label, runner.frames)
            dropped.add_metric(label, runner.dropped_frames)
            errors.add_metric(label, runner.errors)
            queued.add_metric(label, runner.queued_bytes)
            is_on.add_metric(label, float(runner.is_on))
        yield from (frames, dropped, errors, queued, is_on)


class Metrics:
    """The metrics of one receiver and its process."""

    def __init__(self, receiver: Receiver, drain: Drain) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_ReceiverCollector(receiver, drain))
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)

    def exposition(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._registry)
