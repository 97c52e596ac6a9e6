"""The documents that the interface takes and gives, as pydantic models.

They check what comes in and what goes out, and the description is made from them. Moments are RFC
3339 texts in UTC.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    WithJsonSchema,
)

from strep.control.forks import State, StreamType, Way  # noqa: TC001 -- pydantic reads annotations
from strep.store import unix_ns
from strep.validation import as_text, shown

MOST_CALLS = 1000
"""On a page."""

CALL_CONTROL_ID = "v3:MdI91X4lWFEs7IgbBEOT9M4AigoY08M0WWZFISt1Yw2axZ_IiE4pqg"
CALL_LEG_ID = "428c31b6-7af4-4bcb-b7f5-5013ef9657c1"
MOMENT = "2026-01-31T12:00:00Z"


# -- what is asked


def _matching(pattern: str, expected: str) -> PlainValidator:
    """Return a validator for texts; it says what the schema's pattern cannot say to people."""

    def check(value: object) -> str:
        if re.fullmatch(pattern, text := as_text(value, expected)):
            return text
        raise ValueError(f"{shown(value)} is not {expected}")

    return PlainValidator(check)


def _as_uuid(value: object) -> UUID:
    try:
        return UUID(as_text(value, "a UUID"))
    except ValueError:
        raise ValueError(f"{shown(value)} is not a UUID, such as {CALL_LEG_ID}") from None


def _as_moment_ns(value: object) -> int:
    try:
        return unix_ns(str(value))
    except ValueError:
        raise ValueError(
            f"{shown(value)} is not a date or time from 1678 to 2262, such as 2026-01-31 or"
            f" {MOMENT}"
        ) from None


def _as_flag(value: object) -> bool:
    if value in {"true", "false"}:
        return value == "true"
    raise ValueError(f"{shown(value)} is not true or false")


def _as_count(value: object) -> int:
    if re.fullmatch(r"[0-9]{1,9}", str(value)) and 1 <= int(str(value)) <= MOST_CALLS:
        return int(str(value))
    raise ValueError(f"{shown(value)} is not a whole number from 1 to {MOST_CALLS}")


_ID = r"[!-~]{1,512}"
_LEG = r"[0-9A-Fa-f-]{1,36}"
_BASE64 = r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?"

CallControlId = Annotated[
    str,
    _matching(_ID, "a call_control_id, 1 to 512 characters of ASCII without blanks"),
    WithJsonSchema({"type": "string", "pattern": f"^{_ID}$", "examples": [CALL_CONTROL_ID]}),
]
CallLegId = Annotated[
    UUID,
    PlainValidator(_as_uuid),
    WithJsonSchema({"type": "string", "format": "uuid", "examples": [CALL_LEG_ID]}),
]
LegPart = Annotated[
    str,
    _matching(_LEG, "a call_leg_id, or the beginning of one"),
    WithJsonSchema({"type": "string", "pattern": f"^{_LEG}$", "examples": [CALL_LEG_ID[:8]]}),
]
Base64Text = Annotated[
    str,
    _matching(_BASE64, "Base64"),
    WithJsonSchema({"type": "string", "contentEncoding": "base64", "pattern": f"^{_BASE64}$"}),
]
Text = Annotated[
    str,
    _matching(r"(?s).{1,256}", "a text of 1 to 256 characters"),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 256}),
]
MomentNs = Annotated[
    int,
    PlainValidator(_as_moment_ns),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "format": "date-time"},
                {"type": "string", "format": "date"},
            ],
            "examples": [MOMENT],
        }
    ),
]
Count = Annotated[
    int,
    PlainValidator(_as_count),
    WithJsonSchema({"type": "integer", "minimum": 1, "maximum": MOST_CALLS}),
]
QueryFlag = Annotated[bool, PlainValidator(_as_flag), WithJsonSchema({"type": "boolean"})]


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class CallQuery(_Asked):
    """A search for calls: all that is given must hold."""

    number: Text | None = None
    """Stands anywhere in the caller's number or in the called one."""
    since: MomentNs | None = None
    """The call started then or later; UTC where no zone is named."""
    until: MomentNs | None = None
    """The call started before then."""
    leg: LegPart | None = None
    """The call_leg_id, or the beginning of it."""
    open: QueryFlag = False
    """Only calls that are not over."""
    limit: Count = 100
    """How many calls at most."""
    cursor: Text | None = None
    """Go on from here: `next` of the page before."""


