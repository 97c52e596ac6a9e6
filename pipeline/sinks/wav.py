"""Recordings as files.

Frames are not written one by one. Each row has a *stage* of about one second; a block's frames
are put into the stages of all its rows at once, and a recording goes to disk in one write when a
stage is full, when a frame does not continue what is staged, when the oldest staged frame is
`flush_s` old, or at the end. Python runs per flush, not per frame.

Stages hold G.711 codes, half the size of linear samples; they are decoded at the flush. Frames of
other codecs come as linear samples and gather in lists: slower, frame by frame, but plain.
"""

from __future__ import annotations

import errno
import logging
import os
import tempfile
import zlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from pipeline.block import Event
from pipeline.codecs import PCMA, PCMU
from pipeline.encode import encode
from pipeline.sinks.base import Sink, SinkError
from pipeline.sinks.encoding import FORMATS, check_format
from pipeline.sinks.filenames import FileNames
from pipeline.sinks.finishing import Finisher
from pipeline.sinks.pausing import Pauses
from pipeline.sinks.recording import CannotBeginError, Part, Placement, Plan, Recording
from pipeline.sinks.staging import STAGE_SAMPLES, Stages
from pipeline.sinks.wavfile import ALAW, MULAW, PCM16
from pipeline.utc import rfc3339

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence
    from concurrent.futures import Future
    from uuid import UUID

    from numpy.typing import NDArray

    from pipeline.block import AudioBlock, DirectionName, Track, TrackSummary
    from pipeline.codecs import G711, Codec
    from pipeline.sinks.wavfile import SampleFormat, WavFile

_logger = logging.getLogger("pipeline.wav")

FIRST_ROOMS = 42
NAME_STEREO = "{time}-{call_leg_id}-{leg}"
NAME_MONO = "{time}-{call_leg_id}-{leg}-{direction}"

_LAWS = (PCMU, PCMA)
_LINEAR = len(_LAWS)
"""The number that stands for linear samples where there are laws' numbers."""
_NUMBERS: Mapping[Codec, int] = {law: number for number, law in enumerate(_LAWS)}
_LAW_FORMATS = (MULAW, ALAW)
_TO_OTHER_LAW = (encode(PCMA, PCMU.table), encode(PCMU, PCMA.table))
_CHANNELS: Mapping[DirectionName, int] = {"inbound": 0, "outbound": 1}
_CHANNEL_NAMES = ("left", "right")
_LEAST_SPLIT_S = 1.0
_LOOK_NS = 1_000_000_000
"""How often it is looked how much space is free."""
_ENOUGH = 1.1
"""So many times what is too little is enough again."""
_MAY_PASS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
"""Errors of writing that do not end a recording."""
_DISK_LOW = "the disk is too full for another recording"


@dataclass(slots=True)
class _Run:
    """Linear samples of a track that wait to be written, one frame behind the other."""

    start: int
    """Position of the first one on the track."""
    since_ns: int
    """Arrival of the first frame."""
    frames: list[NDArray[np.int16]]
    end: int
    """Position behind the last one."""


