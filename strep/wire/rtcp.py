"""RTCP (RFC 3550 section 6): compound packets of sender and receiver reports, SDES and BYE.

```
 0                   1                   2                   3
 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
|V=2|P|  count  |  packet type  |  length in words, less one    |
+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+
|                    SSRC of the report's sender                |
+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+
|  NTP time, 32 bits of seconds and 32 of their fraction        |  SR (200) only
|                                                               |
|                     the same as RTP timestamp                 |
|                      packets sent so far                      |
|                  bytes of payload sent so far                 |
+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+
|                 SSRC that this block is about                 |  SR and RR (201),
| fraction lost |       packets lost so far, signed             |  `count` blocks
|              highest sequence number, extended                |
|                     interarrival jitter                       |
|                middle of the last SR's NTP time               |
|               since that SR, in 1/65536 seconds               |
+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
```

What follows the blocks is the profile's own (section 6.4.3) and left alone, like the packet types
that are not known here (APP, XR, feedback) once their length is found right. A packet need not
begin with a report (RFC 5506).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import NoReturn

from strep.wire.classify import DropReason, WireError

SENDER_REPORT = 200
RECEIVER_REPORT = 201
SOURCE_DESCRIPTION = 202
GOODBYE = 203
_FEEDBACK = (205, 206)
_CNAME = 1

_HEADER_BYTES = 4
_SENDER_INFO = struct.Struct("!QIII")
_BLOCK = struct.Struct("!IIIIII")


@dataclass(frozen=True, slots=True)
class SenderInfo:
    """What a sender says of what it sent."""

    ntp: int
    """32 bits of seconds since 1900 and 32 of their fraction; may count from elsewhere."""
    rtp_timestamp: int
    """The same moment by the RTP clock."""
    packets: int
    octets: int


@dataclass(frozen=True, slots=True)
class ReportBlock:
    """What the sender of a report receives of one source."""

    ssrc: int
    """The source."""
    fraction_lost: float
    """Since the report before, 0 to 255/256."""
    cumulative_lost: int
    """Since the beginning, less the duplicates: may be negative."""
    highest_sequence: int
    """With the number of its cycles in the upper 16 bits."""
    jitter: int
    """In units of the source's RTP clock."""
    last_report: int
    """The middle 32 bits of the NTP time of the last sender report; 0 before the first."""
    since_report_s: float
    """Seconds since that came."""


@dataclass(frozen=True, slots=True)
class Report:
    """A sender report, or without `sender` a receiver report."""

    ssrc: int
    sender: SenderInfo | None
    blocks: tuple[ReportBlock, ...]


@dataclass(frozen=True, slots=True)
class Description:
    """A source's canonical name (SDES CNAME)."""

    ssrc: int
    cname: str
    """What is no UTF-8 is replaced."""


@dataclass(frozen=True, slots=True)
class Goodbye:
    """Sources that leave (BYE)."""

    ssrcs: tuple[int, ...]
    why: str
    """Empty where they did not say."""


RtcpPacket = Report | Description | Goodbye


def parse(buffer: bytes | bytearray | memoryview) -> tuple[RtcpPacket, ...]:
    """Return the reports, names and goodbyes of a compound packet, in their order.

    Raises `WireError` of reason RTCP where any part of it is malformed, and nothing else.
    """
    view = memoryview(buffer)
    packets: list[RtcpPacket] = []
    start = 0
    while start < len(view) or not start:
        if len(view) - start < _HEADER_BYTES:
            _refuse("the packet's header", len(view) - start, _HEADER_BYTES)
        first, packet_type, words = struct.unpack_from("!BBH", view, start)
        if first >> 6 != 2:
            raise WireError(DropReason.RTCP, f"RTCP version {first >> 6}, expected 2")
        end = start + _HEADER_BYTES + 4 * words
        if end > len(view):
            _refuse("the packet", len(view) - start, end - start)
        body = view[start + _HEADER_BYTES : end]
        if first & 0x20:
            body = _without_padding(body, is_last=end == len(view))
        packets += _parse_one(packet_type, first & 0x1F, body)
        start = end
    return tuple(packets)


