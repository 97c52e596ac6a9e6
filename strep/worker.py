"""A worker: receives on its sockets and feeds the sinks.

With one worker it lives in the daemon's own process; of several, each has a process, see
`strep.workerprocess`.
"""

from __future__ import annotations

import sys
import threading
import time
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any, NamedTuple

import structlog

from pipeline.decoders import load_library
from pipeline.dispatch import Dispatcher
from pipeline.formats import declared_format
from strep.callbook import CallBook
from strep.calls import open_calls
from strep.figures import Figures
from strep.pauses import PauseFiles
from strep.portpairs import PortPairs
from strep.receive.admission import Admission
from strep.receive.drain import Drain, Port
from strep.receive.gate import GateSettings
from strep.receive.heap import settle_collector, settle_heap
from strep.receive.readers import open_reader
from strep.receive.receiver import Binding, Receiver
from strep.sinks import make_sinks, write_manifests
from strep.tracknews import TrackNews, closed_entry, opened_entry
from strep.wire import Direction, Leg, PacketBatch

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
    from uuid import UUID

    from pipeline.block import Track, TrackSummary
    from pipeline.dispatch import Results
    from pipeline.formats import Format
    from strep.callbook import Earlier, Facts
    from strep.config import LogFormat, LogLevel, Settings
    from strep.specs import Listener
    from strep.tracknews import What

logger = structlog.get_logger("strep")

SWITCH_INTERVAL_S = 0.001
"""So long may a sink's thread keep the receive loop waiting for the interpreter, each time the loop
comes out of the kernel. With Python's own 5 ms a flood fills the buffer while files are made."""


def preload() -> None:
    """Load what some packet may need: all others would have to wait for it then."""
    load_library()


