"""What the daemon measures, for Prometheus: made of its workers' figures at each scrape.

Names carry their unit; docs/operations.md says what each means and what to do about it.
"""

from __future__ import annotations

from collections import Counter
from itertools import accumulate
from typing import TYPE_CHECKING, get_args

from prometheus_client import generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from strep import __version__
from strep.controlmetrics import labelled, of_memory, of_plane, of_webhooks
from strep.figures import State

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from prometheus_client.metrics_core import Metric

    from strep.control.figures import MemoryFigures, PlaneFigures
    from strep.control.webhooks import WebhookReceiver
    from strep.figures import Figures, Overview
    from strep.http import ConnectionsClosed

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
    "undecoded": "Released packets whose payload could not be decoded",
    "realignments": "Frames that stand where their arrival says, and not their timestamp",
}
_DISTRIBUTED = {
    "mos": "MOS of closed tracks by the E-model, lost packets silent",
    "mos_concealed": "MOS of closed tracks by the E-model, lost packets concealed",
    "loss_ratio": "Fraction of each track's packets that were given up",
    "discard_ratio": "Fraction of each track's packets that came after they had been given up",
    "loss_burst_packets": "Mean run of lost packets of each track that lost any",
    "jitter_seconds": "Mean interarrival jitter of each track",
    "drift_ppm": "How much each track's clock differs from the receiver's, either way",
}
_RECORDING_COUNTERS = {
    "recordings_failed": "Recordings that ended before their tracks, or never began",
    "recording_attempts_failed": "How often a recording's file could not be made, or had no space",
    "recordings_unencoded": "Files of recordings that stayed WAV and should not",
    "recording_syncs_failed": "How often a file could not be brought to disk while it was written",
}
_RECORDING_GAUGES = {
    "recordings_finishing": "Files of recordings that wait to be finished",
    "recordings_put_off": "Recordings that have no file yet, or cannot go on in theirs",
    "recordings_disk_low": "Workers in which no recordings begin, for want of space",
}
_WAITING = {
    "held": "Packets that wait behind a hole",
    "on_probation": "Packets that may begin a new sequence",
    "pending": "Packets of call legs that are not known yet",
}


_OF_PROCESS = (ProcessCollector(registry=None), PlatformCollector(registry=None))


def exposition(
    overview: Overview,
    kernel_drops: int,
    *,
    memory: MemoryFigures | None = None,
    plane: PlaneFigures | None = None,
    webhooks: WebhookReceiver | None = None,
    http: ConnectionsClosed | None = None,
    rescued: Mapping[str, int] | None = None,
) -> bytes:
    """Return the metrics of all workers and of this process in Prometheus' text format.

    `memory`, `plane`, `webhooks` and `http` where there are such; `rescued` are recordings that a
    killed process had left, by what became of them.
    """
    further: list[Iterable[Metric]] = []
    if rescued is not None:
        text = "Files of recordings that a killed process had left, by what became of them"
        further.append([labelled("strep_recordings_rescued", text, rescued, "outcome")])
    if http is not None:
        further.append(_http(http))
    if memory is not None:
        further.append(of_memory(memory))
    if plane is not None:
        further.append(of_plane(plane))
    if webhooks is not None:
        further.append(of_webhooks(webhooks))
    return generate_latest(_Families(overview, kernel_drops, further))


class _Families(Collector):
    def __init__(
        self, overview: Overview, kernel_drops: int, further: Iterable[Iterable[Metric]]
    ) -> None:
        self._overview = overview
        self._kernel_drops = kernel_drops
        self._further = further

    def collect(self) -> Iterator[Metric]:
        total = self._overview.total
        yield InfoMetricFamily("strep", "The running version", value={"version": __version__})
        yield from _workers(self._overview)
        yield from _datagrams(total, self._kernel_drops)
        yield from _packets(total)
        yield from _tracks(total)
        yield from _sinks(total)
        for families in self._further:
            yield from families
        for collector in _OF_PROCESS:
            yield from collector.collect()


def _workers(overview: Overview) -> Iterator[Metric]:
    states = Counter(worker.state for worker in overview.workers)
    workers = GaugeMetricFamily(
        "strep_workers",
        "Workers that receive (up), did not answer in time (silent) or are being replaced (down)",
        labels=["state"],
    )
    for state in get_args(State):
        workers.add_metric([state], states[state])
    cpu = CounterMetricFamily(
        "strep_worker_cpu_seconds", "Processor time of each worker", labels=["worker"]
    )
    for worker in overview.workers:
        cpu.add_metric([str(worker.number)], worker.figures.cpu_s)
    restarts = CounterMetricFamily(
        "strep_worker_restarts", "Workers that ended and were replaced", overview.restarts
    )
    yield from (workers, cpu, restarts)


