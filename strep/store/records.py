"""What the store keeps and gives back: calls, forks and tracks.

Moments are integers, nanoseconds since 1970 UTC: the carrier writes them with six decimals and the
manifests with three, and texts of different precision do not sort as their moments do. JSON has
them as RFC 3339 texts, under the field's name with `_at` for `_ns`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, Self, TypedDict

from pipeline.utc import rfc3339

if TYPE_CHECKING:
    from collections.abc import Mapping

INTERRUPTED = "interrupted"
"""Reason of a track whose receiver ended without closing it."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCall:
    """A call leg; None is what is not known of it."""

    call_leg_id: str
    started_ns: int
    """When the call began or, where nobody said so, when it was first heard of."""
    call_control_id: str | None = None
    """None where only its media is known: the carrier has told nothing of the call."""
    call_session_id: str | None = None
    connection_id: str | None = None
    from_number: str | None = None
    """A number or a SIP URI, as `to_number`."""
    to_number: str | None = None
    direction: Literal["incoming", "outgoing"] | None = None
    client_state: str | None = None
    """As the carrier has it, in base64."""
    state: str | None = None
    answered_ns: int | None = None
    ended_ns: int | None = None
    hangup_cause: str | None = None
    codecs: str | None = None
    """What its media may be, as who asked for its fork said, separated by commas."""
    told_ns: int | None = None
    """When, by the carrier's clock, the latest of the events that told of it occurred."""

    def as_json(self) -> dict[str, Any]:
        """Return the call for `json.dumps`, its numbers named as in manifests: `from` and `to`."""
        return {key.removesuffix("_number"): value for key, value in _as_json(self).items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFork:
    """A fork of a call's media."""

    id: str
    call_control_id: str
    call_leg_id: str | None = None
    """None until the carrier has told it."""
    state: Literal["requested", "started", "flowing", "stopped", "failed"]
    why: str
    """What brought the fork into this state."""
    way: Literal["target", "ports"]
    """STREP on the shared port, or plain RTP on ports of its own."""
    stream_type: str | None = None
    rx_port: int | None = None
    tx_port: int | None = None
    requested_ns: int
    started_ns: int | None = None
    flowing_ns: int | None = None
    stopped_ns: int | None = None
    """When it stopped or failed."""
    command_id: str | None = None
    client_state: str | None = None
    """What is sent with its commands, in base64."""
    attempt: int | None = None
    """Counts from 1; above it, the forks before brought no media. None where an older strep made
    the fork."""
    ask: Literal["fork_start", "fork_stop"] | None = None
    """The command whose outcome is to be known yet; None where there is no such, also when there
    was one before."""
    carrier_started_ns: int | None = None
    """When it started, by the carrier's clock."""

    def as_json(self) -> dict[str, Any]:
        """Return the fork for `json.dumps`."""
        return _as_json(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTrack:
    """A segment of a track, from its opening to its closing. A call may have several of a track.

    `call_leg_id`, `leg`, `direction` and `opened_ns` together tell it from all others.
    """

    call_leg_id: str
    leg: Literal["A", "B"]
    direction: Literal["inbound", "outbound"]
    opened_ns: int
    worker: int
    recording: str | None = None
    """Path of the file; None also where no sink records."""
    manifest: str | None = None
    """Path of the recording's manifest."""
    reason: str | None = None
    """Why it was closed, or `INTERRUPTED`; None while it is open. What follows is known of tracks
    that were closed."""
    ended_ns: int | None = None
    """Arrival of the last packet."""
    duration_s: float | None = None
    packets: int | None = None
    lost: int | None = None
    late: int | None = None
    duplicate: int | None = None
    reordered: int | None = None
    jitter_mean_ms: float | None = None
    speech_s: float | None = None
    loss_runs: int | None = None
    """Runs of lost packets; None, like all that follow, where an older strep closed the track."""
    longest_loss: int | None = None
    """Packets in the longest of them."""
    mos: float | None = None
    """None where the track is not G.711, like `mos_concealed`."""
    mos_concealed: float | None = None
    drift_ppm: float | None = None
    """None where it could not be told."""
    entry: Mapping[str, Any] | None = None
    """All of its figures, as in the manifest."""

    @classmethod
    def of(cls, entry: Mapping[str, Any], worker: int) -> Self:
        """Return the track that a worker opened or closed.

        `entry` is what the worker says of it: `call_leg_id`, `leg`, `direction` and `opened_at` (or
        the manifest's `started_at`, the same moment), and the paths of `recording` and `manifest`
        where they are known; of a closed one all of its manifest's entry, see `pipeline.manifest`.
        Raises KeyError and ValueError.
        """
        opening = {
            "call_leg_id": entry["call_leg_id"],
            "leg": entry["leg"],
            "direction": entry["direction"],
            "opened_ns": unix_ns(
                entry["opened_at"] if "opened_at" in entry else entry["started_at"]
            ),
            "worker": worker,
            "recording": entry.get("recording"),
            "manifest": entry.get("manifest"),
        }
        if "reason" not in entry:
            return cls(**opening)
        quality = entry.get("quality", {})
        burst = quality.get("burst", {})
        return cls(
            **opening,
            reason=entry["reason"],
            ended_ns=unix_ns(entry["ended_at"]),
            duration_s=entry["duration_s"],
            packets=entry["packets"],
            lost=entry["lost"],
            late=entry["late"],
            duplicate=entry["duplicate"],
            reordered=entry.get("reordered"),
            jitter_mean_ms=entry["jitter_mean_ms"],
            speech_s=sum(end - start for start, end in entry["speech"]),
            loss_runs=burst.get("runs"),
            longest_loss=burst.get("longest_packets"),
            mos=quality.get("mos"),
            mos_concealed=quality.get("mos_concealed"),
            drift_ppm=entry.get("drift_ppm"),
            entry=entry,
        )

    def as_json(self) -> dict[str, Any]:
        """Return the track for `json.dumps`, with all of its figures."""
        own = _as_json(self)
        entry = own.pop("entry") or {}
        return {**entry, **own}


@dataclass(frozen=True, slots=True, kw_only=True)
class CallQuality:
    """How a call's media came, over its closed tracks; None is what none of them knows.

    The same figures as `quality` in the manifest of a recording.
    """

    mos: float | None = None
    """Of the track that sounds worst, as `mos_concealed`."""
    mos_concealed: float | None = None
    loss_ratio: float | None = None
    """Of all expected packets, as the next two."""
    discard_ratio: float | None = None
    reorder_ratio: float | None = None
    burst_mean_packets: float | None = None
    burst_longest_packets: int | None = None
    jitter_mean_ms: float | None = None
    """Over all packets."""
    drift_ppm: float | None = None
    """The greatest in either direction."""

    @classmethod
    def of(cls, sums: Mapping[str, Any]) -> Self:
        """Return the quality from sums over the tracks, named as in `strep.store.store`."""
        expected = sums["packets"] - sums["late"] - sums["duplicate"] + sums["lost"]
        runs = sums["loss_runs"]

        def ratio(count: int | None) -> float | None:
            return None if count is None or expected <= 0 else round(count / expected, 6)

        return cls(
            mos=sums["mos"],
            mos_concealed=sums["mos_concealed"],
            loss_ratio=ratio(sums["lost"]),
            discard_ratio=ratio(sums["late"]),
            reorder_ratio=ratio(sums["reordered"]),
            burst_mean_packets=None if runs is None else round(sums["lost"] / max(1, runs), 3),
            burst_longest_packets=sums["longest_loss"],
            jitter_mean_ms=(
                round(sums["jitter_ms_packets"] / sums["packets"], 3) if sums["packets"] else None
            ),
            drift_ppm=sums["drift_ppm"],
        )

    def as_json(self) -> dict[str, Any]:
        """Return it for `json.dumps`."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallOverview:
    """A call and the sums over its tracks."""

    call: StoredCall
    tracks: int
    """Track segments, open ones included; the sums that follow are of closed ones."""
    open_tracks: int
    packets: int
    lost: int
    media_ended_ns: int | None
    """Arrival of the last packet."""
    quality: CallQuality = CallQuality()

    @property
    def is_open(self) -> bool:
        """Whether media is received, or the carrier has told of the call but not of its end."""
        told = self.call.call_control_id is not None and self.call.ended_ns is None
        return told or self.open_tracks > 0

    @property
    def duration_s(self) -> float | None:
        """From the answer, or else the start, to the hangup, or else the last packet.

        None while the call is open, and where no end is known.
        """
        call = self.call
        ended_ns = call.ended_ns if call.ended_ns is not None else self.media_ended_ns
        if self.is_open or ended_ns is None:
            return None
        began_ns = call.answered_ns if call.answered_ns is not None else call.started_ns
        return max(0, ended_ns - began_ns) / 1e9

    def as_json(self) -> dict[str, Any]:
        """Return the call for `json.dumps`."""
        return self.call.as_json() | {
            "is_open": self.is_open,
            "duration_s": self.duration_s,
            "packets": self.packets,
            "lost": self.lost,
            "quality": self.quality.as_json(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class CallDetails:
    """A call with its forks and tracks, in the order in which they began."""

    overview: CallOverview
    forks: list[StoredFork]
    tracks: list[StoredTrack]

    def as_json(self) -> dict[str, Any]:
        """Return all that is known of the call for `json.dumps`."""
        return self.overview.as_json() | {
            "forks": [fork.as_json() for fork in self.forks],
            "tracks": [track.as_json() for track in self.tracks],
        }


class CallSearch(TypedDict, total=False):
    """What calls can be searched by; see `Store.search`."""

    number: str | None
    since_ns: int | None
    until_ns: int | None
    call_leg_id: str | None
    is_open: bool
    after: str | None
    limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Some of the calls that were searched for, the newest first."""

    calls: list[CallOverview]
    next: str | None
    """What to give as `after` for the next page; None where this is the last one."""

    def as_json(self) -> dict[str, Any]:
        """Return the page for `json.dumps`."""
        return {"calls": [call.as_json() for call in self.calls], "next": self.next}


def unix_ns(text: str) -> int:
    """Read an ISO 8601 date or time, such as RFC 3339's; UTC where it names no zone.

    Digits beyond microseconds are dropped. Raises ValueError.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    microseconds = (moment - _EPOCH) // _MICROSECOND
    if not -(2**63) <= microseconds * 1000 < 2**63:
        raise ValueError(f"{text} is not between 1677 and 2262")
    return microseconds * 1000


def _as_json(record: StoredCall | StoredFork | StoredTrack) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for field in fields(record):
        value = getattr(record, field.name)
        if field.name.endswith("_ns"):
            document[field.name.removesuffix("_ns") + "_at"] = (
                None if value is None else rfc3339(value)
            )
        else:
            document[field.name] = value
    return document
