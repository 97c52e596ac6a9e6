"""Addresses, listeners and sinks as people write them, on a command line or in a file."""

from __future__ import annotations

import difflib
import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple
from uuid import UUID  # noqa: TC003 -- read by pydantic

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    model_validator,
)

from strep.validation import as_text, as_uuid, one_of, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Leg = Literal["A", "B"]
Direction = Literal["inbound", "outbound"]
OptionValue = bool | int | float | str | tuple[bool | int | float | str, ...]


class ConfigError(ValueError):
    """A setting is wrong; the text is one sentence: where it stands, what it is, what is right."""


class Address(NamedTuple):
    """A host (name or numeric address) and a port; port 0 asks for any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        """`0.0.0.0:9000` or `[::1]:9000`, which `parse_address` reads back."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """Read `HOST:PORT`, an IPv6 address in brackets. Raises ConfigError."""
    match = re.fullmatch(
        r"(?:\[(?P<v6>[^\]]+)\]|(?P<host>[A-Za-z0-9._-]+)):(?P<port>[0-9]{1,5})", text
    )
    if match and int(match["port"]) <= 65535:
        host = match["v6"] or match["host"]
        try:
            if match["v6"]:
                IPv6Address(host)
            elif re.fullmatch(r"[0-9.]+", host):
                IPv4Address(host)
        except AddressValueError:
            pass
        else:
            return Address(host, int(match["port"]))
    raise ConfigError(
        f"{shown(text)} is not HOST:PORT (such as 0.0.0.0:9000 or [::1]:9000, ports 0 to 65535)"
    )


def as_address(value: object) -> Address:
    """Check for an address or the text of one."""
    return value if isinstance(value, Address) else parse_address(as_text(value, "HOST:PORT"))


class EventPayloadType(NamedTuple):
    """An RTP payload type of telephone-events (RFC 4733), and the clock of their durations."""

    number: int
    clock_hz: int = 8000

    def __str__(self) -> str:
        """`101`, or `110/48000` where the clock is not 8000: what is read back to an equal one."""
        return f"{self.number}" if self.clock_hz == 8000 else f"{self.number}/{self.clock_hz}"


def as_event_payload_type(value: object) -> EventPayloadType:
    """Check for a payload type of telephone-events, as a number or the text of one."""
    if isinstance(value, EventPayloadType):
        return value
    text = str(value) if isinstance(value, int | str) and not isinstance(value, bool) else ""
    match = re.fullmatch(r"(?P<number>[0-9]{2,3})(?:/(?P<clock_hz>[0-9]{4,5}))?", text)
    if match:
        found = EventPayloadType(int(match["number"]), int(match["clock_hz"] or 8000))
        if 35 <= found.number <= 127 and 8000 <= found.clock_hz <= 96_000:
            return found
    raise ValueError(
        f"{shown(value)} is not a payload type of telephone-events: 35 to 127, "
        "with /CLOCK where that is not 8000 (110/48000)"
    )


def distinct_payload_types(types: tuple[EventPayloadType, ...]) -> tuple[EventPayloadType, ...]:
    """Check that no payload type stands there twice."""
    for i, each in enumerate(types):
        if each.number in {other.number for other in types[:i]}:
            raise ValueError(f"{each.number} is listed twice")
    return types


def parse_event_payload_types(texts: Sequence[str]) -> tuple[EventPayloadType, ...]:
    """Read payload types of telephone-events, or `none` alone. Raises ConfigError."""
    if list(texts) == ["none"]:
        return ()
    try:
        return distinct_payload_types(tuple(map(as_event_payload_type, texts)))
    except ValueError as error:
        raise ConfigError(f"--telephone-event-payload-types: {error}") from None


def _as_name(value: object) -> str:
    if name := as_text(value, "the name of a sink"):
        return name
    raise ValueError("'' is not the name of a sink")


def _as_option(value: object) -> OptionValue:
    scalar = bool | int | float | str
    if isinstance(value, scalar):
        return value
    if isinstance(value, list | tuple) and all(isinstance(item, scalar) for item in value):
        return tuple(value)
    raise ValueError(f"{shown(value)} is not a text, a number, true, false or a list of these")


class Listener(BaseModel):
    """A UDP address to receive on and, for plain RTP, the track that arrives there."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    listen: Annotated[Address, PlainValidator(as_address)]
    call_leg_id: Annotated[UUID, PlainValidator(as_uuid)] | None = None
    """The call leg of the plain RTP that arrives here; without one, each stream of plain RTP is a
    call leg of its own."""
    leg: Annotated[Leg, one_of(Leg)] = "A"
    direction: Annotated[Direction, one_of(Direction)] | None = None

    @model_validator(mode="after")
    def _binding_is_whole(self) -> Listener:
        if (self.call_leg_id is None) != (self.direction is None):
            raise ValueError("call_leg_id and direction are given together or not at all")
        if self.call_leg_id is None and self.leg != "A":
            raise ValueError("leg B is given together with call_leg_id and direction")
        return self


