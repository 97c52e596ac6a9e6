"""What there is to see of each call: manifests of any age and origin, made into views.

A *view* is what one page of the report shows: a recording with all its tracks, or the recordings of
single tracks that were made at the same time. A call leg whose tracks all ended and came back has
several, its *parts*. A view has a *lane* for each direction. All times are seconds since the view
began.

What stands in a manifest came from the network in the end. Keys that are missing are normal; values
that make no sense are left out, and none raises.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pipeline.talk import mutual_silence, talk_over

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from strep.report.gather import Source

SILENCE_S = 5.0
OVERLAP_S = 0.3
"""For manifests that do not tell of the conversation."""
MAX_ITEMS = 20_000
"""Of each kind of thing, in a lane."""
MAX_TEXT = 500

GOOD_MOS, FAIR_MOS = 4.03, 3.60
"""From which users are satisfied, and from which only some are not (ITU-T G.107, Annex B)."""
GOOD_LOSS, FAIR_LOSS = 0.01, 0.03
"""Up to which loss speech is hardly impaired, and up to which it can be followed well."""

Grade = Literal["good", "fair", "poor"]
Span = tuple[float, float]

DIRECTIONS = ("inbound", "outbound")
CHANNELS = {"left": 0, "mono": 0, "right": 1}
FIGURES = (
    "packets", "lost", "late", "duplicate", "reordered", "resets", "unknown_payload",
    "jitter_mean_ms", "jitter_max_ms", "duration_s", "silence_s", "timestamp_gaps",
    "sample_rate_hz", "drift_ppm", "speech_ratio", "source", "ssrc", "reason",
)  # fmt: skip
"""What is shown of a track as it stands in the manifest."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A channel of a recording, and where it stands in the view."""

    path: Path
    channel: int
    lane: int
    start_s: float


@dataclass(slots=True)
class View:
    """One call, or a part of it."""

    document: dict[str, Any]
    """What the page is told, ready for JSON."""
    recordings: list[Placed] = field(default_factory=list)
    """In no order; a channel of a file stands here once."""

    @property
    def lanes(self) -> list[dict[str, Any]]:
        """The lanes of the document."""
        lanes: list[dict[str, Any]] = self.document["lanes"]
        return lanes


@dataclass(frozen=True, slots=True)
class _Manifest:
    source: Source
    began: datetime
    ended: datetime

    @property
    def tracks(self) -> Sequence[Mapping[str, Any]]:
        tracks: Sequence[Mapping[str, Any]] = self.source.manifest["tracks"]
        return tracks


def views(sources: Iterable[Source]) -> list[View]:
    """Return what there is to see of the calls, the newest call first, its parts in their order."""
    legs: dict[tuple[str, str], list[_Manifest]] = {}
    for source in sources:
        manifest = _dated(source)
        leg = str(source.manifest.get("leg", "A"))
        legs.setdefault((str(source.manifest["call_leg_id"]), leg), []).append(manifest)
    calls = []
    for (call_leg_id, leg), manifests in legs.items():
        parts = _parts(manifests)
        calls.append([_view(call_leg_id, leg, part) for part in parts])
        for number, view in enumerate(calls[-1]):
            view.document["part"] = [number + 1, len(parts)]
    calls.sort(key=lambda parts: str(parts[0].document["started_at"]), reverse=True)
    return [view for parts in calls for view in parts]


def grade(mos: float | None, loss_ratio: float | None = None) -> Grade | None:
    """Return a mean opinion score (or, without one, a loss) in one word."""
    if mos is not None:
        return "good" if mos >= GOOD_MOS else "fair" if mos >= FAIR_MOS else "poor"
    if loss_ratio is not None:
        return "good" if loss_ratio <= GOOD_LOSS else "fair" if loss_ratio <= FAIR_LOSS else "poor"
    return None


def _dated(source: Source) -> _Manifest:
    tracks = source.manifest["tracks"]
    began = _moment(source.manifest.get("started_at")) or datetime.fromtimestamp(0, UTC)
    ends = [_moment(track.get("ended_at")) for track in tracks]
    told = _moment(source.manifest.get("ended_at"))
    return _Manifest(source, began, max([began, *filter(None, [told, *ends])]))


