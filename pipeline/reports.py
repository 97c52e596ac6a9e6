"""What RTCP tells of tracks: their senders' clocks, and what arrives at the far end.

    "rtcp": {
      "sender": {
        "ssrc": "0x1b5d8c64", "reports": 12, "cname": "phone@192.0.2.7",
        "packets": 2980, "octets": 476800,
        "ntp_at": "2026-01-31T12:01:00.125Z", "rtp_timestamp": 480000, "clock_offset_ms": -3.2,
        "started_at": "2026-01-31T12:00:00.125Z", "goodbye": "call ended"
      },
      "far_end": {
        "ssrc": "0x0000beef", "reports": 12,
        "fraction_lost": 0.0039, "fraction_lost_max": 0.0117, "cumulative_lost": 14,
        "jitter_ms": 1.25, "jitter_max_ms": 4.5, "round_trip_ms": 42.1, "round_trip_max_ms": 50.0
      }
    }

Either part is there where such reports came, and speaks of the last one. `ntp_at` is what the
sender's clock said when its RTP clock said `rtp_timestamp` (RFC 3550 section 6.4.1), and
`clock_offset_ms` how far that is ahead of the receiver's clock at the report's arrival;
`started_at` is when the track's first packet was sampled, by the sender's clock. Null is what
cannot be told: a sender without a wall clock, a track that began with another SSRC.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from pipeline.sequence import distance32
from pipeline.utc import rfc3339

MAX_REMEMBERED = 8
"""Sender reports of a track that a report from the far end may answer."""
MAX_ROUND_TRIP_NS = 60_000_000_000
"""A longer one is not believed."""

_NTP_TO_UNIX_S = 2_208_988_800
_WALL_CLOCK = 1 << 63
"""An NTP time without this bit is one that counts from a start of its own (RFC 3550 section 6.4.1),
until 2036."""


@dataclass(slots=True)
class _Sender:
    ssrc: int
    reports: int = 0
    unix_ns: int | None = None
    rtp_timestamp: int | None = None
    offset_ns: int | None = None
    packets: int | None = None
    octets: int | None = None
    cname: str | None = None
    goodbye: str | None = None
    seen: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=MAX_REMEMBERED))
    """(middle of the NTP time, arrival) of the last reports."""


@dataclass(slots=True)
class _FarEnd:
    ssrc: int = 0
    reports: int = 0
    fraction_lost: float = 0.0
    fraction_lost_max: float = 0.0
    cumulative_lost: int = 0
    jitter_s: float = 0.0
    jitter_max_s: float = 0.0
    round_trip_ns: int | None = None
    round_trip_max_ns: int | None = None


class Reports:
    """What RTCP told of each open track, by row; nothing is kept of tracks without any."""

    def __init__(self) -> None:
        self._senders: dict[int, _Sender] = {}
        self._far_ends: dict[int, _FarEnd] = {}

    def sent(
        self,
        row: int,
        ssrc: int,
        *,
        ntp: int,
        rtp_timestamp: int,
        packets: int,
        octets: int,
        arrival_ns: int,
        arrival_unix_ns: int,
    ) -> None:
        """Take a sender report of the source that feeds a track; `ntp` is 32.32 bits."""
        sender = self._sender(row, ssrc)
        sender.reports += 1
        sender.packets, sender.octets = packets, octets
        sender.rtp_timestamp = rtp_timestamp
        sender.unix_ns = sender.offset_ns = None
        if ntp & _WALL_CLOCK:
            sender.unix_ns = (ntp * 1_000_000_000 >> 32) - _NTP_TO_UNIX_S * 1_000_000_000
            sender.offset_ns = sender.unix_ns - arrival_unix_ns
        sender.seen.append((ntp >> 16 & 0xFFFF_FFFF, arrival_ns))

    def described(self, row: int, ssrc: int, cname: str) -> None:
        """Take the canonical name of the source that feeds a track."""
        self._sender(row, ssrc).cname = cname

    def left(self, row: int, ssrc: int, why: str) -> None:
        """Take that the source that feeds a track said goodbye."""
        self._sender(row, ssrc).goodbye = why

    def received(
        self,
        row: int,
        by: int,
        *,
        fraction_lost: float,
        cumulative_lost: int,
        jitter_s: float,
        last_report: int,
        since_report_s: float,
        arrival_ns: int,
    ) -> None:
        """Take what another source, `by`, says that it receives of a track.

        `last_report` is the middle of the NTP time of the sender report that it answers, 0 for
        none, `since_report_s` how long it has had that.
        """
        far_end = self._far_ends.setdefault(row, _FarEnd())
        far_end.ssrc = by
        far_end.reports += 1
        far_end.fraction_lost = fraction_lost
        far_end.fraction_lost_max = max(far_end.fraction_lost_max, fraction_lost)
        far_end.cumulative_lost = cumulative_lost
        far_end.jitter_s = jitter_s
        far_end.jitter_max_s = max(far_end.jitter_max_s, jitter_s)
        sender = self._senders.get(row)
        seen_ns = dict(sender.seen).get(last_report) if sender and last_report else None
        if seen_ns is not None:
            round_trip_ns = arrival_ns - seen_ns - round(since_report_s * 1e9)
            if 0 <= round_trip_ns <= MAX_ROUND_TRIP_NS:
                far_end.round_trip_ns = round_trip_ns
                far_end.round_trip_max_ns = max(far_end.round_trip_max_ns or 0, round_trip_ns)

    def close(
        self, row: int, *, first_ssrc: int, first_timestamp: int, clock_rate_hz: int
    ) -> dict[str, Any] | None:
        """Forget a row and return what was told of it as in the module's example; None for nothing.

        `first_ssrc` and `first_timestamp` are those of its first packet, -1 where not known.
        """
        sender, far_end = self._senders.pop(row, None), self._far_ends.pop(row, None)
        entry: dict[str, Any] = {}
        if sender is not None:
            started_ns = None
            if (
                sender.unix_ns is not None
                and sender.rtp_timestamp is not None
                and sender.ssrc == first_ssrc
                and first_timestamp >= 0
            ):
                samples = int(distance32(sender.rtp_timestamp, first_timestamp))
                started_ns = sender.unix_ns - samples * 1_000_000_000 // clock_rate_hz
            entry["sender"] = {
                "ssrc": f"{sender.ssrc:#010x}",
                "reports": sender.reports,
                "cname": sender.cname,
                "packets": sender.packets,
                "octets": sender.octets,
                "ntp_at": None if sender.unix_ns is None else rfc3339(sender.unix_ns),
                "rtp_timestamp": sender.rtp_timestamp,
                "clock_offset_ms": _ms(sender.offset_ns),
                "started_at": None if started_ns is None else rfc3339(started_ns),
                "goodbye": sender.goodbye,
            }
        if far_end is not None:
            entry["far_end"] = {
                "ssrc": f"{far_end.ssrc:#010x}",
                "reports": far_end.reports,
                "fraction_lost": round(far_end.fraction_lost, 4),
                "fraction_lost_max": round(far_end.fraction_lost_max, 4),
                "cumulative_lost": far_end.cumulative_lost,
                "jitter_ms": round(far_end.jitter_s * 1000, 3),
                "jitter_max_ms": round(far_end.jitter_max_s * 1000, 3),
                "round_trip_ms": _ms(far_end.round_trip_ns),
                "round_trip_max_ms": _ms(far_end.round_trip_max_ns),
            }
        return entry or None

    def _sender(self, row: int, ssrc: int) -> _Sender:
        """Return what is known of a track's present source; another one begins anew."""
        sender = self._senders.get(row)
        if sender is None or sender.ssrc != ssrc:
            sender = self._senders[row] = _Sender(ssrc)
        return sender


def _ms(ns: int | None) -> float | None:
    return None if ns is None else round(ns / 1e6, 3)
