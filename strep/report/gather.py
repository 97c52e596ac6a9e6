"""Finds the manifests of the calls that a report is about."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.utc import rfc3339
from strep.report.errors import ReportError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from strep.store import CallDetails

MAX_MANIFEST_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Source:
    """A manifest, and the folder that its recordings stand in."""

    manifest: Mapping[str, Any]
    folder: Path


def from_path(path: Path) -> tuple[list[Source], list[Path]]:
    """Return the manifests of a folder and those below it, or the one that is named.

    A recording names the manifest beside it. Also returns the JSON files of the folder that are
    no manifests. Raises `ReportError` where there is none.
    """
    if not path.is_dir():
        path = path if path.suffix == ".json" else path.with_suffix(".json")
        return [_read(path)], []
    found: list[Source] = []
    others: list[Path] = []
    for each in _files(path):
        try:
            found.append(_read(each))
        except ReportError:
            others.append(each)
    if not found:
        raise ReportError(f"{path} holds no manifest of a recorded call (*.json)")
    return found, others


def from_database(details: CallDetails) -> list[Source]:
    """Return the manifests of a call of the database.

    Tracks without a manifest, or whose manifest has gone, are shown by what the database knows of
    them, without their audio. Raises `ReportError` where nothing is known of any track.
    """
    found: list[Source] = []
    paths = dict.fromkeys(track.manifest for track in details.tracks if track.manifest)
    missing = set()
    for path in map(Path, paths):
        if path.exists():
            found.append(_read(path))
        else:
            missing.add(str(path))
    left = [
        {**track.entry, "recording": None, "started_at": rfc3339(track.opened_ns)}
        for track in details.tracks
        if track.entry is not None and (track.manifest is None or track.manifest in missing)
    ]
    for leg in sorted({str(entry["leg"]) for entry in left}):
        tracks = [entry for entry in left if str(entry["leg"]) == leg]
        manifest = {
            "call_leg_id": details.overview.call.call_leg_id,
            "leg": leg,
            "started_at": min(str(entry["started_at"]) for entry in tracks),
            "tracks": tracks,
        }
        found.append(Source(manifest, Path()))
    if not found:
        state = "is still open" if details.overview.is_open else "has no track"
        raise ReportError(f"call {details.overview.call.call_leg_id} {state}: nothing to show yet")
    call = details.overview.call.as_json()
    return [Source({"call": call, **source.manifest}, source.folder) for source in found]


def _files(folder: Path) -> Iterator[Path]:
    try:
        yield from sorted(path for path in folder.rglob("*.json") if path.is_file())
    except OSError as error:
        raise ReportError(f"cannot read {folder}: {error.strerror}") from error


def _read(path: Path) -> Source:
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise ReportError(f"{path} is too large for a manifest")
        manifest = json.loads(path.read_bytes())
    except OSError as error:
        raise ReportError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ReportError(f"{path} is not a manifest of a recorded call: it is no JSON") from error
    if not _is_manifest(manifest):
        raise ReportError(f"{path} is not a manifest of a recorded call")
    return Source(manifest, path.parent)


def _is_manifest(document: object) -> bool:
    if not isinstance(document, dict):
        return False
    tracks: Iterable[object] = document.get("tracks", ())
    return (
        isinstance(document.get("call_leg_id"), str)
        and isinstance(document.get("started_at"), str)
        and isinstance(tracks, list)
        and len(tracks) > 0
        and all(isinstance(track, dict) and "direction" in track for track in tracks)
    )
