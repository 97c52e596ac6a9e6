"""The daemon's settings, from flags, environment and a TOML file, in this order of precedence.

A setting has one key everywhere: `max_tracks` in the file, `STREP_MAX_TRACKS` in the environment
(an empty variable counts as unset), `--max-tracks` on the command line. Whoever gives a setting
replaces it whole, lists included. Three settings are lists:

- `media`, the UDP listeners. In the file `[[media]]` tables with the keys of `Listener`; as text
  `HOST:PORT[,call_leg_id=UUID,direction=inbound|outbound,leg=A|B]`.
- `sink`, what is done with the audio. In the file `[[sink]]` tables, whose `name` names the sink
  and whose further keys are its options; as text `NAME[:key=value,...]`, or `none` for no sink.
- `telephone_event_payload_types`, numbers or texts `NUMBER/CLOCK`, or `none`.

The flag of a list is repeated; its variable separates the items by semicolons. A value inside a
text can hold neither a comma nor, in the environment, a semicolon: such values need the file.
Options of sinks are converted and checked by the sinks, not here.

The settings of the control plane are those of `ControlSettings`: `media_target` in the file's table
`[control]`, `STREP_CONTROL_MEDIA_TARGET`, `--control-media-target`. There is a control plane where
any of them is given. Keys and tokens are no settings: files hold them, or variables of their own.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainValidator,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from pipeline.formats import PayloadTypes
from strep.control.parameters import Flag  # noqa: TC001 -- read by pydantic
from strep.control.settings import AutoFork, ControlSettings, PortRange
from strep.receive.gate import Network
from strep.specs import (
    Address,
    ConfigError,
    EventPayloadType,
    Listener,
    SinkSpec,
    as_address,
    as_event_payload_type,
    as_listener,
    as_sink,
    distinct_payload_types,
    fault,
    parse_address,
    parse_event_payload_types,
    parse_sink,
    parse_sinks,
    unknown,
)
from strep.validation import as_file, as_folder, as_text, between, one_of, shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "Address",
    "ConfigError",
    "Listener",
    "Settings",
    "SinkSpec",
    "load",
    "parse_address",
    "parse_event_payload_types",
    "parse_payload_types",
    "parse_sink",
    "parse_sinks",
]

DEFAULT_SINKS = ("wav", "vad", "dtmf", "conversation")
"""What runs where nobody says which; a capture is only recorded where somebody says where to."""
PREFIX = "STREP_"
FILE_VARIABLE = "STREP_CONFIG"
"""Names the TOML file where no flag does."""
CREDENTIALS = ("STREP_API_KEY", "STREP_API_KEY_FILE", "STREP_HTTP_TOKEN")
"""Variables that are no settings, and no misspellings of one."""
DATABASE = "strep.db"
"""Name of the database in the folder of recordings."""

LogFormat = Literal["auto", "console", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]
Concealment = Literal["silence", "repeat", "g711"]
ComfortNoise = Literal["silence", "noise"]

_WORKER_COUNT: TypeAdapter[int] = TypeAdapter(Annotated[int, between(1, 256)])
_DAYS: TypeAdapter[int] = TypeAdapter(Annotated[int, between(1, 36_500)])


def _as_list(value: object) -> object:
    """Bring what stands for a list into the form of one: `a;b`, or items given one by one."""
    if isinstance(value, list | tuple):
        return value
    if isinstance(value, dict):
        raise ValueError("a single table stands where a list is expected: write [[...]], not [...]")  # noqa: TRY004 -- pydantic reports ValueError
    return [item.strip() for item in as_text(value, "a list of tables or texts").split(";")]


def _as_sinks(value: object) -> object:
    items = _as_list(value)
    return parse_sinks(items) if isinstance(items, list | tuple) and "none" in items else items


def _as_event_payload_types(value: object) -> object:
    items = _as_list(value)
    return [] if items == ["none"] else items


def _as_address_or_none(value: object) -> Address | None:
    if value is None or value == "none":
        return None
    try:
        return as_address(value)
    except ValueError as error:
        raise ValueError(f"{error} nor none") from None


def _as_network(value: object) -> Network:
    text = value if isinstance(value, Network) else as_text(value, "a network")
    try:
        return ip_network(text)
    except ValueError:
        raise ValueError(f"{shown(value)} is not a network such as 192.0.2.0/24") from None


def _as_file_or_none(value: object) -> Path | None:
    return None if value is None or value == "none" else as_file(value)


def _as_database(value: object) -> Path | Literal["auto"] | None:
    return "auto" if value == "auto" else _as_file_or_none(value)


def _as_payload_types(value: object) -> PayloadTypes:
    if isinstance(value, dict):
        value = ",".join(f"{number}={codec}" for number, codec in value.items())
    return PayloadTypes.parse(as_text(value, "NUMBER=CODEC[,...], such as 96=opus,97=L16/16000"))


def parse_payload_types(text: str) -> PayloadTypes:
    """Read `96=opus,97=L16/16000`. Raises ConfigError."""
    try:
        return PayloadTypes.parse(text)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _as_workers(value: object) -> object:
    if value == "auto":
        return value
    try:
        return _WORKER_COUNT.validate_python(value)
    except ValidationError as error:
        raise ValueError(f"{fault(error)[1]} nor auto") from None


def _as_days(value: object) -> int | None:
    if value is None or value == "none":
        return None
    try:
        return _DAYS.validate_python(value)
    except ValidationError as error:
        raise ValueError(f"{fault(error)[1]} nor none") from None


def _distinct(listeners: tuple[Listener, ...]) -> tuple[Listener, ...]:
    if not listeners:
        raise ValueError("the list is empty, but at least one listener is needed")
    seen: set[Address] = set()
    for listener in listeners:
        if listener.listen.port and listener.listen in seen:
            raise ValueError(f"{listener.listen} is listed twice")
        seen.add(listener.listen)
    return listeners


def _multiple_of_8(number: int) -> int:
    if number % 8:
        raise ValueError(f"{number} is not a multiple of 8")
    return number


class Settings(BaseModel):
    """Everything that `strep serve` can be told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    media: Annotated[
        tuple[Annotated[Listener, BeforeValidator(as_listener)], ...],
        AfterValidator(_distinct),
        BeforeValidator(_as_list),
    ] = (Listener(listen=Address("0.0.0.0", 9000)),)  # noqa: S104 -- media comes from elsewhere
    """Where forked media is received."""
    http: Annotated[Address | None, PlainValidator(_as_address_or_none)] = Address(
        "127.0.0.1", 8080
    )
    """Where health, metrics, calls and forks are served; None (`none`) for nowhere."""
    http_token_file: Annotated[Path | None, PlainValidator(_as_file_or_none)] = None
    """File that holds the token that HTTP asks for; without it the token, if there is any, comes
    from the environment."""
    http_tls_certificate: Annotated[Path | None, PlainValidator(_as_file_or_none)] = None
    """File of the certificate, in PEM with those between it and its root, that HTTP is served with;
    None (`none`) for HTTP without TLS."""
    http_tls_key: Annotated[Path | None, PlainValidator(_as_file_or_none)] = None
    """File of the certificate's private key, in PEM without a password."""
    recordings: Annotated[Path, PlainValidator(as_folder)] = Path("recordings")
    """Folder of all that sinks write; a relative one is meant from the working directory."""
    database: Annotated[Path | Literal["auto"] | None, PlainValidator(_as_database)] = "auto"
    """Where calls, forks and recordings are remembered, by one daemon at a time: a file, `auto` for
    strep.db in the folder of recordings; None (`none`) for nowhere."""
    keep_calls_days: Annotated[int | None, PlainValidator(_as_days)] = None
    """Calls that began so long ago are deleted from the database, their files are not; None
    (`none`) to keep all."""
    sinks: Annotated[
        tuple[Annotated[SinkSpec, BeforeValidator(as_sink)], ...], BeforeValidator(_as_sinks)
    ] = tuple(SinkSpec(name=name) for name in DEFAULT_SINKS)
    """What is done with the audio."""
    workers: Annotated[int | Literal["auto"], PlainValidator(_as_workers)] = 1
    """Processes that receive, each its share of the calls; `auto` is one for each usable core."""
    max_tracks: Annotated[int, between(1, 262_144)] = 16_384
    """Tracks open at once in a worker; packets that would open one more are dropped and counted."""
    idle_timeout_s: Annotated[float, between(0.1, 86_400)] = 120.0
    """A track without packets for so long is closed."""
    drain_timeout_s: Annotated[float, between(0.0, 86_400)] = 0.0
    """How long running calls may go on after SIGTERM, while no new ones are taken; 0 to end them at
    once."""
    reorder_ms: Annotated[int, between(0, 2_000)] = 60
    """How long what stands behind a missing packet waits for it."""
    max_gap_s: Annotated[float, between(1.0, 86_400)] = 120.0
    """Longest silence that is inserted for one gap; behind a longer one a new segment begins."""
    max_ahead_s: Annotated[float, between(0.0, 86_400)] = 2.0
    """How far silence that timestamps tell may run ahead of the arrivals. More than what is usual
    is for media that is sent faster than it was spoken."""
    concealment: Annotated[Concealment, one_of(Concealment)] = "silence"
    """What stands for lost packets: silence, the last frame again (`repeat`), or what ITU-T G.711
    Appendix I makes of the audio before (`g711`)."""
    comfort_noise: Annotated[ComfortNoise, one_of(ComfortNoise)] = "silence"
    """What stands for pauses that a sender describes (RFC 3389): silence or `noise`."""
    mouth_to_ear_ms: Annotated[float, between(0.0, 10_000)] = 0.0
    """One-way delay of the calls, for their MOS: the media that is received does not tell it."""
    allowed_sources: Annotated[
        tuple[Annotated[Network, PlainValidator(_as_network)], ...], BeforeValidator(_as_list)
    ] = ()
    """Networks that tracks may be opened from, such as 192.0.2.0/24; any where none is given."""
    new_tracks_per_s: Annotated[float, between(0.1, 1e6)] = 1000.0
    """Tracks that one host may open each second, in each worker..."""
    new_tracks_burst: Annotated[int, between(1, 262_144)] = 8192
    """...and at once."""
    source_timeout_s: Annotated[float, between(0.0, 3_600)] = 1.0
    """Packets of a track from another IP address are dropped, unless nothing has come from its own
    for so long."""
    telephone_event_payload_types: Annotated[
        tuple[Annotated[EventPayloadType, PlainValidator(as_event_payload_type)], ...],
        AfterValidator(distinct_payload_types),
        BeforeValidator(_as_event_payload_types),
    ] = (EventPayloadType(101),)
    """RTP payload types of keys pressed as packets (RFC 4733); none (`none`) for not looking."""
    learn_telephone_events: Flag = False
    """Whether other dynamic payload types are taken for that where their packets look so."""
    payload_types: Annotated[PayloadTypes, PlainValidator(_as_payload_types)] = PayloadTypes()
    """What RTP payload types stand for beside the static ones: `96=opus,97=L16/16000`; in the file
    also a table. G.711's two and comfort noise stay what they are."""
    tick_ms: Annotated[int, between(1, 100)] = 10
    """How often packets are drained and released."""
    receive_buffer_bytes: Annotated[int, between(65_536, 2**30)] = 32 * 2**20
    """Size asked for of each socket's receive buffer; each worker has a socket per listener."""
    slot_bytes: Annotated[int, between(512, 65_528), AfterValidator(_multiple_of_8)] = 576
    """Longest datagram that is taken whole, a multiple of 8; short slots are faster."""
    merge_datagrams: Flag = False
    """Whether datagrams that came together from one port are read as one (UDP_GRO, Linux 5.0):
    cheaper where a carrier sends many calls from one port. Needs the compiled kernel and a single
    worker; of what the kernel drops, it counts then those that are merged as one."""
    log_format: Annotated[LogFormat, one_of(LogFormat)] = "auto"
    """`auto` is console where standard error is a terminal, JSON elsewhere."""
    log_level: Annotated[LogLevel, one_of(LogLevel)] = "info"
    control: ControlSettings | None = None
    """How calls are controlled; None for not at all."""

    @model_validator(mode="after")
    def _remembers_forks(self) -> Settings:
        if self.control is not None and self.database is None:
            raise ValueError("database: none, but the control plane needs one: it remembers forks")
        return self

    @model_validator(mode="after")
    def _merges_for_one_worker(self) -> Settings:
        if self.merge_datagrams and self.workers != 1:
            raise ValueError(
                f"merge_datagrams: goes with one worker, and workers is {self.workers}"
            )
        return self

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Settings:
        if (self.http_tls_certificate is None) != (self.http_tls_key is None):
            raise ValueError(
                "http_tls_certificate and http_tls_key are given together or not at all"
            )
        return self

    @property
    def database_file(self) -> Path | None:
        """The database; None where none is kept."""
        return self.recordings / DATABASE if self.database == "auto" else self.database

    def as_toml(self) -> str:
        """Return a TOML document of every setting, which `load` reads back to an equal object."""
        lines = [
            f"{key} = {_toml(getattr(self, key))}"
            for key in type(self).model_fields
            if key not in {"media", "sinks", "control"}
        ]
        if not self.sinks:
            lines.append("sink = []")
        if self.control is not None:
            given = ((key, getattr(self.control, key)) for key in ControlSettings.model_fields)
            lines += ["", "[control]"]
            lines += [f"{key} = {_toml(value)}" for key, value in given if value is not None]
        for listener in self.media:
            bound = () if listener.call_leg_id is None else ("call_leg_id", "leg", "direction")
            lines += ["", "[[media]]"]
            lines += [f"{key} = {_toml(getattr(listener, key))}" for key in ("listen", *bound)]
        for sink in self.sinks:
            lines += ["", "[[sink]]", f"name = {_toml(sink.name)}"]
            lines += [f"{_toml_key(key)} = {_toml(value)}" for key, value in sink.options.items()]
        return "\n".join(lines) + "\n"