def _parts(manifests: list[_Manifest]) -> list[list[_Manifest]]:
    """Group what was recorded at the same time."""
    parts: list[list[_Manifest]] = []
    ended = datetime.fromtimestamp(0, UTC)
    for manifest in sorted(manifests, key=lambda each: each.began):
        if parts and manifest.began < ended:
            parts[-1].append(manifest)
        else:
            parts.append([manifest])
        ended = max(ended, manifest.ended)
    return parts


def _view(call_leg_id: str, leg: str, manifests: list[_Manifest]) -> View:
    began = min(manifest.began for manifest in manifests)
    call = _mapping(manifests[-1].source.manifest.get("call"))
    lanes = [_lane(direction, manifests, began) for direction in DIRECTIONS]
    indices = [index for index, lane in enumerate(lanes) if lane["tracks"]]
    recordings = [
        Placed(placed.path, placed.channel, indices.index(placed.lane), placed.start_s)
        for placed in _recordings(manifests, began)
        if placed.lane in indices
    ]
    lanes = [lanes[index] for index in indices]
    end_s = max([0.0, *(track["end_s"] for lane in lanes for track in lane["tracks"])])
    marks = _marks(manifests, began)
    packets = sum(lane["packets"] for lane in lanes)
    lost = sum(lane["lost_packets"] for lane in lanes)
    scores = [lane["mos"] for lane in lanes if lane["mos"] is not None]
    mos = min(scores, default=None)
    loss_ratio = lost / (packets + lost) if packets + lost else None
    document: dict[str, Any] = {
        "call_leg_id": _text(call_leg_id),
        "leg": _text(leg),
        **{name: _text(call.get(name)) for name in ("from", "to", "direction", "hangup_cause")},
        "started_at": began.isoformat(),
        "duration_s": end_s,
        "lanes": lanes,
        "marks": marks,
        "paused": _paused(marks, end_s),
        "mos": mos,
        "grade": grade(mos, loss_ratio),
        "packets": packets,
        "lost_packets": lost,
        "loss_ratio": loss_ratio,
        "files": list(dict.fromkeys(placed.path.name for placed in recordings)),
        "audio": None,
        **_conversation(manifests, lanes, began, end_s),
    }
    return View(document, recordings)


def _lane(direction: str, manifests: list[_Manifest], began: datetime) -> dict[str, Any]:
    tracks: list[dict[str, Any]] = []
    speech: list[Span] = []
    lost: list[float] = []
    concealed: list[Span] = []
    keys: list[dict[str, Any]] = []
    changes: list[dict[str, Any]] = []
    unlisted: list[Span] = []
    timelines: list[dict[str, Any]] = []
    for manifest in manifests:
        for track in manifest.tracks:
            if track.get("direction") != direction:
                continue
            start_s = _track_start(track, manifest, began)
            tracks.append(_track(track, start_s))
            speech += [(start_s + a, start_s + b) for a, b in _spans(track.get("speech"))]
            lost += [start_s + at for at in _numbers(track.get("lost_at_s"))]
            filled = _spans(track.get("concealed_at_s"))
            concealed += [(start_s + a, start_s + b) for a, b in filled]
            keys += _keys(track.get("dtmf"), start_s)
            changes += _changes(track.get("changes"), start_s)
            timelines += (timeline := _timeline(track.get("timeline"), start_s))
            unlisted += _unlisted(tracks[-1], timeline, lost)
    tracks.sort(key=lambda track: float(track["start_s"]))
    packets, lost_packets = (_sum(tracks, name) for name in ("packets", "lost"))
    scores = [track["mos"] for track in tracks if track["mos"] is not None]
    mos = min(scores, default=None)
    loss_ratio = lost_packets / (packets + lost_packets) if packets + lost_packets else None
    return {
        "direction": direction,
        "tracks": tracks,
        "waves": [],
        "speech": sorted(speech),
        "lost": sorted(lost),
        "lost_unlisted": sorted(unlisted),
        "lost_places": max(len(lost), sum(_loss_runs(track) for track in tracks)),
        "changes": sorted(changes, key=lambda change: float(change["at_s"])),
        "concealed": sorted(concealed),
        "dtmf": sorted(keys, key=lambda key: float(key["at_s"])),
        "timeline": timelines,
        "packets": packets,
        "lost_packets": lost_packets,
        "loss_ratio": loss_ratio,
        "speech_s": sum(b - a for a, b in speech),
        "mos": mos,
        "grade": grade(mos, loss_ratio),
    }


