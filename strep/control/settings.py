"""What the control plane can be told: the section `control` of the daemon's settings.

There is a control plane where there is this section. The API key is not in it: it comes from the
environment or the file that `api_key_file` names; see `strep.control.key`.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from ipaddress import ip_address
from pathlib import Path  # noqa: TC003 -- pydantic reads annotations at run time
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    model_validator,
)

from strep.control.base import BASE_URL
from strep.control.forks import ForkParameterError, StreamType, Way
from strep.control.parameters import Flag, WebUrl, parse_target, target_text
from strep.specs import Address
from strep.validation import as_file, as_text, between, one_of, shown

if TYPE_CHECKING:
    from strep.control.calls import Call
    from strep.control.ports import PortPair

LOWEST_PORT = 1024

Admission = Literal["any", "known"]
CallDirection = Literal["any", "incoming", "outgoing"]


class PortRange(NamedTuple):
    """UDP ports from `low` to `high`, both included."""

    low: int
    high: int

    def __str__(self) -> str:
        """`20000-20999`, which settings read back."""
        return f"{self.low}-{self.high}"


def _as_port_range(value: object) -> PortRange:
    expected = f"LOW-HIGH, ports from {LOWEST_PORT} to 65535 such as 20000-20999"
    if isinstance(value, PortRange):
        return value
    low, _, high = as_text(value, expected).partition("-")
    if low.isdecimal() and high.isdecimal() and LOWEST_PORT <= int(low) <= int(high) <= 65535:
        ports = PortRange(int(low), int(high))
        if ports.low + ports.low % 2 < ports.high:
            return ports
        raise ValueError(f"{shown(value)} holds no pair of an even port and the next one")
    raise ValueError(f"{shown(value)} is not {expected}")


def _as_host(value: object) -> str:
    text = as_text(value, "an IP address")
    try:
        return str(ip_address(text))
    except ValueError:
        raise ValueError(f"{shown(text)} is not an IP address") from None


def _reachable(host: str) -> str:
    if ip_address(host).is_unspecified:
        raise ValueError(f"{host} is no address that a carrier can send to")
    return host


def _as_target(value: object) -> str:
    address = parse_target(as_text(value, "udp:IP:PORT"))
    _reachable(address.host)
    return target_text(address)


def _as_key(value: object) -> str:
    # settings are read by commands that have no use for an HTTP server and start without one
    from strep.control.webhooks import WebhookKeyError, load_public_key  # noqa: PLC0415

    try:
        text = as_text(value, "a text").strip()
        load_public_key(text)
    except (WebhookKeyError, ValueError):
        raise ValueError("the key is not 32 bytes in base64 (44 characters)") from None
    return text


def _as_pattern(value: object) -> str:
    if text := as_text(value, "a pattern"):
        return text
    raise ValueError("'' is not a pattern such as +4930* or *")


class AutoFork(BaseModel):
    """Calls that are forked as soon as they are answered; all that is given must fit.

    As text `CONNECTION_ID[,direction=incoming|outgoing][,from=PATTERN][,to=PATTERN]
    [,codecs=NAME+NAME]`. In patterns `*` stands for any characters and `?` for one; `*` as the
    connection stands for all.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    connection_id: Annotated[str, PlainValidator(_as_pattern)]
    direction: Annotated[CallDirection, one_of(CallDirection)] = "any"
    """A call whose direction is not known fits `any` alone."""
    from_: Annotated[str, PlainValidator(_as_pattern)] = Field(default="*", alias="from")
    to: Annotated[str, PlainValidator(_as_pattern)] = "*"
    codecs: str = ""
    """What the media of these calls may be, as a fork is told, separated by `,` or `+`."""

    def fits(self, call: Call) -> bool:
        """Tell whether the call is meant."""
        return (
            fnmatchcase(call.connection_id or "", self.connection_id)
            and self.direction in {"any", call.direction}
            and fnmatchcase(call.from_ or "", self.from_)
            and fnmatchcase(call.to or "", self.to)
        )


def _as_auto_fork(value: object) -> object:
    if isinstance(value, AutoFork | dict):
        return value
    connection_id, *rest = as_text(value, "CONNECTION_ID[,key=value,...] or a table").split(",")
    rule: dict[str, Any] = {"connection_id": connection_id}
    for item in rest:
        key, equals, pattern = item.partition("=")
        if not (key and equals):
            raise ValueError(f"{shown(item)} in {shown(value)} is not key=value")
        if key in rule:
            raise ValueError(f"{shown(value)} gives {key} twice")
        rule[key] = pattern
    return rule


def _as_auto_forks(value: object) -> object:
    if isinstance(value, list | tuple):
        return value
    return [item.strip() for item in as_text(value, "a list of tables or texts").split(";")]


