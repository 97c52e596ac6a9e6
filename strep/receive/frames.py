"""The frames of a capture file: pcap or pcapng, plain or compressed by gzip.

```
pcap     magic 4, version 4, zone 4, accuracy 4, snaplen 4, link type 4
         then per packet: seconds 4, fraction 4, captured bytes 4, original bytes 4, frame
pcapng   blocks: type 4, block bytes 4, body, block bytes 4; the body of a
         section header     byte-order magic 4, version 4, section bytes 8, options
         interface          link type 2, reserved 2, snaplen 4, options
         enhanced packet    interface 4, time 8, captured bytes 4, original bytes 4, frame, options
         packet (obsolete)  interface 2, drops 2, time 8, and on as the enhanced one
         simple packet      original bytes 4, frame
         option             code 2, value bytes 2, value, filled up to a multiple of 4
```

Numbers are in the byte order of the machine that wrote them, which the magic tells. See
draft-ietf-opsawg-pcap and draft-ietf-opsawg-pcapng.
"""

from __future__ import annotations

import gzip
import io
import zlib
from fractions import Fraction
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_FRAME_BYTES = 262_144
"""No capture program keeps more of a frame: a larger number is damage, not a frame."""
MAX_BLOCK_BYTES = 1 << 20
"""The same for a block of pcapng, with room for its options."""
MAX_INTERFACES = 65_536
"""Interfaces of one section."""
PIECE_BYTES = 1 << 18
"""How much is read from the file at once."""

Frame: TypeAlias = tuple[int, int, bytes]
"""Link type, arrival in ns since 1970 (fits int64), the bytes that were captured."""


class DamageError(Exception):
    """The file ends too early or contradicts itself; the message says where and how."""


class FrameFile(Protocol):
    """A capture file whose header has been read."""

    link_types: set[int]
    """What the file has named so far as the link types (LINKTYPE numbers) of its frames."""

    def read(self) -> Iterator[Frame]:
        """Yield the frames, in the file's order. Raises DamageError and OSError."""
        ...


def open_frames(file: io.BufferedReader) -> FrameFile:
    """Read a capture's header. The file stays the caller's. Raises DamageError and OSError."""
    if file.peek(2)[:2] == _GZIP_MAGIC:
        file = io.BufferedReader(_Gunzip(file), PIECE_BYTES)
    magic = file.peek(4)[:4]
    if magic in _PCAP_MAGICS:
        return _Pcap(file)
    if magic == _SECTION_MAGIC:
        return _Pcapng(file)
    found = f"it begins with {magic.hex(' ')}" if magic else "it is empty"
    raise DamageError(f"{found}, expected pcap or pcapng, plain or compressed by gzip")


_NS_PER_S = 1_000_000_000

_GZIP_MAGIC = bytes.fromhex("1f 8b")

_PCAP_MAGICS = {
    bytes.fromhex("d4 c3 b2 a1"): ("<", 1000),
    bytes.fromhex("a1 b2 c3 d4"): (">", 1000),
    bytes.fromhex("4d 3c b2 a1"): ("<", 1),
    bytes.fromhex("a1 b2 3c 4d"): (">", 1),
}
"""Byte order, and the unit of the fractions in ns."""

_SECTION_MAGIC = bytes.fromhex("0a 0d 0d 0a")
_BYTE_ORDERS = {bytes.fromhex("4d 3c 2b 1a"): "<", bytes.fromhex("1a 2b 3c 4d"): ">"}

_SECTION, _INTERFACE, _PACKET, _SIMPLE, _ENHANCED = 0x0A0D0D0A, 1, 2, 3, 6
_MIN_BLOCK_BYTES = {_SECTION: 28, _INTERFACE: 20, _PACKET: 32, _SIMPLE: 16, _ENHANCED: 32}
"""The blocks that are read; all others are skipped."""
_OPTION_END, _OPTION_TSRESOL, _OPTION_TSOFFSET = 0, 9, 14


