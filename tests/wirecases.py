"""Datagrams byte by byte, one table of them for both parsers, and what each parser makes of one.

The headers are put together here with `struct` and literals alone, so that a mistake of the code
under test cannot hide in its own `pack`.
"""

from __future__ import annotations

import struct
from typing import NamedTuple
from uuid import UUID

import numpy as np

from strep.wire import DropReason, Kind, PacketBatch, WireError
from strep.wire.datagram import Datagram, classify

CALL = UUID("01234567-89ab-4cde-8f01-23456789abcd")
STALE = 0xA5


def rtp(
    payload=b"",
    *,
    payload_type=0,
    sequence=0x0102,
    timestamp=0x03040506,
    ssrc=0x0A0B0C0D,
    marker=0,
    csrcs=(),
    extension=None,
    padding=b"",
    version=2,
):
    """Return an RTP packet; `extension` is (profile, data), `padding` the bytes themselves."""
    first = version << 6 | bool(padding) << 5 | (extension is not None) << 4 | len(csrcs)
    packet = struct.pack("!BBHII", first, marker << 7 | payload_type, sequence, timestamp, ssrc)
    packet += b"".join(struct.pack("!I", csrc) for csrc in csrcs)
    if extension is not None:
        profile, data = extension
        packet += struct.pack("!HH", profile, len(data) // 4) + data
    return packet + payload + padding


def strep(inner=b"", call=CALL, *, first=0xC4, header_length=None, reserved=bytes(6), extra=b""):
    """Return what stands in `inner` behind a STREP header; first byte C4 is leg A, inbound."""
    length = 24 + len(extra) if header_length is None else header_length
    return bytes([first, length]) + reserved + call.bytes + extra + inner


STREP = bytes.fromhex("c418 000000000000 0123456789ab4cde8f0123456789abcd")
RTP = bytes.fromhex("8000 0102 03040506 0a0b0c0d")
SPEECH = bytes.fromhex("ff7e7d7c")
SENDER_REPORT = bytes.fromhex(
    "80c80006 0a0b0c0d e6a1b2c3 11223344 000000a0 00000001 000000a0"
)  # fmt: skip
GOODBYE = bytes.fromhex("81cb0001 0a0b0c0d")
BINDING_REQUEST = bytes.fromhex("00010000 2112a442 b7e7a701bc34d686fa87dfae")
CLIENT_HELLO = bytes.fromhex("16fefd 0000 000000000000 0004 01000000")
UDPTL = bytes.fromhex("0000 06 c00480000200")
EVERYTHING = rtp(
    SPEECH,
    marker=1,
    payload_type=8,
    csrcs=(1, 2),
    extension=(0xBEDE, bytes.fromhex("1000aa00")),
    padding=b"\0\0\3",
)
"""CSRCs, a header extension and padding."""


class Case(NamedTuple):
    """One datagram and what both parsers must say of it."""

    name: str
    datagram: bytes
    kind: Kind
    reason: DropReason = DropReason.ACCEPTED
    payload: bytes | None = None
    actual: int | None = None
    required: int | None = None
    length_bytes: int | None = None


def _accepted(name, datagram, payload, kind=Kind.STREP):
    return Case(name, datagram, kind, payload=payload)


def _short(name, datagram, actual, required, kind=Kind.STREP):
    return Case(name, datagram, kind, DropReason.SHORT, None, actual, required)


def _denied(name, datagram, reason, kind=Kind.STREP, *, actual=None, required=None):
    return Case(name, datagram, kind, reason, None, actual, required)


ACCEPTED = [
    _accepted("leg A inbound", STREP + RTP + SPEECH, SPEECH),
    _accepted("leg A outbound", b"\xc5" + STREP[1:] + RTP + SPEECH, SPEECH),
    _accepted("leg B inbound", b"\xc6" + STREP[1:] + RTP + SPEECH, SPEECH),
    _accepted("leg B outbound", b"\xc7" + STREP[1:] + RTP + SPEECH, SPEECH),
    _accepted("reserved bytes in use", strep(RTP + SPEECH, reserved=b"\xff" * 6), SPEECH),
    _accepted("header length 25", strep(RTP + SPEECH, extra=b"\xee"), SPEECH),
    _accepted("header length 28", strep(RTP + SPEECH, extra=b"\x80\xc8\0\0"), SPEECH),
    _accepted("header length 255", strep(RTP + SPEECH, extra=b"\xee" * 231), SPEECH),
    _accepted("no payload", STREP + RTP, b""),
    _accepted("payload type 63", strep(rtp(SPEECH, payload_type=63)), SPEECH),
    _accepted("payload type 96", strep(rtp(SPEECH, payload_type=96)), SPEECH),
    _accepted("payload type 127 marked", strep(rtp(SPEECH, payload_type=127, marker=1)), SPEECH),
    _accepted("one CSRC", strep(rtp(SPEECH, csrcs=(7,))), SPEECH),
    _accepted("fifteen CSRCs", strep(rtp(SPEECH, csrcs=range(15))), SPEECH),
    _accepted("CSRCs to the end", strep(rtp(csrcs=(1, 2, 3))), b""),
    _accepted("empty extension", strep(rtp(SPEECH, extension=(1, b""))), SPEECH),
    _accepted("extension", strep(rtp(SPEECH, extension=(1, bytes(12)))), SPEECH),
    _accepted("extension to the end", strep(rtp(extension=(1, bytes(8)))), b""),
    _accepted("one byte of padding", strep(rtp(SPEECH, padding=b"\1")), SPEECH),
    _accepted("nothing but padding", strep(rtp(padding=b"\0\0\0\4")), b""),
    _accepted("all of it in STREP", strep(EVERYTHING), SPEECH),
    _accepted("all of it behind a longer STREP", strep(EVERYTHING, extra=bytes(5)), SPEECH),
    _accepted("plain RTP", RTP + SPEECH, SPEECH, Kind.RTP),
    _accepted("plain RTP without payload", RTP, b"", Kind.RTP),
    _accepted("plain RTP, all of it", EVERYTHING, SPEECH, Kind.RTP),
    _accepted("plain RTP of 160 bytes", RTP + bytes(160), bytes(160), Kind.RTP),
]
TOO_SHORT = [
    _short("empty", b"", 0, 1, Kind.OTHER),
    _short("first byte of STREP alone", b"\xc4", 1, 24),
    _short("two bytes of STREP", b"\xc4\x18", 2, 24),
    _short("STREP less a byte", STREP[:23], 23, 24),
    _short("STREP less a byte, of another version", b"\xc8" + STREP[1:23], 23, 24),
    _short("STREP and nothing behind it", STREP, 0, 12),
    _short("STREP and a byte of RTP", STREP + b"\x80", 1, 12),
    _short("RTP less a byte in STREP", STREP + RTP[:11], 11, 12),
    _short("RTP less a byte", RTP[:11], 11, 12, Kind.RTP),
    _short("first byte of RTP alone", b"\x80", 1, 12, Kind.RTP),
    _short("header length past the end", strep(RTP, header_length=37), 36, 37),
    _short("header length 255 of 36", strep(RTP, header_length=255), 36, 255),
    _short("header length at the end", strep(RTP, header_length=36), 0, 12),
]
BROKEN = [
    _denied("STREP version 0", strep(RTP, first=0xC0), DropReason.STREP_VERSION),
    _denied("STREP version 2", strep(RTP, first=0xC8), DropReason.STREP_VERSION),
    _denied("STREP version 15", strep(RTP, first=0xFF), DropReason.STREP_VERSION),
    _denied(
        "STREP version before header length",
        strep(RTP, first=0xC8, header_length=0),
        DropReason.STREP_VERSION,
    ),
    _denied(
        "header length 0",
        strep(RTP, header_length=0),
        DropReason.HEADER_LENGTH,
        actual=0,
        required=24,
    ),
    _denied(
        "header length 23",
        strep(RTP, header_length=23),
        DropReason.HEADER_LENGTH,
        actual=23,
        required=24,
    ),
    _denied("RTP version 0 in STREP", strep(rtp(SPEECH, version=0)), DropReason.RTP_VERSION),
    _denied("RTP version 1 in STREP", strep(rtp(SPEECH, version=1)), DropReason.RTP_VERSION),
    _denied("RTP version 3 in STREP", strep(rtp(SPEECH, version=3)), DropReason.RTP_VERSION),
    _denied("a byte of RTP version 1 in STREP", STREP + b"\x40", DropReason.RTP_VERSION),
    _denied("STREP in STREP", STREP + STREP + RTP, DropReason.RTP_VERSION),
    _denied(
        "CSRCs past the end",
        strep(rtp(csrcs=(1, 2))[:-1]),
        DropReason.CSRC,
        actual=19,
        required=20,
    ),
    _denied(
        "CSRCs past the end of plain RTP",
        b"\x8f" + RTP[1:] + bytes(59),
        DropReason.CSRC,
        Kind.RTP,
        actual=71,
        required=72,
    ),
    _denied(
        "extension's header past the end",
        strep(rtp(extension=(1, b""))[:-1]),
        DropReason.EXTENSION,
        actual=15,
        required=16,
    ),
    _denied(
        "extension's data past the end",
        strep(rtp(extension=(1, bytes(8)))[:-1]),
        DropReason.EXTENSION,
        actual=23,
        required=24,
    ),
    _denied(
        "extension of 65,535 words",
        b"\x90" + RTP[1:] + bytes.fromhex("bedeffff") + bytes(100),
        DropReason.EXTENSION,
        Kind.RTP,
        actual=116,
        required=262_156,
    ),
    _denied(
        "padding of 0",
        strep(rtp(SPEECH, padding=b"\0")),
        DropReason.PADDING,
        actual=5,
        required=0,
    ),
    _denied(
        "padding larger than the payload",
        strep(rtp(SPEECH, padding=b"\6")),
        DropReason.PADDING,
        actual=5,
        required=6,
    ),
    _denied(
        "padding without payload",
        strep(b"\xa0" + RTP[1:11] + b"\1"),
        DropReason.PADDING,
        actual=0,
        required=0,
    ),
    _denied(
        "padding that is larger than what the extension left",
        rtp(padding=b"\0\3", extension=(1, bytes(4))),
        DropReason.PADDING,
        Kind.RTP,
        actual=2,
        required=3,
    ),
]
RTCP = [
    _denied("sender report", SENDER_REPORT, DropReason.RTCP, Kind.RTCP),
    _denied("goodbye", GOODBYE, DropReason.RTCP, Kind.RTCP),
    _denied("two bytes of RTCP", SENDER_REPORT[:2], DropReason.RTCP, Kind.RTCP),
    _denied("sender report in STREP", strep(SENDER_REPORT), DropReason.RTCP),
    _denied("goodbye in STREP", strep(GOODBYE), DropReason.RTCP),
    _denied("two bytes of RTCP in STREP", strep(SENDER_REPORT[:2]), DropReason.RTCP),
    _denied("goodbye behind a longer STREP", strep(GOODBYE, extra=bytes(4)), DropReason.RTCP),
    *(
        _denied(f"{what} in {inside}", wrap(packet), DropReason.RTCP, kind)
        for inside, wrap, kind in (("UDP", bytes, Kind.RTCP), ("STREP", strep, Kind.STREP))
        for what, packet in (
            *((f"packet type {t}", bytes([0x81, t]) + SENDER_REPORT[2:]) for t in range(192, 224)),
            *((f"payload type {t} unmarked", rtp(SPEECH, payload_type=t)) for t in range(64, 96)),
        )
    ),
]
OTHERS = [
    _denied("T.38 over UDPTL", UDPTL, DropReason.T38, Kind.T38),
    _denied("a single zero byte", b"\0", DropReason.T38, Kind.T38),
    _denied("half a STUN cookie", BINDING_REQUEST[:7], DropReason.T38, Kind.T38),
    _denied("no DTLS version", b"\x16\xfd" + bytes(20), DropReason.T38, Kind.T38),
    _denied("below DTLS", b"\x13\xfe" + bytes(20), DropReason.T38, Kind.T38),
    _denied("first byte of DTLS alone", b"\x16", DropReason.T38, Kind.T38),
    _denied("SIP request", b"OPTIONS sip:a@192.0.2.1 SIP/2.0\r\n\r\n", DropReason.SIP, Kind.SIP),
    _denied("SIP response", b"SIP/2.0 200 OK\r\n\r\n", DropReason.SIP, Kind.SIP),
    _denied("letter A", b"A", DropReason.SIP, Kind.SIP),
    _denied("letter Z", b"Z", DropReason.SIP, Kind.SIP),
    _denied("STUN", BINDING_REQUEST, DropReason.OTHER, Kind.OTHER),
    _denied("STUN cookie and no more", BINDING_REQUEST[:8], DropReason.OTHER, Kind.OTHER),
    _denied("DTLS", CLIENT_HELLO, DropReason.OTHER, Kind.OTHER),
    _denied("lowest DTLS content type", b"\x14\xfe", DropReason.OTHER, Kind.OTHER),
    _denied("highest DTLS content type", b"\x3f\xfe", DropReason.OTHER, Kind.OTHER),
    _denied("before A", b"@PTIONS", DropReason.OTHER, Kind.OTHER),
    _denied("behind Z", b"[fe80::1]", DropReason.OTHER, Kind.OTHER),
    _denied("small letters", b"options sip:a", DropReason.OTHER, Kind.OTHER),
]
TRUNCATED = [
    Case(
        "a cut STREP datagram", STREP + RTP + SPEECH, Kind.STREP, DropReason.TRUNCATED,
        actual=40, required=196, length_bytes=196,
    ),
    Case(
        "a STREP datagram that lacks a byte", STREP + RTP + SPEECH, Kind.STREP,
        DropReason.TRUNCATED, actual=40, required=41, length_bytes=41,
    ),
    Case(
        "cut RTP", RTP + SPEECH, Kind.RTP, DropReason.TRUNCATED,
        actual=16, required=172, length_bytes=172,
    ),
    Case(
        "cut within the header", STREP[:10], Kind.STREP, DropReason.TRUNCATED,
        actual=10, required=196, length_bytes=196,
    ),
    Case(
        "cut, of another version", strep(RTP, first=0xC8), Kind.STREP, DropReason.TRUNCATED,
        actual=36, required=196, length_bytes=196,
    ),
    Case("cut RTCP", SENDER_REPORT, Kind.RTCP, DropReason.RTCP, length_bytes=100),
    Case(
        "cut to nothing", b"", Kind.OTHER, DropReason.SHORT,
        actual=0, required=1, length_bytes=196,
    ),
]  # fmt: skip
CASES = [*ACCEPTED, *TOO_SHORT, *BROKEN, *RTCP, *OTHERS, *TRUNCATED]


def scalar(datagram, length_bytes=None):
    """Return what the scalar parser makes of a datagram: a plain dict, or the drop reason."""
    kind = classify(datagram)
    try:
        parsed = Datagram.parse(datagram, length_bytes=length_bytes)
    except WireError as error:
        return {"kind": kind, "reason": error.reason}
    header = parsed.rtp
    start = 0 if parsed.strep is None else parsed.strep.header_length
    start += 12 + 4 * len(header.csrcs)
    start += 0 if header.extension is None else 4 + len(header.extension[1])
    fields = {
        "kind": kind,
        "reason": DropReason.ACCEPTED,
        "payload": bytes(parsed.payload),
        "payload_offset": start,
        "rtp version": 2,
        # padding has at least one byte
        "rtp padding": int(start + len(parsed.payload) < len(datagram)),
        "rtp extension": int(header.extension is not None),
        "rtp csrc_count": len(header.csrcs),
        "rtp marker": int(header.marker),
        "rtp payload_type": header.payload_type,
        "rtp sequence": header.sequence,
        "rtp timestamp": header.timestamp,
        "rtp ssrc": header.ssrc,
    }
    if parsed.strep is not None:
        fields |= {
            "call_leg_id": parsed.strep.call_leg_id,
            "strep magic": 3,
            "strep version": parsed.strep.version,
            "strep leg": parsed.strep.leg,
            "strep direction": parsed.strep.direction,
            "strep header_length": parsed.strep.header_length,
        }
    return fields


_RTP_FIELDS = (
    "version", "padding", "extension", "csrc_count", "marker", "payload_type", "sequence",
    "timestamp", "ssrc",
)  # fmt: skip
_STREP_FIELDS = ("magic", "version", "leg", "direction", "header_length")


def columnar(batch):
    """Return what the columnar parser has made of each datagram, in the same form."""
    rtp_columns = {name: batch.rtp(name).tolist() for name in _RTP_FIELDS}
    strep_columns = {name: batch.strep(name).tolist() for name in _STREP_FIELDS}
    outcomes = []
    for row in range(batch.count):
        fields = {"kind": Kind(batch.kind[row]), "reason": DropReason(batch.reason[row])}
        if fields["reason"] == DropReason.ACCEPTED:
            start, length = int(batch.payload_offset[row]), int(batch.payload_bytes[row])
            fields["payload"] = batch.buffer[row, start : start + length].tobytes()
            fields["payload_offset"] = start
            fields |= {f"rtp {name}": column[row] for name, column in rtp_columns.items()}
            if fields["kind"] == Kind.STREP:
                fields["call_leg_id"] = batch.leg_id(row)
                fields |= {f"strep {name}": column[row] for name, column in strep_columns.items()}
        outcomes.append(fields)
    return outcomes


def make_stale(batch):
    """Fill everything that a batch holds with bytes that nobody may ever read."""
    for array in (
        batch.buffer, batch.length_bytes, batch.kept_bytes, batch.arrival_ns, batch.source,
        batch.destination, batch.kind, batch.reason, batch.call_leg_id, batch.payload_offset,
        batch.payload_bytes,
    ):  # fmt: skip
        array.view(np.uint8)[...] = STALE


def parsed_batch(datagrams, *, slot_bytes=512):
    """Return a parsed batch of (datagram, length_bytes or None), in slots full of stale bytes."""
    batch = PacketBatch(max(1, len(datagrams)), slot_bytes)
    make_stale(batch)
    for datagram, length_bytes in datagrams:
        batch.add(datagram, 0, length_bytes=length_bytes)
    batch.parse()
    return batch
