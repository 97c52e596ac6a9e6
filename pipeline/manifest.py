"""The JSON manifest beside a recording: what was recorded, from whom, and how well.

    {
      "version": 1,
      "call_leg_id": "...", "leg": "A",
      "started_at": "2026-01-31T12:00:00.000Z", "ended_at": "...",
      "call": {<what is known of the call>},
      "earlier": [{"recording": "<file name>", "started_at": "...", "ended_at": "..."}, ...],
      "recordings": ["<file name>", ...],
      "quality": {<as of call_quality>},
      "files": [{"recording": "<file name>", "start_s": 0.0, "duration_s": 300.0}, ...],
      "marks": [{"kind": "paused", "at_s": 12.5, "at": "2026-01-31T12:00:12.500Z"}, ...],
      "tracks": [<as of track_entry>, ...]
    }

Every track is added when it ends, so that the manifest of a call with one side only is complete.
`call` is there where somebody knew of the call, `earlier` where there are other recordings of the
same call leg that began before. `files` is there where a recording is split: together, in their
order, they are the recording, on which the tracks' `offset_s` counts. `marks` is there where it was
paused or resumed; `at_s` counts from `started_at`.
"""

from __future__ import annotations

import contextlib
import json
import math
import threading
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.keypress import merged
from pipeline.utc import rfc3339
from pipeline.verdict import call_quality, track_quality

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pipeline.block import Track, TrackSummary

VERSION = 1
HIDDEN_DIGIT = "?"
"""Stands for a key that was pressed while the call was paused."""
_MARGIN_S = 0.5
_PARTIAL = ("interrupted", "switched_off")
"""How often a sink's process ended during the track; whether the sink was switched off for it."""

_RECORDING_RESULTS = {
    *("recording", "manifest", "channel", "offset_samples", "files", "marks", "instead_of"),
}
_writing = threading.Lock()
"""Tracks of one recording may be closed on several threads."""