_CONTROL = "control"
_PATHS: dict[str, tuple[str, ...]] = {
    "sink" if field == "sinks" else field: (field,) for field in Settings.model_fields
} | {f"{_CONTROL}_{field}": (_CONTROL, field) for field in ControlSettings.model_fields}
"""Where a setting stands, by the key that names it."""
_FILE_KEYS = [key for key, path in _PATHS.items() if len(path) == 1]
_TEXT_KEYS = [key for key in _PATHS if key != _CONTROL]
"""Those of the environment and the command line."""
_TABLES = {
    "auto_fork": [field.alias or name for name, field in AutoFork.model_fields.items()],
}


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, tuple) and not isinstance(value, Address | PortRange | EventPayloadType):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, AutoFork):
        rule = value.model_dump(by_alias=True)
        return f"{{{', '.join(f'{key} = {_toml(each)}' for key, each in rule.items())}}}"
    # JSON's escapes are TOML's; only DEL has to be escaped in TOML alone.
    text = "none" if value is None else str(value)
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _toml_key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _toml(key)


class _Given(NamedTuple):
    """A value of a setting and the words that say where it stands."""

    value: object
    where: str
    in_file: bool = False


def load(file: Path | None, environment: Mapping[str, str], flags: Mapping[str, Any]) -> Settings:
    """Put the settings together and check them. Raises ConfigError.

    `file` may be left to the variable STREP_CONFIG. `flags` has the keys of the settings; None
    stands for a flag that was not given, a list of texts for a repeated one.
    """
    if file is None and (named := environment.get(FILE_VARIABLE)):
        file = Path(named)
    given: dict[str, _Given] = {}
    if file is not None:
        given |= _from_file(file)
    given |= _from_environment(environment)
    given |= _from_flags(flags)
    settings: dict[str, Any] = {}
    for key, item in given.items():
        *sections, field = _PATHS[key]
        table = settings
        for section in sections:
            table = table.setdefault(section, {})
        table[field] = item.value
    try:
        return Settings.model_validate(settings)
    except ValidationError as error:
        path, sentence = fault(error, _TABLES)
        raise ConfigError(f"{_place(path, given)}{sentence}") from None


