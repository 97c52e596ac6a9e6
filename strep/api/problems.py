"""What the interface answers when it cannot do as asked: problem details (RFC 9457).

A problem that says more than its HTTP status has a `type` of its own, `/problems/NAME`, where the
interface tells what it means. All others have the type `about:blank`.
"""

from __future__ import annotations

import json
import math
from http import HTTPStatus
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from aiohttp import web

from strep.control import errors, forks
from strep.pauses import PauseError
from strep.store import AmbiguousCallError, StoreError, UnknownCallError

if TYPE_CHECKING:
    from collections.abc import Mapping

CONTENT_TYPE = "application/problem+json"


class ProblemType(NamedTuple):
    """A type of problem."""

    status: int
    title: str
    meaning: str


PROBLEMS: Mapping[str, ProblemType] = MappingProxyType(
    {
        "invalid-request": ProblemType(
            422,
            "The request is not valid",
            "`errors` says for each fault what is wrong (`detail`) and where: `pointer`, a JSON"
            " Pointer into the body (RFC 6901), or `parameter`, a parameter of the query.",
        ),
        "unknown-call": ProblemType(
            404,
            "There is no such call",
            "Neither is its media received nor is it in the database; or the carrier knows no call"
            " of this call_control_id.",
        ),
        "ambiguous-call": ProblemType(
            409, "Several calls are meant", "Their ids, or some of them, stand in `detail`."
        ),
        "unknown-fork": ProblemType(
            404, "There is no such fork", "Or it was closed so long ago that it is forgotten."
        ),
        "call-has-fork": ProblemType(
            409,
            "The call has a fork already",
            "It is open, or failed and not yet known to be stopped. A call has one fork at most.",
        ),
        "call-over": ProblemType(
            409,
            "The call is over",
            "It cannot be forked, nor its recordings be paused or resumed, any more.",
        ),
        "recording-unsure": ProblemType(
            503,
            "The recordings may not have been paused or resumed",
            "Their worker does not answer, and will do it as soon as it can; or too many calls are"
            " paused.",
        ),
        "unknown-leg": ProblemType(
            422,
            "The call's leg is not known",
            "Media on ports of its own does not tell its call leg, and nobody else has: give"
            " `call_leg_id`, or wait for the call's first webhook.",
        ),
        "impossible-fork": ProblemType(
            422,
            "The fork cannot be as asked for",
            "What was asked for contradicts itself, or needs a setting that the daemon lacks.",
        ),
        "no-ports": ProblemType(
            503,
            "No ports are free",
            "All pairs of the port range are held or rest, or none of those tried could be opened.",
        ),
        "too-many-forks": ProblemType(
            503, "There are too many forks", "As many are open as the settings allow."
        ),
        "draining": ProblemType(
            503,
            "The daemon is about to stop",
            "It lets running calls finish and takes no new ones: ask another one.",
        ),
        "no-control-plane": ProblemType(
            501,
            "There is no control plane",
            "The daemon's settings have no section `[control]`, so that it can neither start nor"
            " stop forks.",
        ),
        "no-database": ProblemType(
            501, "There is no database", "The daemon keeps none, and knows open calls alone."
        ),
        "database-failed": ProblemType(503, "The database failed", "It could not be read."),
        "carrier-refused-key": ProblemType(
            502, "The carrier refused the API key", "It is wrong, or must not do this."
        ),
        "carrier-refused": ProblemType(
            422,
            "The carrier refused the command",
            "Its status and errors stand in `carrier`. Nothing was started or stopped.",
        ),
        "carrier-busy": ProblemType(
            503,
            "The carrier takes no more commands for now",
            "`Retry-After` is passed on where the carrier said it.",
        ),
        "carrier-failed": ProblemType(
            502,
            "The carrier failed",
            "It answered 5xx, or something that cannot be understood. Whether the command was"
            " carried out is not known.",
        ),
        "carrier-unreachable": ProblemType(
            504,
            "The carrier did not answer",
            "There was no connection, or no answer in time. Whether the command was carried out is"
            " not known.",
        ),
    }
)
"""The types of problems by name."""

