"""What the carrier's webhooks say: a class for each type of event.

`parse_event` takes the body of a webhook, `event_of` the document that it holds:

    {"data": {"event_type": "call.answered", "id": "...", "occurred_at": "2018-02-02T22:25:27Z",
              "payload": {"call_control_id": "v3:...", "call_leg_id": "...", ...}}}

Fields have the names of the payload's keys (`from_` stands for `from`) and are None where the
payload has no such key, or null. The carrier's API grows: keys without a field stay in `payload`,
texts of which the reference lists the values are plain texts, and an event of a type that is not
in `EVENT_TYPES` is an `Event`. A carrier may send events late, twice and in another order than
they occurred in.

Where the reference names a type without showing its payload, the fields are those of the
carrier's published schema: `call.initiated`, `call.machine.*`, `call.playback.started`,
`call.recording.*`, `call.speak.*` and `streaming.*`.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping  # noqa: TC003 -- pydantic reads annotations at run time
from types import MappingProxyType
from typing import Annotated, Any
from uuid import UUID  # noqa: TC003 -- pydantic reads annotations at run time

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic_core import from_json

__all__ = [
    "EVENT_TYPES",
    "CallAnswered",
    "CallBridged",
    "CallDequeued",
    "CallDtmfReceived",
    "CallEnqueued",
    "CallEvent",
    "CallForkStarted",
    "CallForkStopped",
    "CallGatherEnded",
    "CallHangup",
    "CallInitiated",
    "CallMachineDetectionEnded",
    "CallMachineGreetingEnded",
    "CallPlaybackEnded",
    "CallPlaybackStarted",
    "CallRecordingError",
    "CallRecordingSaved",
    "CallSpeakEnded",
    "CallSpeakStarted",
    "Event",
    "EventError",
    "StreamingStarted",
    "StreamingStopped",
    "event_of",
    "parse_event",
]


class EventError(ValueError):
    """A document that is not an event; the text names the path to what is wrong, and no value."""


def parse_event(body: bytes | str) -> Event:
    """Return the event that a webhook's body, UTF-8 JSON, holds. Raises `EventError`."""
    try:
        # This parser bounds the depth, and refuses NaN and what is no Unicode.
        document = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise EventError(f"the body is not JSON: {error}") from None
    return event_of(document)


def event_of(document: object) -> Event:
    """Return the event that a decoded JSON document holds. Raises `EventError`."""
    data = _object(document, "data", of="the document")
    payload = _object(data, "payload", of="data")
    event_type = data.get("event_type")
    kind = EVENT_TYPES.get(event_type, Event) if isinstance(event_type, str) else Event
    fields = {key: payload[key] for key in payload if key not in _ENVELOPE}
    fields |= {key: data[key] for key in _ENVELOPE if key in data}
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise EventError(_fault(error)) from None


_Id = Annotated[str, StringConstraints(min_length=1, max_length=512)]
_Secret = Field(default=None, repr=False)
"""A field whose value opens something, or is the customer's own."""


class Event(BaseModel):
    """Any event. Treat `payload`, the carrier's own object, as read-only."""

    model_config = ConfigDict(frozen=True, coerce_numbers_to_str=True)

    id: _Id
    """Names the event; each delivery of it has the same."""
    event_type: _Id
    occurred_at: AwareDatetime
    payload: Mapping[str, Any] = Field(repr=False)


class CallEvent(Event):
    """An event of one leg of a call."""

    call_leg_id: UUID
    """Names the leg in STREP headers."""
    call_control_id: _Id | None = None
    """Names the leg in commands; not in every type's payload."""
    call_session_id: str | None = None
    """Shared by the legs of one conversation."""
    client_state: str | None = _Secret
    """Base64, as given with a command; see `decoded_client_state`."""
    connection_id: str | None = None
    from_: str | None = Field(default=None, alias="from")
    """Number or SIP URI of who calls; not in every type's payload."""
    to: str | None = None
    """Number or SIP URI of who is called; not in every type's payload."""

    def decoded_client_state(self) -> bytes | None:
        """Return the bytes of `client_state`. Raises `EventError` where it is not base64."""
        if self.client_state is None:
            return None
        try:
            return base64.b64decode(self.client_state, validate=True)
        except (binascii.Error, ValueError):
            raise EventError("client_state is not base64") from None


class CallInitiated(CallEvent):
    """A call begins: one that comes in waits for `answer`, one that was dialled rings."""

    direction: str | None = None
    """`incoming` or `outgoing`."""
    state: str | None = None
    start_time: AwareDatetime | None = None


class CallAnswered(CallEvent):
    """The call was answered."""

    state: str | None = None
    start_time: AwareDatetime | None = None


class CallBridged(CallEvent):
    """The call was bridged with another; each of the two legs has such an event."""

    state: str | None = None