class _Gunzip(io.RawIOBase):
    """What a gzip stream holds; raises DamageError where the stream is damaged or ends early.

    GzipFile's own `readinto` would throw away what it has got before the damage.
    """

    def __init__(self, file: io.BufferedReader) -> None:
        self._file = file
        self._gzip = gzip.GzipFile(fileobj=file)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        try:
            data = self._gzip.read1(len(buffer))
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            at = self._file.tell()
            raise DamageError(f"the gzip stream breaks off near byte {at} ({error})") from error
        buffer[: len(data)] = data
        return len(data)


def _cut(what: str, offset: int, size: int) -> DamageError:
    """Make the error for a file that ends after `size` bytes of what begins at `offset`."""
    return DamageError(
        f"the file ends at byte {offset + size}, in the middle of the {what} that begins at byte "
        f"{offset}"
    )


class _Pcap:
    """A pcap file."""

    def __init__(self, file: io.BufferedReader) -> None:
        header = file.read(24)
        if len(header) < 24:
            raise _cut("header", 0, len(header))
        order, self._unit_ns = _PCAP_MAGICS[header[:4]]
        # The upper half is about a frame check sequence, which comes after the datagram.
        self._link_type = Struct(order + "I").unpack_from(header, 20)[0] & 0xFFFF
        self.link_types = {self._link_type}
        self._packet_header = Struct(order + "4I")
        self._file = file

    def read(self) -> Iterator[Frame]:
        read, unpack = self._file.read, self._packet_header.unpack
        link_type, unit_ns = self._link_type, self._unit_ns
        offset = 24
        while header := read(16):
            if len(header) < 16:
                raise _cut("packet", offset, len(header))
            seconds, fraction, size, _ = unpack(header)
            if size > MAX_FRAME_BYTES:
                raise DamageError(
                    f"the packet at byte {offset} has {size} bytes, expected at most "
                    f"{MAX_FRAME_BYTES}"
                )
            frame = read(size)
            if len(frame) < size:
                raise _cut("packet", offset, 16 + len(frame))
            offset += 16 + size
            yield link_type, seconds * _NS_PER_S + fraction * unit_ns, frame


class _Interface(NamedTuple):
    """What an interface block says; one tick of its clock is numerator / denominator ns."""

    link_type: int
    snaplen: int
    numerator: int
    denominator: int
    offset_ns: int

    @classmethod
    def parse(cls, block: bytes, order: str) -> Self:
        link_type, snaplen = Struct(order + "H2xI").unpack_from(block, 8)
        resolution, offset_s = 6, 0
        at, end = 16, len(block) - 4
        option = Struct(order + "2H")
        while at + 4 <= end:
            code, size = option.unpack_from(block, at)
            value = block[at + 4 : min(at + 4 + size, end)]
            at += 4 + size + -size % 4
            if code == _OPTION_END:
                break
            if code == _OPTION_TSRESOL and len(value) == 1:
                resolution = value[0]
            elif code == _OPTION_TSOFFSET and len(value) == 8:
                (offset_s,) = Struct(order + "q").unpack(value)
        base = 2 if resolution & 0x80 else 10
        tick_ns = Fraction(_NS_PER_S, base ** (resolution & 0x7F))
        return cls(link_type, snaplen, *tick_ns.as_integer_ratio(), offset_s * _NS_PER_S)

    def time_ns(self, high: int, low: int) -> int:
        """Return the time since 1970 that a packet's two words of time say."""
        return (high << 32 | low) * self.numerator // self.denominator + self.offset_ns