def _datagrams(total: Figures, kernel_drops: int) -> Iterator[Metric]:
    yield CounterMetricFamily(
        "strep_datagrams_read", "Datagrams read from the sockets", total.datagrams_read
    )
    yield CounterMetricFamily(
        "strep_datagrams_merged",
        "Of those, datagrams that were read together with others as one",
        total.datagrams_merged,
    )
    yield labelled("strep_datagrams", "Datagrams by what became of them", total.datagrams)
    yield labelled("strep_rtcp", "Datagrams of RTCP by what became of them", total.rtcp, "outcome")
    yield CounterMetricFamily(
        "strep_kernel_drops",
        "Datagrams that the kernel dropped because the receive buffer was full",
        kernel_drops,
    )


def _packets(total: Figures) -> Iterator[Metric]:
    for name, text in _PACKETS.items():
        label = f"strep_packets_{name}" if name not in {"packets", "silence_samples"} else ""
        yield CounterMetricFamily(label or f"strep_{name}", text, total.packets.get(name, 0))
    for name, text in _WAITING.items():
        yield GaugeMetricFamily(f"strep_packets_{name}", text, total.waiting.get(name, 0))
    yield GaugeMetricFamily(
        "strep_legs_pending",
        "Call legs whose packets wait for them to be known",
        total.legs_pending,
    )


def _tracks(total: Figures) -> Iterator[Metric]:
    yield GaugeMetricFamily("strep_tracks_open", "Open tracks", total.tracks_open)
    yield CounterMetricFamily("strep_tracks_opened", "Tracks opened", total.tracks_opened)
    yield labelled("strep_tracks_closed", "Tracks closed", total.tracks_closed)
    for name, text in _DISTRIBUTED.items():
        yield _histogram(f"strep_track_{name}", text, total.tracks_distributed.get(name, {}))
    yield CounterMetricFamily(
        "strep_manifests_failed",
        "How often the manifest of a recording could not be written",
        total.manifests_failed,
    )
    yield CounterMetricFamily(
        "strep_track_news_dropped",
        "Openings and closings of tracks that were not told: too many waited",
        total.news_dropped,
    )


def _histogram(name: str, text: str, counts: Mapping[str, float]) -> Metric:
    """Return a histogram of counts as those of `Figures.tracks_distributed`."""
    family = HistogramMetricFamily(name, text)
    if counts:
        bounds = sorted((bound for bound in counts if bound != "sum"), key=float)
        sums = accumulate(counts[bound] for bound in bounds)
        family.add_metric([], list(zip(bounds, sums, strict=True)), counts["sum"])
    return family


def _sinks(total: Figures) -> Iterator[Metric]:
    yield labelled("strep_sink_frames", "Frames that a sink has taken", total.sink_frames, "sink")
    yield labelled(
        "strep_sink_dropped_frames",
        "Frames that a sink missed: its queue was full, or it was switched off",
        total.sink_dropped_frames,
        "sink",
    )
    yield labelled("strep_sink_errors", "Errors that a sink raised", total.sink_errors, "sink")
    yield labelled(
        "strep_sink_restarts",
        "Processes of a sink that ended and were started again",
        total.sink_restarts,
        "sink",
    )
    queued = GaugeMetricFamily(
        "strep_sink_queue_bytes", "Audio that waits for a sink", labels=["sink"]
    )
    for sink, size in total.sink_queue_bytes.items():
        queued.add_metric([sink], size)
    is_on = GaugeMetricFamily(
        "strep_sink_up", "0 where a sink was switched off after errors", labels=["sink"]
    )
    for sink, count in total.sink_off.items():
        is_on.add_metric([sink], float(not count))
    yield from (queued, is_on)
    for name, text in _RECORDING_COUNTERS.items():
        counts = {sink: of[name] for sink, of in total.sink_counters.items() if name in of}
        yield labelled(f"strep_{name}", text, counts, "sink")
    for name, text in _RECORDING_GAUGES.items():
        gauge = GaugeMetricFamily(f"strep_{name}", text, labels=["sink"])
        for sink, of in total.sink_gauges.items():
            if name in of:
                gauge.add_metric([sink], of[name])
        yield gauge


def _http(closed: ConnectionsClosed) -> Iterator[Metric]:
    yield labelled(
        "strep_http_connections_closed",
        "HTTP connections that were closed because there were too many, or they were quiet",
        closed._asdict(),
    )
