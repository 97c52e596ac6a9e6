"""Call control: commands to the carrier, its webhooks, and the forks of calls.

`client` sends the Call Commands of `commands` and reads the answers; what goes wrong is in
`errors`. `events` and `webhooks` are the other way.
"""

from strep.control.client import CallControl
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
