"""Key presses of a telephone keypad (DTMF), however they came, and one list of both ways.

A press may come as a telephone-event (RFC 4733), as two tones in the audio (ITU-T Q.23), or as
both: gateways that send events often let the first milliseconds of the tone through.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pipeline.block import Event

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pipeline.block import Track

DIGITS = "0123456789*#ABCD"
"""The keys by the numbers of their telephone-events (RFC 4733 section 3.2)."""
TOGETHER_S = 0.1
"""A tone and an event of one key that are so close together are one press: the event may begin
when the tone has been recognised by the sender."""

Kind = Literal["telephone-event", "in-band"]


@dataclass(frozen=True, slots=True)
class KeyPress:
    """One press of a key, when it is over."""

    digit: str
    """One of `0123456789*#ABCD`."""
    kind: Kind
    start_samples: int
    """Where it began on the track's media clock; see `TelephoneEvents` for before the audio."""
    duration_samples: int
    sample_rate_hz: int
    """Of both."""

    def as_dict(self) -> dict[str, Any]:
        """Return `digit`, `start_s`, `duration_ms` and `kind`, ready for JSON."""
        return {
            "digit": self.digit,
            "start_s": self.start_samples / self.sample_rate_hz,
            "duration_ms": round(1000 * self.duration_samples / self.sample_rate_hz, 3),
            "kind": self.kind,
        }

    def as_event(self, track: Track) -> Event:
        """Return the event `dtmf`, which stands where the key was pressed."""
        return Event("dtmf", track, self.start_samples, self.sample_rate_hz, self.as_dict())


def merged(
    telephone_events: Iterable[Mapping[str, Any]], in_band: Iterable[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """Return all presses of a track, as `KeyPress.as_dict` gives them, in order of their start.

    A press that came both ways stands there once, as the telephone-event.
    """
    presses = sorted(telephone_events, key=_start_s)
    by_digit: dict[str, list[Mapping[str, Any]]] = {}
    for press in reversed(presses):
        by_digit.setdefault(press["digit"], []).append(press)
    for tone in sorted(in_band, key=_start_s):
        # the next ones come last: what ended before this tone ended before those that follow, too
        events = by_digit.get(tone["digit"], [])
        while events and _end_s(events[-1]) + TOGETHER_S < tone["start_s"]:
            events.pop()
        if not events or _end_s(tone) + TOGETHER_S < events[-1]["start_s"]:
            presses.append(tone)
    return sorted(presses, key=_start_s)


def _start_s(press: Mapping[str, Any]) -> float:
    return float(press["start_s"])


def _end_s(press: Mapping[str, Any]) -> float:
    return float(press["start_s"] + press["duration_ms"] / 1000)
