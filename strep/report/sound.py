"""Waveforms and audio for a report."""

from __future__ import annotations

import base64
import os
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
import soundfile

from strep.envelope import envelope

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import IO

    from numpy.typing import NDArray

    from strep.report.view import Placed

LEAST_COLUMN_S = 0.01
CHUNK_S = 2
"""Encoded at once."""
COMPRESSION_LEVEL = 0.5
"""Of libsndfile: a conversation in stereo at 8 kHz takes some 20 kbit/s."""
MAX_S = 12 * 3600
FORESEEN_SHARE = 0.25
"""From so much of the time on, what all will take is told from what is there."""
FORESEEN_EXCESS = 1.1
"""By so much more than the room, it is given up."""
MEDIA_TYPE = "audio/ogg"


def waves(recordings: Sequence[Placed], columns: int) -> tuple[list[list[dict[str, Any]]], float]:
    """Return the waveforms of each lane, and where the last of them ends.

    A waveform has `start_s`, `column_s` and `columns`, in base64: all lowest samples, all highest
    ones and all mean powers' roots, a signed byte each. Raises OSError and
    `soundfile.LibsndfileError`.
    """
    lanes: list[list[dict[str, Any]]] = [[], []]
    end_s = 0.0
    for path in dict.fromkeys(placed.path for placed in recordings):
        found = envelope(path, columns, least_s=LEAST_COLUMN_S)
        for placed in recordings:
            if placed.path == path and placed.channel < found.low.shape[1]:
                figures = [each[:, placed.channel] for each in (found.low, found.high, found.rms)]
                coded = np.rint(np.clip(np.concatenate(figures), -1, 1) * 127).astype(np.int8)
                lanes[placed.lane].append(
                    {
                        "start_s": placed.start_s,
                        "column_s": found.column_s,
                        "columns": base64.b64encode(coded.tobytes()).decode(),
                    }
                )
                end_s = max(end_s, placed.start_s + found.duration_s)
    return lanes, end_s


def encoded(
    recordings: Sequence[Placed],
    max_bytes: int,
    progress: Callable[[float], None] = lambda _: None,
) -> bytes | None:
    """Return all recordings in one file, Ogg Vorbis in stereo, lane 0 on the left.

    Vorbis, because it is as small as Opus at this quality, made five times as fast and, other than
    MP3, begins at its very first sample. A single lane is on both sides. None where it would be
    larger than `max_bytes` or longer than `MAX_S`. `progress` is told the fraction done. Raises
    OSError and `soundfile.LibsndfileError`.
    """
    with ExitStack() as stack:
        files = {
            path: stack.enter_context(soundfile.SoundFile(path))
            for path in {placed.path for placed in recordings}
        }
        rate_hz = max(file.samplerate for file in files.values())
        end_s = max(
            placed.start_s + len(files[placed.path]) / files[placed.path].samplerate
            for placed in recordings
        )
        if end_s > MAX_S:
            return None
        out = stack.enter_context(tempfile.TemporaryFile())
        encoder = soundfile.SoundFile(
            out, "w", rate_hz, 2, "VORBIS", format="OGG", compression_level=COMPRESSION_LEVEL
        )
        with encoder:
            frames = round(end_s * rate_hz)
            for first in range(0, frames, CHUNK_S * rate_hz):
                count = min(CHUNK_S * rate_hz, frames - first)
                mixed = np.zeros((count, 2), np.float32)
                for placed in recordings:
                    mixed[:, placed.lane] += _read(
                        files[placed.path], placed, first, count, rate_hz
                    )
                if len({placed.lane for placed in recordings}) == 1:
                    mixed[:] = mixed.sum(axis=1, keepdims=True)
                encoder.write(mixed)
                share = (first + count) / frames
                foreseen = FORESEEN_EXCESS * share if share >= FORESEEN_SHARE else 1
                if out.tell() > max_bytes * min(1, foreseen):
                    return None
                progress(share)
        return _content(out, max_bytes)


def link(path: Path, page: Path) -> str:
    """Return a recording's address, as seen from the page."""
    try:
        relative = os.path.relpath(path.resolve(), page.resolve().parent)
    except ValueError:  # on another drive
        return path.resolve().as_uri()
    return quote(Path(relative).as_posix())


def _content(out: IO[bytes], max_bytes: int) -> bytes | None:
    size = out.seek(0, os.SEEK_END)
    out.seek(0)
    return out.read() if size <= max_bytes else None


def _read(
    file: soundfile.SoundFile, placed: Placed, first: int, count: int, rate_hz: int
) -> NDArray[np.float32]:
    """Return `count` samples of a channel from `first` on, both at `rate_hz` and in the view."""
    own_hz = file.samplerate
    wanted = (first + np.arange(count)) / rate_hz - placed.start_s  # seconds in the file
    begin = max(0, int(np.floor(wanted[0] * own_hz)))
    end = min(len(file), int(np.ceil(wanted[-1] * own_hz)) + 1)
    if end <= begin:
        return np.zeros(count, np.float32)
    file.seek(begin)
    samples = file.read(end - begin, dtype="float32", always_2d=True)[:, placed.channel]
    if own_hz == rate_hz:
        at = np.rint(wanted * own_hz).astype(np.int64) - begin
        inside = (at >= 0) & (at < len(samples))
        heard = np.zeros(count, np.float32)
        heard[inside] = samples[at[inside]]
        return heard
    at_samples = wanted * own_hz - begin
    heard = np.empty(count, np.float32)
    heard[:] = np.interp(at_samples, np.arange(len(samples)), samples, left=0, right=0)
    return heard
