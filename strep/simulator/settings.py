"""The simulator's settings: a TOML file, and flags that go before it.

At the top level of the file stand the keys of `Settings` and the tables of the scenario that calls
have; further scenarios have names:

    seed = 7
    webhook_url = "http://127.0.0.1:8080/webhooks"

    [network]               # of every call
    loss = 0.01

    [scenario.busy]         # differs from the above in what it says
    to = ["+1555012*"]      # calls that are dialled to such numbers have it
    call = { outcome = "busy" }

    [traffic]               # calls that come in by themselves
    calls = 50
    rate_per_s = 10

Relative paths are meant from the file's folder.
"""

from __future__ import annotations

import tomllib
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationError

from strep.control.parameters import Text, WebUrl, parse_target
from strep.simulator.audio import Audio, AudioError, load_audio
from strep.simulator.faults import CommandFault, WebhookFault
from strep.simulator.scenario import KEYS, Scenario, merge
from strep.simulator.trace import TraceError, load_trace
from strep.specs import Address, ConfigError, unknown
from strep.validation import as_text, between, shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from strep.network import DelayTrace

_M = TypeVar("_M", bound=BaseModel)

DEFAULT_CONNECTION = "2000000000000000001"


def _as_fork(value: object) -> Address | None:
    if value is None or isinstance(value, Address):
        return value
    text = as_text(value, "IP:PORT")
    try:
        return parse_target(f"udp:{text.removeprefix('udp:')}")
    except ValueError:
        raise ValueError(
            f"{shown(text)} is not IP:PORT (such as 127.0.0.1:9000, ports 1 to 65535)"
        ) from None


class Traffic(BaseModel):
    """Calls that come in by themselves."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    calls: Annotated[int, between(0, 1_000_000)] = 0
    """How many; 0 for none."""
    rate_per_s: Annotated[float, between(0.001, 10_000.0)] = 1.0
    """How many of them begin each second of the simulation."""
    from_: Annotated[Text, Field(alias="from")] = "+15550100000"
    """Who calls first; each further one has the next number."""
    to: Text = "+15550199999"
    scenario: Text | None = None
    """The name of theirs, if they have one of their own."""
    fork: Annotated[Address | None, PlainValidator(_as_fork)] = None
    """Answer these calls at once and fork them there, as STREP, with nobody in control."""


def _as_named(value: object) -> dict[str, dict[str, Any]]:
    if isinstance(value, dict) and all(isinstance(table, dict) for table in value.values()):
        return value
    raise ValueError(f"{shown(value)} is not a table of tables: write [scenario.NAME]")


class Settings(Scenario):
    """Everything that the simulator can be told, beside the scenario of its calls."""

    seed: Annotated[int, between(0, 2**31)] = 1
    """Of everything random: ids, packets and misfortunes are the same for the same seed."""
    speed: Annotated[float, between(0.01, 1000.0)] = 1.0
    """How much faster than ours the simulation's time passes."""
    webhook_url: WebUrl | None = None
    """Where webhooks go of calls that name no other place; without one they are only logged."""
    webhook_attempts: Annotated[int, between(1, 10)] = 4
    webhook_timeout_s: Annotated[float, between(0.1, 60.0)] = 5.0
    """How long a receiver has for its answer, on our clock."""
    connection_id: Text = DEFAULT_CONNECTION
    """Of calls that come in."""
    traffic: Traffic = Traffic()
    fault: tuple[CommandFault, ...] = ()
    webhook_fault: tuple[WebhookFault, ...] = ()
    scenario: Annotated[dict[str, dict[str, Any]], PlainValidator(_as_named)] = Field(
        default_factory=dict
    )
    """Further scenarios by name, as they are written down; `Scenarios` checks them."""


