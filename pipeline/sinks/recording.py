"""The files of a recording and how its channels come together in them."""

from __future__ import annotations

import contextlib
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

import numpy as np

from pipeline.sinks.wavfile import WavFile

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from pipeline.block import Track
    from pipeline.codecs import G711
    from pipeline.sinks.finishing import Finisher, Outcome
    from pipeline.sinks.wavfile import SampleFormat

T = TypeVar("T")

SPLIT_GRACE_S = 30.0
"""How far a recording goes on before the file behind it is finished, at most: a side that lags is
still written to where it belongs."""
_NO_LIMIT = 1 << 62
MOST_GAPS = 1000
"""Gaps that are told of a recording; what is left out in later ones is silence all the same."""


class CannotBeginError(OSError):
    """A file could not be made; it may be tried again, and nothing else has changed."""


class Part(NamedTuple):
    """Samples of one channel."""

    channel: int
    start: int
    """Where the first of them stands in the file, in samples."""
    stop: int
    """One past the last."""
    samples: NDArray[Any]
    codec: G711 | None = None
    """Where they are codes that are to be stored as linear samples, of which law."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How the recordings of a sink are made."""

    directory: Path
    split_s: float = 0
    """Media time of a file, after which another one goes on; 0 for one file however long."""
    max_length_s: float = 0
    """Media time that is recorded at most; 0 for all."""


@dataclass(slots=True)
class Placement:
    """Where a track is recorded."""

    track: Track
    recording: Recording
    channel: int
    has_audio: bool = False
    offset_samples: int = 0
    """Where the track's sample 0 stands in the recording, settled by its first audio frame."""


@dataclass(slots=True)
class Piece:
    """One of the files of a recording."""

    start: int
    """Where its first sample stands in the recording."""
    file: WavFile
    outcome: Future[Outcome] | None = None
    """What becomes of it; None while it is written."""