class ForkRequest(_Asked):
    """A fork to start; what is not given is as the daemon's settings say."""

    call_control_id: CallControlId
    """The call."""
    call_leg_id: CallLegId | None = None
    """The call's leg, where no webhook has told it."""
    way: Way | None = None
    """`target`: STREP on the port that all forks share. `ports`: plain RTP on a pair of ports."""
    stream_type: StreamType | None = None
    """`decrypted` comes by `ports` alone."""
    client_state: Base64Text | None = None
    """State for every further webhook of the call, in base64."""
    codecs: Text | None = None
    """What the call's media may be, separated by commas, such as the `preferred_codecs` that it was
    dialled with: tells what a dynamic RTP payload type stands for."""


# -- what is answered

Moment = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]


class _Answer(BaseModel):
    model_config = ConfigDict(extra="allow", use_attribute_docstrings=True)


class WorkerHealth(_Answer):
    """How a worker is."""

    worker: int
    pid: int | None
    state: Literal["up", "silent", "down"]
    tracks_open: int
    datagrams_read: int


class Health(_Answer):
    """How the daemon is."""

    status: Literal["ok", "degraded", "down"]
    """`degraded`: some workers do not receive. `down`: none does."""
    version: str
    uptime_s: float
    tracks_open: int
    datagrams_read: int
    kernel_drops: int
    """Datagrams that the kernel dropped because a receive buffer was full."""
    workers: list[WorkerHealth]


class Readiness(_Answer):
    """Whether new calls are welcome."""

    ready: bool
    reasons: list[str]
    """Why not."""


class OpenTrack(_Answer):
    """A track that is received now."""

    leg: Literal["A", "B"]
    direction: Literal["inbound", "outbound"]
    source: str
    """IP address and port that its packets come from."""
    destination: str
    ssrc: Annotated[str, Field(examples=["0x0000abcd"])]
    codec: str
    sample_rate_hz: int
    opened_at: Moment
    duration_s: float
    packets: int
    lost: int
    jitter_mean_ms: float


class _CallFacts(_Answer):
    """What may be known of a call."""

    call_control_id: str | None = None
    call_session_id: str | None = None
    connection_id: str | None = None
    from_: Annotated[str | None, Field(alias="from")] = None
    """A number or a SIP URI, as `to`."""
    to: str | None = None
    direction: Literal["incoming", "outgoing"] | None = None
    client_state: str | None = None
    """As the carrier has it, in base64."""
    codecs: str | None = None
    """What its media may be, as its fork was asked for, separated by commas."""
    state: str | None = None
    """`initiated`, `answered`, `bridged` or `hangup`; `lost`, where its end was missed."""
    started_at: Moment | None = None
    answered_at: Moment | None = None
    ended_at: Moment | None = None
    hangup_cause: str | None = None
    told_at: Moment | None = None
    """When, by the carrier's clock, the latest of the events that told of it occurred."""


class OpenCall(_CallFacts):
    """A call whose media is received now."""

    call_leg_id: UUID
    worker: int
    """The one that receives it."""
    tracks: list[OpenTrack]
    fork_id: UUID | None = None
    """The last fork of the call."""
    hangup_source: str | None = None
    sip_hangup_cause: str | None = None


class OpenCalls(_Answer):
    """The calls whose media is received now."""

    calls: list[OpenCall]
    missing_workers: list[int]
    """Workers that did not answer in time: their calls are not listed."""


