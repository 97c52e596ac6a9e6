"""What happens in a simulated call: who answers, what is said, and what the network does to it.

A `Scenario` has a table for each subject and a list of events:

    [call]                  # what the other side does
    ring_s = 0.5
    talk_s = 30

    [audio]                 # what is said, and in which codec
    inbound = "caller"
    packet_ms = 30

    [network]               # what becomes of the packets
    loss = 0.01

    [[event]]               # what happens at a time after the answer
    kind = "hold"
    at_s = 5
    for_s = 2

Everything has a default; as made, a call is answered after a second and goes on over a perfect
network until somebody hangs up.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainValidator,
    model_validator,
)

from strep.control.parameters import Flag  # noqa: TC001 -- pydantic reads annotations
from strep.media import LONGEST_PACKET_MS
from strep.network import LIMITS, Impairments
from strep.simulator.audio import PCMA, PCMU
from strep.validation import as_text, between, one_of, shown

if TYPE_CHECKING:
    from collections.abc import Mapping

_E = TypeVar("_E", bound="Event")

Codec = Literal["PCMU", "PCMA"]
Outcome = Literal["answer", "busy", "reject", "no_answer"]
PAYLOAD_TYPES: Mapping[Codec, int] = {"PCMU": PCMU, "PCMA": PCMA}
DTMF = "0123456789*#ABCD"
"""Digits in the order of their events (RFC 4733 section 3.2)."""
LONGEST_CALL_S = 14_400.0
"""The carrier's own limit."""

Seconds = Annotated[float, between(0.0, LONGEST_CALL_S)]
Milliseconds = Annotated[int, between(20, 10_000)]


def _as_digits(value: object) -> str:
    text = as_text(value, f"a text of the digits {DTMF}")
    if len(text) <= 128 and not set(text) - set(DTMF):
        return text
    raise ValueError(f"{shown(text)} is not a text of up to 128 digits of {DTMF}")


def _as_source(value: object) -> str:
    if text := as_text(value, "caller, agent, silence or a file"):
        return text
    raise ValueError("'' is not caller, agent, silence or a file")