def parse_listener(text: str) -> Listener:
    """Read `HOST:PORT[,call_leg_id=UUID,direction=...,leg=...]`. Raises ConfigError."""
    listen, *rest = text.split(",")
    address = parse_address(listen)
    binding = _pairs(rest, text)
    if "listen" in binding:
        raise ConfigError(f"{shown(text)} gives listen twice")
    try:
        return Listener.model_validate({"listen": address, **binding})
    except ValidationError as error:
        path, sentence = fault(error)
        raise ConfigError(": ".join([*map(str, path), sentence])) from None


def as_listener(value: object) -> object:
    """Make a listener, or what pydantic makes one of, of a text or a table."""
    if isinstance(value, Listener | dict):
        return value
    return parse_listener(as_text(value, "a listener: HOST:PORT or a table"))


class SinkSpec(BaseModel):
    """A sink by name (`wav`, `package.module:Class`) and its options, not yet converted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, PlainValidator(_as_name)]
    options: dict[str, Annotated[OptionValue, PlainValidator(_as_option)]] = Field(
        default_factory=dict
    )


def parse_sink(text: str) -> SinkSpec:
    """Read `NAME[:key=value,...]`; NAME may be `package.module:Class`. Raises ConfigError."""
    # A colon begins the options, unless a class name stands between it and the next one.
    match = re.fullmatch(r"(?P<name>[^:=,]+(?::[^:=,]+)?)(?::(?P<options>.*))?", text, re.DOTALL)
    if match is None:
        raise ConfigError(f"{shown(text)} is not NAME[:key=value,...]")
    options = _pairs(match["options"].split(","), text) if match["options"] else {}
    if "name" in options:
        raise ConfigError(f"{shown(text)} has an option 'name', which no sink can have")
    return SinkSpec(name=match["name"], options={**options})


def parse_sinks(texts: Sequence[str]) -> tuple[SinkSpec, ...]:
    """Read what repeated `--sink` flags said, `none` alone meaning no sink. Raises ConfigError."""
    if "none" not in texts:
        return tuple(map(parse_sink, texts))
    if len(texts) > 1:
        raise ConfigError("'none' stands for no sink and cannot be given beside others")
    return ()


def as_sink(value: object) -> object:
    """Make a sink, or what pydantic makes one of, of a text or a table of name and options."""
    if isinstance(value, dict):
        name = {"name": value["name"]} if "name" in value else {}
        return {**name, "options": {key: value[key] for key in value if key != "name"}}
    if isinstance(value, SinkSpec):
        return value
    return parse_sink(as_text(value, "a sink: NAME[:key=value,...] or a table"))


def fault(
    error: ValidationError, tables: Mapping[str, Iterable[str]] = MappingProxyType({})
) -> tuple[tuple[int | str, ...], str]:
    """Say in one sentence what pydantic found wrong, and return the path to it.

    Of several faults an unknown key comes first, since a missing one is often its consequence.
    `tables` are the keys of tables that are no listeners, by the name of the list that they are in.
    """
    found = error.errors()
    details = next((each for each in found if each["type"] == "extra_forbidden"), found[0])
    path = details["loc"]
    match details["type"]:
        case "missing":
            return path[:-1], f"{path[-1]} is missing"
        case "extra_forbidden":
            known = next((tables[str(part)] for part in path if part in tables), None)
            return path[:-1], unknown("key", str(path[-1]), known or Listener.model_fields)
        case _:
            return path, details["msg"].removeprefix("Value error, ")


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Say that there is no such thing, and what was probably meant."""
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(known))}"
    return f"unknown {kind} {shown(name)}; {hint}"


def _pairs(items: Iterable[str], text: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not (key and equals):
            raise ConfigError(f"{shown(item)} in {shown(text)} is not key=value")
        if key in pairs:
            raise ConfigError(f"{shown(text)} gives {key} twice")
        pairs[key] = value
    return pairs
