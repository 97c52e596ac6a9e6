"""UDP datagrams from capture files: pcap or pcapng, plain or compressed by gzip.

`frames` takes a file apart into frames, `linklayer` finds the datagram in a frame; here they fill
the batch that all readers fill.
"""

from __future__ import annotations

import io
import os
from contextlib import ExitStack
from itertools import chain
from typing import TYPE_CHECKING, Self, TypeAlias

from strep.receive.frames import PIECE_BYTES, DamageError, open_frames
from strep.receive.linklayer import (
    LINK_TYPES,
    LINK_TYPES_TEXT,
    NoDatagramError,
    find_datagram,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from strep.wire.batch import PacketBatch


class CaptureError(ValueError):
    """A capture that is of no use at all; one sentence that names the file."""


class CaptureReader:
    """Reads the UDP datagrams of a capture file, in the file's order.

    The file is read in pieces, so memory does not grow with it. Damage, or an end in the middle
    of a packet, ends the capture: what came before is kept, and `cut` says where. Raises
    `CaptureError` where the file cannot be read or is no capture, and where no frame has a link
    layer that is known (of a pcapng file this is known at its end, so `read` raises it).
    """

    def __init__(self, path: Path, *, window_ns: int = 200_000_000) -> None:
        self.exhausted = False
        """Whether all has been read; known at the latest when `read` returns 0."""
        self.datagrams = 0
        """UDP datagrams handed out so far."""
        self.skipped: dict[str, int] = {}
        """Frames so far that hold no UDP datagram, by the word of `SkipReason`."""
        self.cut: str | None = None
        """One sentence, once it is known that the capture is damaged or ends too early."""
        self._path = path
        self._window_ns = window_ns
        self._held: _Row | None = None
        try:
            with ExitStack() as on_error:
                self._file: io.BufferedReader = on_error.enter_context(
                    io.BufferedReader(path.open("rb", buffering=0), PIECE_BYTES)
                )
                self._file_bytes = os.fstat(self._file.fileno()).st_size
                self._frames = open_frames(self._file)
                self._check_link_types()
                on_error.pop_all()
        except (DamageError, OSError) as error:
            raise CaptureError(f"cannot read capture {path}: {_reason(error)}") from error
        self._rows = self._read_rows()

    def read(self, batch: PacketBatch) -> int:
        """Fill the batch from row 0 with the next datagrams; return how many, 0 at the end.

        They are at most the batch's capacity, and none arrived more than `window_ns` after the
        first of them. Arrival is in ns since 1970, as it stands in the capture, even where it
        steps back.
        """
        batch.clear()
        add, capacity = batch.add, batch.capacity
        count, end_ns = 0, 0
        held, self._held = self._held, None
        for row in self._rows if held is None else chain((held,), self._rows):
            arrival_ns = row[1]
            if count == 0:
                end_ns = arrival_ns + self._window_ns
            elif arrival_ns > end_ns:
                self._held = row
                break
            add(*row)
            count += 1
            if count == capacity:
                break
        else:
            self.exhausted = True
        self.datagrams += count
        return count

    @property
    def progress(self) -> float:
        """How much of the file has been read, from 0 to 1; 0 until the end for a pipe."""
        if self.exhausted:
            return 1.0
        return min(self._file.tell() / self._file_bytes, 1.0) if self._file_bytes else 0.0

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read_rows(self) -> Iterator[_Row]:
        found = 0
        skipped = self.skipped
        try:
            for link_type, arrival_ns, frame in self._frames.read():
                try:
                    payload, source, destination, length_bytes = find_datagram(link_type, frame)
                except NoDatagramError as error:
                    skipped[error.reason.value] = skipped.get(error.reason.value, 0) + 1
                    continue
                found += 1
                yield payload, arrival_ns, source, destination, length_bytes
        except (DamageError, OSError) as error:
            frames = found + sum(skipped.values())
            after = f"after {frames} frame{'s' * (frames != 1)}"
            self.cut = f"{self._path}, {after}: {_reason(error)}"
        self._check_link_types()

    def _check_link_types(self) -> None:
        """Raise where no link type that the file has named so far is known."""
        link_types = self._frames.link_types
        if link_types and not link_types & LINK_TYPES:
            raise CaptureError(
                f"cannot read capture {self._path}: it has link type "
                f"{', '.join(map(str, sorted(link_types)))}, expected {LINK_TYPES_TEXT}"
            )


_Row: TypeAlias = tuple[bytes, int, bytes, bytes, int]
"""The arguments of `PacketBatch.add`: datagram, arrival, source, destination, length."""


def _reason(error: DamageError | OSError) -> str:
    """Return what people want to know of it: of an OSError, not its number."""
    return (isinstance(error, OSError) and error.strerror) or str(error)
