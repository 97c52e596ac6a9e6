"""The 17 Call Commands, each a model that checks its parameters when it is made.

    ForkStart(target="udp:192.0.2.1:9000", client_state="ticket 17").body()

The classes read as the reference does: documented names (`from_` stands for `from`), types,
defaults, ranges and exclusions. What all commands share is in `base`, the kinds of values are in
`parameters`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence  # noqa: TC003 -- pydantic reads annotations
from types import MappingProxyType
from typing import Annotated, Final, Literal

from pydantic import Field

from strep.control.base import Action, Call, Command, CommandResult
from strep.control.parameters import (
    AnsweringMachineDetectionConfig,
    Base64,
    ClientState,
    Content,
    Count,
    CustomHeader,
    DialogflowConfig,
    Digit,
    Digits,
    DisplayName,
    Flag,
    Loop,
    MediaTarget,
    PhoneNumber,
    PositiveCount,
    Secret,
    SipHeader,
    SoundModifications,
    Speech,
    Table,
    Tables,
    Text,
    Texts,
    Uuid,
    WebSocketUrl,
    WebUrl,
    only,
    parse_target,
    target_text,
)
from strep.validation import between, one_of

__all__ = [
    "COMMANDS",
    "Action",
    "Answer",
    "AnsweringMachineDetectionConfig",
    "Base64",
    "Bridge",
    "Call",
    "ClientStateUpdate",
    "Command",
    "CommandResult",
    "CustomHeader",
    "Dial",
    "DialogflowConfig",
    "Enqueue",
    "ForkStart",
    "ForkStop",
    "Gather",
    "GatherStop",
    "GatherUsingAudio",
    "GatherUsingSpeak",
    "Hangup",
    "LeaveQueue",
    "PlaybackStart",
    "PlaybackStop",
    "RecordPause",
    "RecordResume",
    "SipHeader",
    "SoundModifications",
    "StreamType",
    "parse_target",
    "target_text",
]

StreamType = Literal["raw", "decrypted"]
StreamTrack = Literal["inbound_track", "outbound_track", "both_tracks"]
WebhookMethod = Literal["POST", "GET"]
Detection = Literal["detect", "detect_beep", "detect_words", "greeting_end", "disabled"]
Stop = Literal["current", "all"]
Legs = Literal["self", "opposite", "both"]
# fmt: off
Language = Literal[
    "arb", "cmn-CN", "cy-GB", "da-DK", "de-DE", "en-AU", "en-GB", "en-GB-WLS", "en-IN", "en-US",
    "es-ES", "es-MX", "es-US", "fr-CA", "fr-FR", "hi-IN", "is-IS", "it-IT", "ja-JP", "ko-KR",
    "nb-NO", "nl-NL", "pl-PL", "pt-BR", "pt-PT", "ro-RO", "ru-RU", "sv-SE", "tr-TR",
]
# fmt: on


class Dial(Command):
    """Dial a number or SIP URI, or several."""

    name = "dial"
    path = "/calls"
    result = Call

    answering_machine_detection: Annotated[Detection, one_of(Detection)] = "disabled"
    answering_machine_detection_config: Annotated[AnsweringMachineDetectionConfig, Table] | None = (
        None
    )
    audio_url: WebUrl | None = None
    """WAV or MP3, played when the call is answered."""
    billing_group_id: Uuid | None = None
    client_state: ClientState | None = None
    command_id: Text | None = None
    connection_id: Text
    """The Call Control App."""
    custom_headers: Annotated[Sequence[CustomHeader], Tables] | None = None
    dialogflow_config: Annotated[DialogflowConfig, Table] | None = None
    enable_dialogflow: Flag = False
    from_: PhoneNumber
    from_display_name: DisplayName | None = None
    """As `from_` if not given."""
    link_to: Text | None = None
    """The call_control_id of a call whose session is shared."""
    media_name: Text | None = None
    """An uploaded file, played when the call is answered."""
    preferred_codecs: Text | None = None
    """Separated by commas, for the forked media."""
    record: Annotated[Literal["record-from-answer"], only("record-from-answer")] | None = None
    record_channels: Annotated[Literal["single", "dual"], one_of(Literal["single", "dual"])] = (
        "dual"
    )
    record_format: Annotated[Literal["wav", "mp3"], one_of(Literal["wav", "mp3"])] = "mp3"
    record_max_length: Annotated[int, between(0, 43200)] = 0
    """In seconds; 0 is without end."""
    record_timeout_secs: Count = 0
    """Silence that ends the recording; 0 is none."""
    sip_auth_password: Annotated[Secret | None, Field(repr=False)] = None
    sip_auth_username: Text | None = None
    sip_headers: Annotated[Sequence[SipHeader], Tables] | None = None
    sound_modifications: Annotated[SoundModifications, Table] | None = None
    stream_track: Annotated[StreamTrack, one_of(StreamTrack)] = "inbound_track"
    stream_url: WebSocketUrl | None = None
    send_silence_when_idle: Flag = False
    time_limit_secs: Annotated[int, between(30, 14400)] = 14400
    """The reference's sample writes `timeout_limit_secs`, which is passed on as unknown."""
    timeout_secs: Annotated[int, between(5, 120)] = 30
    """How long it may ring."""
    to: Texts
    webhook_url: WebUrl | None = None
    webhook_url_method: Annotated[WebhookMethod, one_of(WebhookMethod)] = "POST"

    def _check(self) -> None:
        self._exclude("media_name", "audio_url")