class CallHangup(CallEvent):
    """The call is over."""

    hangup_cause: str | None = None
    """`call_rejected`, `timeout`, `time_limit` and others."""
    hangup_source: str | None = None
    """`caller`, `callee` or `unknown`."""
    sip_hangup_cause: str | None = None
    """The SIP status, such as `603`."""
    start_time: AwareDatetime | None = None
    state: str | None = None


class CallEnqueued(CallEvent):
    """The call was put into a queue."""

    queue: str | None = None
    current_position: int | None = None


class CallDequeued(CallEvent):
    """The call left its queue."""

    queue: str | None = None
    queue_position: int | None = None
    reason: str | None = None
    """`leave`, `bridged`, `hangup`, `timeout` and others."""


class CallForkStarted(CallEvent):
    """The carrier began to fork the call's media."""

    stream_type: str | None = None
    """`raw` or `decrypted`."""


class CallForkStopped(CallEvent):
    """The carrier forks the call's media no more."""

    stream_type: str | None = None
    """`raw` or `decrypted`."""


class CallDtmfReceived(CallEvent):
    """A key was pressed."""

    digit: str | None = None


class CallGatherEnded(CallEvent):
    """A `gather` is over."""

    digits: str | None = None
    status: str | None = None


class CallMachineDetectionEnded(CallEvent):
    """It was decided who answered."""

    result: str | None = None
    """`human`, `machine`, `not_sure` and others."""


class CallMachineGreetingEnded(CallEvent):
    """An answering machine's greeting is over."""

    result: str | None = None
    """`beep_detected`, `ended`, `not_sure` and others."""


class CallPlaybackStarted(CallEvent):
    """A file begins to play."""

    media_name: str | None = None
    media_url: str | None = _Secret
    overlay: bool | None = None


class CallPlaybackEnded(CallEvent):
    """A file has been played, or was stopped."""

    media_name: str | None = None
    media_url: str | None = _Secret
    overlay: bool | None = None
    status: str | None = None


class CallRecordingSaved(CallEvent):
    """The carrier's own recording of the call can be fetched."""

    channels: str | None = None
    """`single` or `dual`."""
    recording_started_at: AwareDatetime | None = None
    recording_ended_at: AwareDatetime | None = None
    recording_urls: Mapping[str, str | None] | None = _Secret
    """URLs by format, `mp3` or `wav`; whoever has one has the recording, for some minutes."""
    public_recording_urls: Mapping[str, str | None] | None = _Secret
    """The same without end, where the account has them."""


class CallRecordingError(CallEvent):
    """The carrier's own recording of the call failed."""

    reason: str | None = None


class CallSpeakStarted(CallEvent):
    """A text begins to be spoken."""


class CallSpeakEnded(CallEvent):
    """A text has been spoken, or was stopped."""

    status: str | None = None


class StreamingStarted(CallEvent):
    """The carrier began to stream the call over a WebSocket."""

    stream_url: str | None = _Secret


class StreamingStopped(CallEvent):
    """The carrier streams the call over a WebSocket no more."""

    stream_url: str | None = _Secret


EVENT_TYPES: Mapping[str, type[Event]] = MappingProxyType(
    {
        "call.answered": CallAnswered,
        "call.bridged": CallBridged,
        "call.dequeued": CallDequeued,
        "call.dtmf.received": CallDtmfReceived,
        "call.enqueued": CallEnqueued,
        "call.fork.started": CallForkStarted,
        "call.fork.stopped": CallForkStopped,
        "call.gather.ended": CallGatherEnded,
        "call.hangup": CallHangup,
        "call.initiated": CallInitiated,
        "call.machine.detection.ended": CallMachineDetectionEnded,
        "call.machine.greeting.ended": CallMachineGreetingEnded,
        "call.playback.ended": CallPlaybackEnded,
        "call.playback.started": CallPlaybackStarted,
        "call.recording.error": CallRecordingError,
        "call.recording.saved": CallRecordingSaved,
        "call.speak.ended": CallSpeakEnded,
        "call.speak.started": CallSpeakStarted,
        "streaming.started": StreamingStarted,
        "streaming.stopped": StreamingStopped,
    }
)
"""The class of each type of event."""

_ENVELOPE = ("id", "event_type", "occurred_at", "payload")


def _object(parent: object, key: str, *, of: str) -> dict[str, Any]:
    if not isinstance(parent, dict):
        raise EventError(f"{of} is not an object")
    child = parent.get(key)
    if not isinstance(child, dict):
        raise EventError(f"{of} has no object {key!r}")
    return child


def _fault(error: ValidationError) -> str:
    """Say which key is wrong and why, by its path in the document."""
    first = error.errors(include_url=False, include_input=False)[0]
    path = ".".join(map(str, first["loc"]))
    where = f"data.{path}" if first["loc"][0] in _ENVELOPE else f"data.payload.{path}"
    if first["type"] == "missing":
        return f"{where} is missing"
    return f"{where}: {first['msg']}"