def _track(track: Mapping[str, Any], start_s: float) -> dict[str, Any]:
    quality = _mapping(track.get("quality"))
    segment = _mapping(track.get("segment"))
    far_end = _mapping(_mapping(track.get("rtcp")).get("far_end"))
    duration_s = max(0.0, _number(track.get("duration_s")) or 0.0)
    return {
        "start_s": start_s,
        "end_s": start_s + duration_s,
        **{name: _scalar(track.get(name)) for name in FIGURES},
        "codec": _codecs(track),
        "mos": _number(quality.get("mos")),
        "mos_concealed": _number(quality.get("mos_concealed")),
        "r_factor": _number(quality.get("r_factor")),
        "discard_ratio": _number(quality.get("discard_ratio")),
        "burst": {
            str(name)[:MAX_TEXT]: _scalar(value)
            for name, value in _mapping(quality.get("burst")).items()
        },
        "fraction_lost": _number(far_end.get("fraction_lost")),
        "round_trip_ms": _number(far_end.get("round_trip_ms")),
        "began": _text(segment.get("began")),
        "gap_s": _number(segment.get("gap_s")),
    }


def _codecs(track: Mapping[str, Any]) -> str | None:
    """Return the names of all codecs that a track had, without that of key presses."""
    names = [_text(name) for name in _list(track.get("codecs")) if name != "telephone-event"]
    return ", ".join(filter(None, names))[:MAX_TEXT] or _text(track.get("codec"))


def _track_start(track: Mapping[str, Any], manifest: _Manifest, began: datetime) -> float:
    """Return where the track's first sample stands, which its recording knows best."""
    offset_s = _number(track.get("offset_s"))
    if track.get("recording") is not None and track.get("channel") != "mono":
        return (manifest.began - began).total_seconds() + (offset_s or 0.0)
    opened = _moment(track.get("started_at")) or manifest.began
    return (opened - began).total_seconds()


def _recordings(manifests: list[_Manifest], began: datetime) -> Iterable[Placed]:
    seen = set()
    for manifest in manifests:
        for track in manifest.tracks:
            name, channel = track.get("recording"), CHANNELS.get(str(track.get("channel")))
            direction = track.get("direction")
            if not isinstance(name, str) or channel is None or direction not in DIRECTIONS:
                continue
            start_s = (manifest.began - began).total_seconds()
            if track.get("channel") == "mono":
                start_s = _track_start(track, manifest, began)
            for file, file_s in _files(name, manifest):
                # a manifest stands beside its recordings, wherever both have been moved
                path = manifest.source.folder / Path(file.replace("\\", "/")).name
                if (path, channel) not in seen:
                    seen.add((path, channel))
                    yield Placed(path, channel, DIRECTIONS.index(direction), start_s + file_s)


def _files(recording: str, manifest: _Manifest) -> list[tuple[str, float]]:
    """Return the files of a recording, which may have been split, and where each begins in it."""
    told = map(_mapping, _list(manifest.source.manifest.get("files")))
    files = [
        (name, start_s)
        for file in told
        if isinstance(name := file.get("recording"), str)
        and (start_s := _number(file.get("start_s"))) is not None
    ]
    return files or [(recording, 0.0)]


def _conversation(
    manifests: list[_Manifest], lanes: list[dict[str, Any]], began: datetime, end_s: float
) -> dict[str, Any]:
    """Return where both speak and where nobody does, as told or else by the lanes' speech."""
    told = [
        (manifest, _mapping(track.get("conversation")))
        for manifest in manifests
        for track in manifest.tracks
        if isinstance(track.get("conversation"), dict)
    ]
    over: list[Span] = []
    silence: list[Span] = []
    for manifest, conversation in told:
        start = _moment(conversation.get("started_at")) or manifest.began
        shift_s = (start - began).total_seconds()
        over += [(shift_s + a, shift_s + b) for a, b in _spans(conversation.get("talk_over"))]
        silence += [(shift_s + a, shift_s + b) for a, b in _spans(conversation.get("silence"))]
    if not told and any(lane["speech"] for lane in lanes):
        parties = [np.array(lane["speech"]).reshape(-1, 2) for lane in lanes]
        over = [(a, b) for a, b in talk_over(parties, OVERLAP_S).tolist()]
        silence = [(a, b) for a, b in mutual_silence(parties, 0.0, end_s, SILENCE_S).tolist()]
    return {
        "talk_over": sorted(over),
        "silence": sorted(silence),
        "talk_over_s": sum(b - a for a, b in over),
        "silence_s": sum(b - a for a, b in silence),
    }


