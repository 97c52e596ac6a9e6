"""Finds the recordings of tracks that nobody closed, by the names of their files.

A worker that was killed leaves `.part` files. One whose daemon was killed finishes its recordings,
but nobody hears of it. The sink `wav` names its files by the time of their beginning and the call
leg, unless it is told another `file_name`; see there.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.utc import rfc3339
from strep.store import INTERRUPTED, StoredTrack, unix_ns

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

NAME = re.compile(
    r"(?P<began>\d{8}T\d{6}Z)-(?P<call_leg_id>[0-9a-f-]{36})-(?P<leg>[ab])"
    r"(?:-(?P<direction>inbound|outbound))?(?:-(?P<copy>\d+))?(?P<number>_\d{3,})?"
    r"(?:\.wav(?P<part>\.part)?|\.flac|\.ogg|\.mp3)"
)
"""How the sink `wav` names files by itself."""


class _File(NamedTuple):
    """A file that a track may be in; later ones sort behind."""

    began: str
    copy: int
    direction: str
    """Empty for a file of both directions."""
    number: str
    """Which file of a split recording it is; empty for all of another one."""
    path: Path
    is_part: bool


def find_recordings(folders: Iterable[Path], tracks: Sequence[StoredTrack]) -> list[StoredTrack]:
    """Return those of the tracks that left a recording, with all that can be known of them now.

    A track whose recording is not finished has the path of the unfinished file.
    """
    files: dict[tuple[str, str], list[_File]] = defaultdict(list)
    wanted = {track.call_leg_id for track in tracks}
    for folder in folders:
        with suppress(OSError):  # it may not be there, or be no folder
            for path in folder.iterdir():
                match = NAME.fullmatch(path.name)
                if match and match["call_leg_id"] in wanted:
                    files[match["call_leg_id"], match["leg"].upper()].append(
                        _File(
                            began=match["began"],
                            copy=int(match["copy"] or 1),
                            direction=match["direction"] or "",
                            number=match["number"] or "",
                            path=path,
                            is_part=match["part"] is not None,
                        )
                    )
    found = (_found(track, files[track.call_leg_id, track.leg]) for track in tracks)
    return [track for track in found if track is not None]


def _found(track: StoredTrack, files: list[_File]) -> StoredTrack | None:
    """Return the track as it is recorded in the latest file that it can be in."""
    opened = f"{datetime.fromtimestamp(track.opened_ns // 1_000_000_000, UTC):%Y%m%dT%H%M%SZ}"
    for file in sorted(files, reverse=True):
        if file.began > opened or file.direction not in {"", track.direction}:
            continue
        if file.is_part:
            return replace(track, recording=str(file.path))
        entry = _entry(file, track)
        if entry is not None and entry["reason"] == INTERRUPTED:
            known = {key: entry[key] for key in ("recording", "manifest")}
            return replace(track, **known, ended_ns=unix_ns(entry["ended_at"]))
        if entry is not None:
            return StoredTrack.of(entry, track.worker)
    return None


def _entry(file: _File, track: StoredTrack) -> dict[str, Any] | None:
    """Return what the manifest beside a finished recording says of a track."""
    manifest = file.path.with_name(f"{file.path.stem.removesuffix(file.number)}.json")
    opened_at = rfc3339(track.opened_ns)
    with suppress(OSError, ValueError, LookupError, TypeError):  # none, or none that we know
        for entry in json.loads(manifest.read_text(encoding="utf-8"))["tracks"]:
            # where somebody else finished what was left, who did not know when a track had opened
            is_guess = entry["reason"] == INTERRUPTED
            if entry["direction"] == track.direction and (
                is_guess or entry["started_at"] == opened_at
            ):
                recording = entry["recording"] and str(manifest.with_name(entry["recording"]))
                return {**entry, "recording": recording, "manifest": str(manifest)}
    return None
