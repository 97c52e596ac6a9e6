"""What all Call Commands share: how they are checked, written and answered.

Only what was given is sent, in the order in which it was given; defaults are what the carrier
assumes, and None is the same as not given. Whatever is wrong raises `ParameterError` when the
command is made. Parameters that the reference does not name are kept and sent, since the carrier's
API grows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, PrivateAttr, ValidationError

from strep.control.errors import ParameterError
from strep.control.parameters import Base64
from strep.validation import shown

BASE_URL = "https://api.telnyx.com/v2"
"""Where the carrier's API begins."""


class Call(BaseModel):
    """The answer to `dial`."""

    model_config = ConfigDict(frozen=True, extra="allow")

    call_control_id: str
    """Names the call in commands."""
    call_leg_id: str
    """Names the call in packets and webhooks."""
    call_session_id: str
    is_alive: bool
    """Always false in the answer to `dial`, which does not wait for the other side."""
    record_type: str = "call"
    call_duration: int | None = None
    """In seconds."""
    client_state: str | None = None
    """Base64."""


class CommandResult(BaseModel):
    """The answer to a command on a call."""

    model_config = ConfigDict(frozen=True, extra="allow")

    result: str | None = None
    """`ok`; the reference does not promise that it is there."""
    already_ended: bool = False
    """A stop found the call ended already. Set here, not by the carrier."""


class Command(BaseModel):
    """A command with its parameters."""

    model_config = ConfigDict(
        frozen=True,
        extra="allow",
        alias_generator=lambda field: field.removesuffix("_"),
        hide_input_in_errors=True,  # it may be a password
    )

    name: ClassVar[str]
    """As in the reference's paths; `dial` for the one that makes a call."""
    method: ClassVar[Literal["POST", "PUT"]] = "POST"
    path: ClassVar[str]
    """Below the API's base URL; `{call_control_id}` stands for the call."""
    result: ClassVar[type[Call | CommandResult]]
    """What the answer's `data` holds."""
    always_sent: ClassVar[tuple[str, ...]] = ()
    """Parameters that the client sends with their default where they were not given."""
    ends: ClassVar[bool] = False
    """Whether the command ends something that a call's end has ended too."""

    _given: tuple[str, ...] = PrivateAttr(())

    def __init__(self, /, **parameters: Any) -> None:
        fields = type(self).model_fields
        given = {
            (fields[key].alias or key if key in fields else key): value
            for key, value in parameters.items()
            if value is not None
        }
        try:
            super().__init__(**given)
        except ValidationError as error:
            raise _parameter_error(self.name, error) from None
        self._given = tuple(given)
        for key, value in self.further.items():
            try:
                json.dumps(value, allow_nan=False)
            except (TypeError, ValueError, RecursionError):
                self._refuse(key, f"{key}: {shown(value)} cannot be written as JSON")
        self._check()

    @classmethod
    def parse(cls, document: object) -> Self:
        """Read the JSON object of a request, in which `client_state` is Base64.

        Raises `ParameterError`.
        """
        if not isinstance(document, Mapping):
            raise ParameterError(cls.name, None, f"{shown(document)} is not a JSON object")
        parameters = dict(document)
        if isinstance(state := parameters.get("client_state"), str):
            parameters["client_state"] = Base64(state)
        return cls(**parameters)

    def body(self) -> dict[str, Any]:
        """Return the JSON object to send: what was given, in the order in which it was given."""
        values = self.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_none=True)
        return {key: values[key] for key in self._given}

    @property
    def further(self) -> Mapping[str, Any]:
        """The parameters that the reference does not name."""
        return self.model_extra or {}

    def __eq__(self, other: object) -> bool:
        """Commands are equal that send the same."""
        if not isinstance(other, Command):
            return NotImplemented
        return type(self) is type(other) and self.body() == other.body()

    def __hash__(self) -> int:
        """Equal commands have equal hashes."""
        return hash((self.name, json.dumps(self.body(), sort_keys=True)))

    def _check(self) -> None:
        """Refuse what is wrong with the parameters together."""

    def _refuse(self, parameter: str, sentence: str) -> None:
        raise ParameterError(self.name, parameter, sentence)

    def _exclude(self, one: str, other: str) -> None:
        if getattr(self, one) is not None and getattr(self, other) is not None:
            self._refuse(one, f"{one} cannot be given together with {other}")

    def _order(self, least: str, most: str) -> None:
        low, high = getattr(self, least), getattr(self, most)
        if low > high:
            self._refuse(least, f"{least} {low} is more than {most} {high}")


class Action(Command):
    """A command on an existing call."""

    result = CommandResult

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        """Derive the path from the name."""
        cls.path = f"/calls/{{call_control_id}}/actions/{cls.name}"


def _parameter_error(command: str, error: ValidationError) -> ParameterError:
    """Say the first fault in the words of this module."""
    fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in fault["loc"])
    parameter = path.removeprefix(".")
    if fault["type"] == "missing":
        return ParameterError(command, parameter, f"{parameter} is missing")
    return ParameterError(
        command, parameter, f"{parameter}: {fault['msg'].removeprefix('Value error, ')}"
    )
