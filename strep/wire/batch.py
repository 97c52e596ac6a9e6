"""A batch of datagrams as columns.

Up to `capacity` datagrams lie in one preallocated 2-D byte array, one per row (a *slot*), and
`parse` turns their headers into columns, one entry per datagram: what it is, why it is not
accepted if it is not, and the fields of the tables in `fields`.

The ordinary datagram (STREP version 1 with HeaderLen 24 and a bare 12-byte RTP header) is told
from all others by a few masked comparisons and two of its length, and so is bare RTP without
STREP. The others are parsed by `_parse_odd`, columnar as well but with one gather per header byte
that may stand anywhere. The compiled kernel, where there is one, does the first two in one pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

import numpy as np

from strep.wire.classify import DropReason, Kind
from strep.wire.endpoint import ENDPOINT_BYTES
from strep.wire.fields import RTP, RTP_BYTES, RTP_WORDS, STREP, STREP_BYTES, STREP_WORDS
from strep_kernel import load

if TYPE_CHECKING:
    from numpy.typing import NDArray

DEFAULT_CAPACITY = 2048
# Room for 60 ms of G.711 with both headers and 60 bytes of CSRCs and extension. Smaller slots are
# faster to read again after the kernel has written them: fewer pages, and the cache's prefetching
# reaches the next one. An odd number of cache lines: with a power of two all headers of a batch
# would fall into the same few sets of the cache.
DEFAULT_SLOT_BYTES = 576
LARGE_SLOT_BYTES = 4032
"""For readers that are in no hurry: any datagram but a jumbo one."""
MIN_SLOT_BYTES = 512

_HEADER_WORDS = STREP_WORDS + RTP_WORDS
_HEADER_BYTES = STREP_BYTES + RTP_BYTES

# In big-endian words. Word 0: magic 11, version 1, any L and D, HeaderLen 24, any reserved bytes.
_STREP_MASK, _STREP_ORDINARY = np.uint32(0xFCFF0000), np.uint32(0xC4180000)
# The first word of RTP version 2 without padding, extension or CSRCs.
_RTP_MASK, _RTP_ORDINARY = np.uint32(0xFF000000), np.uint32(0x80000000)
# Payload types 64 to 95: RTCP.
_RTCP_MASK, _RTCP = np.uint32(0x00600000), np.uint32(0x00400000)
_NONE = np.zeros(0, np.intp)


class PacketBatch:
    """Datagrams read together, and after `parse` their columns.

    Owns all of its memory and reuses it: every array and view taken from a batch is valid until
    the next read into it. Entries at and beyond `count` are undefined.
    """

    def __init__(
        self, capacity: int = DEFAULT_CAPACITY, slot_bytes: int = DEFAULT_SLOT_BYTES
    ) -> None:
        if capacity < 1:
            raise ValueError(f"capacity is {capacity}, expected at least 1")
        if slot_bytes < MIN_SLOT_BYTES or slot_bytes % 8:
            raise ValueError(
                f"slot_bytes is {slot_bytes}, expected a multiple of 8 from {MIN_SLOT_BYTES} up"
            )
        self.capacity = capacity
        self.slot_bytes = slot_bytes
        self.count = 0
        """Datagrams in the batch."""
        self.buffer = np.zeros((capacity, slot_bytes), np.uint8)
        """(capacity, slot_bytes) uint8: the first bytes of each datagram."""
        self.length_bytes = np.zeros(capacity, np.int32)
        """(capacity,) int32: length on the wire."""
        self.kept_bytes = np.full(capacity, slot_bytes, np.int32)
        """(capacity,) int32: how much of each could be kept, the slot's size or what a capture
        has of it; a datagram that is longer is truncated."""
        self.arrival_ns = np.zeros(capacity, np.int64)
        """(capacity,) int64: arrival on the reader's clock."""
        self.source = np.zeros((capacity, ENDPOINT_BYTES), np.uint8)
        """(capacity, 24) uint8: where each came from, laid out as in `endpoint`."""
        self.destination = np.zeros((capacity, ENDPOINT_BYTES), np.uint8)
        """(capacity, 24) uint8: where each was sent to."""
        self.binding = np.zeros(capacity, np.int32)
        """(capacity,) int32: the receiver's number for whose plain RTP a port receives; 0 for
        nobody's in particular."""

        self.kind = np.zeros(capacity, np.uint8)
        """(capacity,) uint8: `Kind`."""
        self.reason = np.zeros(capacity, np.uint8)
        """(capacity,) uint8: `DropReason`, 0 where accepted."""
        self.call_leg_id = np.zeros((2, capacity), np.uint64)
        """(2, capacity) uint64: the 16 bytes of the call_leg_id as two words in memory order; of
        no meaning for plain RTP, like the side."""
        self.side = np.zeros(capacity, np.uint8)
        """(capacity,) uint8: leg << 1 | direction."""
        self.ssrc = np.zeros(capacity, np.int64)
        """(capacity,) int64, like all fields of the RTP header that follow."""
        self.sequence = np.zeros(capacity, np.int64)
        self.timestamp = np.zeros(capacity, np.int64)
        self.payload_type = np.zeros(capacity, np.int64)
        self.payload_offset = np.zeros(capacity, np.int64)
        """(capacity,) int64: where in its slot the RTP payload begins, if accepted."""
        self.payload_bytes = np.zeros(capacity, np.int64)
        """(capacity,) int64: length of the RTP payload without padding, if accepted."""

        self.slots = np.arange(capacity)
        """(capacity,) int64: 0, 1, 2, ...; the index of every slot."""

        self._words = np.zeros((_HEADER_WORDS, capacity), np.uint32)
        self._wire_words = self.buffer.view(">u4")[:, :_HEADER_WORDS].T
        self._wire_leg_id = self.buffer.view(np.uint64)[:, 1:3].T
        self._kernel = kernel = load()
        if kernel is not None:
            self._odd = np.zeros(capacity, np.int64)
            self._columns = kernel.Columns(
                self.buffer, self.length_bytes, self.kept_bytes, self.kind, self.reason, self.side,
                self.call_leg_id, self._words, self.payload_offset, self.payload_bytes,
                self.ssrc, self.sequence, self.timestamp, self.payload_type, self._odd,
            )  # fmt: skip
        # writing an element through a memoryview costs a third of what it does through an array
        self._views = (
            self.buffer.reshape(-1).data,
            self.source.reshape(-1).data,
            self.destination.reshape(-1).data,
            self.length_bytes.data,
            self.kept_bytes.data,
            self.arrival_ns.data,
        )

    def clear(self) -> None:
        """Forget the datagrams."""
        self.count = 0

    def add(
        self,
        datagram: bytes | memoryview,
        arrival_ns: int,
        source: bytes = bytes(ENDPOINT_BYTES),
        destination: bytes = bytes(ENDPOINT_BYTES),
        length_bytes: int | None = None,
    ) -> None:
        """Copy one datagram into the next slot, for readers that have them one by one.

        `length_bytes` is its length on the wire where `datagram` is less than all of it. Raises
        IndexError when the batch is full.
        """
        row = self.count
        if row == self.capacity:
            raise IndexError(f"the batch is full: {row} datagrams")
        kept = min(len(datagram), self.slot_bytes)
        slot, at = row * self.slot_bytes, row * ENDPOINT_BYTES
        buffer, sources, destinations, lengths, keeps, arrivals = self._views
        buffer[slot : slot + kept] = datagram[:kept]
        sources[at : at + ENDPOINT_BYTES] = source
        destinations[at : at + ENDPOINT_BYTES] = destination
        lengths[row] = len(datagram) if length_bytes is None else length_bytes
        keeps[row] = kept
        arrivals[row] = arrival_ns
        self.count = row + 1

    def strep(self, field: str) -> NDArray[np.uint32]:
        """Return a column of the STREP header by its name in `STREP_FIELDS`, (count,) uint32."""
        return STREP[field].column(self._words[:STREP_WORDS, : self.count])

    def rtp(self, field: str) -> NDArray[np.uint32]:
        """Return a column of the RTP header by its name in `RTP_FIELDS`, (count,) uint32."""
        return RTP[field].column(self._words[STREP_WORDS:, : self.count])

    def leg_id(self, row: int) -> UUID:
        """Return the call_leg_id of one datagram."""
        return UUID(bytes=self.call_leg_id[:, row].tobytes())

    def datagram(self, row: int) -> memoryview:
        """Return a view of what is there of one datagram."""
        kept = min(self.length_bytes[row], self.kept_bytes[row])
        return self.buffer[row, :kept].data

    def parse(self) -> bool:
        """Fill all columns from the datagrams; never raises on what they hold.

        Returns True when every datagram is an ordinary one, and so accepted.
        """
        if self._kernel is None:
            plain, odd = self._parse_ordinary()
        else:
            plain, odds = self._kernel.parse(
                self._columns, self.count, self.capacity, self.slot_bytes, Kind.STREP, Kind.RTP
            )
            odd = self._odd[:odds]
        if len(odd):
            self._parse_odd(odd)
        return not plain and not len(odd)

    def _parse_ordinary(self) -> tuple[int, NDArray[np.intp]]:
        """Parse ordinary STREP and bare RTP; return how many the latter are, and what is left."""
        n = self.count
        words = self._words[:, :n]
        np.copyto(words, self._wire_words[:, :n])
        np.copyto(self.call_leg_id[:, :n], self._wire_leg_id[:, :n])
        np.bitwise_and(self.buffer[:n, 0], 0b11, out=self.side[:n])
        length, kept = self.length_bytes[:n], self.kept_bytes[:n]
        ordinary = _is_bare_rtp(words[STREP_WORDS])
        ordinary &= (words[0] & _STREP_MASK) == _STREP_ORDINARY
        ordinary &= length >= _HEADER_BYTES
        ordinary &= length <= kept
        self.kind[:n] = Kind.STREP
        self.reason[:n] = DropReason.ACCEPTED
        self.payload_offset[:n] = _HEADER_BYTES
        np.subtract(length, _HEADER_BYTES, out=self.payload_bytes[:n])
        plain = odd = _NONE
        if not ordinary.all():
            others = np.flatnonzero(~ordinary)
            is_plain = _is_bare_rtp(words[0, others])
            is_plain &= length[others] >= RTP_BYTES
            is_plain &= length[others] <= kept[others]
            plain, odd = others[is_plain], others[~is_plain]
            self._take_plain_rtp(plain)
        self._fill_rtp(slice(0, n))
        return len(plain), odd

    def _take_plain_rtp(self, rows: NDArray[np.intp]) -> None:
        """Fill the columns of bare RTP without STREP."""
        self.kind[rows] = Kind.RTP
        self.payload_offset[rows] = RTP_BYTES
        self.payload_bytes[rows] = self.length_bytes[rows] - RTP_BYTES
        for word in range(RTP_WORDS):
            self._words[STREP_WORDS + word, rows] = self._words[word, rows]

    def _fill_rtp(self, rows: slice | NDArray[np.intp]) -> None:
        """Fill the columns of the RTP header's fields from its words."""
        words = self._words[STREP_WORDS:, rows]
        self.ssrc[rows] = RTP["ssrc"].column(words)
        self.sequence[rows] = RTP["sequence"].column(words)
        self.timestamp[rows] = RTP["timestamp"].column(words)
        self.payload_type[rows] = RTP["payload_type"].column(words)

    def _parse_odd(self, rows: NDArray[np.intp]) -> None:  # noqa: PLR0915 -- one list of checks
        """Parse the datagrams that are not ordinary, in the scalar parser's order of checks."""
        flat = self.buffer.reshape(-1)
        slot = rows * self.slot_bytes
        length = self.length_bytes[rows].astype(np.intp)
        held = np.minimum(length, self.kept_bytes[rows])

        def byte(at: NDArray[np.intp]) -> NDArray[np.intp]:
            """One byte of each datagram; 0 where the datagram has none there."""
            inside = at < held
            return np.where(inside, flat[slot + np.where(inside, at, 0)], 0).astype(np.intp)

        def word16(at: NDArray[np.intp]) -> NDArray[np.intp]:
            return byte(at) << 8 | byte(at + 1)

        def word32(at: NDArray[np.intp]) -> NDArray[np.intp]:
            return word16(at) << 16 | word16(at + 2)

        start = np.zeros(len(rows), np.intp)
        first, second = byte(start), byte(start + 1)
        kind = np.choose(first >> 6, [Kind.T38, Kind.SIP, Kind.RTP, Kind.STREP])
        is_capital_letter = (first >= ord("A")) & (first <= ord("Z"))
        is_stun = (held >= 8) & (word32(start + 4) == 0x2112A442)
        is_dtls = (first >= 20) & (first <= 63) & (second == 0xFE)
        is_rtcp = (held >= 2) & (second & 0x60 == 0x40)
        kind[(kind == Kind.RTP) & is_rtcp] = Kind.RTCP
        kind[(kind == Kind.SIP) & ~is_capital_letter] = Kind.OTHER
        kind[(kind == Kind.T38) & (is_stun | is_dtls)] = Kind.OTHER
        kind[held == 0] = Kind.OTHER

        reason = np.full(len(rows), DropReason.ACCEPTED, np.uint8)

        def deny(why: DropReason, where: NDArray[np.bool_]) -> None:
            reason[where & (reason == DropReason.ACCEPTED)] = why

        deny(DropReason.SHORT, held == 0)
        deny(DropReason.RTCP, kind == Kind.RTCP)
        deny(DropReason.T38, kind == Kind.T38)
        deny(DropReason.SIP, kind == Kind.SIP)
        deny(DropReason.OTHER, kind == Kind.OTHER)
        deny(DropReason.TRUNCATED, length > held)

        is_strep = kind == Kind.STREP
        deny(DropReason.SHORT, is_strep & (held < STREP_BYTES))
        deny(DropReason.STREP_VERSION, is_strep & (first >> 2 & 0xF != 1))
        deny(DropReason.HEADER_LENGTH, is_strep & (second < STREP_BYTES))
        deny(DropReason.SHORT, is_strep & (second > held))

        start = np.where(is_strep, second, 0)
        left = held - start
        first, second = byte(start), byte(start + 1)
        deny(DropReason.SHORT, left < 1)
        deny(DropReason.RTP_VERSION, first >> 6 != 2)
        deny(DropReason.RTCP, (left >= 2) & (second & 0x60 == 0x40))
        deny(DropReason.SHORT, left < RTP_BYTES)
        for word in range(RTP_WORDS):
            self._words[STREP_WORDS + word, rows] = word32(start + 4 * word)
        self._fill_rtp(rows)

        start = start + RTP_BYTES + 4 * (first & 0xF)
        deny(DropReason.CSRC, start > held)
        has_extension = first & 0x10 != 0
        deny(DropReason.EXTENSION, has_extension & (start + 4 > held))
        start = np.where(has_extension, start + 4 + 4 * word16(start + 2), start)
        deny(DropReason.EXTENSION, start > held)
        has_padding = first & 0x20 != 0
        padding = np.where(has_padding, byte(np.maximum(held - 1, 0)), 0)
        deny(DropReason.PADDING, has_padding & ((padding == 0) | (padding > held - start)))

        self.kind[rows] = kind
        self.reason[rows] = reason
        accepted = reason == DropReason.ACCEPTED
        self.payload_offset[rows] = np.where(accepted, start, 0)
        self.payload_bytes[rows] = np.where(accepted, held - start - padding, 0)


def _is_bare_rtp(first_word: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """Tell RTP without padding, extension or CSRCs, and not RTCP, by its first word."""
    is_bare: NDArray[np.bool_] = (first_word & _RTP_MASK) == _RTP_ORDINARY
    is_bare &= (first_word & _RTCP_MASK) != _RTCP
    return is_bare
