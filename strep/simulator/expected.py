"""What a right recording of a simulated track holds, sample for sample.

`expected_audio` puts every audio packet that was sent where its timestamp says: what the network
lost, what a hold or suppressed silence left out and what telephone-events stand for is silence of
their length. Timestamps say nothing about how far a new source (SSRC) stands behind the one before,
so there is a `Piece` for each: a receiver can only place it by its arrival.

This holds for a receiver that waits for packets as long as the scenario holds them back.
`difference` compares it with a recording.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from strep.simulator.audio import SAMPLE_RATE_HZ, SAMPLES
from strep.simulator.ledger import Fate

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from strep.simulator.ledger import TrackLog


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """What one source said."""

    ssrc: int
    pcm: NDArray[np.int16]
    """From the first sample that was sent to the last, silence in between as zeros."""
    begins_s: float
    """When its first packet was made, in seconds of the simulation since the track's first one."""


@dataclass(frozen=True, slots=True, eq=False)
class ExpectedAudio:
    """What a right recording of a track holds."""

    pieces: tuple[Piece, ...]

    @property
    def pcm(self) -> NDArray[np.int16]:
        """All of it, each piece where its first packet was made, but never before the last end."""
        parts: list[NDArray[np.int16]] = []
        end = 0
        for piece in self.pieces:
            gap = max(0, round(piece.begins_s * SAMPLE_RATE_HZ) - end)
            parts += [np.zeros(gap, np.int16), piece.pcm]
            end += gap + len(piece.pcm)
        return np.concatenate(parts) if parts else np.zeros(0, np.int16)


def expected_audio(log: TrackLog) -> ExpectedAudio:
    """Return what a recording must hold of what a track's log says was sent.

    Raises ValueError for a log of which a part is no longer there.
    """
    if log.forgotten:
        raise ValueError(
            f"the log of track {log.track} has forgotten its first {log.forgotten} packets"
        )
    rows = log.columns
    audible = (rows["fate"] == Fate.SENT) & np.isin(rows["payload_type"], list(SAMPLES))
    sent = np.flatnonzero(audible)
    if not len(sent):
        return ExpectedAudio(())
    ssrc = rows["ssrc"][sent]
    breaks = np.flatnonzero(np.diff(ssrc)) + 1
    first_s = float(rows["made_s"][sent[0]])
    pieces = []
    for part in np.split(sent, breaks):
        timestamps = rows["timestamp"][part].astype(np.int64)
        places = (timestamps - timestamps[0]) & 0xFFFFFFFF
        pcm = np.zeros(int(places[-1]) + len(log.payloads[part[-1]]), np.int16)
        for number, place in zip(part.tolist(), places.tolist(), strict=True):
            codes = np.frombuffer(log.payloads[number], np.uint8)
            pcm[place : place + len(codes)] = SAMPLES[int(rows["payload_type"][number])][codes]
        begins_s = float(rows["made_s"][part[0]]) - first_s
        pieces.append(Piece(int(rows["ssrc"][part[0]]), pcm, begins_s))
    return ExpectedAudio(tuple(pieces))


def difference(
    expected: ExpectedAudio, recorded: NDArray[np.int16], *, most_gap_s: float = 1.0
) -> str | None:
    """Say in one sentence where a recording is not what it must be; None where it is.

    `recorded` is (samples,) int16, from the track's first sample on. Its first piece stands at the
    beginning, each further one up to `most_gap_s` behind the end of the one before; nothing but
    silence is between them and behind the last.
    """
    end = 0
    for number, piece in enumerate(expected.pieces):
        latest = end + round(most_gap_s * SAMPLE_RATE_HZ) if number else 0
        begin = _find(piece.pcm, recorded, end, latest)
        if begin is None:
            return _where(number, piece, recorded[end : end + len(piece.pcm)], end)
        if recorded[end:begin].any():
            return f"there is sound between samples {end} and {begin}, expected silence"
        end = begin + len(piece.pcm)
    if recorded[end:].any():
        return f"there is sound behind sample {end}, expected the end"
    return None


def _find(pcm: NDArray[np.int16], recorded: NDArray[np.int16], first: int, last: int) -> int | None:
    for begin in range(first, min(last, len(recorded) - len(pcm)) + 1):
        stop = begin + len(pcm)
        # the last sample first: most wrong places are refuted by one comparison
        if recorded[stop - 1] == pcm[-1] and np.array_equal(recorded[begin:stop], pcm):
            return begin
    return None


def _where(number: int, piece: Piece, recorded: NDArray[np.int16], begin: int) -> str:
    what = f"piece {number} (SSRC {piece.ssrc:#010x}, {len(piece.pcm)} samples)"
    if len(recorded) < len(piece.pcm):
        return f"{what} is cut short: from sample {begin} on only {len(recorded)} are left"
    place = int(np.flatnonzero(recorded != piece.pcm)[0])
    return (
        f"{what} is not there: sample {begin + place} is {recorded[place]}, "
        f"expected {piece.pcm[place]}"
    )
