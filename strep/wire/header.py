"""The STREP header (Simple Telnyx RTP Encapsulation Protocol, version 1).

```
 0                   1                   2                   3
 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
|1 1|Version|L|D|   HeaderLen   |           reserved            |
+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
|                           reserved                            |
+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
|                                                               |
|                         call_leg_id                           |
|                   (128 bits, UUID byte order)                 |
|                                                               |
+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
```

It stands between the UDP header and the RTP header. HeaderLen says where the RTP begins: 24 in
version 1, and honoured when a later sender adds to it. The reserved bytes may hold anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any
from uuid import UUID

from strep.wire.classify import DropReason, WireError
from strep.wire.fields import STREP_BYTES, STREP_FIELDS

STREP_MAGIC = 0b11
STREP_VERSION = 1


class Leg(IntEnum):
    """The leg of the call: the STREP header's L bit."""

    A = 0
    B = 1


class Direction(IntEnum):
    """The direction of the stream, as the carrier sees it: the STREP header's D bit."""

    INBOUND = 0
    """Received by the carrier: what the party at the far end of this leg said."""
    OUTBOUND = 1
    """Transmitted by the carrier: what that party heard."""

    @property
    def label(self) -> str:
        """The word used in logs, metrics and JSON."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class StrepHeader:
    """One STREP header, as `parse` reads and `pack` writes it."""

    call_leg_id: UUID
    leg: Leg = Leg.A
    direction: Direction = Direction.INBOUND
    version: int = STREP_VERSION
    header_length: int = STREP_BYTES
    """HeaderLen: bytes from the start of the datagram to the RTP header."""
    reserved: bytes = bytes(6)
    extra: bytes = b""
    """What a header longer than 24 bytes holds after the call_leg_id."""

    @classmethod
    def parse(cls, buffer: bytes | bytearray | memoryview) -> tuple[StrepHeader, memoryview]:
        """Return the header and a view of what follows it (no copy; valid as long as `buffer`).

        Raises `WireError` with reason SHORT, OTHER (the magic bits are not 11), STREP_VERSION or
        HEADER_LENGTH.
        """
        view = memoryview(buffer)
        if len(view) < 2:
            raise _short(len(view), STREP_BYTES)
        if view[0] >> 6 != STREP_MAGIC:
            raise WireError(
                DropReason.OTHER, f"not STREP: the first two bits are {view[0] >> 6:02b}, not 11"
            )
        if len(view) < STREP_BYTES:
            raise _short(len(view), STREP_BYTES)
        values: dict[str, Any] = {f.name: f.read(view) for f in STREP_FIELDS}
        version, header_length = values["version"], values["header_length"]
        if version != STREP_VERSION:
            raise WireError(
                DropReason.STREP_VERSION, f"STREP version {version}, expected {STREP_VERSION}"
            )
        if header_length < STREP_BYTES:
            raise WireError(
                DropReason.HEADER_LENGTH,
                f"STREP HeaderLen is {header_length}, expected at least {STREP_BYTES}",
                actual=header_length,
                required=STREP_BYTES,
            )
        if header_length > len(view):
            raise _short(len(view), header_length)
        header = cls(
            call_leg_id=UUID(bytes=bytes(view[8:24])),
            leg=Leg(values["leg"]),
            direction=Direction(values["direction"]),
            version=version,
            header_length=header_length,
            reserved=bytes(view[2:8]),
            extra=bytes(view[STREP_BYTES:header_length]),
        )
        return header, view[header_length:]

    def pack(self) -> bytes:
        """Return the header's bytes. Raises ValueError where a field does not fit its bits."""
        if self.header_length != STREP_BYTES + len(self.extra) or self.header_length > 255:
            raise ValueError(
                f"header_length is {self.header_length}, but the header has "
                f"{STREP_BYTES + len(self.extra)} bytes (24 to 255)"
            )
        if len(self.reserved) != 6:
            raise ValueError(f"reserved has {len(self.reserved)} bytes, expected 6")
        out = bytearray(STREP_BYTES)
        values = {
            "magic": STREP_MAGIC,
            "version": self.version,
            "leg": self.leg,
            "direction": self.direction,
            "header_length": self.header_length,
        }
        for field in STREP_FIELDS:
            field.write(out, values[field.name])
        out[2:8] = self.reserved
        out[8:24] = self.call_leg_id.bytes
        return bytes(out) + self.extra


def _short(actual: int, required: int) -> WireError:
    return WireError(
        DropReason.SHORT,
        f"the datagram ends after {actual} bytes, a STREP header needs {required}",
        actual=actual,
        required=required,
    )