class Worker:
    """Receiver, drain and sinks, from settings; `sockets` are those of `settings.media`.

    `tell` is told on the event loop of each track that was opened or closed; see `TrackNews`.
    Raises `SinkError`, as `start` does. The sockets are closed by `stop`.
    """

    def __init__(
        self,
        settings: Settings,
        sockets: Sequence[socket.socket],
        number: int = 0,
        *,
        tell: Callable[[What, str], None],
    ) -> None:
        settle_heap()
        settle_collector()
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        self.number = number
        self._book = CallBook()
        self._pending_leg_s = _pending_leg_s(settings)
        self._manifests_failed = 0
        self._counting = threading.Lock()
        """Tracks are closed on several threads."""
        self._news = TrackNews(tell)
        self.dispatcher = Dispatcher(
            make_sinks(settings.sinks, settings.recordings),
            on_closed=self._closed,
            facts=self._book.facts,
        )
        self._pause_files = PauseFiles(settings.recordings)
        self.receiver = Receiver(
            self.dispatcher,
            max_tracks=settings.max_tracks,
            idle_timeout_s=settings.idle_timeout_s,
            reorder_ms=settings.reorder_ms,
            max_gap_s=settings.max_gap_s,
            telephone_events=dict(settings.telephone_event_payload_types),
            learn_telephone_events=settings.learn_telephone_events,
            mouth_to_ear_ms=settings.mouth_to_ear_ms,
            max_ahead_s=settings.max_ahead_s,
            payload_types=settings.payload_types,
            declared=self._declared,
            concealment=settings.concealment,
            comfort_noise=settings.comfort_noise,
            unix_offset_ns=time.time_ns() - time.monotonic_ns(),
            admission=_admission(self._pending_leg_s),
            gate=Live.of(settings).gate(),
            on_opened=self._opened,
        )
        ports = [
            Port(
                open_reader(sock, merged=settings.merge_datagrams),
                0 if bound is None else self.receiver.bind(bound),
            )
            for sock, bound in zip(sockets, map(_binding, settings.media), strict=True)
        ]
        self.drain = Drain(
            self.receiver,
            ports,
            tick_ms=settings.tick_ms,
            batch=PacketBatch(slot_bytes=settings.slot_bytes),
        )
        self._pairs = PortPairs(
            self.receiver, self.drain, settings.control.port_host if settings.control else ""
        )

    def start(self) -> None:
        """Begin to receive, on the running event loop."""
        preload()
        self._news.start()
        self.dispatcher.start()
        for call_leg_id in self._pause_files.legs():  # before any packet of theirs is read
            self.dispatcher.pause(call_leg_id, 0)
        self.drain.start()

    def stop(self) -> None:
        """Read what is left, close all tracks and finish the sinks; waits for their disks.

        All that there is to tell was told then.
        """
        self.drain.stop()
        self.receiver.stop()
        self._news.deliver()

    # -- what it is told

    def announce(self, call_leg_id: UUID, facts: Facts) -> None:
        """Let a leg be known: its packets are admitted, and `facts` go to its manifests."""
        before = self._declared(call_leg_id)
        self._book.announce(call_leg_id, facts)
        if self._declared(call_leg_id) != before:
            self.receiver.pipeline.declare(call_leg_id)
        self.receiver.admit(call_leg_id)

    def forget(self, call_leg_id: UUID) -> None:
        """Let a leg be known no more."""
        self._book.forget(call_leg_id)
        self.receiver.forget(call_leg_id)

    def close_call(self, call_leg_id: UUID) -> None:
        """Close the leg's tracks, so that its recordings are finished."""
        self.receiver.close_call(call_leg_id)

    def pause(self, call_leg_id: UUID, *, is_paused: bool) -> None:
        """Keep no sound of the leg that arrives from now on, or keep it again."""
        tell = self.dispatcher.pause if is_paused else self.dispatcher.resume
        tell(call_leg_id, time.monotonic_ns())

    def remind(self, call_leg_id: UUID, earlier: Mapping[str, Earlier]) -> None:
        """Take in the leg's earlier recordings, by leg A or B, for the manifests of new ones."""
        self._book.remind(call_leg_id, earlier)

    def open_ports(self, pair: tuple[int, int], call_leg_id: UUID) -> None:
        """Receive the leg's plain RTP on a pair of ports; see `PortPairs.open`."""
        self._pairs.open(pair, call_leg_id)

    def close_ports(self, pair: tuple[int, int]) -> None:
        """Receive on a pair of ports no more."""
        self._pairs.close(pair)

    def drain_calls(self, further: Iterable[UUID] = ()) -> None:
        """Take no new call legs, see `Receiver.take_no_new`; running ones go on."""
        self.receiver.take_no_new(further)

    def reload(self, live: Live) -> None:
        """Take in settings that changed; known legs are to be announced again after it."""
        self.receiver.idle_timeout_ns = round(live.idle_timeout_s * 1e9)
        self.receiver.pipeline.mouth_to_ear_ms = live.mouth_to_ear_ms
        self.receiver.set_gate(live.gate())
        if self._pending_leg_s != live.pending_leg_s:
            self._pending_leg_s = live.pending_leg_s
            self.receiver.set_admission(_admission(live.pending_leg_s))

    # -- what it says

    def figures(self) -> Figures:
        """Return what was counted so far, and what there is now."""
        receiver, runners = self.receiver, self.dispatcher.runners
        packets = receiver.pipeline.counters().as_dict()
        waiting = {name: packets.pop(name) for name in ("held", "on_probation")}
        datagrams = receiver.datagrams
        datagrams.pop("on_probation")
        waiting["pending"] = datagrams.pop("pending")
        return Figures(
            datagrams_read=receiver.read,
            datagrams_merged=self.drain.merged,
            datagrams=datagrams,
            packets=packets,
            tracks_opened=receiver.tracks_opened,
            tracks_closed={str(why): count for why, count in receiver.tracks_closed.items()},
            sink_frames={runner.name: runner.frames for runner in runners},
            sink_dropped_frames={runner.name: runner.dropped_frames for runner in runners},
            sink_errors={runner.name: runner.errors for runner in runners},
            sink_counters={runner.name: dict(runner.sink.counters()) for runner in runners},
            sink_restarts={runner.name: runner.restarts for runner in runners},
            tracks_distributed=receiver.pipeline.distributions.as_dict(),
            rtcp=dict(receiver.rtcp.counts),
            news_dropped=self._news.dropped,
            manifests_failed=self._manifests_failed,
            pair_kernel_drops=self._pairs.kernel_drops,
            cpu_s=time.process_time(),
            tracks_open=len(receiver.table),
            waiting=waiting,
            legs_pending=receiver.legs_pending,
            sink_queue_bytes={runner.name: runner.queued_bytes for runner in runners},
            sink_off={runner.name: int(not runner.is_on) for runner in runners},
            sink_gauges={runner.name: dict(runner.sink.gauges()) for runner in runners},
        )

    def calls(self) -> AsyncIterator[str]:
        """Give out the open calls; see `open_calls`."""
        return open_calls(self.receiver.pipeline, self.number, self._book.facts)

    def _declared(self, call_leg_id: UUID) -> Format | None:
        """Return the codec that a leg may have under any dynamic payload type."""
        codecs = (self._book.facts(call_leg_id) or {}).get("codecs")
        return declared_format(codecs) if isinstance(codecs, str) else None

    # -- what happens to tracks

    def _opened(self, track: Track) -> None:
        self._book.opened(track.call_leg_id)
        self._news.put("opened", opened_entry(track))

    def _closed(self, track: Track, summary: TrackSummary, results: Results) -> None:
        """Write the manifests, and say that a track was closed; on the thread of its last sink."""
        call_leg_id = track.call_leg_id
        recorded: dict[str, Any] = {
            "call": self._book.facts(call_leg_id),
            "earlier": self._book.earlier(call_leg_id, track.leg),
        }
        try:
            failed = write_manifests(track, summary, results, **recorded)
            with self._counting:
                self._manifests_failed += failed
        finally:
            self._book.closed(call_leg_id)
            self._news.put("closed", closed_entry(track, summary, results))
            _log_closed(track, summary, results)


