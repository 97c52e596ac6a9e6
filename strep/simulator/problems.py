"""The carrier's errors, in the shape of its answers.

    {"errors": [{"code": "90018", "title": "Call has already ended", "detail": "...",
                 "meta": {"url": "..."}, "source": {"pointer": "/call_control_id"}}]}

The reference gives the shape, but no codes. Those used here are the carrier's published ones; that
a command does not fit the state of its call is 90034 where an answer is missing, else 10015.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from strep.control.errors import ParameterError

TITLES = {
    "10004": "Missing required parameter",
    "10005": "Resource not found",
    "10007": "Unexpected error",
    "10009": "Authentication failed",
    "10011": "Too many requests",
    "10015": "Bad Request",
    "90015": "Invalid Call Control ID",
    "90018": "Call has already ended",
    "90034": "Call not answered yet",
}
MANUAL = "https://developers.telnyx.com/development/api-fundamentals/api-errors"


class RefusedError(Exception):
    """A command is refused."""

    def __init__(self, status: int, code: str, detail: str, *, pointer: str | None = None) -> None:
        """`pointer` names the part of the request that is wrong (RFC 6901)."""
        super().__init__(detail)
        self.status = status
        self.code = code
        self.pointer = pointer

    def as_json(self) -> dict[str, Any]:
        """Return the answer's document."""
        error: dict[str, Any] = {
            "code": self.code,
            "title": TITLES.get(self.code, "Error"),
            "detail": str(self),
            "meta": {"url": MANUAL},
        }
        if self.pointer is not None:
            error["source"] = {"pointer": self.pointer}
        return {"errors": [error]}


def wrong_parameter(error: ParameterError) -> RefusedError:
    """Return the problem of a command whose parameters are wrong."""
    detail = str(error).removeprefix(f"{error.command}: ")
    if error.parameter is None:
        return RefusedError(422, "10015", detail)
    missing = " is missing" in detail
    pointer = "/" + "/".join(re.findall(r"[^.\[\]]+", error.parameter))
    return RefusedError(422, "10004" if missing else "10015", detail, pointer=pointer)


def wrong_state(detail: str) -> RefusedError:
    """Return the problem of a command that does not fit what its call is doing."""
    return RefusedError(422, "10015", detail)
