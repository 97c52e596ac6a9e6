"""RTCP as it arrives: parsed, matched to tracks, and told to the pipeline.

It shares the ports of RTP (RFC 5761), behind STREP headers or plain. A sender's report belongs to
the track of its call leg and direction that its SSRC feeds; what a report says of a source that it
receives belongs to that source's track, usually the other direction of the leg. Plain RTP without
a binding is matched by addresses, RTCP on the port above RTP's (RFC 3550 section 11) too.

A few packets every five seconds: Python one by one, so many a second at most.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from strep.receive.tracks import NO_ROW
from strep.wire import Kind, WireError
from strep.wire.rtcp import Description, Goodbye, Report, parse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from pipeline.pipeline import Pipeline
    from strep.receive.tracks import TrackTable
    from strep.wire import PacketBatch
    from strep.wire.rtcp import ReportBlock, RtcpPacket

    FlowIds = Callable[
        [NDArray[np.uint8], NDArray[np.uint8], NDArray[np.int64]], NDArray[np.uint64]
    ]

MAX_PER_SECOND = 4000
"""Datagrams of RTCP that are looked at; twenty thousand tracks send as many."""
_SECOND_NS = 1_000_000_000


class RtcpListener:
    """Tells `pipeline` what RTCP says of its tracks; `table` and `flow_ids` name them.

    `unix_offset_ns` is what must be added to arrival times for nanoseconds since 1970.
    """

    def __init__(
        self, pipeline: Pipeline, table: TrackTable, flow_ids: FlowIds, *, unix_offset_ns: int
    ) -> None:
        self.counts = dict.fromkeys(("matched", "unknown", "malformed", "skipped"), 0)
        """Datagrams of RTCP: those that told of an open track, of none, that are no RTCP, and
        that came beyond `MAX_PER_SECOND`."""
        self._pipeline = pipeline
        self._table = table
        self._flow_ids = flow_ids
        self._unix_offset_ns = unix_offset_ns
        self._second = 0
        self._heard = 0

    def hear(
        self,
        batch: PacketBatch,
        slots: NDArray[np.intp],
        leg_id: NDArray[np.uint64],
        side: NDArray[np.uint8],
    ) -> None:
        """Take the datagrams of RTCP in a batch: their slots, and whose media they come with.

        `leg_id` is (2, n), all zeros for plain RTCP without a binding, and `side` is (n,).
        """
        second = int(batch.arrival_ns[slots[-1]]) // _SECOND_NS
        if second != self._second:
            self._second, self._heard = second, 0
        room = min(len(slots), MAX_PER_SECOND - self._heard)
        self._heard += room
        self.counts["skipped"] += len(slots) - room
        for i, slot in enumerate(slots[:room].tolist()):
            content = batch.datagram(slot)
            if batch.kind[slot] == Kind.STREP:
                content = content[content[1] :]
            try:
                packets = parse(content)
            except WireError:
                self.counts["malformed"] += 1
                continue
            words = leg_id[:, i].copy()
            way = (
                _Leg(words, int(side[i]))
                if words.any()
                else _Flow(batch.source[slot], batch.destination[slot], self._flow_ids)
            )
            arrival_ns = int(batch.arrival_ns[slot])
            is_known = [self._tell(packet, way, arrival_ns) for packet in packets]
            self.counts["matched" if any(is_known) else "unknown"] += 1

    def _tell(self, packet: RtcpPacket, way: _Leg | _Flow, arrival_ns: int) -> bool:
        """Tell the pipeline; True where that was of an open track."""
        reports = self._pipeline.reports
        match packet:
            case Report():
                known = [
                    self._received(packet.ssrc, each, way, arrival_ns) for each in packet.blocks
                ]
                row = self._row(way.same(packet.ssrc), packet.ssrc)
                if row == NO_ROW:
                    return any(known)
                if packet.sender is not None:
                    reports.sent(
                        row,
                        packet.ssrc,
                        ntp=packet.sender.ntp,
                        rtp_timestamp=packet.sender.rtp_timestamp,
                        packets=packet.sender.packets,
                        octets=packet.sender.octets,
                        arrival_ns=arrival_ns,
                        arrival_unix_ns=arrival_ns + self._unix_offset_ns,
                    )
                return True
            case Description():
                row = self._row(way.same(packet.ssrc), packet.ssrc)
                if row != NO_ROW:
                    reports.described(row, packet.ssrc, packet.cname)
                return row != NO_ROW
            case Goodbye():
                rows = [self._row(way.same(ssrc), ssrc) for ssrc in packet.ssrcs]
                for row, ssrc in zip(rows, packet.ssrcs, strict=True):
                    if row != NO_ROW:
                        reports.left(row, ssrc, packet.why)
                return any(row != NO_ROW for row in rows)

    def _received(self, by: int, block: ReportBlock, way: _Leg | _Flow, arrival_ns: int) -> bool:
        row = self._row(way.other(block.ssrc), block.ssrc)
        if row == NO_ROW:
            return False
        self._pipeline.reports.received(
            row,
            by,
            fraction_lost=block.fraction_lost,
            cumulative_lost=block.cumulative_lost,
            jitter_s=block.jitter / self._pipeline.statistics.clock_rate_hz(row),
            last_report=block.last_report,
            since_report_s=block.since_report_s,
            arrival_ns=arrival_ns,
        )
        return True

    def _row(self, keys: Iterator[tuple[NDArray[np.uint64], int]], ssrc: int) -> int:
        """Return the first open track of these keys that the source feeds, or `NO_ROW`."""
        for words, side in keys:
            found, _ = self._table.lookup(words[:1], words[1:], np.array([side], np.uint8))
            row = int(found[0])
            if row != NO_ROW and self._pipeline.is_fed_by(row, ssrc):
                return row
        return NO_ROW


class _Leg:
    """The tracks of a call leg, by STREP or a port's binding."""

    def __init__(self, words: NDArray[np.uint64], side: int) -> None:
        self._words = words
        self._side = side

    def same(self, ssrc: int) -> Iterator[tuple[NDArray[np.uint64], int]]:
        """Give out the keys of the track that a source sends on."""
        del ssrc
        yield self._words, self._side

    def other(self, ssrc: int) -> Iterator[tuple[NDArray[np.uint64], int]]:
        """Give out the keys of what the same party may receive: first the other direction."""
        del ssrc
        for bits in (0b01, 0b00, 0b10, 0b11):
            yield self._words, self._side ^ bits


class _Flow:
    """The tracks between two addresses, of plain RTP that no binding names."""

    def __init__(
        self, source: NDArray[np.uint8], destination: NDArray[np.uint8], flow_ids: FlowIds
    ) -> None:
        self._ends = (source.copy()[None], destination.copy()[None])
        self._flow_ids = flow_ids

    def same(self, ssrc: int) -> Iterator[tuple[NDArray[np.uint64], int]]:
        """Give out the keys of the track that a source sends on."""
        source, destination = self._ends
        for ends in ((source, destination), (_below(source), _below(destination))):
            yield self._flow_ids(*ends, np.array([ssrc]))[:, 0], 0

    def other(self, ssrc: int) -> Iterator[tuple[NDArray[np.uint64], int]]:
        """Give out the keys of what the same party may receive: first what comes to it."""
        source, destination = self._ends
        for ends in (
            (destination, source),
            (_below(destination), _below(source)),
            (source, destination),
            (_below(source), _below(destination)),
        ):
            yield self._flow_ids(*ends, np.array([ssrc]))[:, 0], 0


def _below(endpoint: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the address with the even port below an odd one, (1, 24)."""
    even = endpoint.copy()
    even[0, 17] &= 0xFE
    return even
