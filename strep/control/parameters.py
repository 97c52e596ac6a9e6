"""The kinds of values that parameters of commands have, with their checks.

Each check converts and raises ValueError with a sentence that says what would have been right.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Mapping, Sequence
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Annotated, Literal
from urllib.parse import urlsplit
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainValidator

from strep.specs import Address
from strep.validation import as_text, as_uuid, between, one_of, shown

__all__ = [
    "INT32_MAX",
    "AnsweringMachineDetectionConfig",
    "Base64",
    "ClientState",
    "Content",
    "Count",
    "CustomHeader",
    "DialogflowConfig",
    "Digit",
    "Digits",
    "DisplayName",
    "Flag",
    "Loop",
    "MediaTarget",
    "PhoneNumber",
    "PositiveCount",
    "Secret",
    "SipHeader",
    "SoundModifications",
    "Speech",
    "Table",
    "Tables",
    "Text",
    "Texts",
    "Uuid",
    "WebSocketUrl",
    "WebUrl",
    "only",
    "parse_target",
    "target_text",
]

INT32_MAX = 2**31 - 1
SPEECH_CHARACTERS = 3000
DISPLAY_NAME_CHARACTERS = 128
Track = Literal["inbound", "outbound"]
DTMF = "0123456789#*ABCD"


class Base64(str):
    """Text that is Base64 already: as a `client_state` it is sent as it is."""

    __slots__ = ()

    @classmethod
    def of(cls, data: bytes | str) -> Base64:
        """Encode bytes, or a text's UTF-8."""
        return cls(base64.b64encode(data.encode() if isinstance(data, str) else data).decode())

    @property
    def data(self) -> bytes:
        """What is encoded. Raises ValueError where this is no Base64."""
        try:
            return base64.b64decode(self, validate=True)
        except (binascii.Error, ValueError):
            raise ValueError(f"{shown(str(self))} is not Base64") from None


def parse_target(text: str) -> Address:
    """Read `udp:IP:PORT`, an IPv6 address in brackets. Raises ValueError."""
    match = re.fullmatch(r"udp:(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+)):([0-9]{1,5})", text)
    if match and 1 <= int(match[3]) <= 65535:
        try:
            host = IPv6Address(match[1]) if match[1] else IPv4Address(match[2])
        except AddressValueError:
            pass
        else:
            return Address(str(host), int(match[3]))
    raise ValueError(
        f"{shown(text)} is not udp:IP:PORT (such as udp:192.0.2.1:9000, ports 1 to 65535)"
    )


def target_text(address: Address) -> str:
    """Write an address as `udp:IP:PORT`, which `parse_target` reads back."""
    return f"udp:{address}"


def _as_utf8(value: object, expected: str) -> str:
    text = as_text(value, expected)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{shown(text)} is not UTF-8 text") from None
    return text


def _as_text(value: object) -> str:
    if text := _as_utf8(value, "a text"):
        return text
    raise ValueError("'' is not a text of one character or more")


def _as_texts(value: object) -> str | tuple[str, ...]:
    if not isinstance(value, list | tuple):
        return _as_text(value)
    if not value:
        raise ValueError("[] is not a text or a list of one text or more")
    return tuple(map(_as_text, value))


def _as_secret(value: object) -> str:
    # The value stays out of the sentence.
    if isinstance(value, str) and value:
        return value
    raise ValueError("the value is not a text of one character or more")


def _as_speech(value: object) -> str:
    text = _as_text(value)
    if len(text) > SPEECH_CHARACTERS:
        raise ValueError(f"the text has {len(text)} characters, {SPEECH_CHARACTERS} are allowed")
    return text


def _as_flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.casefold() in {"true", "false"}:
        return value.casefold() == "true"
    raise ValueError(f"{shown(value)} is not true or false")


def _as_client_state(value: object) -> Base64:
    if isinstance(value, Base64):
        value.data  # noqa: B018 -- read for its check
        return value
    if isinstance(value, bytes):
        return Base64.of(value)
    return Base64.of(_as_utf8(value, "a text or bytes"))


def _as_content(value: object) -> Base64:
    if isinstance(value, bytes):
        return Base64.of(value)
    encoded = Base64(_as_text(value))
    encoded.data  # noqa: B018 -- read for its check
    return encoded


def _as_target(value: object) -> str:
    return target_text(parse_target(as_text(value, "udp:IP:PORT")))


def _as_phone_number(value: object) -> str:
    expected = "a number in +E164 form, such as +18005550101"
    text = as_text(value, expected)
    if re.fullmatch(r"\+[1-9][0-9]{1,14}", text):
        return text
    raise ValueError(f"{shown(text)} is not {expected}")


def _as_display_name(value: object) -> str:
    text = _as_utf8(value, "a text")
    if len(text) > DISPLAY_NAME_CHARACTERS:
        raise ValueError(
            f"the name has {len(text)} characters, {DISPLAY_NAME_CHARACTERS} are allowed"
        )
    # \w: letters of any script, since the reference does not say which are meant, digits and _.
    if not re.fullmatch(r"[\w ~!.+-]*", text):
        raise ValueError(f"{shown(text)} holds more than letters, numbers, spaces and -_~!.+")
    return text


def _as_digit(value: object) -> str:
    if isinstance(value, str) and len(value) == 1 and value in DTMF:
        return value
    raise ValueError(f"{shown(value)} is not a DTMF digit, one of {DTMF}")


def _as_digits(value: object) -> str:
    if isinstance(value, str) and re.fullmatch(f"[{DTMF}]+", value):
        return value
    raise ValueError(f"{shown(value)} is not a text of DTMF digits, each one of {DTMF}")


