"""What RTP payload types stand for: the names, clocks and channels of codecs.

Written as in SDP's rtpmap (RFC 8866 section 6.6): `opus`, `L16/16000`, `L16/44100/2`. Static
payload types are those of RFC 3551 tables 4 and 5; a dynamic one means what the operator or the
carrier says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

ENCODINGS: Mapping[str, int] = {
    "PCMU": 8000,
    "PCMA": 8000,
    "G722": 8000,
    "G729": 8000,
    "GSM": 8000,
    "opus": 48000,
    "L16": 0,
}
"""RTP clock in Hz by the name of the codec; 0 for any. That of G.722 is not its sample rate."""
CLOCKS_OF_ANY_HZ = (8000, 192_000)
"""Least and highest clock of a codec of any."""
FIXED = (0, 8, 13)
"""PCMU, PCMA and comfort noise: payload types that mean the same everywhere."""
_DYNAMIC = range(96, 128)
_BY_NAME = {name.casefold(): name for name in ENCODINGS}
_NO_AUDIO = {"h263", "h264", "h265", "vp8", "vp9", "av1", "telephone-event", "cn"}


@dataclass(frozen=True, slots=True)
class Format:
    """A codec as a payload type stands for it."""

    encoding: str
    """A key of `ENCODINGS`."""
    clock_hz: int
    """Units of the RTP timestamp per second."""
    channels: int = 1
    """In the payload; told of L16 alone."""

    @property
    def sample_rate_hz(self) -> int:
        """Samples per second of the decoded audio: the clock's, but for G.722's 16,000."""
        return 16_000 if self.encoding == "G722" else self.clock_hz

    def __str__(self) -> str:
        """As `parse_format` reads it back."""
        if ENCODINGS[self.encoding]:
            return self.encoding
        channels = f"/{self.channels}" if self.channels > 1 else ""
        return f"{self.encoding}/{self.clock_hz}{channels}"


STATIC: Mapping[int, Format] = {
    0: Format("PCMU", 8000),
    3: Format("GSM", 8000),
    8: Format("PCMA", 8000),
    9: Format("G722", 8000),
    10: Format("L16", 44_100, 2),
    11: Format("L16", 44_100),
    18: Format("G729", 8000),
}
"""What payload types stand for that no signalling has to tell."""


def parse_format(text: str) -> Format:
    """Read `NAME[/CLOCK[/CHANNELS]]`, in lower or upper case. Raises ValueError.

    Opus is always `opus/48000/2` in SDP, whatever it holds: its channels say nothing.
    """
    name, *rest = text.strip().split("/")
    encoding = _BY_NAME.get(name.casefold())
    if encoding is None:
        raise ValueError(f"{text!r} is no codec that can be decoded: {', '.join(ENCODINGS)}")
    if len(rest) > 2 or not all(part.isascii() and part.isdigit() for part in rest):
        raise ValueError(f"{text!r} is not NAME, NAME/CLOCK or NAME/CLOCK/CHANNELS")
    numbers = [int(part) for part in rest]
    clock_hz = ENCODINGS[encoding]
    if clock_hz:
        if numbers[:1] not in ([], [clock_hz]):
            raise ValueError(f"{text!r}: the RTP clock of {encoding} is {clock_hz}")
        if numbers[1:] not in ([], [1], [2] if encoding == "opus" else []):
            raise ValueError(f"{text!r}: {encoding} has one channel")
        return Format(encoding, clock_hz)
    least, most = CLOCKS_OF_ANY_HZ
    if not (numbers and least <= numbers[0] <= most):
        raise ValueError(f"{text!r} needs a clock from {least} to {most}, such as {encoding}/16000")
    if numbers[1:] not in ([], [1], [2]):
        raise ValueError(f"{text!r}: {encoding} has one or two channels")
    return Format(encoding, *numbers)


class PayloadTypes(dict[int, Format]):
    """Formats by payload type."""

    @classmethod
    def parse(cls, text: str) -> PayloadTypes:
        """Read `96=opus,97=L16/16000`; of an empty text, none. Raises ValueError."""
        formats = cls()
        for item in filter(None, (item.strip() for item in text.split(","))):
            number, equals, name = item.partition("=")
            if not (equals and number.isascii() and number.isdigit() and int(number) < 128):
                raise ValueError(f"{item!r} is not NUMBER=CODEC with a payload type up to 127")
            payload_type = int(number)
            if payload_type in FIXED:
                raise ValueError(f"{item!r}: payload type {payload_type} has a fixed meaning")
            if payload_type in formats:
                raise ValueError(f"payload type {payload_type} is given twice")
            formats[payload_type] = parse_format(name)
        return formats

    def __str__(self) -> str:
        """As `parse` reads it back."""
        return ",".join(f"{number}={each}" for number, each in self.items())


def declared_format(codecs: str) -> Format | None:
    """Return the one codec of a list, separated by commas, that has no static payload type.

    None where there is none, where there are several, of which a payload type could be any, and
    for one that cannot be decoded.
    """
    static = {each.encoding.casefold() for each in STATIC.values()} - {"l16"}
    names = {item.strip().partition("/")[0].casefold() for item in codecs.split(",")}
    dynamic = names - static - _NO_AUDIO - {""}
    if len(dynamic) != 1:
        return None
    (name,) = dynamic
    if not ENCODINGS.get(_BY_NAME.get(name, ""), 0):
        return None
    return parse_format(name)


def is_dynamic(payload_type: int) -> bool:
    """Tell whether signalling gives a payload type its meaning (RFC 3551 section 6)."""
    return payload_type in _DYNAMIC
