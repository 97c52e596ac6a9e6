"""What an answer of the carrier means: a result, or an error of the right kind. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any

from pydantic import ValidationError

from strep.control.base import Call, Command, CommandResult
from strep.control.errors import (
    CALL_ENDED_CODE,
    AnswerError,
    AuthenticationError,
    CallControlError,
    CallEndedError,
    CarrierFault,
    NotFoundError,
    RateLimitError,
    ServerError,
    TransportError,
)
from strep.control.errors import ValidationError as RefusedError
from strep.validation import shown

_ERRORS: Mapping[int, type[CallControlError]] = {
    401: AuthenticationError,
    403: AuthenticationError,
    404: NotFoundError,
    408: TransportError,  # the carrier saw no whole request
    429: RateLimitError,
}


def read_answer(
    command: Command, status: int, headers: Mapping[str, str], body: bytes, *, now_s: float
) -> Call | CommandResult:
    """Return the result that an answer brings. Raises `CallControlError`.

    A call that has ended already is success for a command that ends something. `now_s` (UNIX time)
    stands in where a `Retry-After` is a date and the answer has no `Date`.
    """
    if 200 <= status < 300:
        return _result(command, status, headers, body)
    faults = _faults(body)
    if status == 422 and any(fault.code == CALL_ENDED_CODE for fault in faults):
        if command.ends:
            return CommandResult(result="ok", already_ended=True)
        raise CallEndedError(_sentence(command, status, faults), status=status, faults=faults)
    raise _error_class(status)(
        _sentence(command, status, faults),
        status=status,
        faults=faults,
        retry_after_s=retry_after_s(headers, now_s=now_s),
    )


def retry_after_s(headers: Mapping[str, str], *, now_s: float) -> float | None:
    """Return how long the header `Retry-After` asks to wait; None without one that is valid.

    It holds seconds or a date (RFC 9110, section 10.2.3), which is measured from the answer's own
    `Date` where there is one, so that the two clocks need not agree.
    """
    text = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"[0-9]{1,9}", text):
        return float(text)
    until_s = _date_s(text)
    if until_s is None:
        return None
    from_s = _date_s(headers.get("Date", ""))
    return max(0.0, until_s - (now_s if from_s is None else from_s))


def _result(
    command: Command, status: int, headers: Mapping[str, str], body: bytes
) -> Call | CommandResult:
    document = _json(body)
    data = document.get("data") if isinstance(document, Mapping) else None
    if document is None:
        kind = shown(headers.get("Content-Type", "no type"))
        fault = f"the answer is not JSON but {len(body)} bytes of {kind}"
    elif not isinstance(data, Mapping):
        fault = "the answer is JSON without an object `data`"
    else:
        try:
            return command.result.model_validate(data)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, ("data", *first["loc"])))
        fault = f"{where} of the answer is wrong: {first['msg']}"
    raise AnswerError(f"{command.name}: {fault}", status=status)


def _error_class(status: int) -> type[CallControlError]:
    if status in _ERRORS:
        return _ERRORS[status]
    if status < 400:
        return AnswerError
    return RefusedError if status < 500 else ServerError


def _sentence(command: Command, status: int, faults: tuple[CarrierFault, ...]) -> str:
    sentence = f"{command.name}: the carrier answered {status}"
    if not faults:
        return sentence
    first = faults[0]
    words = ": ".join(part for part in (first.title, first.detail) if part)
    # On one line and not endless, whatever the carrier wrote.
    return f"{sentence}, code {first.code}: {' '.join(words.split())}"[:500]


def _faults(body: bytes) -> tuple[CarrierFault, ...]:
    """Read the carrier's list of errors as far as it is one."""
    document = _json(body)
    entries = document.get("errors") if isinstance(document, Mapping) else None
    if not isinstance(entries, list):
        return ()
    return tuple(
        CarrierFault(
            code=str(entry.get("code", "")),
            title=str(entry.get("title", "")),
            detail=None if (detail := entry.get("detail")) is None else str(detail),
            source=source if isinstance(source := entry.get("source"), Mapping) else {},
            meta=meta if isinstance(meta := entry.get("meta"), Mapping) else {},
        )
        for entry in entries
        if isinstance(entry, Mapping)
    )


def _json(body: bytes) -> Any:
    """Return what the JSON says, None where it is none."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _date_s(text: str) -> float | None:
    try:
        date = parsedate_to_datetime(text)
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