class ControlSettings(BaseModel):
    """Everything that the control plane can be told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    api_key_file: Annotated[Path, PlainValidator(as_file)] | None = None
    """File that holds the API key; without it the key comes from the environment."""
    base_url: WebUrl = BASE_URL
    """Where commands are sent."""
    command_timeout_s: Annotated[float, between(0.1, 600)] = 30.0
    """How long a command may take, with all its retries."""
    max_commands: Annotated[int, between(1, 1_000)] = 20
    """Commands under way at once; more of them wait."""

    webhook_public_key: Annotated[str, PlainValidator(_as_key)] | None = None
    """The carrier's, 32 bytes in base64."""
    allow_unsigned_webhooks: Flag = False
    """Whether to run without that key and believe whoever sends a webhook."""

    fork_way: Annotated[Way, one_of(Way)] = "target"
    """How media comes where it is not said: `target` is STREP on `media_target`, `ports` plain RTP
    on a pair of ports for each fork."""
    stream_type: Annotated[StreamType, one_of(StreamType)] = "raw"
    """What is forked where it is not said; `decrypted` needs `ports`."""
    media_target: Annotated[str, PlainValidator(_as_target)] | None = None
    """What the carrier is told as `target`: `udp:IP:PORT` by which it reaches a listener of
    `media`."""
    port_range: Annotated[PortRange, PlainValidator(_as_port_range)] | None = None
    """Ports for forks with `ports`; two each, of which the lower one is even."""
    port_host: Annotated[str, PlainValidator(_as_host)] = "0.0.0.0"  # noqa: S104 -- media comes from elsewhere
    """Address that these ports are opened on."""
    advertised_host: Annotated[str, PlainValidator(_as_host), AfterValidator(_reachable)] | None = (
        None
    )
    """The IP address by which the carrier reaches these ports."""
    port_cooldown_s: Annotated[float, between(0.0, 3_600)] = 30.0
    """How long a pair of ports rests after a fork."""

    first_media_timeout_s: Annotated[float, between(0.1, 600)] = 10.0
    """A fork that brings no packet for so long after it started has failed."""
    retry_forks: Annotated[int, between(0, 10)] = 0
    """How often a fork that failed so is tried again."""
    stop_grace_s: Annotated[float, between(0.0, 60)] = 1.0
    """How long packets under way are waited for when a fork or a call is over."""
    auto_fork: Annotated[
        tuple[Annotated[AutoFork, BeforeValidator(_as_auto_fork)], ...],
        BeforeValidator(_as_auto_forks),
    ] = ()
    """Calls that are forked as soon as they are answered."""
    max_forks: Annotated[int, between(1, 262_144)] = 16_384
    """Forks that may be open at once."""

    admission: Annotated[Admission, one_of(Admission)] = "any"
    """Whose media is received: of `any` call leg, or only of those that a command or a webhook
    told of (`known`)."""
    pending_leg_s: Annotated[float, between(0.1, 600)] = 10.0
    """How long a call leg that nobody has told of is waited for to be told of."""

    @model_validator(mode="after")
    def _fits_together(self) -> ControlSettings:
        if self.webhook_public_key is None and not self.allow_unsigned_webhooks:
            raise ValueError(
                "webhook_public_key is missing: give the carrier's, or run without one by"
                " allow_unsigned_webhooks"
            )
        if self.webhook_public_key is not None and self.allow_unsigned_webhooks:
            raise ValueError("webhook_public_key and allow_unsigned_webhooks exclude each other")
        if (self.port_range is None) != (self.advertised_host is None):
            raise ValueError("port_range and advertised_host are given together or not at all")
        if self.advertised_host is not None and (
            ip_address(self.advertised_host).version != ip_address(self.port_host).version
        ):
            raise ValueError("port_host and advertised_host are of different IP versions")
        if self.stream_type == "decrypted" and self.fork_way == "target":
            raise ValueError("stream_type decrypted needs fork_way ports")
        if self.auto_fork and self.place(self.fork_way) is None:
            raise ValueError(
                f"auto_fork with fork_way {self.fork_way} needs {PLACES[self.fork_way]}"
            )
        return self

    def choose(self, way: Way | None, stream_type: StreamType | None) -> tuple[Way, StreamType]:
        """Return what a fork is to be like where one or both were not said.

        Raises `ForkParameterError` where that cannot be.
        """
        if way is None:
            way = "ports" if stream_type == "decrypted" else self.fork_way
        if stream_type is None:
            stream_type = "raw" if way == "target" else self.stream_type
        if way == "target" and stream_type == "decrypted":
            raise ForkParameterError("decrypted media comes by ports alone, not by target")
        if self.place(way) is None:
            raise ForkParameterError(f"a fork by {way} needs {PLACES[way]} in the settings")
        return way, stream_type

    def place(self, way: Way) -> object:
        """Return what says where media of this way goes; None where nothing does."""
        return self.media_target if way == "target" else self.port_range

    def targets(self, pair: PortPair | None) -> dict[str, str]:
        """Return the parameters of `fork_start` for this pair of ports, or for the shared port."""
        if pair is None:
            return {"target": self.media_target or ""}
        host = self.advertised_host or ""
        return {
            "rx": target_text(Address(host, pair.rx)),
            "tx": target_text(Address(host, pair.tx)),
        }


PLACES: dict[Way, str] = {
    "target": "media_target",
    "ports": "port_range and advertised_host",
}
"""The settings that a way of media needs."""
