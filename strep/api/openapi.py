"""The description of the interface: an OpenAPI 3.1 document, made from operations and models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from strep import __version__
from strep.api import documents
from strep.api.problems import CONTENT_TYPE, PROBLEMS
from strep.control.webhooks import SIGNATURE_HEADER, TIMESTAMP_HEADER

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pydantic import BaseModel

    from strep.api.operations import Answer, Operation

TAGS = {
    "calls": "Calls, open ones and those in the database.",
    "forks": "Forks of calls' media; they need a control plane.",
    "daemon": "The daemon itself.",
    "webhooks": "What the carrier tells.",
    "description": "The interface itself.",
}
UNAUTHORIZED = "Unauthorized"
UNEXPECTED = "Unexpected"
SHARED = {
    UNAUTHORIZED: "The token is missing or wrong.",
    "NotFound": "There is nothing of this name.",
    "NotJson": "The body is not JSON, or its encoding is broken.",
    "TooSlow": "The body did not come in time.",
    "TooLarge": "The body is too large.",
    "WrongType": "The body is not `application/json`.",
    UNEXPECTED: "Something unexpected happened, which the log tells.",
}
"""Problems that several operations have in common."""
WEBHOOK_PROBLEMS = {
    400: "The event cannot be understood.",
    401: "The signature does not verify, or the timestamp is too far from now.",
    408: "The body did not come in time.",
    413: "The body is too large.",
    503: "Too many events wait, or the daemon stops: to be sent again.",
}


class _Untitled(GenerateJsonSchema):
    """Leaves out titles, which are but the fields' names once more."""

    def field_title_should_be_set(self, _schema: object) -> bool:
        return False


def describe(operations: Sequence[Operation], *, needs_token: bool) -> dict[str, Any]:
    """Return the document."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        described = _operation(operation, needs_token=needs_token)
        paths.setdefault(operation.path, {})[operation.method.lower()] = described
    components: dict[str, Any] = {
        "schemas": _schemas(operations),
        "responses": {
            name: _problem([text])
            for name, text in SHARED.items()
            if needs_token or name != UNAUTHORIZED
        },
    }
    if needs_token:
        components["securitySchemes"] = {
            "token": {
                "type": "http",
                "scheme": "bearer",
                "description": "The daemon's token (RFC 6750).",
            }
        }
    used = {operation.tag for operation in operations}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "strep",
            "version": __version__,
            "summary": "Calls and forks of a strep daemon.",
            "description": "Errors are problem details (RFC 9457). A problem that says more than"
            " its HTTP status has a `type` of its own, which is the path that tells its meaning."
            " Documents may have further members.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "tags": [
            {"name": name, "description": text} for name, text in TAGS.items() if name in used
        ],
        "paths": paths,
        "components": components,
    }


def _operation(operation: Operation, *, needs_token: bool) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.name,
        "tags": [operation.tag],
        "summary": operation.summary,
    }
    if operation.text:
        described["description"] = operation.text
    if needs_token:
        described["security"] = [{"token": []}] if operation.access == "token" else []
    if parameters := list(_parameters(operation)):
        described["parameters"] = parameters
    if operation.body is not None:
        described["requestBody"] = {"required": True, "content": _json(_reference(operation.body))}
    elif operation.access == "signature":
        described["requestBody"] = {"required": True, "content": _json({"type": "object"})}
    answers = {status: _answer(answer) for status, answer in operation.answers.items()}
    problems = _problems(operation, needs_token=needs_token)
    described["responses"] = {
        str(status): answers[status] if status in answers else problems[status]
        for status in sorted(answers | problems)
    }
    return described


def _parameters(operation: Operation) -> Iterable[dict[str, Any]]:
    for name, text in operation.path_parameters.items():
        schema: dict[str, Any] = {"type": "string", "minLength": 1}
        yield {"name": name, "in": "path", "required": True, "description": text, "schema": schema}
    if operation.access == "signature":
        for name in (SIGNATURE_HEADER, TIMESTAMP_HEADER):
            yield {"name": name, "in": "header", "schema": {"type": "string"}}
    if operation.query is not None:
        for name, property_ in operation.query.model_json_schema()["properties"].items():
            text = property_["description"]
            schema = _given(property_)
            yield {"name": name, "in": "query", "description": text, "schema": schema}


def _given(property_: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of a parameter that was given: in a query there is no null."""
    choices = [each for each in property_.get("anyOf", []) if each != {"type": "null"}]
    schema = dict(choices[0]) if len(choices) == 1 else dict(property_)
    if property_["default"] is not None:
        schema["default"] = property_["default"]
    return {key: value for key, value in schema.items() if key not in {"title", "description"}}


def _answer(answer: Answer) -> dict[str, Any]:
    described: dict[str, Any] = {"description": answer.text}
    if answer.content_type is not None:
        schemas = [_reference(model) for model in answer.models]
        if not schemas:
            is_text = answer.content_type.startswith("text/")
            schemas = [{"type": "string" if is_text else "object"}]
        schema = schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
        described["content"] = {answer.content_type: {"schema": schema}}
    if answer.has_location:
        described["headers"] = {
            "Location": {
                "description": "The fork's path.",
                "schema": {"type": "string", "format": "uri-reference"},
            }
        }
        described["links"] = {
            name: {"operationId": name, "parameters": {"id": "$response.body#/id"}}
            for name in ("get_fork", "stop_fork")
        }
    return described


def _problems(operation: Operation, *, needs_token: bool) -> dict[int, dict[str, Any]]:
    """Return the problems that an operation may answer, by status."""
    by_status: dict[int, list[str]] = {}
    if operation.access == "signature":
        by_status = {status: [text] for status, text in WEBHOOK_PROBLEMS.items()}
    for name in operation.problems:
        by_status.setdefault(PROBLEMS[name].status, []).append(
            f"`/problems/{name}`: {PROBLEMS[name].title}."
        )
    shared = {500: UNEXPECTED}
    if needs_token and operation.access == "token":
        shared[401] = UNAUTHORIZED
    if operation.path_parameters and 404 not in by_status:
        shared[404] = "NotFound"
    if operation.body is not None:
        shared |= {400: "NotJson", 408: "TooSlow", 413: "TooLarge", 415: "WrongType"}
    return {status: _problem(texts) for status, texts in by_status.items()} | {
        status: {"$ref": f"#/components/responses/{name}"} for status, name in shared.items()
    }


def _problem(texts: Sequence[str]) -> dict[str, Any]:
    return {
        "description": "\n\n".join(texts),
        "content": {CONTENT_TYPE: {"schema": _reference(documents.Problem)}},
    }


def _schemas(operations: Sequence[Operation]) -> dict[str, Any]:
    """Return the schemas of all models, by name."""
    asked = {operation.body for operation in operations if operation.body is not None}
    given = {
        model
        for operation in operations
        for answer in operation.answers.values()
        for model in answer.models
    } | {documents.Problem}
    _, schema = models_json_schema(
        [
            *((model, "validation") for model in sorted(asked, key=_name)),
            *((model, "serialization") for model in sorted(given, key=_name)),
        ],
        ref_template="#/components/schemas/{model}",
        schema_generator=_Untitled,
    )
    schemas: dict[str, Any] = schema["$defs"]
    return schemas


def _name(model: type[BaseModel]) -> str:
    return model.__name__


def _reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{model.__name__}"}


def _json(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