class CallQuality(_Answer):
    """How a call's media came, over its closed tracks; null is what none of them knows."""

    mos: float | None
    """By the E-model of ITU-T G.107, lost packets silent; of the track that sounds worst."""
    mos_concealed: float | None
    """The same where lost packets are concealed."""
    loss_ratio: float | None
    """Fraction of all expected packets that were given up."""
    discard_ratio: float | None
    """Fraction that came after they had been given up."""
    reorder_ratio: float | None
    burst_mean_packets: float | None
    """Mean run of lost packets."""
    burst_longest_packets: int | None
    jitter_mean_ms: float | None
    drift_ppm: float | None
    """How much faster the sender's clock runs than the receiver's; the greatest."""


class Call(_CallFacts):
    """A call in the database."""

    call_leg_id: str
    is_open: bool
    """Whether media is received, or its end was not told."""
    duration_s: float | None
    """From the answer, or else the start, to the end; null while it is open."""
    packets: int
    """Of its closed tracks, as `lost`."""
    lost: int
    quality: CallQuality


class CallPage(_Answer):
    """Some of the calls that were searched for, the newest first."""

    calls: list[Call]
    next: str | None
    """The `cursor` of the next page; null where this is the last one."""


class StoredFork(_Answer):
    """A fork in the database."""

    id: str
    call_control_id: str
    call_leg_id: str | None
    state: State
    why: str
    way: Way
    stream_type: str | None
    rx_port: int | None
    tx_port: int | None
    requested_at: Moment
    started_at: Moment | None
    flowing_at: Moment | None
    stopped_at: Moment | None
    """When it stopped or failed."""
    command_id: str | None
    client_state: str | None
    attempt: int | None
    """As of `Fork`."""
    ask: Literal["fork_start", "fork_stop"] | None
    """The command whose outcome is to be known yet."""
    carrier_started_at: Moment | None
    """When it started, by the carrier's clock."""


class Track(_Answer):
    """A track's segment, from its opening to its closing, with all figures of its manifest."""

    leg: Literal["A", "B"]
    direction: Literal["inbound", "outbound"]
    opened_at: Moment
    recording: str | None = None
    """Path of the file on the daemon's host, as `manifest`."""
    manifest: str | None = None
    reason: str | None = None
    """Why it was closed; null while it is open."""
    mos: float | None = None
    """By the E-model, lost packets silent; null where the track is not G.711 or not closed."""
    mos_concealed: float | None = None
    drift_ppm: float | None = None


class CallDetails(_CallFacts):
    """All that is known of a call; without a database only what is received now."""

    call_leg_id: str
    is_open: bool | None = None
    duration_s: float | None = None
    packets: int | None = None
    lost: int | None = None
    quality: CallQuality | None = None
    forks: list[StoredFork] = []
    tracks: list[Track]


class RecordingState(_Answer):
    """Whether the recordings of a call are paused."""

    call_leg_id: UUID
    is_paused: bool


class Change(_Answer):
    """A state that a fork came into."""

    state: State
    why: str
    at: Moment
    detail: str | None
    """The carrier's words, where it said some."""


class Fork(_Answer):
    """A fork of a call's media."""

    id: UUID
    call_control_id: str
    call_leg_id: UUID | None
    """Null until somebody has told it."""
    state: State
    why: str
    """What brought it into this state."""
    is_stopping: bool
    in_doubt: bool
    """Whether the outcome of a command is not known, so that it will be sent again."""
    error: str | None
    """What keeps it from being known."""
    way: Way
    rx_port: int | None
    tx_port: int | None
    stream_type: StreamType
    attempt: int
    """Counts from 1; above it, the forks before brought no media."""
    changes: list[Change]
    """Its states, from the request to now."""


class ForkList(_Answer):
    """The open forks and those that were closed lately, in the order of their requests."""

    forks: list[Fork]


class Problem(_Answer):
    """Problem details (RFC 9457)."""

    type: Annotated[str, WithJsonSchema({"type": "string", "format": "uri-reference"})]
    """`about:blank`, or the path where the interface tells what it means."""
    title: str
    status: int
    detail: str
    """What was wrong here and now."""


def answer(model: type[BaseModel], document: Any) -> bytes:
    """Return a document as JSON once it is found to be as described."""
    return (
        model.model_validate(document).model_dump_json(by_alias=True, exclude_unset=True).encode()
    )
