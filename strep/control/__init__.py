"""Call control: commands to the carrier, its webhooks, and the forks of calls.

`client` sends the Call Commands of `commands` and reads the answers; what goes wrong is in
`errors`. `events` and `webhooks` are the other way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from strep.control.errors import (
    AnswerError,
    AuthenticationError,
    CallControlError,
    CallEndedError,
    CarrierFault,
    NotFoundError,
    ParameterError,
    RateLimitError,
    ServerError,
    TransportError,
    ValidationError,
)

if TYPE_CHECKING:
    from strep.control.client import CallControl

__all__ = [
    "AnswerError",
    "AuthenticationError",
    "CallControl",
    "CallControlError",
    "CallEndedError",
    "CarrierFault",
    "NotFoundError",
    "ParameterError",
    "RateLimitError",
    "ServerError",
    "TransportError",
    "ValidationError",
]


def __getattr__(name: str) -> Any:
    """Import the client when it is asked for: aiohttp takes longer than all the rest."""
    if name == "CallControl":
        from strep.control.client import CallControl  # noqa: PLC0415

        return CallControl
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
