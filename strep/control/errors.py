"""What can go wrong with a command, one class per kind.

A handler that treats all alike catches `CallControlError`; `kind` names the class for logs, metrics
and problem documents. None of these errors holds the API key.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CALL_ENDED_CODE = "90018"
"""The carrier's code for a command on a call that has already ended."""


class CarrierFault(NamedTuple):
    """An entry of the carrier's list of errors."""

    code: str
    title: str
    detail: str | None = None
    source: Mapping[str, Any] = MappingProxyType({})
    """What the fault is about, such as a `pointer` to a parameter; the reference names no keys."""
    meta: Mapping[str, Any] = MappingProxyType({})


class CallControlError(Exception):
    """A command failed; the text is one sentence that names the command.

    `status` is the HTTP status of the answer, None where there was none. `faults` are the carrier's
    errors; `code`, `title`, `detail` and `meta` show the first. `retry_after_s` is the wait that
    the carrier asks for.
    """

    kind: ClassVar[str] = "call_control"

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        faults: Sequence[CarrierFault] = (),
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.faults = tuple(faults)
        self.retry_after_s = retry_after_s

    @property
    def code(self) -> str | None:
        """The carrier's code, such as `90018`."""
        return self.faults[0].code if self.faults else None

    @property
    def title(self) -> str | None:
        """The carrier's words for the code."""
        return self.faults[0].title if self.faults else None

    @property
    def detail(self) -> str | None:
        """The carrier's words for this very case."""
        return self.faults[0].detail if self.faults else None

    @property
    def meta(self) -> Mapping[str, Any]:
        """What else the carrier says, such as a `url` that explains the code."""
        return self.faults[0].meta if self.faults else MappingProxyType({})


class AuthenticationError(CallControlError):
    """The carrier refuses the API key (401) or what it may do (403)."""

    kind = "authentication"


class NotFoundError(CallControlError):
    """The carrier knows no such call (404)."""

    kind = "not_found"


class ValidationError(CallControlError):
    """The command is not valid: found here (`ParameterError`) or by the carrier (422)."""

    kind = "validation"


class ParameterError(ValidationError, ValueError):
    """A parameter is wrong; nothing was sent.

    `parameter` is its documented name (`timeout_secs`, `custom_headers[0].name`), None where the
    command as a whole is wrong.
    """

    def __init__(self, command: str, parameter: str | None, sentence: str) -> None:
        super().__init__(f"{command}: {sentence}")
        self.command = command
        self.parameter = parameter


class CallEndedError(ValidationError):
    """The call has already ended (422 with code 90018)."""

    kind = "call_ended"


class RateLimitError(CallControlError):
    """The carrier takes no more commands for now (429)."""

    kind = "rate_limit"


class ServerError(CallControlError):
    """The carrier failed (5xx)."""

    kind = "server"


class TransportError(CallControlError):
    """No answer came: no connection, a connection that broke, or a timeout, here or there (408).

    Whether the command was carried out is not known.
    """

    kind = "transport"


class AnswerError(CallControlError):
    """The answer cannot be understood: not JSON, of another shape, a redirect, or too long.

    Whether the command was carried out is not known.
    """

    kind = "answer"