def _without_padding(body: memoryview, *, is_last: bool) -> memoryview:
    if not is_last:
        raise WireError(DropReason.RTCP, "padding in a packet that is not the last one")
    padding = body[-1] if body else 0
    if not 0 < padding <= len(body) or padding % 4:
        raise WireError(
            DropReason.RTCP,
            f"{padding} bytes of padding in {len(body)}, expected a multiple of 4 from 4 on",
            actual=len(body),
            required=padding,
        )
    return body[: len(body) - padding]


def _parse_one(packet_type: int, count: int, body: memoryview) -> list[RtcpPacket]:
    if packet_type in (SENDER_REPORT, RECEIVER_REPORT):
        return [_report(body, count, is_sender=packet_type == SENDER_REPORT)]
    if packet_type == SOURCE_DESCRIPTION:
        return _descriptions(body, count)
    if packet_type == GOODBYE:
        return [_goodbye(body, count)]
    if packet_type in _FEEDBACK and len(body) < 8:
        _refuse("feedback (RFC 4585 section 6.1)", len(body), 8)
    return []


def _report(body: memoryview, count: int, *, is_sender: bool) -> Report:
    start = 4 + (_SENDER_INFO.size if is_sender else 0)
    required = start + count * _BLOCK.size
    if len(body) < required:
        _refuse(f"a report with {count} blocks", len(body), required)
    (ssrc,) = struct.unpack_from("!I", body)
    sender = SenderInfo(*_SENDER_INFO.unpack_from(body, 4)) if is_sender else None
    return Report(ssrc, sender, tuple(_block(body, start + i * _BLOCK.size) for i in range(count)))


def _block(body: memoryview, start: int) -> ReportBlock:
    ssrc, loss, highest, jitter, last_report, since_report = _BLOCK.unpack_from(body, start)
    cumulative = loss & 0xFF_FFFF
    return ReportBlock(
        ssrc=ssrc,
        fraction_lost=(loss >> 24) / 256,
        cumulative_lost=cumulative - (cumulative >> 23 << 24),
        highest_sequence=highest,
        jitter=jitter,
        last_report=last_report,
        since_report_s=since_report / 65536,
    )


def _descriptions(body: memoryview, count: int) -> list[RtcpPacket]:
    """Read `count` chunks: an SSRC and items up to one of type 0, then zeros up to a whole word."""
    found: list[RtcpPacket] = []
    at = 0
    for _ in range(count):
        if len(body) - at < 4:
            _refuse("a source's description", len(body) - at, 4)
        (ssrc,) = struct.unpack_from("!I", body, at)
        at += 4
        while at < len(body) and body[at]:
            end = at + 2 + (body[at + 1] if at + 1 < len(body) else 0)
            if end > len(body):
                _refuse("an item of a description", len(body) - at, end - at)
            if body[at] == _CNAME:
                found.append(Description(ssrc, _text(body[at + 2 : end])))
            at = end
        if at >= len(body):
            _refuse("the end of a description", len(body), at + 1)
        at = (at // 4 + 1) * 4
    return found


def _goodbye(body: memoryview, count: int) -> Goodbye:
    if len(body) < 4 * count:
        _refuse(f"a goodbye of {count} sources", len(body), 4 * count)
    ssrcs = struct.unpack_from(f"!{count}I", body)
    reason = body[4 * count :]
    if reason and len(reason) < 1 + reason[0]:
        _refuse("the reason of a goodbye", len(reason), 1 + reason[0])
    return Goodbye(ssrcs, _text(reason[1 : 1 + reason[0]]) if reason else "")


def _text(data: memoryview) -> str:
    return bytes(data).decode(errors="replace")


def _refuse(what: str, actual: int, required: int) -> NoReturn:
    raise WireError(
        DropReason.RTCP,
        f"{what} ends after {actual} bytes, expected {required}",
        actual=actual,
        required=required,
    )