class _Pcapng:
    """A pcapng file: blocks, of which some are packets of the interfaces described before."""

    def __init__(self, file: io.BufferedReader) -> None:
        self.link_types: set[int] = set()
        self._file = file
        self._offset = 0
        self._order = "<"
        self._interfaces: list[_Interface] = []
        self._blocks = self._read_blocks()
        next(self._blocks)  # the section header, so that opening the file fails if that is damaged

    def read(self) -> Iterator[Frame]:
        arrival_ns = 0
        for kind, block in self._blocks:
            if kind == _SECTION:
                self._interfaces.clear()
            elif kind == _INTERFACE:
                self._add_interface(block)
            elif kind == _SIMPLE:
                # It has no time: the one of the packet before it is the best there is.
                link_type, frame = self._simple_packet(block)
                yield link_type, arrival_ns, frame
            else:
                link_type, arrival_ns, frame = self._packet(kind, block)
                yield link_type, arrival_ns, frame

    def _read_blocks(self) -> Iterator[tuple[int, bytes]]:
        """Yield the type and all bytes of each block that is read, `_offset` being its place."""
        while head := self._file.read(12):
            if len(head) < 12:
                raise _cut("block", self._offset, len(head))
            if head[:4] == _SECTION_MAGIC:
                if head[8:] not in _BYTE_ORDERS:
                    raise self._damage(f"has the byte-order magic {head[8:].hex()}", "1a2b3c4d")
                self._order = _BYTE_ORDERS[head[8:]]
            kind, size = Struct(self._order + "2I").unpack_from(head)
            least = _MIN_BLOCK_BYTES.get(kind, 12)
            if size < least or size % 4:
                raise self._damage(f"has {size} bytes", f"a multiple of 4 from {least} up")
            if kind in _MIN_BLOCK_BYTES:
                yield kind, self._rest_of_block(head, size)
            else:
                self._skip(head, size)
            self._offset += size

    def _rest_of_block(self, head: bytes, size: int) -> bytes:
        if size > MAX_BLOCK_BYTES:
            raise self._damage(f"has {size} bytes", f"at most {MAX_BLOCK_BYTES}")
        block = head + self._file.read(size - len(head))
        if len(block) < size:
            raise _cut("block", self._offset, len(block))
        if block[-4:] != block[4:8]:
            raise self._damage(f"ends with {block[-4:].hex(' ')}", "its length again")
        return block

    def _skip(self, head: bytes, size: int) -> None:
        done = len(head)
        while done < size:
            piece = self._file.read(min(size - done, PIECE_BYTES))
            if not piece:
                raise _cut("block", self._offset, done)
            done += len(piece)

    def _add_interface(self, block: bytes) -> None:
        if len(self._interfaces) == MAX_INTERFACES:
            raise self._damage("describes one more interface", f"at most {MAX_INTERFACES}")
        interface = _Interface.parse(block, self._order)
        self._interfaces.append(interface)
        self.link_types.add(interface.link_type)

    def _packet(self, kind: int, block: bytes) -> Frame:
        fields = Struct(self._order + ("4I" if kind == _ENHANCED else "H2x3I"))
        number, high, low, size = fields.unpack_from(block, 8)
        interface = self._interface(number)
        if size > len(block) - 32:
            raise self._damage(f"holds a packet of {size} bytes", f"at most {len(block) - 32}")
        arrival_ns = interface.time_ns(high, low)
        if not -(2**63) <= arrival_ns < 2**63:
            raise self._damage(f"has the time {arrival_ns} ns", "one of 64 bits")
        return interface.link_type, arrival_ns, block[28 : 28 + size]

    def _simple_packet(self, block: bytes) -> tuple[int, bytes]:
        """Its size is the one on the wire; the snaplen says how much of it was captured."""
        (size,) = Struct(self._order + "I").unpack_from(block, 8)
        interface = self._interface(0)
        size = min(size, interface.snaplen or size, len(block) - 16)
        return interface.link_type, block[12 : 12 + size]

    def _interface(self, number: int) -> _Interface:
        if number >= len(self._interfaces):
            raise self._damage(
                f"is of interface {number}", f"one of the {len(self._interfaces)} described so far"
            )
        return self._interfaces[number]

    def _damage(self, found: str, expected: str) -> DamageError:
        return DamageError(f"the block at byte {self._offset} {found}, expected {expected}")