class Scenarios:
    """The scenarios that there are, with their sounds and traces loaded.

    Raises `ConfigError` where one cannot be made.
    """

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._folder = folder
        self._audio: dict[str, Audio] = {}
        self._traces: dict[str, DelayTrace] = {}
        self._base = settings.model_dump(include=set(Scenario.model_fields))
        self.default = self.make({})
        self._named: dict[str, Scenario] = {}
        self._patterns: list[tuple[str, Scenario]] = []
        for name, table in settings.scenario.items():
            changes = dict(table)
            patterns = changes.pop("to", [])
            if not isinstance(patterns, list) or not all(isinstance(p, str) for p in patterns):
                raise ConfigError(f"scenario.{name}.to: {shown(patterns)} is not a list of numbers")
            try:
                self._named[name] = self.make(changes)
            except ConfigError as error:
                raise ConfigError(f"scenario.{name}.{error}") from None
            self._patterns += [(pattern, self._named[name]) for pattern in patterns]
        if settings.traffic.scenario is not None:
            self.named(settings.traffic.scenario)

    def named(self, name: str) -> Scenario:
        """Return the scenario of a name. Raises `ConfigError`."""
        if not self._named:
            raise ConfigError(f"unknown scenario {shown(name)}; there are none with names")
        if name not in self._named:
            raise ConfigError(unknown("scenario", name, self._named))
        return self._named[name]

    def for_number(self, number: str) -> Scenario:
        """Return the scenario of calls that are dialled to a number."""
        for pattern, scenario in self._patterns:
            if fnmatchcase(number, pattern):
                return scenario
        return self.default

    def make(self, changes: Mapping[str, Any]) -> Scenario:
        """Make a scenario that differs from the default in these tables. Raises `ConfigError`."""
        try:
            scenario = Scenario.model_validate(merge(self._base, changes))
        except ValidationError as error:
            path, sentence = _fault(error)
            raise ConfigError(f"{_written(path)}: {sentence}") from None
        for key, source in (("inbound", scenario.audio.inbound),
                            ("outbound", scenario.audio.outbound)):  # fmt: skip
            try:
                self.audio(source)
            except AudioError as error:
                raise ConfigError(f"audio.{key}: {error}") from None
        try:
            self.trace(scenario)
        except TraceError as error:
            raise ConfigError(f"network.trace: {error}") from None
        return scenario

    def audio(self, source: str) -> Audio:
        """Return a source of audio, which is loaded once. Raises `AudioError`."""
        if source not in self._audio:
            self._audio[source] = load_audio(source, self._folder)
        return self._audio[source]

    def trace(self, scenario: Scenario) -> DelayTrace | None:
        """Return the trace of a scenario, if it has one. Raises `TraceError`."""
        name = scenario.network.trace
        if name and name not in self._traces:
            self._traces[name] = load_trace(self._folder / name)
        return self._traces[name] if name else None


class Flag(NamedTuple):
    """A setting from the command line."""

    name: str
    """As it was written, such as `--loss`."""
    path: tuple[str, ...]
    """Where it stands in a document, such as `network`, `loss`."""
    value: object


LISTS = {"event", "fault", "webhook_fault"}
"""Settings of which a flag adds one, behind those of the file."""


def load(file: Path | None, flags: Sequence[Flag] = ()) -> Settings:
    """Put the settings together and check them. Raises `ConfigError`."""
    document = {} if file is None else _read(file)
    written: dict[tuple[int | str, ...], str] = {}
    for flag in flags:
        *tables, key = flag.path
        table = document
        for name in tables:
            table = table.setdefault(name, {})
            if not isinstance(table, dict):
                raise ConfigError(_in(file, f"{name}: {shown(table)} is not a table"))
        if key in LISTS:
            items = table.setdefault(key, [])
            if not isinstance(items, list):
                raise ConfigError(_in(file, f"{key}: {shown(items)} is not a list of tables"))
            written[key, len(items)] = flag.name
            items.append(flag.value)
        else:
            written[flag.path] = flag.name
            table[key] = flag.value
    try:
        settings = Settings.model_validate(document)
        Scenarios(settings, Path() if file is None else file.parent)
    except ValidationError as error:
        path, sentence = _fault(error)
        for length in range(1, len(path) + 1):
            if path[:length] in written:
                inside = "".join(f"{part}: " for part in path[length:])
                raise ConfigError(f"{written[path[:length]]}: {inside}{sentence}") from None
        raise ConfigError(_in(file, f"{_written(path)}: {sentence}")) from None
    except ConfigError as error:
        raise ConfigError(_in(file, str(error))) from None
    return settings


def check(document: Mapping[str, Any], model: type[_M]) -> _M:
    """Make a model of a JSON document. Raises `ConfigError`."""
    try:
        return model.model_validate(document)
    except ValidationError as error:
        path, sentence = _fault(error)
        raise ConfigError(": ".join([*([_written(path)] if path else []), sentence])) from None


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_bytes().decode())
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{file}: not valid TOML: {error}") from None


def _in(file: Path | None, sentence: str) -> str:
    return sentence if file is None else f"{file}: {sentence}"


_ALL_KEYS = KEYS.union(
    *(model.model_fields for model in (Settings, CommandFault, WebhookFault)),
    (field.alias or name for name, field in Traffic.model_fields.items()),
)


def _fault(error: ValidationError) -> tuple[tuple[int | str, ...], str]:
    """Say in one sentence what is wrong, and return the path to it.

    Of several faults an unknown key comes first, since a missing one is often its consequence.
    """
    found = error.errors(include_url=False, include_context=False, include_input=False)
    details = next((each for each in found if each["type"] == "extra_forbidden"), found[0])
    path = details["loc"]
    match details["type"]:
        case "missing":
            return path[:-1], f"{path[-1]} is missing"
        case "extra_forbidden":
            return path[:-1], unknown("key", str(path[-1]), _ALL_KEYS)
        case "model_type" | "dict_type":
            return path, "a table is expected"
        case "tuple_type":
            return path, "a list of tables is expected: write [[...]], not [...]"
        case _:
            return path, details["msg"].removeprefix("Value error, ")


def _written(path: Sequence[int | str]) -> str:
    """Write a path as in `event[0].at_s`; what stands at the top level has none."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".") or "settings"
