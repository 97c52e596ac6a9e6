"""Faults on command: answers that go wrong, and webhooks that do.

[[fault]]                       # the next two fork_start commands are answered 429
command = "fork_start"
status = 429
retry_after_s = 1
times = 2

[[webhook_fault]]               # every hundredth webhook or so comes twice
event = "*"
kind = "twice"
chance = 0.01
times = 0
"""

from __future__ import annotations

import random
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, PlainValidator

from strep.control.commands import COMMANDS
from strep.control.events import EVENT_TYPES
from strep.control.parameters import Flag  # noqa: TC001 -- pydantic reads annotations
from strep.specs import unknown
from strep.validation import as_text, between, one_of

if TYPE_CHECKING:
    from collections.abc import Iterable

CommandFaultKind = Literal["error", "slow", "rubbish", "disconnect"]
WebhookFaultKind = Literal["late", "twice", "swapped", "bad_signature", "stale", "lost"]


def _pattern(kind: str, names: Iterable[str]) -> PlainValidator:
    """Return a validator for a pattern that fits some of these names: others never come."""

    def check(value: object) -> str:
        text = as_text(value, "a name, or * for all")
        if any(fnmatchcase(name, text) for name in names):
            return text
        raise ValueError(unknown(kind, text, names))

    return PlainValidator(check)


class _Fault(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    times: Annotated[int, between(0, 1_000_000)] = 1
    """How often; 0 for always."""
    skip: Annotated[int, between(0, 1_000_000)] = 0
    """How many go well before."""
    chance: Annotated[float, between(0.0, 1.0)] = 1.0
    """How probable it is each time, from then on."""

    @property
    def pattern(self) -> str:
        """Return what it is a fault of; `*` and `?` stand for anything."""
        raise NotImplementedError


class CommandFault(_Fault):
    """A command whose answer goes wrong. It is not carried out, unless it is `executed`."""

    command: Annotated[str, _pattern("command", COMMANDS)] = "*"
    kind: Annotated[CommandFaultKind, one_of(CommandFaultKind)] = "error"
    """`error`: an answer of `status`; `slow`: the right one after `delay_s`; `rubbish`: an answer
    that is no JSON; `disconnect`: none at all."""
    status: Annotated[int, between(400, 599)] = 500
    retry_after_s: Annotated[int, between(0, 3600)] | None = None
    """For the header Retry-After."""
    delay_s: Annotated[float, between(0.0, 3600.0)] = 0.0
    """How long the answer takes, whatever its kind, on our clock."""
    executed: Flag = False

    @property
    def pattern(self) -> str:
        """Return the command's name."""
        return self.command


class WebhookFault(_Fault):
    """A webhook that goes wrong."""

    event: Annotated[str, _pattern("event", EVENT_TYPES)] = "*"
    kind: Annotated[WebhookFaultKind, one_of(WebhookFaultKind)] = "twice"
    """`late`: after `delay_s`, behind what comes meanwhile; `twice`: delivered again; `swapped`:
    behind the next one of its call (or after `delay_s`); `bad_signature`: behind an altered copy
    whose signature is not of it; `stale`: behind a copy that was signed ten minutes ago; `lost`:
    never."""
    delay_s: Annotated[float, between(0.0, 3600.0)] = 1.0
    """On our clock."""

    @property
    def pattern(self) -> str:
        """Return the event's type."""
        return self.event


_F = TypeVar("_F", bound=_Fault)


class Faults(Generic[_F]):
    """Faults of one kind, in the order in which they are asked."""

    def __init__(self, faults: tuple[_F, ...], *, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 -- reproducible misfortune
        self._waiting = [_Waiting(fault) for fault in faults]

    def add(self, fault: _F) -> None:
        """Add a fault behind the others."""
        self._waiting.append(_Waiting(fault))

    def clear(self) -> None:
        """Forget all of them."""
        self._waiting.clear()

    def pick(self, name: str) -> _F | None:
        """Return what goes wrong with this command or event, if anything does."""
        for waiting in self._waiting:
            fault = waiting.fault
            if not fnmatchcase(name, fault.pattern):
                continue
            waiting.seen += 1
            is_over = fault.times and waiting.used >= fault.times
            if waiting.seen > fault.skip and not is_over and self._random.random() < fault.chance:
                waiting.used += 1
                return fault
        return None


class _Waiting(Generic[_F]):
    def __init__(self, fault: _F) -> None:
        self.fault = fault
        self.seen = 0
        self.used = 0