def _marks(manifests: list[_Manifest], began: datetime) -> list[dict[str, Any]]:
    marks = []
    for manifest in manifests:
        shift_s = (manifest.began - began).total_seconds()
        for mark in _list(manifest.source.manifest.get("marks")):
            at_s = _number(_mapping(mark).get("at_s"))
            if at_s is not None:
                marks.append({"kind": _text(mark.get("kind")), "at_s": shift_s + at_s})
    return sorted(marks, key=lambda mark: float(mark["at_s"]))


def _paused(marks: list[dict[str, Any]], end_s: float) -> list[Span]:
    paused: list[Span] = []
    since_s: float | None = None
    for mark in marks:
        if mark["kind"] == "paused" and since_s is None:
            since_s = mark["at_s"]
        elif mark["kind"] == "resumed" and since_s is not None:
            paused.append((since_s, mark["at_s"]))
            since_s = None
    if since_s is not None:
        paused.append((since_s, max(since_s, end_s)))
    return paused


def _keys(value: object, start_s: float) -> list[dict[str, Any]]:
    keys = []
    for key in map(_mapping, _list(value)):
        at_s = _number(key.get("start_s"))
        if at_s is not None:
            keys.append(
                {
                    "digit": (_text(key.get("digit")) or "?")[:3],
                    "at_s": start_s + at_s,
                    "duration_ms": _number(key.get("duration_ms")),
                    "kind": _text(key.get("kind")),
                }
            )
    return keys


def _changes(value: object, start_s: float) -> list[dict[str, Any]]:
    changes = []
    for change in map(_mapping, _list(value)):
        at_s, kind = _number(change.get("at_s")), _text(change.get("kind"))
        if at_s is not None and kind is not None:
            told = (change.get(name) for name in ("ssrc", "codec", "gap_s"))
            detail = next((each for each in map(_scalar, told) if each is not None), None)
            changes.append({"at_s": start_s + at_s, "kind": kind, "detail": detail})
    return changes


def _loss_runs(track: Mapping[str, Any]) -> int:
    return int(_number(track["burst"].get("runs")) or 0)


def _unlisted(
    track: Mapping[str, Any], timeline: list[dict[str, Any]], lost: list[float]
) -> list[Span]:
    """Return the stretches in which a track has losses that its manifest does not list.

    A manifest lists so many of them one by one; of later ones its timeline knows.
    """
    listed = [at for at in lost if at >= track["start_s"]]
    if not timeline or len(listed) >= _loss_runs(track):
        return []
    (points,), last = timeline, max(listed, default=track["start_s"])
    spans = []
    for number, packets in enumerate(points["lost"]):
        start = points["start_s"] + number * points["interval_s"]
        if packets and start + points["interval_s"] > last:
            spans.append((max(start, last), start + points["interval_s"]))
    return spans


def _timeline(value: object, start_s: float) -> list[dict[str, Any]]:
    timeline = _mapping(value)
    interval_s = _number(timeline.get("interval_s"))
    if interval_s is None or interval_s <= 0:
        return []
    columns = {
        name: [_number(each) for each in _list(timeline.get(name))]
        for name in ("jitter_ms", "lost", "packets")
    }
    return [{"start_s": start_s, "interval_s": interval_s, **columns}]


def _sum(tracks: Iterable[Mapping[str, Any]], name: str) -> int:
    return sum(int(_number(track[name]) or 0) for track in tracks)


def _moment(value: object) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if abs(value) < 1e12 else None  # which no NaN is


def _numbers(value: object) -> list[float]:
    return [number for each in _list(value) if (number := _number(each)) is not None]


def _spans(value: object) -> list[Span]:
    pairs = (_numbers(each) for each in _list(value))
    return [(pair[0], pair[1]) for pair in pairs if len(pair) == 2 and pair[0] <= pair[1]]


def _text(value: object) -> str | None:
    return value[:MAX_TEXT] if isinstance(value, str) else None


def _scalar(value: object) -> float | str | None:
    return _text(value) if isinstance(value, str) else _number(value)


def _list(value: object) -> list[Any]:
    return value[:MAX_ITEMS] if isinstance(value, list) else []


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
