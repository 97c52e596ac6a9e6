"""Cells for the payloads of packets that wait, shared by all tracks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline.packets import Packets

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FIRST_CELLS = 256


class Pool:
    """Payloads with what must be remembered of their packets; grows, doubling, as needed.

    How much can wait is bounded by the bank's window and by `max_tracks`; what really waits is a
    few packets on the few tracks that have a hole.
    """

    def __init__(self) -> None:
        self.used = 0
        """Cells that hold a packet."""
        self.payload = np.zeros((0, 0), np.uint8)
        """(cells, bytes) uint8."""
        self.arrival_ns = np.zeros(0, np.int64)
        self._timestamp = np.zeros(0, np.int64)
        self._payload_type = np.zeros(0, np.intp)
        self._length = np.zeros(0, np.intp)
        self._free = np.zeros(0, np.int32)
        """Stack of free cells: the first `cells - used` entries."""

    def put(self, packets: Packets) -> NDArray[np.int32]:
        """Copy packets into free cells and return these, (n,) int32."""
        n = len(packets)
        longest = int(packets.length.max(initial=0))
        self._grow(self.used + n, longest)
        unused = len(self._free) - self.used
        cells = self._free[unused - n : unused].copy()
        self.used += n
        self.arrival_ns[cells] = packets.arrival_ns
        self._timestamp[cells] = packets.timestamp
        self._payload_type[cells] = packets.payload_type
        self._length[cells] = packets.length
        # bytes past a payload's end are never read: whatever stands there may come along
        reach = packets.offset[:, None] + np.arange(longest)
        np.minimum(reach, packets.store.shape[1] - 1, out=reach)
        self.payload[cells, :longest] = packets.store[packets.slot[:, None], reach]
        return cells

    def packets(
        self,
        cells: NDArray[np.int32],
        *,
        rows: NDArray[np.intp],
        ssrc: NDArray[np.int64],
        sequence: NDArray[np.int64],
    ) -> Packets:
        """Return what lies in these cells, payloads in place: valid until the cells are freed."""
        return Packets(
            rows=rows,
            ssrc=ssrc,
            sequence=sequence,
            timestamp=self._timestamp.take(cells),
            payload_type=self._payload_type.take(cells),
            arrival_ns=self.arrival_ns.take(cells),
            store=self.payload,
            slot=cells.astype(np.intp),
            offset=np.zeros(len(cells), np.intp),
            length=self._length.take(cells),
        )

    def free(self, cells: NDArray[np.int32]) -> None:
        """Take cells back."""
        unused = len(self._free) - self.used
        self._free[unused : unused + len(cells)] = cells
        self.used -= len(cells)

    def _grow(self, cells: int, width: int) -> None:
        old_cells, old_width = self.payload.shape
        if cells <= old_cells and width <= old_width:
            return
        new_cells = old_cells
        if cells > old_cells:
            new_cells = max(_FIRST_CELLS, 1 << (cells - 1).bit_length())
        # a multiple of 16 keeps the payloads aligned for decoding
        new_width = max(old_width, -(-width // 16) * 16)
        payload = np.zeros((new_cells, new_width), np.uint8)
        payload[:old_cells, :old_width] = self.payload
        self.payload = payload
        more = new_cells - old_cells
        if more:
            for name in ("arrival_ns", "_timestamp", "_payload_type", "_length"):
                column = getattr(self, name)
                setattr(self, name, np.concatenate((column, np.zeros(more, column.dtype))))
            unused = old_cells - self.used
            free = np.zeros(new_cells, np.int32)
            free[:unused] = self._free[:unused]
            free[unused : unused + more] = np.arange(old_cells, new_cells)
            self._free = free