def add_track(
    path: Path,
    track: Track,
    summary: TrackSummary,
    results: Mapping[str, Mapping[str, Any]],
    *,
    call: Mapping[str, Any] | None = None,
    earlier: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Add a closed track to the manifest at `path`, or begin it.

    `results` are those of all sinks, by sink name; those for another recording's manifest are
    left out. `call` is what is known of the call by now, `earlier` are recordings of the call leg
    as they stand in the manifest, but for their paths; the recording's own is left out. Recordings
    are file names here, because the manifest stands beside them; one in another folder is a path.

    The file is replaced as a whole, and holds no state but itself. Raises OSError, and ValueError
    where there is a file at `path` that is no manifest.
    """
    own = {
        name: result
        for name, result in results.items()
        if result.get("manifest", str(path)) == str(path)
    }
    entry = track_entry(track, summary, own)
    if entry["recording"] is not None:
        entry["recording"] = Path(entry["recording"]).name
    recorded = next((each for each in own.values() if "manifest" in each), {})
    with _writing:
        manifest = _with_track(_read(path), path, entry, recorded, call=call, earlier=earlier)
        _write(path, manifest)


def add_interrupted(
    path: Path,
    entries: Sequence[Mapping[str, Any]],
    files: Sequence[tuple[str, float]],
    *,
    is_split: bool,
) -> None:
    """Add tracks that nobody closed, because their process was killed, or begin the manifest.

    `files` are the names and durations in seconds of the recording's files that were finished now;
    those of a split one that were finished before are found beside it. The manifest has the
    `reason` of such tracks, `interrupted`. Raises as `add_track` does.
    """
    with _writing:
        before = _read(path)
        known = {(each["direction"], each["started_at"]) for each in before["tracks"]}
        fresh = [each for each in entries if (each["direction"], each["started_at"]) not in known]
        tracks = [*before["tracks"], *fresh]
        first = files[0][0]
        others = [
            each
            for each in before.get("recordings", ())
            if is_split and path.with_name(each).exists()
        ]
        if is_split:
            beside = path.parent.glob(f"{path.stem}_[0-9][0-9][0-9]*")
            others += [each.name for each in beside if each.suffix != ".part"]
        recordings = sorted({*others, *(name for name, _ in files)})
        for each in tracks:
            if each.get("recording") is not None and each["recording"] not in recordings:
                each["recording"] = first
        manifest = {
            **before,
            "version": VERSION,
            "call_leg_id": entries[0]["call_leg_id"],
            "leg": entries[0]["leg"],
            "started_at": min(each["started_at"] for each in tracks),
            "ended_at": max(each["ended_at"] for each in tracks),
            "reason": entries[0]["reason"],
            "recordings": recordings,
            "tracks": tracks,
        }
        if before["tracks"]:
            manifest["quality"] = before.get("quality")
        _write(path, {key: value for key, value in manifest.items() if value is not None})


def add_call(path: Path, call: Mapping[str, Any]) -> None:
    """Add what is known of the call to a manifest that was written without it.

    Raises as `add_track` does; a manifest that is no more stays so.
    """
    with _writing:
        manifest = _read(path)
        if manifest["tracks"] and "call" not in manifest:
            _write(path, {**manifest, "call": dict(call)})


def add_earlier(path: Path, earlier: Sequence[Mapping[str, Any]]) -> None:
    """Add earlier recordings to a manifest that was written before they were known.

    Those that it names as unfinished are replaced. Raises as `add_track` does; a manifest that is
    no more stays so.
    """
    with _writing:
        manifest = _read(path)
        if not manifest["tracks"]:
            return
        before = manifest.get("earlier", [])
        known = [each for each in before if not each["recording"].endswith(".part")]
        names = {*manifest["recordings"], *(each["recording"] for each in known)}
        known += [each for each in _named(path, earlier) if each["recording"] not in names]
        known.sort(key=lambda each: str(each["started_at"]))
        if known != before:
            _write(path, {**manifest, "earlier": known})


def _with_track(
    before: Mapping[str, Any],
    path: Path,
    entry: dict[str, Any],
    recorded: Mapping[str, Any],
    *,
    call: Mapping[str, Any] | None,
    earlier: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Return the manifest with a track more; `recorded` are the recorder's results for it."""
    tracks = [*before["tracks"], entry]
    if "instead_of" in recorded:  # what was said of tracks that were closed before
        planned = Path(recorded["instead_of"]).name
        for each in tracks:
            if each["recording"] == planned:
                each["recording"] = entry["recording"]
    files = recorded.get("files") or before.get("files")
    named = [each["recording"] for each in tracks if each["recording"] is not None]
    recordings = list(dict.fromkeys([*named, *(each["recording"] for each in files or ())]))
    started_at = min(each["started_at"] for each in tracks)
    marks = {
        (each["at"], each["kind"])
        for each in (*before.get("marks", ()), *recorded.get("marks", ()))
    }
    others = [each for each in _named(path, earlier) if each["recording"] not in recordings]
    manifest = {
        "version": VERSION,
        "call_leg_id": entry["call_leg_id"],
        "leg": entry["leg"],
        "started_at": started_at,
        "ended_at": max(each["ended_at"] for each in tracks),
        "call": call or before.get("call"),
        "earlier": others or before.get("earlier"),
        "recordings": recordings,
        "quality": _call_quality(tracks),
        "files": files,
        "marks": [_mark(*each, started_at) for each in sorted(marks)] or None,
        "tracks": tracks,
    }
    return {key: value for key, value in manifest.items() if value is not None}


def _mark(at: str, kind: str, started_at: str) -> dict[str, Any]:
    since = datetime.fromisoformat(at) - datetime.fromisoformat(started_at)
    return {"kind": kind, "at_s": round(since.total_seconds(), 3), "at": at}


def _write(path: Path, manifest: Mapping[str, Any]) -> None:
    part = path.with_name(path.name + ".part")
    text = json.dumps(manifest, indent=2) + "\n"
    try:
        try:
            part.write_text(text, encoding="utf-8")
        except FileNotFoundError:  # the folder was removed: it is made again for the recording, too
            path.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink()
        raise


def track_entry(
    track: Track, summary: TrackSummary, results: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Return all that is known of a track, ready for JSON.

    `recording`, `channel` and `offset_s` come from the first sink with a recording (None where
    there is none, or nothing of this track in it), `speech` and `speech_levels_dbfs` from the sink
    `vad`, or else `silero` (empty without them); `dtmf` lists the keys that were pressed, as
    telephone-events and, where the sink `dtmf` ran, as tones in the audio, each press once.
    Whatever else the sinks returned stands under their names; `partial` names those that have not
    heard the whole track, and why. Keys that were pressed while the recording was paused are
    hidden.

    `quality` is that of `pipeline.verdict`, `rtcp` that of `pipeline.reports` and `changes` those
    of `pipeline.changes`, there where any came, and `timeline` is there once the track is closed.
    """
    recorder = next((name for name, result in results.items() if "manifest" in result), None)
    recorded = results[recorder] if recorder else {}
    listener = next((name for name in ("vad", "silero") if "speech" in results.get(name, ())), None)
    speech = results[listener]["speech"] if listener else ()
    in_band = results.get("dtmf", {})
    ended_unix_ns = track.opened_unix_ns + summary.last_arrival_ns - track.opened_ns
    entry: dict[str, Any] = {
        "call_leg_id": str(track.call_leg_id),
        "leg": track.leg,
        "direction": track.direction,
        "source": track.source,
        "destination": track.destination,
        "ssrc": _hexadecimal((track.ssrc, *summary.ssrcs)[-1]),
        "ssrcs": [_hexadecimal(ssrc) for ssrc in summary.ssrcs],
        "codec": summary.codec,
        "codecs": list(summary.codecs),
        "payload_types": {str(number): n for number, n in summary.payload_types.items()},
        "started_at": rfc3339(track.opened_unix_ns),
        "ended_at": rfc3339(ended_unix_ns),
        "reason": summary.reason,
        "packets": summary.packets,
        "bytes": summary.payload_bytes,
        "released": summary.released,
        "lost": summary.lost,
        "late": summary.late,
        "duplicate": summary.duplicate,
        "reordered": summary.reordered,
        "resets": summary.resets,
        "unknown_payload": summary.unknown_payload,
        "undecoded": summary.undecoded,
        "timestamp_gaps": summary.timestamp_gaps,
        "silence_s": summary.silence_samples / summary.sample_rate_hz,
        "concealed_s": summary.concealed_samples / summary.sample_rate_hz,
        "comfort_noise_s": summary.comfort_noise_samples / summary.sample_rate_hz,
        "realignments": summary.realignments,
        "jitter_last_ms": round(summary.jitter_last_ms, 3),
        "jitter_mean_ms": round(summary.jitter_mean_ms, 3),
        "jitter_max_ms": round(summary.jitter_max_ms, 3),
        "drift_ppm": None if summary.drift_ppm is None else round(summary.drift_ppm, 1),
        "quality": track_quality(summary),
        "sample_rate_hz": summary.sample_rate_hz,
        "duration_s": summary.duration_s,
        "lost_at_s": [position / summary.sample_rate_hz for position, _ in summary.losses],
        "concealed_at_s": [
            [start / summary.sample_rate_hz, (start + samples) / summary.sample_rate_hz]
            for start, samples in summary.concealed
        ],
        "recording": recorded.get("recording"),
        "channel": recorded.get("channel"),
        "offset_s": recorded["offset_samples"] / summary.sample_rate_hz
        if "offset_samples" in recorded
        else None,
        "speech": [[segment["start_s"], segment["end_s"]] for segment in speech],
        "speech_levels_dbfs": [segment["level_dbfs"] for segment in speech],
        "dtmf": merged(
            [press.as_dict() for press in summary.telephone_events], in_band.get("dtmf", ())
        ),
        "dtmf_dropped": summary.telephone_events_dropped + in_band.get("dtmf_dropped", 0),
    }
    if summary.changes:
        entry["changes"] = [each.as_json(summary.sample_rate_hz) for each in summary.changes]
    if summary.timeline is not None:
        entry["timeline"] = summary.timeline.as_json()
    if summary.rtcp is not None:
        entry["rtcp"] = dict(summary.rtcp)
    if track.segment:
        entry["segment"] = {
            "number": track.segment,
            "began": track.began,
            "gap_s": round(track.gap_s, 3),
        }
    if recorded.get("marks"):
        entry["dtmf"] = _hidden(entry["dtmf"], recorded["marks"], track.opened_unix_ns / 1e9)
    told = {
        recorder: _RECORDING_RESULTS,
        listener: {"speech"},
        "dtmf": {"dtmf", "dtmf_dropped"},
    }
    for name, result in results.items():
        partial = {key: result[key] for key in _PARTIAL if key in result}
        if partial:
            entry.setdefault("partial", {})[name] = partial
        said = {*told.get(name, ()), *partial}
        further = {key: value for key, value in result.items() if key not in said}
        if further:
            entry.setdefault(name, further)
    return entry


def _hidden(
    presses: Sequence[Mapping[str, Any]], marks: Sequence[Mapping[str, Any]], opened_unix_s: float
) -> list[dict[str, Any]]:
    """Return key presses (`digit`, `start_s`, `duration_ms`) without the digits of pauses."""
    pauses: list[list[float]] = []
    for mark in marks:
        at_s = datetime.fromisoformat(mark["at"]).timestamp() - opened_unix_s
        if mark["kind"] == "paused":
            pauses.append([at_s - _MARGIN_S, math.inf])
        elif pauses:
            pauses[-1][1] = at_s + _MARGIN_S
    return [
        {**press, "digit": HIDDEN_DIGIT}
        if any(
            first < press["start_s"] + press["duration_ms"] / 1000 and press["start_s"] < last
            for first, last in pauses
        )
        else dict(press)
        for press in presses
    ]


def _call_quality(tracks: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return the quality of a call; None where an older version began its manifest."""
    return call_quality(tracks) if all("quality" in track for track in tracks) else None


def _hexadecimal(ssrc: int) -> str:
    return f"{ssrc:#010x}"


def _beside(manifest: Path, recording: str) -> str:
    """Return a recording as the manifest names it."""
    path = Path(recording)
    return path.name if path.parent == manifest.parent else recording


def _named(manifest: Path, earlier: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return earlier recordings as the manifest names them."""
    return [{**each, "recording": _beside(manifest, each["recording"])} for each in earlier]


def _read(path: Path) -> dict[str, Any]:
    """Return the manifest as it is so far."""
    try:
        text = path.read_text(encoding="utf-8")
        if not text.strip("\0"):  # what never reached the disk before the machine crashed
            return {"tracks": []}
        manifest = json.loads(text)
        return {**manifest, "tracks": list(manifest["tracks"])}
    except FileNotFoundError:
        return {"tracks": []}
    except (LookupError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a manifest of a recording ({error!r})") from error