_NAMES: Mapping[type[Exception], str] = {
    forks.CallHasForkError: "call-has-fork",
    forks.CallOverError: "call-over",
    forks.UnknownForkError: "unknown-fork",
    forks.UnknownLegError: "unknown-leg",
    forks.ForkParameterError: "impossible-fork",
    forks.NoPortsError: "no-ports",
    forks.TooManyForksError: "too-many-forks",
    forks.DrainingError: "draining",
    errors.AuthenticationError: "carrier-refused-key",
    errors.NotFoundError: "unknown-call",
    errors.CallEndedError: "call-over",
    errors.ParameterError: "impossible-fork",
    errors.ValidationError: "carrier-refused",
    errors.RateLimitError: "carrier-busy",
    errors.ServerError: "carrier-failed",
    errors.AnswerError: "carrier-failed",
    errors.TransportError: "carrier-unreachable",
    UnknownCallError: "unknown-call",
    AmbiguousCallError: "ambiguous-call",
    StoreError: "database-failed",
    PauseError: "recording-unsure",
}
"""The problem that an error is; that of its nearest ancestor where it is not listed."""


class ProblemError(Exception):
    """An answer that is a problem; `further` are its members beside those of all problems."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        name: str | None = None,
        further: Mapping[str, Any] = MappingProxyType({}),
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Make one of the type `about:blank` or, by its `name`, of `PROBLEMS`."""
        super().__init__(detail)
        self.status = status
        self.headers = headers
        self.document = {
            "type": "about:blank" if name is None else f"/problems/{name}",
            "title": HTTPStatus(status).phrase if name is None else PROBLEMS[name].title,
            "status": status,
            "detail": detail,
            **further,
        }

    def answer(self) -> web.Response:
        """Return the answer."""
        return web.Response(
            status=self.status,
            body=json.dumps(self.document).encode(),
            headers={"Content-Type": CONTENT_TYPE, **self.headers},
        )


def problem(
    name: str, detail: str, *, headers: Mapping[str, str] = MappingProxyType({}), **further: Any
) -> ProblemError:
    """Return a problem of one of the types of `PROBLEMS`."""
    return ProblemError(PROBLEMS[name].status, detail, name=name, further=further, headers=headers)


def problem_of(error: Exception) -> ProblemError | None:
    """Return the problem that an error of the control plane or the database is; None for others."""
    name = next((_NAMES[kind] for kind in type(error).__mro__ if kind in _NAMES), None)
    if name is None:
        return None
    if isinstance(error, errors.CallControlError):
        return _of_carrier(name, error)
    return problem(name, str(error))


def refusal(status: int, reason: str) -> web.Response:
    """Return the answer to what is no HTTP request, and so came to no route."""
    return ProblemError(status, reason).answer()


def problem_of_http(error: web.HTTPException, path: str) -> ProblemError:
    """Return the problem that aiohttp found."""
    allowed = error.headers.get("Allow")
    match error:
        case web.HTTPNotFound():
            detail = f"there is nothing at {path}"
        case web.HTTPMethodNotAllowed():
            detail = f"{path} takes {allowed}, not {error.method}"
        case web.HTTPRequestEntityTooLarge():
            detail = "the body is too large"
        case _:
            detail = error.reason
    return ProblemError(error.status, detail, headers={"Allow": allowed} if allowed else {})


def _of_carrier(name: str, error: errors.CallControlError) -> ProblemError:
    headers = {}
    if name == "carrier-busy" and error.retry_after_s is not None:
        headers["Retry-After"] = str(math.ceil(error.retry_after_s))
    if error.status is None:
        return problem(name, str(error), headers=headers)
    said = {
        "status": error.status,
        "errors": [
            {"code": fault.code, "title": fault.title, "detail": fault.detail} | _meta(fault)
            for fault in error.faults
        ],
    }
    return problem(name, str(error), headers=headers, carrier=said)


def _meta(fault: errors.CarrierFault) -> dict[str, Any]:
    return {"meta": dict(fault.meta)} if fault.meta else {}
