"""Finishes the recordings that a killed process left: `.part` files that nobody writes any more.

Whoever writes one holds a lock on it, see `WavFile`, so that a file of a living worker, or of
another daemon in the same folder, is left alone. What is left over is repaired (the header is made
right for the length that the file has), encoded where the sink says so, and gets its name and a
manifest with the reason `interrupted`.
"""

from __future__ import annotations

import re
import threading
import time
from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import structlog

from pipeline.manifest import add_interrupted
from pipeline.sinks.encoding import FORMATS
from pipeline.sinks.finishing import Finisher, let_others_go_first
from pipeline.sinks.wavfile import NotOursError, WavFile
from pipeline.utc import rfc3339
from strep.recovery import NAME
from strep.store import INTERRUPTED, StoredTrack, unix_ns

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pipeline.sinks.encoding import FileFormat
    from strep.specs import SinkSpec

logger = structlog.get_logger("strep")

MOST_FILES = 100_000
"""Files that are looked at; others wait for the next start."""
PROGRESS_S = 5.0
"""How often it is said how many are left."""
SUFFIX = ".wav.part"
_CALL_LEG_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_NUMBER = re.compile(r"_\d{3,}$")
_OTHER = {"inbound": "outbound", "outbound": "inbound"}
_TOLERANCE_NS = 5_000_000_000
"""How much earlier a track may have opened than its file seems to begin, by its last change."""


class Place(NamedTuple):
    """Where a sink makes recordings, and how."""

    folder: Path
    depth: int = 0
    """How many folders its files are below that."""
    file_format: FileFormat | None = None
    """What they are encoded to; None for WAV."""
    is_split: bool = False


class _File(NamedTuple):
    """A file that was finished."""

    path: Path
    frames: int
    rate_hz: int
    channels: int
    ended_ns: int
    """When it was written last."""


def places(specs: Iterable[SinkSpec], directory: Path) -> list[Place]:
    """Return the places of these sinks' recordings; `directory` is that of those not told one."""
    found: dict[Path, Place] = {}
    for spec in specs:
        if spec.name == "wav":
            options = spec.options
            folder = Path(str(options.get("directory", directory)))
            form = str(options.get("format", "wav"))
            place = Place(
                folder,
                str(options.get("file_name", "")).count("/"),
                None if form == "wav" else FORMATS.get(form),
                float(str(options.get("split_s", 0))) > 0,
            )
            found.setdefault(folder, place)
    return list(found.values())


class Rescuer:
    """Finishes what is left in some places; `finish` may be called again, by one thread."""

    def __init__(self, places: Sequence[Place]) -> None:
        self.finished = 0
        """Files that were finished."""
        self.failed = 0
        """Files that could not be repaired, or finished."""
        self._places = places
        self._is_stopped = threading.Event()
        self._finisher: Finisher | None = None

    def stop(self) -> None:
        """Let `finish` return soon; what is left then waits for the next start."""
        self._is_stopped.set()
        if self._finisher is not None:
            self._finisher.hurry(0)

    def finish(self, tracks: Sequence[StoredTrack]) -> list[StoredTrack]:
        """Finish all recordings that are left; return the tracks that they are of.

        `tracks` are those known that nobody closed, with the unfinished files that
        `find_recordings` found. They are returned with what is known by now, and others that were
        not known. It takes as long as disks and coders do, at low priority.
        """
        let_others_go_first()
        recordings: dict[Path, list[tuple[Place, Path]]] = defaultdict(list)
        count = 0
        for place, part in self._parts():
            recordings[_manifest(part, is_split=place.is_split)].append((place, part))
            count += 1
        if not count:
            return []
        told_s = time.monotonic()
        left, found = count, []
        for manifest, parts in recordings.items():
            if self._is_stopped.is_set():
                break
            files = [file for place, part in parts if (file := self._finish(place, part))]
            left -= len(parts)
            if files:
                try:
                    found += _note(manifest, files, tracks, parts[0][0].folder)
                except (OSError, ValueError) as error:
                    logger.warning("manifest not written", path=str(manifest), error=str(error))
            if time.monotonic() >= told_s + PROGRESS_S:
                told_s = time.monotonic()
                logger.info("recordings that were left are being finished", left=left)
        return found

    def _parts(self) -> Iterator[tuple[Place, Path]]:
        left = MOST_FILES
        for place in self._places:
            pattern = "*/" * place.depth + f"*{SUFFIX}"
            try:
                parts = sorted(place.folder.glob(pattern))[:left]
            except OSError as error:
                logger.warning(
                    "unfinished recordings cannot be looked for",
                    folder=str(place.folder),
                    error=str(error),
                )
                continue
            left -= len(parts)
            yield from ((place, part) for part in parts)

    def _finish(self, place: Place, part: Path) -> _File | None:
        """Finish a file that is left; None for one that is not, or that there is nothing in."""
        try:
            ended_ns = part.stat().st_mtime_ns
            file = WavFile.adopt(part)
        except (BlockingIOError, FileNotFoundError):  # it is written, or finished by now
            return None
        except (OSError, NotOursError) as error:
            self.failed += 1
            logger.error("an unfinished recording stays as it is", path=str(part), error=str(error))  # noqa: TRY400 -- a sentence says all
            return None
        if not file.frames:
            file.discard()
            return None
        known = (file.frames, file.rate_hz, file.channels, ended_ns)
        finisher = self._finisher = Finisher(place.file_format, sync=True)
        if self._is_stopped.is_set():  # told so since the last look, when there was another one
            finisher.hurry(0)
        final = finisher.final_path(file)
        if place.file_format is not None and _frames(final) == file.frames:
            file.discard()  # it was killed between the encoded file's name and this one's end
            return _File(final, *known)
        stem, copy = file.path.stem, 1
        while finisher.final_path(file).exists() or file.path.exists():
            copy += 1
            file.path = file.path.with_name(f"{stem}-{copy}.wav")
        outcome = finisher.finish(file).result()
        if outcome.path is None:
            self.failed += 1
            return None
        finisher.sync_folders([outcome.path.parent])
        self.finished += 1
        return _File(outcome.path, *known)