def _place(path: Sequence[int | str], given: Mapping[str, _Given]) -> str:
    """Return the words that say where a path into the settings leads, with a colon and a blank."""
    starts = [key for key in given if path[: len(_PATHS[key])] == _PATHS[key]]
    if not starts:
        return f"{path[0]}: " if path else ""
    key = max(starts, key=lambda key: len(_PATHS[key]))
    inside = _inside(path[len(_PATHS[key]) :]) if given[key].in_file else ""
    return f"{given[key].where}{inside}: "


def _from_file(file: Path) -> dict[str, _Given]:
    try:
        document = tomllib.loads(file.read_bytes().decode())
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read as a settings file: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: byte {error.start} is not UTF-8, as TOML has to be") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{file}: not valid TOML: {error}") from None
    for key in document:
        if key not in _FILE_KEYS:
            raise ConfigError(f"{file}: {unknown('key', key, _FILE_KEYS)}")
    given = {key: _Given(value, f"{file}: {key}", in_file=True) for key, value in document.items()}
    if _CONTROL not in document:
        return given
    section = document[_CONTROL]
    if not isinstance(section, dict):
        raise ConfigError(f"{file}: {_CONTROL}: {shown(section)} is not a table: [{_CONTROL}]")
    for key in section:
        if key not in ControlSettings.model_fields:
            known = ControlSettings.model_fields
            raise ConfigError(f"{file}: {_CONTROL}: {unknown('key', key, known)}")
    # one by one, so that the environment and flags replace a single one
    return (
        given
        | {_CONTROL: given[_CONTROL]._replace(value={})}
        | {
            f"{_CONTROL}_{key}": _Given(value, f"{file}: {_CONTROL}.{key}", in_file=True)
            for key, value in section.items()
        }
    )