def _as_loop(value: object) -> int | Literal["infinity"]:
    if value == "infinity":
        return "infinity"
    if isinstance(value, int | str) and re.fullmatch(r"0*[1-9][0-9]{0,8}", str(value)):
        return int(value)
    raise ValueError(f"{shown(value)} is not a whole number from 1 nor infinity")


def _as_table(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, BaseModel):
        return value
    raise ValueError(f"{shown(value)} is not a table of keys and values")


def _as_tables(value: object) -> tuple[object, ...]:
    if isinstance(value, list | tuple):
        return tuple(map(_as_table, value))
    raise ValueError(f"{shown(value)} is not a list of tables")


def _as_header_name(value: object) -> str:
    # The token of RFC 3261, section 25.1: nothing that could end the header line.
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9.!%*_+`'~-]+", value):
        return value
    raise ValueError(f"{shown(value)} is not the name of a SIP header")


def _as_header_value(value: object) -> str:
    text = _as_utf8(value, "a text")
    if re.search(r"[\r\n\0]", text):
        raise ValueError(f"{shown(text)} is not a text of one line")
    return text


def _as_pitch(value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf:
        return value
    raise ValueError(f"{shown(value)} is not a number above 0")


def only(choice: str) -> PlainValidator:
    """Return a validator for the one text that a parameter may have."""

    def check(value: object) -> str:
        if value == choice:
            return choice
        raise ValueError(f"{shown(value)} is not {choice}, the only value there is")

    return PlainValidator(check)


def _url(*schemes: str) -> PlainValidator:
    expected = f"a URL that begins with {' or '.join(f'{scheme}://' for scheme in schemes)}"

    def check(value: object) -> str:
        text = as_text(value, expected)
        try:
            parts = urlsplit(text)
            valid = parts.scheme in schemes and bool(parts.hostname) and (parts.port or 1) > 0
        except ValueError:
            valid = False
        if not valid or re.search(r"\s", text):
            raise ValueError(f"{shown(text)} is not {expected}")
        return text

    return PlainValidator(check)


Text = Annotated[str, PlainValidator(_as_text)]
Texts = Annotated[str | Sequence[str], PlainValidator(_as_texts)]
Secret = Annotated[str, PlainValidator(_as_secret)]
"""A text that no error shows."""
Speech = Annotated[str, PlainValidator(_as_speech)]
Flag = Annotated[bool, PlainValidator(_as_flag)]
Count = Annotated[int, between(0, INT32_MAX)]
PositiveCount = Annotated[int, between(1, INT32_MAX)]
Uuid = Annotated[UUID | str, PlainValidator(as_uuid)]
WebUrl = Annotated[str, _url("http", "https")]
WebSocketUrl = Annotated[str, _url("ws", "wss")]
PhoneNumber = Annotated[str, PlainValidator(_as_phone_number)]
DisplayName = Annotated[str, PlainValidator(_as_display_name)]
Digit = Annotated[str, PlainValidator(_as_digit)]
Digits = Annotated[str, PlainValidator(_as_digits)]
Loop = Annotated[int | Literal["infinity"], PlainValidator(_as_loop)]
MediaTarget = Annotated[str, PlainValidator(_as_target)]
"""`udp:IP:PORT`."""
ClientState = Annotated[str | bytes, PlainValidator(_as_client_state)]
"""State for every further webhook of the call. A text or bytes are the state itself and are
encoded; `Base64(...)` marks what is encoded already, such as the client_state of a webhook. The
model holds Base64."""
Content = Annotated[str | bytes, PlainValidator(_as_content)]
"""An audio file: bytes are encoded, a text is Base64 already. The model holds Base64."""
Table = BeforeValidator(_as_table)
Tables = BeforeValidator(_as_tables)


class _Part(BaseModel):
    """An object inside a command; keys that the reference does not name are kept and sent."""

    model_config = ConfigDict(frozen=True, extra="allow")


class AnsweringMachineDetectionConfig(_Part):
    """Limits of the answering machine detection; the reference names no defaults or ranges."""

    after_greeting_silence_millis: Count | None = None
    between_words_silence_millis: Count | None = None
    greeting_duration_millis: Count | None = None
    greeting_silence_duration_millis: Count | None = None
    greeting_total_analysis_time_millis: Count | None = None
    initial_silence_millis: Count | None = None
    maximum_number_of_words: Count | None = None
    maximum_word_length_millis: Count | None = None
    silence_threshold: Count | None = None
    total_analysis_time_millis: Count | None = None


class CustomHeader(_Part):
    """A SIP header of one's own."""

    name: Annotated[str, PlainValidator(_as_header_name)]
    value: Annotated[str, PlainValidator(_as_header_value)]


class SipHeader(_Part):
    """A standard SIP header; the carrier takes User-to-User alone."""

    name: Annotated[Literal["User-to-User"], only("User-to-User")]
    value: Annotated[str, PlainValidator(_as_header_value)]


class DialogflowConfig(_Part):
    """How Dialogflow listens to the call."""

    analyze_sentiment: Flag = False
    partial_automated_agent_reply: Flag = False


class SoundModifications(_Part):
    """Sound effects. The reference shows no keys; these are those of the carrier's SDKs."""

    pitch: Annotated[float, PlainValidator(_as_pitch)] | None = None
    semitone: Annotated[float, between(-14.0, 14.0)] | None = None
    octaves: Annotated[float, between(-1.0, 1.0)] | None = None
    track: Annotated[Track, one_of(Track)] | None = None
