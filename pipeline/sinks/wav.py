"""Recordings as WAV files.

Frames are not written one by one. Each row has a *stage* of about one second; a block's frames
are put into the stages of all its rows at once, and a recording goes to disk in one write when a
stage is full, when a frame does not continue what is staged, when the oldest staged frame is
`flush_s` old, or at the end. Python runs per flush, not per frame.

Stages hold G.711 codes, half the size of linear samples; they are decoded at the flush.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
import zlib
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from pipeline.codecs import PCMA, PCMU
from pipeline.sinks.base import Sink, SinkError
from pipeline.sinks.recording import Part, Placement, Recording
from pipeline.sinks.staging import STAGE_SAMPLES, Stages
from pipeline.sinks.wavfile import ALAW, MULAW, PCM16

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from numpy.typing import NDArray

    from pipeline.block import AudioBlock, DirectionName, Track, TrackSummary

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import audioop

_logger = logging.getLogger("pipeline.wav")

FIRST_ROOMS = 48

_LAWS = (PCMU, PCMA)
_LAW_FORMATS = (MULAW, ALAW)
_ALL_CODES = bytes(range(256))
_TO_OTHER_LAW = (
    np.frombuffer(audioop.lin2alaw(audioop.ulaw2lin(_ALL_CODES, 2), 2), np.uint8),
    np.frombuffer(audioop.lin2ulaw(audioop.alaw2lin(_ALL_CODES, 2), 2), np.uint8),
)
_CHANNELS: Mapping[DirectionName, int] = {"inbound": 0, "outbound": 1}
_CHANNEL_NAMES = ("left", "right")


class WavSink(Sink):
    """Records every track.

    `layout=stereo` makes one file per call leg, inbound left and outbound right. Its time 0 is
    the arrival of the first packet of its first track; each track is placed by the arrival of its
    own first frame, and from there on by media positions alone. `layout=mono` makes one file per
    track, starting at the track's first sample.

    `encoding=pcm16` stores linear samples, silence as zeros. `encoding=source` stores the G.711
    codes as they came, in the law of the file's first frame; frames of the other law are
    transcoded, silence is the law's code of it.

    Gaps become silence. A frame for a place that was written before replaces what was there.

    A file is called `<UTC of its time 0>-<call leg>-<leg>.wav` (mono: `...-<direction>.wav`),
    with `-2`, `-3`... before the suffix where that name is taken, and `.part` behind it until the
    last of its tracks is closed; a track that comes back after that begins another file. At every
    flush the header is made right, so that the file can be opened at any time.

    When a file cannot be written, its recording ends there: logged, counted in
    `failed_recordings` and said in the results of its tracks. All others go on.
    """

    threaded: ClassVar[bool] = True
    wake_ms: ClassVar[float] = 100

    def __init__(
        self,
        *,
        directory: Path = Path("recordings"),
        layout: Literal["stereo", "mono"] = "stereo",
        encoding: Literal["pcm16", "source"] = "pcm16",
        flush_s: float = 1.0,
    ) -> None:
        if not flush_s > 0:
            raise SinkError(f"flush_s is {flush_s:g}, expected more than 0 seconds")
        self.failed_recordings = 0
        """Recordings that ended before their tracks because of an error."""
        self._directory = directory
        self._stereo = layout == "stereo"
        self._source = encoding == "source"
        self._flush_ns = round(flush_s * 1e9)
        self._stages = Stages()
        self._placements: dict[int, Placement] = {}  # by row
        self._recordings: dict[Hashable, Recording] = {}  # those that a new track may join
        self._decoded = np.empty((2, STAGE_SAMPLES), np.int16)

    def start(self) -> None:
        """Make the folder and try that it can be written; raises `SinkError`."""
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self._directory):
                pass
        except OSError as error:
            raise SinkError(
                f"recordings cannot be written to the folder {self._directory}: {error.strerror}"
            ) from error

    def open(self, track: Track) -> None:
        """Place the track in the recording of its call leg, or begin one."""
        key = self._key(track)
        channel = _CHANNELS[track.direction] if self._stereo else 0
        recording = self._recordings.get(key)
        if recording is None or recording.error or recording.tracks[channel] is not None:
            channels = len(_CHANNELS) if self._stereo else 1
            recording = Recording(self._directory, self._stem(track), channels, track.opened_ns)
            self._recordings[key] = recording
        placement = Placement(track.row, recording, channel)
        recording.tracks[channel] = placement
        self._placements[track.row] = placement
        self._stages.ensure(track.row + 1)

    def write(self, block: AudioBlock) -> None:
        """Stage the block's frames; flush the recordings that have no room for theirs."""
        if block.codec.table is None:
            self._write_linear(block)
            return
        law = _LAWS.index(block.codec)
        for first in range(0, block.samples, STAGE_SAMPLES):  # once, but for giant frames
            codes = np.ascontiguousarray(block.payload[:, first : first + STAGE_SAMPLES])
            self._stage(law, block.rows, block.position + first, block.arrival_ns, codes)

    def _write_linear(self, block: AudioBlock) -> None:
        """Write frames that were decoded before, of the rate that their file began with."""
        rate_hz = block.sample_rate_hz
        for i, row in enumerate(block.rows.tolist()):
            placement = self._placements[row]
            recording = placement.recording
            position = int(block.position[i])
            if not placement.has_audio:
                self._settle(placement, position, int(block.arrival_ns[i]), None, rate_hz)
            if recording.error is not None or recording.rate_hz != rate_hz:
                continue
            self._flush(recording)
            start, samples = position + placement.offset_samples, block.pcm[i]
            if start < 0:
                start, samples = 0, samples[-start:]
            if len(samples):
                part = Part(placement.channel, start, start + len(samples), samples)
                try:
                    recording.write([part], PCM16, rate_hz)
                except OSError as error:
                    self._fail(recording, error)

    def tick(self, now_ns: int) -> None:
        """Flush what has been staged for `flush_s`."""
        for row in self._stages.begun_until(now_ns - self._flush_ns):
            self._flush(self._placements[row].recording)

    def close(self, track: Track, summary: TrackSummary) -> Mapping[str, Any] | None:  # noqa: ARG002 -- the contract's signature
        """End the track, and its file when no other track is open in it.

        Returns None for a track without an audio frame, else `recording` and `manifest` (paths),
        `channel` (`left`, `right`, `mono`), `offset_samples` (where the track's sample 0 stands
        in the file) and, for a recording that was cut short, `error`. There are no paths when
        nothing at all could be written.
        """
        placement = self._placements.pop(track.row)
        recording = placement.recording
        self._flush(recording)
        self._stages.renew(track.row)
        recording.tracks[placement.channel] = None
        if not any(recording.tracks):
            if self._recordings.get(self._key(track)) is recording:
                del self._recordings[self._key(track)]
            self._finish(recording)
        if not self._placements:
            self._stages = Stages()  # gives the memory back
        if not placement.has_audio:
            return None
        results: dict[str, Any] = {
            "channel": _CHANNEL_NAMES[placement.channel] if self._stereo else "mono",
            "offset_samples": placement.offset_samples,
        }
        if recording.path is not None:
            results |= {"recording": str(recording.path), "manifest": str(recording.manifest)}
        if recording.error is not None:
            results["error"] = recording.error
        return results

    def stop(self) -> None:
        """Complete the files of the tracks that are still open."""
        for placement in self._placements.values():
            self._flush(placement.recording)
            self._finish(placement.recording)
        self._placements.clear()
        self._recordings.clear()

    def _key(self, track: Track) -> Hashable:
        """Return what the tracks of one file have in common."""
        return track.call_leg_id, track.leg, None if self._stereo else track.direction

    def _stem(self, track: Track) -> str:
        opened = datetime.fromtimestamp(track.opened_unix_ns // 1_000_000_000, UTC)
        stem = f"{opened:%Y%m%dT%H%M%SZ}-{track.call_leg_id}-{track.leg.lower()}"
        return stem if self._stereo else f"{stem}-{track.direction}"

    def _stage(
        self,
        law: int,
        rows: NDArray[np.intp],
        position: NDArray[np.int64],
        arrival_ns: NDArray[np.int64],
        codes: NDArray[np.uint8],
    ) -> None:
        left = self._put(law, rows, position, arrival_ns, codes)
        while len(left):
            has_room = [
                self._make_room(
                    int(rows[i]), int(position[i]), int(arrival_ns[i]), codes.shape[1], law
                )
                for i in left.tolist()
            ]
            left = left[np.array(has_room)]
            rows, position, arrival_ns = rows[left], position[left], arrival_ns[left]
            codes = codes[left]
            # room for one frame is made by flushing both channels, so all are asked again
            left = self._put(law, rows, position, arrival_ns, codes)

    def _put(
        self,
        law: int,
        rows: NDArray[np.intp],
        position: NDArray[np.int64],
        arrival_ns: NDArray[np.int64],
        codes: NDArray[np.uint8],
    ) -> NDArray[np.intp]:
        """Stage the frames that there is room for; return the indices of the others."""
        if self._source:
            foreign = self._stages.law.take(rows) != law
            if foreign.any():
                codes = codes.copy()
                codes[foreign] = _TO_OTHER_LAW[law][codes[foreign]]
        required_law = None if self._source else law
        return self._stages.put(rows, position, arrival_ns, codes, required_law)

    def _make_room(self, row: int, position: int, arrival_ns: int, samples: int, law: int) -> bool:
        """Let the row's stage take a frame that does not fit; False when nothing records it."""
        stages = self._stages
        placement = self._placements[row]
        recording = placement.recording
        if recording.error is not None:
            return False
        if recording.rate_hz not in {None, _LAWS[law].sample_rate_hz}:
            return False
        room = STAGE_SAMPLES
        if not placement.has_audio:
            self._settle(placement, position, arrival_ns, law, _LAWS[law].sample_rate_hz)
            room = max(samples, _first_room(recording))
        if self._source:
            law = recording.law or 0
        if stages.fill[row]:
            if self._bridge(placement, position, samples, law):
                return True
            if not self._flush(recording):
                return False
        stages.begin(row, position, law, room)
        return True

    def _settle(
        self, placement: Placement, position: int, arrival_ns: int, law: int | None, rate_hz: int
    ) -> None:
        """Settle by a track's first frame where the track stands in its file."""
        recording = placement.recording
        if recording.rate_hz is None:
            recording.law, recording.rate_hz = law, rate_hz
        placement.has_audio = True
        if self._stereo:
            since_ns = arrival_ns - recording.opened_ns
            arrived_at = round(since_ns * rate_hz / 1e9)
            placement.offset_samples = max(0, arrived_at - position)

    def _bridge(self, placement: Placement, position: int, samples: int, law: int) -> bool:
        """Stage silence up to a frame, where silence is right and there is room for both."""
        stages, row = self._stages, placement.row
        start = int(stages.start[row])
        edge = start + int(stages.fill[row])
        silence = _LAWS[law].silence
        if (
            edge < position <= start + int(stages.room[row]) - samples
            and stages.law[row] == law
            and (self._source or _LAWS[law].table[silence] == 0)  # A-law has no code for zero
            and edge + placement.offset_samples >= placement.recording.written[placement.channel]
        ):
            stages.pad(row, position, silence)
            return True
        return False

    def _flush(self, recording: Recording) -> bool:
        """Write what is staged of all channels; False when an error ended the recording."""
        parts = [part for track in recording.tracks if track and (part := self._take(track))]
        if not parts:
            return True
        law = recording.law or 0
        sample_format = _LAW_FORMATS[law] if self._source else PCM16
        try:
            recording.write(parts, sample_format, _LAWS[law].sample_rate_hz)
        except OSError as error:
            self._fail(recording, error)
            return False
        return True

    def _take(self, placement: Placement) -> Part | None:
        """Empty a stage; return its samples as they are to stand in the file, if there are any."""
        stages, row = self._stages, placement.row
        if not stages.fill[row]:
            return None
        start = int(stages.start[row]) + placement.offset_samples
        codes = stages.take(row)
        samples: NDArray[Any] = codes
        if not self._source:
            samples = self._decoded[placement.channel, : len(codes)]
            _LAWS[stages.law[row]].decode(codes, samples)
        if start < 0:  # a sender whose timestamps step back before its own beginning
            start, samples = 0, samples[-start:]
        if not len(samples):
            return None
        return Part(placement.channel, start, start + len(samples), samples)

    def _finish(self, recording: Recording) -> None:
        try:
            recording.finish()
        except OSError as error:
            self._fail(recording, error)

    def _fail(self, recording: Recording, error: OSError) -> None:
        """End a recording; its tracks go on unrecorded."""
        self.failed_recordings += 1
        _logger.error("recording %s ends: %s", recording.path or recording.stem, error)
        recording.salvage(error.strerror or str(error))
        for track in recording.tracks:
            if track is not None:
                self._stages.renew(track.row)


def _first_room(recording: Recording) -> int:
    """Return the room for a recording's first runs, of each recording another one.

    Calls that begin at the same moment are so written at different moments from then on.
    """
    part = zlib.crc32(recording.stem.encode()) % FIRST_ROOMS + 1
    return STAGE_SAMPLES * part // FIRST_ROOMS
