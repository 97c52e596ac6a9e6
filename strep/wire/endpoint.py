"""Addresses of datagrams as 24 bytes, so that a batch of them is a column.

```
byte 0-15   IPv6 address, or IPv4 mapped into it (RFC 4291 section 2.5.5.2: ::ffff:a.b.c.d)
byte 16-17  UDP port, big-endian
byte 18-23  zero
```
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

ENDPOINT_BYTES = 24
V4_MAPPED_PREFIX = bytes(10) + b"\xff\xff"


class Endpoint(NamedTuple):
    """An IP address and a UDP port."""

    address: IPv4Address | IPv6Address
    port: int

    @classmethod
    def of(cls, host: str, port: int) -> Endpoint:
        """Make one from a numeric address; a zone (`%eth0`) is left out. Raises ValueError."""
        return cls(ip_address(host.partition("%")[0]), port)

    @classmethod
    def unpack(cls, data: bytes) -> Endpoint:
        """Read the 24 bytes of the layout above."""
        address = IPv6Address(data[:16])
        (port,) = struct.unpack_from("!H", data, 16)
        return cls(address.ipv4_mapped or address, port)

    def pack(self) -> bytes:
        """Return the 24 bytes of the layout above."""
        packed = self.address.packed
        if len(packed) == 4:
            packed = V4_MAPPED_PREFIX + packed
        return packed + struct.pack("!H6x", self.port)

    def __str__(self) -> str:
        """`192.0.2.1:9000` or `[2001:db8::1]:9000`."""
        host = f"[{self.address}]" if self.address.version == 6 else f"{self.address}"
        return f"{host}:{self.port}"