class Recording:
    """One recording with one or two channels: a file, or several that continue each other.

    Files are made when there is something to write. Every method may raise OSError; after that
    only `salvage` makes sense, but for `CannotBeginError` from `write`: what it was told to write
    is left out then, and more can be written.
    """

    def __init__(
        self,
        plan: Plan,
        name: Callable[[], str],
        channels: int,
        opened_ns: int,
        finisher: Finisher,
    ) -> None:
        """`name` makes the stem when it is needed."""
        self.opened_ns = opened_ns
        """The moment of the first sample, on the receiver's clock."""
        self.tracks: list[Placement | None] = [None] * channels
        """The open tracks by channel."""
        self.law: int | None = None
        """The sink's number for the meaning of the first frame's codes; None before it."""
        self.rate_hz: int | None = None
        """Samples per second, those of the first frame; None before it. See `settle`."""
        self.written = [0] * channels
        """Where each channel's audio ends; silence beyond."""
        self.end = 0
        """Where the recording is to end, should nothing be written that far."""
        self.marks: list[tuple[Literal["paused", "resumed"], int]] = []
        """What was done and when, on the receiver's clock."""
        self.pieces: list[Piece] = []
        self.late_samples = 0
        """Samples for files that were finished already."""
        self.put_off: str | None = None
        """Why it could not be written when it was last to be; None where it could."""
        self.missed = 0
        """Where what was left out because there was no file ends."""
        self.gaps: list[list[int]] = []
        """`[start, stop]` of what was left out later because the file could not be written."""
        self.error: str | None = None
        """Why the recording ended before its tracks."""
        self.is_finished = False
        self._plan = plan
        self._name = name
        self._finisher = finisher
        self._limit = _NO_LIMIT
        self._split = 0
        """Length of a file in samples; 0 for one however long."""
        self._grace = 0
        """How far a file stays open after its end, for what comes late."""

    def settle(self, law: int, rate_hz: int) -> None:
        """Settle by the first frame what the recording is made of."""
        plan = self._plan
        self.law, self.rate_hz = law, rate_hz
        self._limit = round(plan.max_length_s * rate_hz) or _NO_LIMIT
        self._split = round(plan.split_s * rate_hz)
        self._grace = round(min(SPLIT_GRACE_S, plan.split_s) * rate_hz)

    @cached_property
    def stem(self) -> str:
        """The file's name without suffix, and without a number where the name is taken."""
        return self._name()

    @property
    def path(self) -> Path | None:
        """The name in the end of the first file that there is, or is to be; None for no file."""
        return next((path for path in map(self._path, self.pieces) if path is not None), None)

    @property
    def planned_path(self) -> Path | None:
        """The name that the first file was to have."""
        return self._finisher.final_path(self.pieces[0].file) if self.pieces else None

    @property
    def manifest(self) -> Path | None:
        """The name of the manifest beside the recording, or beside the first of its files."""
        if self.path is None:
            return None
        path = self.pieces[0].file.path
        return path.with_name(f"{path.stem.removesuffix(_number(0) if self._split else '')}.json")

    @property
    def is_cut(self) -> bool:
        """Whether there was more than is recorded at most."""
        return max(self.end, *self.written) > self._limit

    def files(self) -> list[dict[str, Any]]:
        """Return name, beginning and length of each file, ready for JSON."""
        rate_hz = self.rate_hz or 1
        return [
            {
                "recording": path.name,
                "start_s": piece.start / rate_hz,
                "duration_s": piece.file.frames / rate_hz,
            }
            for piece, path in zip(self.pieces, map(self._path, self.pieces), strict=True)
            if path is not None
        ]

    def write(self, parts: Sequence[Part], sample_format: SampleFormat) -> list[WavFile]:
        """Write parts, at most one for each channel, over what was there; return the files.

        The format counts when a file is made. What lies beyond the longest recording is left out.
        """
        for part in parts:
            self.written[part.channel] = max(self.written[part.channel], part.stop)
        if max(self.written) > self._limit:
            parts = [cut for part in parts if (cut := _between(part, 0, self._limit))]
            if not parts:
                return []
        if not self._split:
            file = self._piece(0, sample_format).file
            _write(file, parts)
            return [file]
        first = min(part.start for part in parts) // self._split
        last = (max(part.stop for part in parts) - 1) // self._split
        files = []
        for number in range(first, last + 1):
            start = number * self._split
            within = [cut for part in parts if (cut := _between(part, start, start + self._split))]
            piece = self._piece(number, sample_format) if within else None
            if piece is None:
                continue
            if piece.outcome is not None:
                self.late_samples += sum(part.stop - part.start for part in within)
                continue
            _write(piece.file, [_moved(part, start) for part in within])
            files.append(piece.file)
        self._hand_over(max(self.written) - self._grace)
        return [file for file in files if not file.is_closed]

    def leave_out(self, parts: Sequence[Part], why: str) -> None:
        """Note that these parts could not be written, because of something that may pass."""
        start, stop = min(part.start for part in parts), max(part.stop for part in parts)
        if not self.pieces:
            self.missed = max(self.missed, stop)
        elif self.put_off is not None and self.gaps:
            self.gaps[-1] = [min(self.gaps[-1][0], start), max(self.gaps[-1][1], stop)]
        elif len(self.gaps) < MOST_GAPS:
            self.gaps.append([start, stop])
        self.put_off = why

    def finish(self, sample_format: SampleFormat) -> None:
        """Complete the recording; its files get their names."""
        self.is_finished = True
        if end := min(self.end, self._limit):
            last = (end - 1) // self._split if self._split else 0
            piece = self._piece(last, sample_format)
            if piece.outcome is None:
                piece.file.extend(end - piece.start)
        self._hand_over(None)

    def salvage(self, error: str) -> None:
        """End the recording because of an error; keep what was written, if that is possible."""
        self.error = error
        self.is_finished = True
        for piece in list(self.pieces):
            if piece.outcome is None and piece.file.frames == 0:
                self.pieces.remove(piece)
                with contextlib.suppress(OSError):
                    piece.file.discard()
        self._hand_over(None)

    def outcomes(self) -> list[Outcome]:
        """Return what became of the files that are finished."""
        ends = (piece.outcome for piece in self.pieces)
        return [each.result() for each in ends if each is not None and each.done()]

    def when_finished(self, done: Callable[[], T]) -> T | Future[T]:
        """Return what `done` returns, which is called when all files have their names."""
        last = self.pieces[-1].outcome if self.is_finished and self.pieces else None
        if last is None or last.done():  # files are finished in their order
            return done()
        result: Future[T] = Future()
        # a future keeps what it called, and `done` may lead back to it: no cycle is left behind
        waiting = [done]
        last.add_done_callback(lambda _: _settle(result, waiting.pop()))
        return result

    def _path(self, piece: Piece) -> Path | None:
        """Return where a file is, or is to be."""
        if piece.outcome is not None and piece.outcome.done():
            return piece.outcome.result().path
        return self._finisher.final_path(piece.file)

    def _piece(self, number: int, sample_format: SampleFormat) -> Piece:
        """Return a file of the recording; it and those before it are made where they are not."""
        while len(self.pieces) <= number:
            if self._split:
                self._hand_over((len(self.pieces) - 1) * self._split)
            self.pieces.append(
                Piece(len(self.pieces) * self._split, self._create(len(self.pieces), sample_format))
            )
        return self.pieces[number]

    def _hand_over(self, until: int | None) -> None:
        """Have files finished that end at `until` or before; None for all.

        All but the last have the full length of a file, whatever was written to them.
        """
        for piece in self.pieces:
            is_last = piece is self.pieces[-1]
            if until is not None and (is_last or piece.start + self._split > until):
                break
            if piece.outcome is None:
                if not is_last and self.error is None:
                    piece.file.extend(self._split)
                piece.outcome = self._finisher.finish(piece.file)

    def _create(self, number: int, sample_format: SampleFormat) -> WavFile:
        """Make a file under the first name that is free, its manifest's included."""
        try:
            return self._create_free(number, sample_format)
        except OSError as error:
            raise CannotBeginError(error.errno, error.strerror or str(error)) from error

    def _create_free(self, number: int, sample_format: SampleFormat) -> WavFile:
        folder = self._plan.directory
        *folders, stem = self.stem.split("/")
        if not folder.is_dir():  # it was there at the start
            folder.mkdir(parents=True, exist_ok=True)
        for each in folders:
            folder /= each
            folder.mkdir(exist_ok=True)
        count = 1
        while True:
            name = stem if count == 1 else f"{stem}-{count}"
            path = folder / f"{name}{_number(number) if self._split else ''}.wav"
            manifest = folder / f"{name}.json"
            if number or not manifest.exists():
                with contextlib.suppress(FileExistsError):
                    file = WavFile(path, sample_format, len(self.tracks), self.rate_hz or 8000)
                    if not self._finisher.final_path(file).exists():
                        return file
                    file.discard()
            count += 1