class Answer(Action):
    """Answer an incoming call, which comes before all other commands on it."""

    name = "answer"

    billing_group_id: Uuid | None = None
    client_state: ClientState | None = None
    command_id: Text | None = None
    custom_headers: Annotated[Sequence[CustomHeader], Tables] | None = None
    sip_headers: Annotated[Sequence[SipHeader], Tables] | None = None
    sound_modifications: Annotated[SoundModifications, Table] | None = None
    stream_track: Annotated[StreamTrack, one_of(StreamTrack)] = "inbound_track"
    stream_url: WebSocketUrl | None = None
    send_silence_when_idle: Flag = False
    webhook_url: WebUrl | None = None
    webhook_url_method: Annotated[WebhookMethod, one_of(WebhookMethod)] = "POST"


class Bridge(Action):
    """Bridge the call with another one, or with the first of a queue.

    The reference calls `call_control_id` required and `queue` its alternative: one of them is.
    """

    name = "bridge"

    call_control_id: Text | None = None
    """The other call."""
    client_state: ClientState | None = None
    command_id: Text | None = None
    park_after_unbridge: Annotated[Literal["self"], only("self")] | None = None
    """`self` parks this call after the bridge ends, which else hangs up."""
    queue: Text | None = None

    def _check(self) -> None:
        self._exclude("queue", "call_control_id")
        if self.call_control_id is None and self.queue is None:
            self._refuse("call_control_id", "call_control_id or queue is missing")


class ClientStateUpdate(Action):
    """Replace the state that webhooks carry."""

    name = "client_state_update"
    method = "PUT"

    client_state: ClientState


class Enqueue(Action):
    """Put the call in a queue, which is made where there is none of the name."""

    name = "enqueue"

    client_state: ClientState | None = None
    command_id: Text | None = None
    max_size: PositiveCount = 100
    """Of a new queue; that of an existing one stays."""
    max_wait_time_secs: Count | None = None
    queue_name: Text | None = None


class ForkStart(Action):
    """Send the call's media to a UDP address, as STREP (`target`) or as plain RTP (`rx`, `tx`).

    The reference's sample gives all three, against its own text.
    """

    name = "fork_start"

    client_state: ClientState | None = None
    command_id: Text | None = None
    rx: MediaTarget | None = None
    """Where RTP goes that the carrier receives from the call."""
    stream_type: Annotated[StreamType, one_of(StreamType)] = "raw"
    """`decrypted` needs `rx` and `tx`."""
    target: MediaTarget | None = None
    """Where both directions go, each packet under a STREP header."""
    tx: MediaTarget | None = None
    """Where RTP goes that the carrier sends to the call."""

    def _check(self) -> None:
        self._exclude("target", "rx")
        self._exclude("target", "tx")
        if self.stream_type == "decrypted" and (self.rx is None or self.tx is None):
            self._refuse("stream_type", "stream_type decrypted needs rx and tx")
        if self.target is None and self.rx is None and self.tx is None:
            self._refuse("target", "target is missing, or rx and tx in its place")
        if self.target is None and self.rx is None:
            self._refuse("rx", "rx is missing, which tx needs")
        if self.target is None and self.tx is None:
            self._refuse("tx", "tx is missing, which rx needs")


class ForkStop(Action):
    """Stop the fork of this type."""

    name = "fork_stop"
    always_sent = ("stream_type",)
    ends = True

    client_state: ClientState | None = None
    command_id: Text | None = None
    stream_type: Annotated[StreamType, one_of(StreamType)] = "raw"
    """As in the command that started the fork."""


class Gather(Action):
    """Gather DTMF digits."""

    name = "gather"

    client_state: ClientState | None = None
    command_id: Text | None = None
    initial_timeout_millis: Count = 5000
    inter_digit_timeout_millis: Count = 5000
    maximum_digits: Annotated[int, between(1, 128)] = 128
    minimum_digits: Annotated[int, between(1, 128)] = 1
    terminating_digit: Digit = "#"
    timeout_millis: Count = 60000
    """For all digits together."""
    valid_digits: Digits = "0123456789#*"

    def _check(self) -> None:
        self._order("minimum_digits", "maximum_digits")


class GatherStop(Action):
    """Stop the gathering under way."""

    name = "gather_stop"
    ends = True

    client_state: ClientState | None = None
    command_id: Text | None = None