Digits = Annotated[str, PlainValidator(_as_digits)]
Source = Annotated[str, PlainValidator(_as_source)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CallPlan(_Table):
    """What the other side does."""

    outcome: Annotated[Outcome, one_of(Outcome)] = "answer"
    """Of a call that is dialled."""
    ring_s: Annotated[float, between(0.0, 120.0)] = 1.0
    """How long it rings before that."""
    talk_s: Seconds = 0.0
    """How long after the answer the other side hangs up; 0 for never."""
    patience_s: Seconds = 30.0
    """How long somebody who calls waits for the answer."""
    machine: Flag = False
    """Whether an answering machine answers."""
    greeting_s: Seconds = 2.0
    """How long that greets, until its beep."""
    prompt_s: Seconds = 1.0
    """How long every file or text is that is played or spoken."""
    legs: Annotated[int, between(1, 2)] = 1
    """2: forks have a leg B from the answer on, not only while the call is bridged."""
    types: Digits = ""
    """What is typed whenever digits are gathered, two each second."""


class AudioPlan(_Table):
    """What is said; `strep.simulator.audio` has the kinds of sources."""

    inbound: Source = "caller"
    """What the other side says, received by the carrier."""
    outbound: Source = "agent"
    """What the other side hears, transmitted by the carrier."""
    codec: Annotated[Codec, one_of(Codec)] = "PCMU"
    packet_ms: Annotated[int, between(1, LONGEST_PACKET_MS)] = 20
    loop: Flag = True
    """Whether a source begins again at its end; else silence follows it."""
    silence_suppression: Flag = False
    """Whether packets of silence are not sent; their timestamps pass all the same."""
    silence_dbfs: Annotated[float, between(-100.0, 0.0)] = -50.0
    """What is below is silence."""
    clock_ppm: Annotated[float, between(*LIMITS["clock_ppm"])] = 0.0
    """How much faster than nominal the sender's clock runs, in parts per million."""


class NetworkPlan(_Table):
    """What becomes of the packets; `strep.network.Impairments` says more of each figure."""

    loss: Annotated[float, between(*LIMITS["loss"])] = 0.0
    loss_burst_packets: Annotated[float, between(*LIMITS["loss_burst_packets"])] = 1.0
    duplicate: Annotated[float, between(*LIMITS["duplicate"])] = 0.0
    reorder: Annotated[float, between(*LIMITS["reorder"])] = 0.0
    reorder_ms: Annotated[float, between(*LIMITS["reorder_ms"])] = 30.0
    jitter_ms: Annotated[float, between(*LIMITS["jitter_ms"])] = 0.0
    delay_ms: Annotated[float, between(*LIMITS["delay_ms"])] = 0.0
    trace: Annotated[str, PlainValidator(lambda value: as_text(value, "a CSV file"))] = ""
    """CSV file of a real network's delays, in place of `jitter_ms`; see `strep.simulator.trace`."""
    spared_packets: Annotated[int, between(0, 1000)] = 3
    """So many packets after the beginning of a source, and before a change of it, are neither lost
    nor held back nor duplicated: receivers want to see a few in a row before they believe a new
    source (RFC 3550 appendix A.1), and what they do without is not for all to be the same."""

    @model_validator(mode="after")
    def _trace_or_jitter(self) -> NetworkPlan:
        if self.trace and self.jitter_ms:
            raise ValueError("trace and jitter_ms are not given together")
        return self

    @cached_property
    def impairments(self) -> Impairments:
        """What becomes of each stream; its clock is not the network's business."""
        return Impairments(
            **{name: getattr(self, name) for name in LIMITS if name in type(self).model_fields}
        )


class Hold(_Table):
    """No packets, in either direction; their timestamps pass all the same."""

    kind: Literal["hold"]
    at_s: Seconds
    for_s: Seconds


class Reinvite(_Table):
    """Another SSRC, with another random sequence number and timestamp."""

    kind: Literal["reinvite"]
    at_s: Seconds


class CodecChange(_Table):
    """Another payload type within the same source."""

    kind: Literal["codec"]
    at_s: Seconds
    codec: Annotated[Codec, one_of(Codec)]


class Typing(_Table):
    """The other side types digits: telephone-events (RFC 4733) inbound, and a webhook for each."""

    kind: Literal["digits"]
    at_s: Seconds
    digits: Digits
    tone_ms: Milliseconds = 100
    pause_ms: Milliseconds = 100


Event = Hold | Reinvite | CodecChange | Typing
_KINDS: Mapping[str, type[Event]] = {
    "hold": Hold,
    "reinvite": Reinvite,
    "codec": CodecChange,
    "digits": Typing,
}


def _as_event(value: object) -> object:
    if not isinstance(value, dict):
        return value
    kind = value.get("kind")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise ValueError(f"kind is {shown(kind)}, expected {', '.join(_KINDS)}")
    return _KINDS[kind].model_validate(value)


def _in_order(events: tuple[Event, ...]) -> tuple[Event, ...]:
    return tuple(sorted(events, key=lambda event: event.at_s))


class Scenario(_Table):
    """All of it."""

    call: CallPlan = CallPlan()
    audio: AudioPlan = AudioPlan()
    network: NetworkPlan = NetworkPlan()
    event: Annotated[
        tuple[Annotated[Event, BeforeValidator(_as_event)], ...], AfterValidator(_in_order)
    ] = ()
    """In the order of their times."""

    def events(self, kind: type[_E]) -> list[_E]:
        """Return the events of one kind."""
        return [event for event in self.event if isinstance(event, kind)]


KEYS = frozenset(
    key for model in (Scenario, CallPlan, AudioPlan, NetworkPlan, *_KINDS.values())
    for key in model.model_fields
)  # fmt: skip
"""Every key that any table of a scenario may have."""


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Put the changes over a scenario that is written down: key by key, but events as a whole."""
    merged = dict(base)
    for name, table in changes.items():
        both = isinstance(table, dict) and isinstance(merged.get(name), dict)
        merged[name] = {**merged[name], **table} if both else table
    return merged