def _log_closed(track: Track, summary: TrackSummary, results: Results) -> None:
    recording = next((r["recording"] for r in results.values() if "recording" in r), None)
    logger.info(
        "track closed",
        call_leg_id=str(track.call_leg_id),
        leg=track.leg,
        direction=track.direction,
        reason=summary.reason,
        duration_s=round(summary.duration_s, 3),
        packets=summary.packets,
        lost=summary.lost,
        late=summary.late,
        recording=recording,
    )


class Live(NamedTuple):
    """The settings of a worker that can change while it runs, ready for JSON."""

    log_format: LogFormat
    log_level: LogLevel
    idle_timeout_s: float
    mouth_to_ear_ms: float
    allowed_sources: Sequence[str]
    new_tracks_per_s: float
    new_tracks_burst: int
    source_timeout_s: float
    pending_leg_s: float | None
    """How long a leg that is not known is waited for; None where any leg is received."""

    @classmethod
    def of(cls, settings: Settings) -> Live:
        """Return them as the settings have them."""
        return cls(
            log_format=settings.log_format,
            log_level=settings.log_level,
            idle_timeout_s=settings.idle_timeout_s,
            mouth_to_ear_ms=settings.mouth_to_ear_ms,
            allowed_sources=[str(network) for network in settings.allowed_sources],
            new_tracks_per_s=settings.new_tracks_per_s,
            new_tracks_burst=settings.new_tracks_burst,
            source_timeout_s=settings.source_timeout_s,
            pending_leg_s=_pending_leg_s(settings),
        )

    def gate(self) -> GateSettings:
        """Return what the gate goes by."""
        return GateSettings(
            allowed_sources=tuple(map(ip_network, self.allowed_sources)),
            new_tracks_per_s=self.new_tracks_per_s,
            burst_tracks=self.new_tracks_burst,
            source_timeout_s=self.source_timeout_s,
        )


def _pending_leg_s(settings: Settings) -> float | None:
    control = settings.control
    if control is None or control.admission == "any":
        return None
    return control.pending_leg_s


def _admission(pending_leg_s: float | None) -> Admission | None:
    return None if pending_leg_s is None else Admission(wait_s=pending_leg_s)


def _binding(listener: Listener) -> Binding | None:
    """Return whose plain RTP a listener receives, if it is told."""
    if listener.call_leg_id is None or listener.direction is None:
        return None
    return Binding(listener.call_leg_id, Leg[listener.leg], Direction[listener.direction.upper()])