class GatherUsingAudio(Action):
    """Play a file until the digits have been gathered."""

    name = "gather_using_audio"

    audio_url: WebUrl | None = None
    client_state: ClientState | None = None
    command_id: Text | None = None
    inter_digit_timeout_millis: Count = 5000
    invalid_audio_url: WebUrl | None = None
    """Played when the digits are not valid."""
    invalid_media_name: Text | None = None
    maximum_digits: Annotated[int, between(1, 128)] = 128
    maximum_tries: PositiveCount = 3
    media_name: Text | None = None
    minimum_digits: Annotated[int, between(1, 128)] = 1
    terminating_digit: Digit = "#"
    timeout_millis: Count = 60000
    """After the file has ended."""
    valid_digits: Digits = "0123456789#*"

    def _check(self) -> None:
        self._exclude("media_name", "audio_url")
        self._exclude("invalid_media_name", "invalid_audio_url")
        self._order("minimum_digits", "maximum_digits")


class GatherUsingSpeak(Action):
    """Speak a text until the digits have been gathered."""

    name = "gather_using_speak"

    client_state: ClientState | None = None
    command_id: Text | None = None
    inter_digit_timeout_millis: Count = 5000
    invalid_payload: Speech | None = None
    """Spoken when the digits are not valid."""
    language: Annotated[Language, one_of(Language)]
    maximum_digits: Annotated[int, between(1, 128)] = 128
    maximum_tries: PositiveCount = 3
    minimum_digits: Annotated[int, between(1, 128)] = 1
    payload: Speech
    payload_type: Annotated[Literal["text", "ssml"], one_of(Literal["text", "ssml"])] = "text"
    service_level: Annotated[Literal["basic", "premium"], one_of(Literal["basic", "premium"])] = (
        "premium"
    )
    """`basic` takes texts in en-US alone."""
    terminating_digit: Digit = "#"
    timeout_millis: Count = 60000
    """After the text has been spoken."""
    valid_digits: Digits = "0123456789#*"
    voice: Annotated[Literal["male", "female"], one_of(Literal["male", "female"])]

    def _check(self) -> None:
        self._order("minimum_digits", "maximum_digits")
        if self.service_level == "basic" and self.language != "en-US":
            self._refuse("language", f"language {self.language} needs service_level premium")
        if self.service_level == "basic" and self.payload_type != "text":
            self._refuse(
                "payload_type", f"payload_type {self.payload_type} needs service_level premium"
            )


class Hangup(Action):
    """Hang up."""

    name = "hangup"
    ends = True

    client_state: ClientState | None = None
    command_id: Text | None = None


class LeaveQueue(Action):
    """Take the call out of its queue."""

    name = "leave_queue"
    ends = True

    client_state: ClientState | None = None
    command_id: Text | None = None


class PlaybackStart(Action):
    """Play a file, after those that wait already."""

    name = "playback_start"

    audio_url: WebUrl | None = None
    cache_audio: Flag = True
    client_state: ClientState | None = None
    command_id: Text | None = None
    loop: Loop | None = None
    """How often, or `infinity`."""
    media_name: Text | None = None
    overlay: Flag = False
    """Mix the file into the one that is being played; on this leg alone."""
    playback_content: Content | None = None
    """An MP3 file."""
    stop: Annotated[Stop, one_of(Stop)] | None = None
    """What to stop before: the file that is being played, or all that wait too."""
    target_legs: Annotated[Legs, one_of(Legs)] = "self"

    def _check(self) -> None:
        self._exclude("media_name", "audio_url")
        if self.overlay and self.target_legs != "self":
            self._refuse("target_legs", f"target_legs {self.target_legs} needs overlay false")


class PlaybackStop(Action):
    """Stop what is being played."""

    name = "playback_stop"
    ends = True

    client_state: ClientState | None = None
    command_id: Text | None = None
    overlay: Flag = False
    """Stop what is mixed in."""
    stop: Annotated[Stop, one_of(Stop)] = "all"


class RecordPause(Action):
    """Pause the carrier's recording."""

    name = "record_pause"

    client_state: ClientState | None = None
    command_id: Text | None = None


class RecordResume(Action):
    """Go on with the carrier's recording."""

    name = "record_resume"

    client_state: ClientState | None = None
    command_id: Text | None = None


COMMANDS: Final[Mapping[str, type[Command]]] = MappingProxyType(
    {
        "dial": Dial,
        "answer": Answer,
        "bridge": Bridge,
        "client_state_update": ClientStateUpdate,
        "enqueue": Enqueue,
        "fork_start": ForkStart,
        "fork_stop": ForkStop,
        "gather": Gather,
        "gather_stop": GatherStop,
        "gather_using_audio": GatherUsingAudio,
        "gather_using_speak": GatherUsingSpeak,
        "hangup": Hangup,
        "leave_queue": LeaveQueue,
        "playback_start": PlaybackStart,
        "playback_stop": PlaybackStop,
        "record_pause": RecordPause,
        "record_resume": RecordResume,
    }
)
"""The commands by name. `dial` is `POST /calls` and answered by a `Call`; all others are
`/calls/{call_control_id}/actions/NAME`, answered by a `CommandResult`: `client_state_update` a PUT,
the rest a POST."""
