"""The RTP header (RFC 3550 section 5.1).

```
 0                   1                   2                   3
 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
|V=2|P|X|  CC   |M|     PT      |       sequence number         |
+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
|                           timestamp                           |
+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
|           synchronization source (SSRC) identifier            |
+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+
|            contributing source (CSRC) identifiers             |
+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
|      defined by profile       |      length (32-bit words)    |
+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
|                       header extension                        |
+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
```

RTCP shares RTP's version bits. Its packet types 192 to 223 stand where RTP has the marker and the
payload type, as payload types 64 to 95, which RFC 5761 section 4 keeps free for that reason:
whatever carries one of them is RTCP and never audio.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from strep.wire.classify import DropReason, WireError
from strep.wire.fields import RTP_BYTES, RTP_FIELDS

RTP_VERSION = 2


def is_rtcp_payload_type(payload_type: int) -> bool:
    """Tell whether RTCP stands behind this payload type (64 to 95, RFC 5761 section 4)."""
    return payload_type & 0x60 == 0x40


@dataclass(frozen=True, slots=True)
class RtpHeader:
    """One RTP header with its CSRCs and extension, as `parse` reads and `pack` writes it."""

    payload_type: int
    sequence: int
    timestamp: int
    ssrc: int
    marker: bool = False
    csrcs: tuple[int, ...] = ()
    extension: tuple[int, bytes] | None = None
    """(defined by profile, data); the data has a multiple of 4 bytes."""

    @classmethod
    def parse(  # noqa: C901 -- one check after the other, as the header goes on
        cls, buffer: bytes | bytearray | memoryview
    ) -> tuple[RtpHeader, memoryview]:
        """Return the header and a view of the payload without padding (no copy).

        Raises `WireError` with reason SHORT, RTP_VERSION, RTCP, CSRC, EXTENSION or PADDING, in
        this order of precedence.
        """
        view = memoryview(buffer)
        if not view:
            raise _short(0)
        if view[0] >> 6 != RTP_VERSION:
            raise WireError(
                DropReason.RTP_VERSION, f"RTP version {view[0] >> 6}, expected {RTP_VERSION}"
            )
        if len(view) >= 2 and is_rtcp_payload_type(view[1] & 0x7F):
            raise WireError(DropReason.RTCP, f"RTCP (packet type {view[1]}), expected RTP")
        if len(view) < RTP_BYTES:
            raise _short(len(view))
        values: dict[str, Any] = {f.name: f.read(view) for f in RTP_FIELDS}
        start = RTP_BYTES + 4 * values["csrc_count"]
        if start > len(view):
            raise _overrun(DropReason.CSRC, "the list of CSRCs", len(view), start)
        csrcs = struct.unpack_from(f"!{values['csrc_count']}I", view, RTP_BYTES)
        extension = None
        if values["extension"]:
            if start + 4 > len(view):
                raise _overrun(DropReason.EXTENSION, "the header extension", len(view), start + 4)
            profile, words = struct.unpack_from("!HH", view, start)
            end = start + 4 + 4 * words
            if end > len(view):
                raise _overrun(DropReason.EXTENSION, "the header extension", len(view), end)
            extension = (profile, bytes(view[start + 4 : end]))
            start = end
        payload = view[start:]
        if values["padding"]:
            if not payload or not 0 < payload[-1] <= len(payload):
                padding = payload[-1] if payload else 0
                raise WireError(
                    DropReason.PADDING,
                    f"{padding} bytes of padding in {len(payload)} bytes of payload, "
                    f"expected 1 to {len(payload)}",
                    actual=len(payload),
                    required=padding,
                )
            payload = payload[: len(payload) - payload[-1]]
        header = cls(
            payload_type=values["payload_type"],
            sequence=values["sequence"],
            timestamp=values["timestamp"],
            ssrc=values["ssrc"],
            marker=bool(values["marker"]),
            csrcs=csrcs,
            extension=extension,
        )
        return header, payload

    def pack(self) -> bytes:
        """Return the header's bytes. Raises ValueError where a field does not fit its bits."""
        out = bytearray(RTP_BYTES)
        values = {
            "version": RTP_VERSION,
            "padding": 0,
            "extension": int(self.extension is not None),
            "csrc_count": len(self.csrcs),
            "marker": int(self.marker),
            "payload_type": self.payload_type,
            "sequence": self.sequence,
            "timestamp": self.timestamp,
            "ssrc": self.ssrc,
        }
        for field in RTP_FIELDS:
            field.write(out, values[field.name])
        packed = bytes(out) + struct.pack(f"!{len(self.csrcs)}I", *self.csrcs)
        if self.extension is not None:
            profile, data = self.extension
            if len(data) % 4:
                raise ValueError(f"the extension has {len(data)} bytes, expected a multiple of 4")
            packed += struct.pack("!HH", profile, len(data) // 4) + data
        return packed


def _short(actual: int) -> WireError:
    return WireError(
        DropReason.SHORT,
        f"the packet ends after {actual} bytes, an RTP header needs {RTP_BYTES}",
        actual=actual,
        required=RTP_BYTES,
    )


def _overrun(reason: DropReason, what: str, actual: int, required: int) -> WireError:
    return WireError(
        reason,
        f"{what} runs past the end: the packet has {actual} bytes, needs {required}",
        actual=actual,
        required=required,
    )