def _manifest(part: Path, *, is_split: bool) -> Path:
    """Return the manifest of an unfinished recording."""
    stem = part.name.removesuffix(SUFFIX)
    match = NAME.fullmatch(part.name)
    number = match["number"] if match else None
    if is_split and not number and (found := _NUMBER.search(stem)):
        number = found[0]
    return part.with_name(f"{stem.removesuffix(number or '')}.json")


def _note(
    manifest: Path, files: Sequence[_File], tracks: Sequence[StoredTrack], folder: Path
) -> list[StoredTrack]:
    """Write into a recording's manifest whose it is; return its tracks."""
    duration_s = sum(file.frames / file.rate_hz for file in files)
    ended_ns = max(file.ended_ns for file in files)
    began_ns = ended_ns - round(duration_s * 1e9)
    own = _tracks(manifest, tracks, began_ns, ended_ns) or _guessed(
        manifest, files[0], began_ns, folder
    )
    if not own:
        return []
    began_ns = min(track.opened_ns for track in own)
    noted = [
        replace(
            track,
            recording=str(files[0].path),
            manifest=str(manifest),
            reason=INTERRUPTED,
            ended_ns=max(ended_ns, track.opened_ns),
        )
        for track in own
    ]
    add_interrupted(
        manifest,
        [
            _entry(track, files[0], (track.opened_ns - began_ns) / 1e9, duration_s)
            for track in noted
        ],
        [(file.path.name, file.frames / file.rate_hz) for file in files],
        is_split=manifest.stem != files[0].path.stem,
    )
    return noted


def _tracks(
    manifest: Path, tracks: Sequence[StoredTrack], began_ns: int, ended_ns: int
) -> list[StoredTrack]:
    """Return those tracks that are in a recording."""
    own = []
    is_ours = NAME.fullmatch(f"{manifest.stem}.wav") is not None
    for track in tracks:
        part = None if track.recording is None else Path(track.recording)
        if part is not None:
            is_own = part.name.endswith(SUFFIX) and _manifest(part, is_split=True) == manifest
        else:  # named by a template
            is_own = (
                not is_ours
                and track.call_leg_id in str(manifest).lower()
                and _OTHER[track.direction] not in manifest.stem
                and began_ns - _TOLERANCE_NS <= track.opened_ns <= ended_ns
            )
        if is_own:
            own.append(track)
    return own


def _guessed(manifest: Path, file: _File, began_ns: int, folder: Path) -> list[StoredTrack]:
    """Return the tracks of a recording that nobody knows, by its name."""
    ids = _CALL_LEG_ID.findall(str(manifest.relative_to(folder)).lower())
    if not ids:
        return []
    match = NAME.fullmatch(f"{manifest.stem}.wav")
    if match is not None:
        named = datetime.strptime(match["began"], "%Y%m%dT%H%M%S%z").astimezone(UTC)
        began_ns = unix_ns(named.isoformat())
    known = {} if match is None else match.groupdict()
    directions = [known["direction"]] if known.get("direction") else list(_OTHER)[: file.channels]
    moment = {"call_leg_id": ids[-1], "leg": known.get("leg", "a").upper()}
    return [
        StoredTrack.of({**moment, "direction": each, "opened_at": rfc3339(began_ns)}, 0)
        for each in directions
    ]


def _entry(track: StoredTrack, file: _File, offset_s: float, duration_s: float) -> dict[str, Any]:
    """Return what a manifest can say of a track that nobody closed."""
    left_right = {"inbound": "left", "outbound": "right"}
    ended_ns = track.ended_ns if track.ended_ns is not None else track.opened_ns
    return {
        "call_leg_id": track.call_leg_id,
        "leg": track.leg,
        "direction": track.direction,
        "started_at": rfc3339(track.opened_ns),
        "ended_at": rfc3339(ended_ns),
        "reason": INTERRUPTED,
        "sample_rate_hz": file.rate_hz,
        "duration_s": max(0.0, duration_s - offset_s),
        "recording": file.path.name,
        "channel": left_right[track.direction] if file.channels == 2 else "mono",
        "offset_s": offset_s if file.channels == 2 else 0.0,
    }


def _frames(path: Path) -> int | None:
    """Return how many frames an encoded file has; None for no such file."""
    import soundfile  # noqa: PLC0415 -- nobody loads libsndfile for WAV

    try:
        return int(soundfile.info(path).frames) if path.exists() else None
    except (OSError, soundfile.SoundFileError):
        return None