def _from_environment(environment: Mapping[str, str]) -> dict[str, _Given]:
    keys = {f"{PREFIX}{key.upper()}": key for key in _TEXT_KEYS}
    known = [*keys, FILE_VARIABLE, *CREDENTIALS]
    for variable in environment:
        # Only what looks like a misspelling is refused: the prefix is not ours alone (Kubernetes
        # sets STREP_SERVICE_HOST and more beside a service that is called strep).
        if (
            variable.startswith(PREFIX)
            and variable not in known
            and difflib.get_close_matches(variable, known, n=1, cutoff=0.85)
        ):
            raise ConfigError(f"environment: {unknown('variable', variable, known)}")
    return {
        key: _Given(_decoded(text, variable), variable)
        for variable, key in keys.items()
        if (text := environment.get(variable))
    }


def _from_flags(flags: Mapping[str, Any]) -> dict[str, _Given]:
    given: dict[str, _Given] = {}
    for key, value in flags.items():
        flag = f"--{key.replace('_', '-')}"
        if key not in _TEXT_KEYS:
            known = [f"--{name.replace('_', '-')}" for name in _TEXT_KEYS]
            raise ConfigError(f"command line: {unknown('flag', flag, known)}")
        if value is not None:
            given[key] = _Given(_decoded(value, flag), flag)
    return given


def _decoded(value: object, where: str) -> object:
    """Refuse bytes that Python smuggled into a text as surrogates: no file could repeat them."""
    for text in value if isinstance(value, list | tuple) else [value]:
        try:
            str(text).encode()
        except UnicodeEncodeError:
            raise ConfigError(f"{where}: {shown(str(text))} is not UTF-8 text") from None
    return value


def _inside(path: Sequence[int | str]) -> str:
    return "".join(
        f"[{part}]" if isinstance(part, int) else f".{part}" for part in path if part != "options"
    )