def _number(piece: int) -> str:
    return f"_{piece + 1:03d}"


def _settle(result: Future[T], done: Callable[[], T]) -> None:
    try:
        result.set_result(done())
    except Exception as error:  # noqa: BLE001 -- whoever waits is told
        result.set_exception(error)


def _between(part: Part, start: int, stop: int) -> Part | None:
    """Return what of a part lies between; None for nothing."""
    if start <= part.start and part.stop <= stop:
        return part
    first, last = max(start, part.start), min(stop, part.stop)
    if first >= last:
        return None
    samples = part.samples[first - part.start : last - part.start]
    return Part(part.channel, first, last, samples, part.codec)


def _moved(part: Part, start: int) -> Part:
    """Return a part as it stands in a file that begins there."""
    return part._replace(start=part.start - start, stop=part.stop - start)


def _write(file: WavFile, parts: Sequence[Part]) -> None:
    if len(parts) == 2 and not _touch(*parts):
        for part in parts:
            _weave(file, [part])
    else:
        _weave(file, parts)
    file.write_header()


def _touch(one: Part, other: Part) -> bool:
    return one.start <= other.stop and other.start <= one.stop


def _weave(file: WavFile, parts: Sequence[Part]) -> None:
    """Write parts of different channels that overlap or touch, or a single one, in one go."""
    one, other = parts[0], parts[-1]
    start, stop = one.start, one.stop
    is_whole = len(parts) == file.channels
    if start != other.start or stop != other.stop:
        start, stop = min(start, other.start), max(stop, other.stop)
        is_whole = False
    frames = np.empty((stop - start, file.channels), file.sample_format.dtype)
    if not is_whole:
        # what no part covers stays as it is in the file, and is silence beyond its end
        known = max(0, min(stop, file.frames) - start)
        if known:
            frames[:known] = file.read(start, start + known)
        frames[known:] = file.sample_format.silence
    for channel, first, last, samples, codec in parts:
        if codec is None:
            frames[first - start : last - start, channel] = samples
        else:
            codec.weave(samples, frames, (first - start) * file.channels + channel)
    file.write(start, frames)
