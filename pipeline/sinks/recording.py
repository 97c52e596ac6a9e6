"""The file of a recording and how its channels come together in it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pipeline.sinks.wavfile import WavFile

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from pipeline.sinks.wavfile import SampleFormat


class Part(NamedTuple):
    """Samples of one channel."""

    channel: int
    start: int
    """Where the first of them stands in the file, in samples."""
    stop: int
    """One past the last."""
    samples: NDArray[Any]


@dataclass(slots=True)
class Placement:
    """Where a track is recorded."""

    row: int
    recording: Recording
    channel: int
    has_audio: bool = False
    offset_samples: int = 0
    """Where the track's sample 0 stands in the file, settled by its first audio frame."""


class Recording:
    """One file with one or two channels, made when there is something to write.

    Every method may raise OSError; after that only `salvage` makes sense.
    """

    def __init__(self, directory: Path, stem: str, channels: int, opened_ns: int) -> None:
        self.stem = stem
        """The file's name without suffix, and without a number where the name is taken."""
        self.opened_ns = opened_ns
        """The moment of the file's first sample, on the receiver's clock."""
        self.tracks: list[Placement | None] = [None] * channels
        """The open tracks by channel."""
        self.law: int | None = None
        """The number of the first frame's law; None before it."""
        self.rate_hz: int | None = None
        """Samples per second, those of the first frame; None before it."""
        self.written = [0] * channels
        """Where each channel's audio ends; silence beyond."""
        self.path: Path | None = None
        """The file's name in the end; None while there is no file."""
        self.error: str | None = None
        """Why the recording ended before its tracks."""
        self._directory = directory
        self._file: WavFile | None = None

    @property
    def manifest(self) -> Path | None:
        """The name of the manifest beside the file."""
        return None if self.path is None else _manifest(self.path)

    def write(self, parts: Sequence[Part], sample_format: SampleFormat, rate_hz: int) -> None:
        """Write parts, at most one for each channel, over what was there.

        The format counts when the file is made.
        """
        if self._file is None:
            self._file = self._create(sample_format, rate_hz)
            self.path = self._file.path
        if len(self.tracks) == 1:
            for part in parts:
                self._file.write(part.start, part.samples[:, np.newaxis])
        elif len(parts) == 2 and _touch(*parts):
            _interleave(self._file, parts)
        else:
            for part in parts:
                _interleave(self._file, [part])
        self._file.write_header()
        for part in parts:
            self.written[part.channel] = max(self.written[part.channel], part.stop)

    def finish(self) -> None:
        """Complete the file and give it its name."""
        if self._file is not None:
            file, self._file = self._file, None
            file.finish()

    def salvage(self, error: str) -> None:
        """End the recording because of an error; keep what was written, if that is possible."""
        self.error = error
        file, self._file = self._file, None
        if file is None:  # not made, or lost while it was finished
            self.path = None
        elif file.frames == 0:
            self.path = None
            with contextlib.suppress(OSError):
                file.discard()
        else:
            try:
                file.finish()
            except OSError:
                self.path = None

    def _create(self, sample_format: SampleFormat, rate_hz: int) -> WavFile:
        """Make the file under the first name that is free, its manifest's included."""
        count = 1
        while True:
            suffix = "" if count == 1 else f"-{count}"
            path = self._directory / f"{self.stem}{suffix}.wav"
            if not _manifest(path).exists():
                with contextlib.suppress(FileExistsError):
                    return WavFile(path, sample_format, len(self.tracks), rate_hz)
            count += 1


def _manifest(path: Path) -> Path:
    return path.with_suffix(".json")


def _touch(one: Part, other: Part) -> bool:
    return one.start <= other.stop and other.start <= one.stop


def _interleave(file: WavFile, parts: Sequence[Part]) -> None:
    """Write parts that overlap or touch, or a single one, in one go."""
    one, other = parts[0], parts[-1]
    start = min(one.start, other.start)
    stop = max(one.stop, other.stop)
    frames = np.empty((stop - start, 2), file.sample_format.dtype)
    if one is other or one.start != other.start or one.stop != other.stop:
        # what no part covers stays as it is in the file, and is silence beyond its end
        known = max(0, min(stop, file.frames) - start)
        if known:
            frames[:known] = file.read(start, start + known)
        frames[known:] = file.sample_format.silence
    for part in parts:
        frames[part.start - start : part.stop - start, part.channel] = part.samples
    file.write(start, frames)
