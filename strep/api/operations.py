"""The operations of the interface: what each takes and what it answers.

The router and the description are both made from this table.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from strep.api import documents

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import BaseModel

Access = Literal["token", "open", "signature"]
CARRIER = ("carrier-refused-key", "carrier-busy", "carrier-failed", "carrier-unreachable")
"""What may be wrong with the carrier."""
_CALL_ID = {"id": "Its call_leg_id, the beginning of it, or its call_control_id."}
_PAUSE_PROBLEMS = (
    *("unknown-call", "ambiguous-call", "call-over", "recording-unsure", "database-failed"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer that is no problem."""

    text: str
    models: tuple[type[BaseModel], ...] = ()
    """The document is one of these; without any, it is another text or nothing."""
    content_type: str | None = "application/json"
    """None for an empty body."""
    has_location: bool = False
    """Whether the header `Location` names a fork."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A method on a path."""

    name: str
    """Of the method of `strep.api.routes.Routes` that carries it out, and its `operationId`."""
    method: Literal["GET", "POST", "DELETE"] = "GET"
    path: str
    tag: str
    summary: str
    text: str = ""
    access: Access = "token"
    """Who may: whoever has the token if there is one, everybody, or who signs the body."""
    path_parameters: Mapping[str, str] = field(default_factory=dict)
    """What the parameters in the path are."""
    query: type[BaseModel] | None = None
    body: type[BaseModel] | None = None
    answers: Mapping[int, Answer]
    problems: tuple[str, ...] = ()
    """Names of `strep.api.problems.PROBLEMS`."""


OPERATIONS: tuple[Operation, ...] = (
    Operation(
        name="healthz",
        path="/healthz",
        tag="daemon",
        summary="Tell whether the daemon works",
        access="open",
        answers={
            200: Answer(text="It receives, perhaps in part.", models=(documents.Health,)),
            503: Answer(text="Nothing receives.", models=(documents.Health,)),
        },
    ),
    Operation(
        name="readyz",
        path="/readyz",
        tag="daemon",
        summary="Tell whether the daemon should be given calls",
        text="Not while it stops, while the kernel drops datagrams, or where a part of it is down.",
        access="open",
        answers={
            200: Answer(text="It should.", models=(documents.Readiness,)),
            503: Answer(text="It should not.", models=(documents.Readiness,)),
        },
    ),
    Operation(
        name="metrics",
        path="/metrics",
        tag="daemon",
        summary="Tell the metrics",
        answers={200: Answer(text="Prometheus' text format.", content_type="text/plain")},
    ),
    Operation(
        name="list_calls",
        path="/v1/calls",
        tag="calls",
        summary="List calls",
        text="Without parameters, the calls whose media is received now, with the figures of their"
        " tracks. With any parameter, a search of the database, the newest call first.",
        query=documents.CallQuery,
        answers={
            200: Answer(text="The calls.", models=(documents.OpenCalls, documents.CallPage)),
        },
        problems=("invalid-request", "no-database", "database-failed"),
    ),
    Operation(
        name="get_call",
        path="/v1/calls/{id}",
        tag="calls",
        summary="Tell all about a call",
        path_parameters=_CALL_ID,
        answers={
            200: Answer(text="The call, its forks and its tracks.", models=(documents.CallDetails,))
        },
        problems=("unknown-call", "ambiguous-call", "database-failed"),
    ),
    Operation(
        name="pause_recording",
        method="POST",
        path="/v1/calls/{id}/recording/pause",
        tag="calls",
        summary="Pause the recordings of a call",
        text="From now on silence is recorded, in both directions, and nothing of the sound is"
        " kept; it is analysed as before. It is in force when this is answered, and stays so until"
        " it is resumed, in other workers and daemons too. A call that is paused already stays as"
        " it is.",
        path_parameters=_CALL_ID,
        answers={200: Answer(text="It is paused.", models=(documents.RecordingState,))},
        problems=_PAUSE_PROBLEMS,
    ),
    Operation(
        name="resume_recording",
        method="POST",
        path="/v1/calls/{id}/recording/resume",
        tag="calls",
        summary="Resume the recordings of a call",
        text="A call that is not paused stays as it is.",
        path_parameters=_CALL_ID,
        answers={200: Answer(text="It is recorded.", models=(documents.RecordingState,))},
        problems=_PAUSE_PROBLEMS,
    ),
    Operation(
        name="list_forks",
        path="/v1/forks",
        tag="forks",
        summary="List the forks",
        answers={
            200: Answer(
                text="The open forks, and those that were closed lately.",
                models=(documents.ForkList,),
            ),
        },
        problems=("no-control-plane",),
    ),
    Operation(
        name="start_fork",
        method="POST",
        path="/v1/forks",
        tag="forks",
        summary="Start a fork",
        text="The carrier is sent `fork_start`, and answers before the daemon does.",
        body=documents.ForkRequest,
        answers={
            201: Answer(
                text="The carrier has accepted it.", models=(documents.Fork,), has_location=True
            ),
            202: Answer(
                text="The fork is in doubt: what became of the command is not known, and it will be"
                " sent again.",
                models=(documents.Fork,),
                has_location=True,
            ),
        },
        problems=(
            "invalid-request",
            "unknown-call",
            "call-has-fork",
            "call-over",
            "unknown-leg",
            "impossible-fork",
            "carrier-refused",
            "no-ports",
            "too-many-forks",
            "draining",
            "no-control-plane",
            *CARRIER,
        ),
    ),
    Operation(
        name="get_fork",
        path="/v1/forks/{id}",
        tag="forks",
        summary="Tell all about a fork",
        path_parameters={"id": "Its id, a UUID."},
        answers={200: Answer(text="The fork.", models=(documents.Fork,))},
        problems=("unknown-fork", "no-control-plane"),
    ),
    Operation(
        name="stop_fork",
        method="DELETE",
        path="/v1/forks/{id}",
        tag="forks",
        summary="Stop a fork",
        text="The carrier is sent `fork_stop`, and answers before the daemon does. A fork that is"
        " closed already stays as it is.",
        path_parameters={"id": "Its id, a UUID."},
        answers={
            200: Answer(text="It is closed.", models=(documents.Fork,)),
            202: Answer(
                text="It is in doubt whether it has stopped; the command will be sent again.",
                models=(documents.Fork,),
            ),
        },
        problems=("unknown-fork", "no-control-plane", *CARRIER),
    ),
    Operation(
        name="webhooks",
        method="POST",
        path="/webhooks",
        tag="webhooks",
        summary="Take in an event of the carrier",
        text="The header `telnyx-signature-ed25519` is the Ed25519 signature, in base64, of the"
        " timestamp, `|` and the body; the header `telnyx-timestamp` is that timestamp, in seconds"
        " since 1970. The problem's `reason` says which check failed.",
        access="signature",
        answers={
            200: Answer(text="It is verified and will be processed.", content_type=None),
        },
    ),
    Operation(
        name="problem_type",
        path="/problems/{name}",
        tag="description",
        summary="Tell what a type of problem means",
        path_parameters={"name": "The last part of the problem's `type`."},
        answers={200: Answer(text="Its meaning.", content_type="text/plain")},
    ),
    Operation(
        name="openapi",
        path="/openapi.json",
        tag="description",
        summary="Describe the interface",
        answers={200: Answer(text="This document.")},
    ),
)