class WavSink(Sink):
    """Records every track.

    `layout=stereo` makes one file per call leg, inbound left and outbound right. Its time 0 is
    the arrival of the first packet of its first track; each track is placed by the arrival of its
    own first frame, and from there on by media positions alone. `layout=mono` makes one file per
    track, starting at the track's first sample. A file has the sample rate of its first frame; a
    track of another rate gets a file of its own.

    `encoding=pcm16` stores linear samples, silence as zeros. `encoding=source` stores the G.711
    codes as they came, in the law of the file's first frame; frames of the other law are
    transcoded, silence is the law's code of it. Where the first frame is of neither law the file
    has linear samples. `format` is what a WAV file is encoded to when it is complete: until then
    it is WAV, and it stays WAV where it cannot be encoded.

    Gaps become silence. A frame for a place that was written before replaces what was there.

    A file is called as `file_name` says (see `pipeline.sinks.filenames`; by default
    `<UTC of its time 0>-<call leg>-<leg>`, and in mono `...-<direction>`), with `-2`, `-3`...
    behind it where that name is taken, and `.part` until the last of its tracks is closed; a track
    that comes back after that begins another recording. At every flush the header is made right,
    so that the file can be opened at any time, and every `fsync_s` what was written is brought to
    disk; with 0 nothing ever is. With `split_s` a recording is several files of so many seconds,
    `_001`, `_002`..., which together are the one file that there would be without. What lies
    beyond `max_length_s` is not recorded; 0 is no limit.

    While a call leg is paused, silence is recorded; nothing of the sound gets into a stage.

    Where less than `min_free_bytes` are free no recording begins; those that have begun go on. 0
    is no limit. A recording that cannot begin, be it for that or because no file can be made, is
    tried again with every flush until its tracks are closed; what came before is silence in it.

    When the disk is full, or was mounted read-only, under a recording that has begun, its file
    stays open and is tried again in the same way; what came meanwhile is silence in it. When a file
    cannot be written for another reason, its recording ends there: logged, counted in
    `failed_recordings` and said in the results of its tracks. All others go on.
    """

    threaded: ClassVar[bool] = True
    is_awaited: ClassVar[bool] = True
    wake_ms: ClassVar[float] = 100
    own_process: ClassVar[bool] = False  # recordings are finished by the receiver that began them
    blames_rows: ClassVar[bool] = False  # a frame is kept once

    def __init__(
        self,
        *,
        directory: Path = Path("recordings"),
        layout: Literal["stereo", "mono"] = "stereo",
        encoding: Literal["pcm16", "source"] = "pcm16",
        format: Literal["wav", "flac", "ogg", "mp3"] = "wav",  # noqa: A002 -- the option's name
        file_name: str | None = None,
        flush_s: float = 1.0,
        fsync_s: float = 5.0,
        split_s: float = 0.0,
        max_length_s: float = 86_400.0,
        min_free_bytes: int = 200 * 2**20,
    ) -> None:
        if not flush_s > 0:
            raise SinkError(f"flush_s is {flush_s:g}, expected more than 0 seconds")
        if split_s != 0 and not split_s >= _LEAST_SPLIT_S:
            raise SinkError(
                f"split_s is {split_s:g}, expected at least {_LEAST_SPLIT_S:g} s, or 0 for one file"
            )
        for name, value in {"fsync_s": fsync_s, "max_length_s": max_length_s}.items():
            if not value >= 0:
                raise SinkError(f"{name} is {value:g}, expected seconds, or 0 for none")
        if min_free_bytes < 0:
            raise SinkError(f"min_free_bytes is {min_free_bytes}, expected bytes, or 0 for none")
        if encoding == "source" and format != "wav":
            raise SinkError(f"encoding=source is for WAV files, and format is {format}")
        self._directory = directory
        self._stereo = layout == "stereo"
        self._source = encoding == "source"
        self._format = format
        self._names = FileNames(
            file_name or (NAME_STEREO if self._stereo else NAME_MONO), is_mono=not self._stereo
        )
        self._plan = Plan(directory, split_s=split_s, max_length_s=max_length_s)
        self._flush_ns = round(flush_s * 1e9)
        self._fsync_ns = round(fsync_s * 1e9)
        self._next_fsync_ns = 0
        self._unsynced: set[WavFile] = set()
        self._finisher = Finisher(None if format == "wav" else FORMATS[format], sync=fsync_s > 0)
        self._stages = Stages()
        self._runs: dict[int, _Run] = {}  # by row, of tracks with linear samples
        self._placements: dict[int, Placement] = {}  # by row
        self._recordings: dict[Hashable, list[Recording]] = {}  # those that a new track may join
        self._pauses = Pauses()
        self._failed_to_write = 0
        self._failed_to_finish = 0
        self._failed_to_begin = 0
        self._put_off: dict[int, Recording] = {}  # by id, those that have no file yet but need one
        self._least_free = min_free_bytes
        self._is_disk_low = False
        self._next_look_ns = 0

    @property
    def failed_recordings(self) -> int:
        """Recordings that ended before their tracks, or were lost, because of an error."""
        return self._failed_to_write + self._failed_to_finish

    @property
    def unencoded_files(self) -> int:
        """Files that stayed WAV because of an error, or because too many waited."""
        return self._finisher.unencoded

    @property
    def waiting_files(self) -> int:
        """Files that wait to be finished."""
        return self._finisher.waiting

    def counters(self) -> Mapping[str, int]:
        """Return what was counted of recordings; see `Sink.counters`."""
        return {
            "recordings_failed": self.failed_recordings,
            "recording_attempts_failed": self._failed_to_begin,
            "recordings_unencoded": self.unencoded_files,
            "recording_syncs_failed": self._finisher.sync_errors,
        }

    def gauges(self) -> Mapping[str, int]:
        """Return how recordings are now; see `Sink.gauges`."""
        return {
            "recordings_finishing": self.waiting_files,
            "recordings_put_off": len(self._put_off),
            "recordings_disk_low": int(self._is_disk_low),
        }

    def start(self) -> None:
        """Make the folder and try that it can be written; raises `SinkError`."""
        if self._format != "wav":
            check_format(self._format)
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self._directory):
                pass
        except OSError as error:
            raise SinkError(
                f"recordings cannot be written to the folder {self._directory}: {error.strerror}"
            ) from error
        self._look_at_disk()
        self._finisher.start()

    def open(self, track: Track) -> None:
        """Place the track in the recording of its call leg, or begin one."""
        channel = _CHANNELS[track.direction] if self._stereo else 0
        recording = self._joinable(track, channel, None) or self._begin(track)
        placement = Placement(track, recording, channel)
        recording.tracks[channel] = placement
        self._placements[track.row] = placement
        self._stages.ensure(track.row + 1)
        self._pauses.open(track.call_leg_id, track.row)

    def write(self, block: AudioBlock) -> None:
        """Stage the block's frames; flush the recordings that have no room for theirs."""
        law = _NUMBERS.get(block.codec, _LINEAR)
        rows, position, arrival_ns = block.rows, block.position, block.arrival_ns
        payload = block.payload
        if self._pauses and (is_cut := self._pauses.cut(block)) is not None:
            for i in np.flatnonzero(is_cut).tolist():
                self._skip(int(rows[i]), int(position[i]), int(arrival_ns[i]), law, block)
            kept = np.flatnonzero(~is_cut)
            if not len(kept):
                return
            rows, position, arrival_ns = rows[kept], position[kept], arrival_ns[kept]
            payload = payload[kept]
        if law == _LINEAR:
            self._gather(rows, position, arrival_ns, payload.view("<i2"), block.sample_rate_hz)
            return
        for first in range(0, block.samples, STAGE_SAMPLES):  # once, but for giant frames
            codes = np.ascontiguousarray(payload[:, first : first + STAGE_SAMPLES])
            self._stage(law, rows, position + first, arrival_ns, codes)

    def tick(self, now_ns: int) -> None:
        """Flush what has been staged for `flush_s`, and have it brought to disk when it is time."""
        if now_ns >= self._next_look_ns:
            self._next_look_ns = now_ns + _LOOK_NS
            self._look_at_disk()
        for row in self._stages.begun_until(now_ns - self._flush_ns):
            self._flush(self._placements[row].recording)
        for row, run in list(self._runs.items()):
            if run.since_ns <= now_ns - self._flush_ns:
                self._flush(self._placements[row].recording)
        if self._fsync_ns and now_ns >= self._next_fsync_ns and self._finisher.sync(self._unsynced):
            self._next_fsync_ns = now_ns + self._fsync_ns
            self._unsynced = set()
        self._pauses.forget(now_ns)

    def close(
        self,
        track: Track,
        summary: TrackSummary,
    ) -> Mapping[str, Any] | Future[Mapping[str, Any] | None] | None:
        """End the track, and its recording when no other track is open in it.

        Of a track without an audio frame only the `manifest` is returned, so that it stands there
        with its key presses or its unknown codec, and None where nothing else is in its recording.
        Else returns `recording` and `manifest` (paths), `channel` (`left`, `right`, `mono`) and
        `offset_samples` (where the track's sample 0 stands in the recording). Where there is
        something to say, also `files` (of a split recording, see `Recording.files`), `marks` (see
        `pipeline.manifest`), `error` (why the recording was cut short), `cut_at_s` (it had the
        longest length that it may have), `late_samples` (those
        for files of a split recording that were finished already), and `not_encoded` (why it is
        still WAV) with `instead_of`, the name that it was to have, `missed_at_s` (`[[start, end],
        ...]` of what could not be written, see the class), and `missed_until_s` (there was
        no file until then, see the class). There are no paths when nothing
        at all could be written. Where a recording ends, all of that comes when its file has its
        name.
        """
        placement = self._placements.pop(track.row)
        recording = placement.recording
        self._flush(recording)
        self._stages.renew(track.row)
        self._pauses.close(track.row)
        recording.tracks[placement.channel] = None
        if not any(recording.tracks):
            self._end(recording, track)
        if not self._placements:
            self._stages = Stages()  # gives the memory back
        if not placement.has_audio:
            is_told = recording.path is not None and summary.packets > 0
            return {"manifest": str(recording.manifest)} if is_told else None
        return recording.when_finished(partial(self._results, placement))

    def pause(self, call_leg_id: UUID, at_ns: int) -> None:
        """Record silence for what arrives from then on."""
        if self._pauses.begin(call_leg_id, at_ns, set(self._rows(call_leg_id))):
            self._mark("paused", call_leg_id, at_ns)

    def resume(self, call_leg_id: UUID, at_ns: int) -> None:
        """Record what arrives from then on."""
        if self._pauses.end(call_leg_id, at_ns):
            self._mark("resumed", call_leg_id, at_ns)

    def stop(self) -> None:
        """Complete the files of the tracks that are still open."""
        for placement in self._placements.values():
            self._flush(placement.recording)
        for recording in {id(p.recording): p.recording for p in self._placements.values()}.values():
            self._finish(recording)
        self._placements.clear()
        self._recordings.clear()
        self._finisher.stop()

    # -- recordings

    def _key(self, track: Track) -> Hashable:
        """Return what the tracks of one file have in common."""
        return track.call_leg_id, track.leg, None if self._stereo else track.direction

    def _joinable(self, track: Track, channel: int, rate_hz: int | None) -> Recording | None:
        """Return the latest recording that has room for a track; of a rate, where there is one."""
        for recording in reversed(self._recordings.get(self._key(track), ())):
            is_free = recording.tracks[channel] is None and not recording.error
            if is_free and rate_hz in {None, recording.rate_hz}:
                return recording
        return None

    def _begin(self, track: Track) -> Recording:
        """Begin a recording, to be named when it has something to write."""
        recording = Recording(
            self._plan,
            lambda: self._names.stem(track, self.facts(track.call_leg_id) or {}),
            len(_CHANNELS) if self._stereo else 1,
            track.opened_ns,
            self._finisher,
        )
        if self._pauses.is_paused(track.call_leg_id):
            recording.marks.append(("paused", track.opened_ns))
        self._recordings.setdefault(self._key(track), []).append(recording)
        return recording

    def _end(self, recording: Recording, track: Track) -> None:
        """Finish a recording that no track is open in any more."""
        key = self._key(track)
        if recording in (joinable := self._recordings.get(key, [])):
            joinable.remove(recording)
            if not joinable:
                del self._recordings[key]
        self._finish(recording)

    def _results(self, placement: Placement) -> dict[str, Any]:
        """Return what there is to say of a track; perhaps in the finisher's thread."""
        recording = placement.recording
        outcomes = recording.outcomes()
        results: dict[str, Any] = {
            "channel": _CHANNEL_NAMES[placement.channel] if self._stereo else "mono",
            "offset_samples": placement.offset_samples,
        }
        if recording.path is not None:
            results |= {"recording": str(recording.path), "manifest": str(recording.manifest)}
            if self._plan.split_s:
                results["files"] = recording.files()
            if not_encoded := [each.not_encoded for each in outcomes if each.not_encoded]:
                results["not_encoded"] = not_encoded[0]
                results["instead_of"] = str(recording.planned_path)
        if recording.marks:
            offset_ns = placement.track.opened_unix_ns - placement.track.opened_ns
            results["marks"] = [
                {"kind": kind, "at": rfc3339(at_ns + offset_ns)} for kind, at_ns in recording.marks
            ]
        if recording.is_cut:
            results["cut_at_s"] = self._plan.max_length_s
        if recording.missed:
            results["missed_until_s"] = recording.missed / (recording.rate_hz or 1)
        if recording.gaps:
            rate_hz = recording.rate_hz or 1
            results["missed_at_s"] = [[a / rate_hz, b / rate_hz] for a, b in recording.gaps]
        if recording.late_samples:
            results["late_samples"] = recording.late_samples
        errors = [recording.error, *(each.error for each in outcomes)]
        if error := next(filter(None, errors), None):
            results["error"] = error
        return results

    # -- pauses

    def _rows(self, call_leg_id: UUID) -> list[int]:
        """Return the open tracks of a call leg."""
        placements = self._placements.items()
        return [row for row, each in placements if each.track.call_leg_id == call_leg_id]

    def _mark(self, kind: Literal["paused", "resumed"], call_leg_id: UUID, at_ns: int) -> None:
        """Note in a call leg's recordings what was done, and say it."""
        rows = self._rows(call_leg_id)
        placements = [self._placements[row] for row in rows]
        for recording in {id(each.recording): each.recording for each in placements}.values():
            recording.marks.append((kind, max(at_ns, recording.opened_ns)))
        for each in placements:
            rate_hz = each.recording.rate_hz or _LAWS[0].sample_rate_hz
            since_ns = max(0, at_ns - each.track.opened_ns)
            position = since_ns * rate_hz // 1_000_000_000
            self.emit(Event(f"recording_{kind}", each.track, position, rate_hz))

    def _skip(self, row: int, position: int, arrival_ns: int, law: int, block: AudioBlock) -> None:
        """Leave out a frame: silence stands in its place, also where nothing follows."""
        placement = self._placements[row]
        if placement.recording.error is None:
            if not placement.has_audio:
                self._settle(placement, position, arrival_ns, law, block.sample_rate_hz)
            recording = placement.recording
            end = position + block.samples + placement.offset_samples
            recording.end = max(recording.end, end)

    # -- G.711

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
        if placement.recording.error is not None:
            return False
        room = STAGE_SAMPLES
        if not placement.has_audio:
            self._settle(placement, position, arrival_ns, law, _LAWS[law].sample_rate_hz)
            room = max(samples, _first_room(placement))
        recording = placement.recording
        if self._source and recording.law not in {None, _LINEAR}:
            law = recording.law or 0
        if row in self._runs and not self._flush(recording):
            return False
        if stages.fill[row]:
            if self._bridge(placement, position, samples, law):
                return True
            if not self._flush(recording):
                return False
        stages.begin(row, position, law, room)
        return True

    def _settle(
        self, placement: Placement, position: int, arrival_ns: int, law: int, rate_hz: int
    ) -> None:
        """Settle by a track's first frame where the track stands, and in which recording."""
        if placement.recording.rate_hz not in {None, rate_hz}:
            self._move(placement, rate_hz)
        recording = placement.recording
        if recording.rate_hz is None:
            recording.settle(law, rate_hz)
        placement.has_audio = True
        if self._stereo:
            since_ns = arrival_ns - recording.opened_ns
            placement.offset_samples = max(0, round(since_ns * rate_hz / 1e9) - position)

    def _move(self, placement: Placement, rate_hz: int) -> None:
        """Give a track another recording, because its own one has another rate."""
        track, channel, before = placement.track, placement.channel, placement.recording
        before.tracks[channel] = None
        recording = self._joinable(track, channel, rate_hz)
        if recording is None:
            recording = self._begin(track)
            recording.marks = list(before.marks)
        recording.tracks[channel] = placement
        placement.recording = recording
        if not any(before.tracks):
            self._end(before, track)

    def _bridge(self, placement: Placement, position: int, samples: int, law: int) -> bool:
        """Stage silence up to a frame, where silence is right and there is room for both."""
        stages, row = self._stages, placement.track.row
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

    # -- linear samples

    def _gather(
        self,
        rows: NDArray[np.intp],
        position: NDArray[np.int64],
        arrival_ns: NDArray[np.int64],
        samples: NDArray[np.int16],
        rate_hz: int,
    ) -> None:
        """Put frames behind those of their tracks; flush what they do not continue."""
        frames = zip(rows.tolist(), position.tolist(), arrival_ns.tolist(), samples, strict=True)
        for row, start, arrived_ns, frame in frames:
            placement = self._placements[row]
            if placement.recording.error is not None:
                continue
            if not placement.has_audio:
                self._settle(placement, start, arrived_ns, _LINEAR, rate_hz)
            run = self._runs.get(row)
            if self._stages.fill[row] or (run is not None and start != run.end):
                if not self._flush(placement.recording):
                    continue
                run = None
            if run is None:
                run = self._runs[row] = _Run(start, arrived_ns, [], start)
            run.frames.append(frame.copy())
            run.end += len(frame)
            if run.end - run.start >= rate_hz:
                self._flush(placement.recording)

    # -- to disk

    def _format_of(self, recording: Recording) -> SampleFormat:
        law = recording.law
        return PCM16 if not self._source or law in {None, _LINEAR} else _LAW_FORMATS[law or 0]

    def _flush(self, recording: Recording) -> bool:
        """Write what is staged of all channels; False when an error ended the recording."""
        tracks = [each for each in recording.tracks if each is not None]
        # codes came after linear samples, if at all
        for take in (self._take_run, self._take) if self._runs else (self._take,):
            parts = [part for track in tracks if (part := take(track))]
            if not parts:
                continue
            if self._is_disk_low and not recording.pieces:
                self._wait_to_begin(recording, parts, _DISK_LOW)
                continue
            try:
                files = recording.write(parts, self._format_of(recording))
            except CannotBeginError as error:
                self._failed_to_begin += 1
                self._wait_to_begin(recording, parts, error.strerror or str(error))
                continue
            except OSError as error:
                if error.errno in _MAY_PASS:
                    self._failed_to_begin += 1
                    self._wait_to_begin(recording, parts, error.strerror or str(error))
                    continue
                self._fail(recording, error)
                return False
            if recording.put_off is not None:
                self._begun(recording)
            if self._fsync_ns:
                self._unsynced.update(files)
        return True

    def _take(self, placement: Placement) -> Part | None:
        """Empty a stage; return its samples as they are to stand in the file, if there are any."""
        stages, row = self._stages, placement.track.row
        if not stages.fill[row]:
            return None
        start = int(stages.start[row]) + placement.offset_samples
        codec = None
        if not self._source or self._format_of(placement.recording) is PCM16:
            codec = _LAWS[stages.law[row]]
        return _part(placement.channel, start, stages.take(row), codec)

    def _take_run(self, placement: Placement) -> Part | None:
        """Take linear samples out, as they are to stand in the file, if there are any."""
        run = self._runs.pop(placement.track.row, None)
        if run is None:
            return None
        samples: NDArray[Any] = np.concatenate(run.frames)
        law = placement.recording.law
        if self._format_of(placement.recording) is not PCM16:
            samples = encode(_LAWS[law or 0], samples.astype(np.int16))
        return _part(placement.channel, run.start + placement.offset_samples, samples)

    def _look_at_disk(self) -> None:
        """Look whether there is space for further recordings, and say when that changes."""
        try:
            disk = os.statvfs(self._directory)
        except OSError:  # whether files can be made there is found out by making them
            return
        free = disk.f_bavail * disk.f_frsize
        was_low, least = self._is_disk_low, self._least_free
        self._is_disk_low = free < (least * _ENOUGH if was_low else least)
        if self._is_disk_low and not was_low:
            _logger.error(
                "no recordings begin: %d MiB are free in %s, and %d are to be",
                free >> 20,
                self._directory,
                least >> 20,
            )
        elif was_low and not self._is_disk_low:
            _logger.warning("recordings begin again: %d MiB are free", free >> 20)

    def _wait_to_begin(self, recording: Recording, parts: Sequence[Part], why: str) -> None:
        """Leave parts out, because they cannot be written; the next flush tries again."""
        if recording.pieces:
            if not any(each.pieces for each in self._put_off.values()):
                _logger.error("recordings cannot go on, and wait: %s: %s", recording.stem, why)
        elif not self._put_off and not self._is_disk_low:
            _logger.error("recordings cannot begin, and wait: %s: %s", recording.stem, why)
        recording.leave_out(parts, why)
        self._put_off[id(recording)] = recording

    def _begun(self, recording: Recording) -> None:
        """Note that a recording could be written that could not when it should."""
        recording.put_off = None
        self._put_off.pop(id(recording), None)
        if not self._put_off:
            what = "gone on" if recording.gaps else "begun"
            _logger.warning("all recordings that had to wait have %s", what)

    def _finish(self, recording: Recording) -> None:
        self._put_off.pop(id(recording), None)
        if recording.put_off or (not recording.pieces and recording.end and self._is_disk_low):
            self._fail(recording, OSError(recording.put_off or _DISK_LOW))
            return
        try:
            recording.finish(self._format_of(recording))
        except OSError as error:
            self._fail(recording, error)
        recording.when_finished(partial(self._finished, recording))

    def _finished(self, recording: Recording) -> None:
        """Take in what became of a recording's files; perhaps in the finisher's thread."""
        error = next((each.error for each in recording.outcomes() if each.error), None)
        if error is not None and recording.error is None:
            recording.error = error
            self._failed_to_finish += 1

    def _fail(self, recording: Recording, error: OSError) -> None:
        """End a recording; its tracks go on unrecorded."""
        self._failed_to_write += 1
        _logger.error("recording %s ends: %s", recording.path or recording.stem, error)
        recording.salvage(error.strerror or str(error))
        for track in recording.tracks:
            if track is not None:
                self._stages.renew(track.track.row)
                self._runs.pop(track.track.row, None)


def _part(
    channel: int, start: int, samples: NDArray[Any], codec: G711 | None = None
) -> Part | None:
    """Return samples as a part; None where they all lie before the recording's beginning.

    A sender's timestamps may step back before its own beginning.
    """
    if start < 0:
        start, samples = 0, samples[-start:]
    return Part(channel, start, start + len(samples), samples, codec) if len(samples) else None


def _first_room(placement: Placement) -> int:
    """Return the room for a recording's first runs, of each recording another one.

    Calls that begin at the same moment are so written at different moments from then on.
    """
    track = placement.track
    part = zlib.crc32(f"{track.call_leg_id}-{track.leg}".encode()) % FIRST_ROOMS + 1
    return STAGE_SAMPLES * part // FIRST_ROOMS
