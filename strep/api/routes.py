"""The interface as an aiohttp application."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote
from uuid import UUID

import structlog
from aiohttp import web
from pydantic import BaseModel, ValidationError

from strep.api import documents
from strep.api.access import is_authorized
from strep.api.openapi import describe
from strep.api.operations import OPERATIONS
from strep.api.problems import PROBLEMS, ProblemError, problem, problem_of, problem_of_http
from strep.control.forks import UnknownForkError
from strep.metrics import CONTENT_TYPE as METRICS_TYPE
from strep.specs import unknown
from strep.store import UnknownCallError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from aiohttp.typedefs import Middleware
    from pydantic import SecretStr
    from pydantic_core import ErrorDetails

    from strep.api.operations import Operation
    from strep.api.source import Forks, Source

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

logger = structlog.get_logger("strep.api")

MAX_BODY_BYTES = 64 * 1024
BODY_TIMEOUT_S = 10.0
MOST_FAULTS = 10
"""Of a request, that are told."""

_Model = TypeVar("_Model", bound=BaseModel)


def application(
    source: Source, *, token: SecretStr | None = None, body_timeout_s: float = BODY_TIMEOUT_S
) -> web.Application:
    """Return the application; where there is a token, most routes want it.

    Webhooks are taken in where the source has a handler for them, which verifies them itself.
    """
    operations = [
        operation
        for operation in OPERATIONS
        if operation.access != "signature" or source.webhooks is not None
    ]
    routes = Routes(source, describe(operations, needs_token=token is not None), body_timeout_s)
    middlewares = [_problems] if token is None else [_problems, _authorization(operations, token)]
    app = web.Application(middlewares=middlewares, client_max_size=MAX_BODY_BYTES)
    for operation in operations:
        handler: Handler = getattr(routes, operation.name)
        app.router.add_route(operation.method, operation.path, handler)
        if operation.method == "GET":
            app.router.add_route("HEAD", operation.path, handler)
    return app


class Routes:
    """The operations, each a method of its name that answers a request."""

    def __init__(self, source: Source, description: dict[str, Any], body_timeout_s: float) -> None:
        self._source = source
        self._description = description
        self._body_timeout_s = body_timeout_s
        self.webhooks = source.webhooks

    async def healthz(self, _: web.Request) -> web.Response:
        """Answer 503 where nothing receives."""
        health = await self._source.health()
        return _json(documents.Health, health, 503 if health["status"] == "down" else 200)

    async def readyz(self, _: web.Request) -> web.Response:
        """Answer 503 where no calls should come."""
        readiness = await self._source.readiness()
        return _json(documents.Readiness, readiness, 200 if readiness["ready"] else 503)

    async def metrics(self, _: web.Request) -> web.Response:
        """Give Prometheus what it asks for."""
        body = await self._source.exposition()
        return web.Response(body=body, headers={"Content-Type": METRICS_TYPE})

    async def list_calls(self, request: web.Request) -> web.Response:
        """List what is received now, or search the database."""
        if not request.query:
            # As it comes: there may be tens of thousands, and packets wait for whoever checks them.
            text = await self._source.open_calls()
            return web.Response(text=text, content_type="application/json")
        query = _query(request, documents.CallQuery)
        try:
            page = await self._source.search_calls(
                number=query.number,
                since_ns=query.since,
                until_ns=query.until,
                call_leg_id=query.leg,
                is_open=query.open,
                after=query.cursor,
                limit=query.limit,
            )
        except UnknownCallError:
            raise _invalid(
                {"parameter": "cursor", "detail": f"no page was followed by {query.cursor}"}
            ) from None
        if page is None:
            raise problem("no-database", "the daemon keeps no database to search")
        return _json(documents.CallPage, page.as_json())

    async def get_call(self, request: web.Request) -> web.Response:
        """Tell all about a call."""
        call_id = request.match_info["id"]
        call = await self._source.call(call_id)
        if call is None:
            raise problem("unknown-call", f"there is no call {call_id}")
        return _json(documents.CallDetails, call)

    async def pause_recording(self, request: web.Request) -> web.Response:
        """Pause a call's recordings."""
        return await self._pause(request, is_paused=True)

    async def resume_recording(self, request: web.Request) -> web.Response:
        """Resume a call's recordings."""
        return await self._pause(request, is_paused=False)

    async def list_forks(self, _: web.Request) -> web.Response:
        """List forks."""
        forks = [fork.document() for fork in self._control.forks()]
        return _json(documents.ForkList, {"forks": forks})

    async def start_fork(self, request: web.Request) -> web.Response:
        """Start a fork, and wait for the carrier's answer."""
        control = self._control
        wanted = await self._body(request, documents.ForkRequest)
        fork = await control.start_fork(
            wanted.call_control_id,
            call_leg_id=wanted.call_leg_id,
            way=wanted.way,
            stream_type=wanted.stream_type,
            client_state=wanted.client_state,
            codecs=wanted.codecs,
        )
        answer = _json(documents.Fork, fork.document(), 202 if fork.in_doubt else 201)
        answer.headers["Location"] = f"/v1/forks/{fork.id}"
        return answer

    async def get_fork(self, request: web.Request) -> web.Response:
        """Tell all about a fork."""
        fork = self._control.fork(_fork_id(request))
        return _json(documents.Fork, fork.document())

    async def stop_fork(self, request: web.Request) -> web.Response:
        """Stop a fork, and wait for the carrier's answer."""
        fork = await self._control.stop_fork(_fork_id(request))
        return _json(documents.Fork, fork.document(), 202 if fork.is_open else 200)

    async def problem_type(self, request: web.Request) -> web.Response:
        """Tell what a type of problem means."""
        name = request.match_info["name"]
        if name not in PROBLEMS:
            raise ProblemError(404, f"there is no type of problem {name}")
        kind = PROBLEMS[name]
        return web.Response(text=f"{kind.title} ({kind.status}).\n\n{kind.meaning}\n")

    async def openapi(self, _: web.Request) -> web.Response:
        """Give the description."""
        return web.json_response(self._description)

    async def _pause(self, request: web.Request, *, is_paused: bool) -> web.Response:
        call_id = request.match_info["id"]
        state = await self._source.pause(call_id, is_paused=is_paused)
        if state is None:
            raise problem("unknown-call", f"there is no call {call_id}")
        return _json(documents.RecordingState, state)

    @property
    def _control(self) -> Forks:
        control = self._source.control
        if control is None:
            raise problem("no-control-plane", "the daemon's settings have no section [control]")
        return control

    async def _body(self, request: web.Request, model: type[_Model]) -> _Model:
        """Read a request's body. Raises `ProblemError`."""
        if request.content_type != "application/json":
            raise ProblemError(
                415, "the body is to be application/json", headers={"Accept": "application/json"}
            )
        body = await self._read(request)
        try:
            return model.model_validate_json(body)
        except ValidationError as error:
            faults = _faults(error)
        if faults[0]["type"] == "json_invalid":
            reason = faults[0]["msg"].removeprefix("Invalid JSON: ")
            raise ProblemError(400, f"the body is not JSON: {reason}")
        raise _invalid(
            *(
                {"pointer": _pointer(fault["loc"]), "detail": _sentence(fault, model, "member")}
                for fault in faults
            )
        )

    async def _read(self, request: web.Request) -> bytes:
        try:
            async with asyncio.timeout(self._body_timeout_s):
                return await request.read()
        except TimeoutError:
            raise ProblemError(
                408, f"the body did not come whole within {self._body_timeout_s:g} s"
            ) from None
        except web.HTTPRequestEntityTooLarge:
            raise ProblemError(413, f"the body has more than {MAX_BODY_BYTES} bytes") from None
        except web.RequestPayloadError:
            raise ProblemError(400, "the body's encoding is broken") from None
        except ConnectionError:
            raise ProblemError(400, "the connection ended before the body did") from None


@web.middleware
async def _problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer every error as a problem."""
    try:
        return await handler(request)
    except ProblemError as error:
        return error.answer()
    except web.HTTPException as error:
        return problem_of_http(error, request.path).answer()
    except Exception as error:
        found = problem_of(error)
        if found is None:
            logger.exception("request failed", method=request.method, path=request.path)
            found = ProblemError(500, "something unexpected happened, which the log tells")
        return found.answer()


def _authorization(operations: Collection[Operation], token: SecretStr) -> Middleware:
    """Return the middleware that lets only those with the token pass, whatever they ask for."""
    without = {each.path for each in operations if each.access != "token"}

    @web.middleware
    async def authorize(request: web.Request, handler: Handler) -> web.StreamResponse:
        resource = request.match_info.route.resource
        if resource is None or resource.canonical not in without:
            header = request.headers.get("Authorization")
            if header is None:
                raise _unauthorized("the token is missing: give it as Authorization: Bearer", "")
            if not is_authorized(header, token):
                raise _unauthorized("the token is wrong", ' error="invalid_token"')
        return await handler(request)

    return authorize


def _unauthorized(detail: str, parameters: str) -> ProblemError:
    return ProblemError(401, detail, headers={"WWW-Authenticate": f"Bearer{parameters}"})


def _query(request: web.Request, model: type[_Model]) -> _Model:
    """Read a request's query. Raises `ProblemError`."""
    given = dict(request.query)
    for name in given:
        if len(request.query.getall(name)) > 1:
            raise _invalid({"parameter": name, "detail": f"{name} is given twice"})
    try:
        return model.model_validate(given)
    except ValidationError as error:
        faults = _faults(error)
    raise _invalid(
        *(
            {"parameter": str(fault["loc"][0]), "detail": _sentence(fault, model, "parameter")}
            for fault in faults
        )
    )


def _fork_id(request: web.Request) -> UUID:
    text = request.match_info["id"]
    try:
        return UUID(text)
    except ValueError:
        raise UnknownForkError(f"there is no fork {text}: the id of one is a UUID") from None


def _faults(error: ValidationError) -> list[ErrorDetails]:
    """Return what pydantic found wrong, as far as anybody wants to read it."""
    return error.errors(include_url=False, include_context=False)[:MOST_FAULTS]


def _sentence(fault: ErrorDetails, model: type[BaseModel], kind: str) -> str:
    match fault["type"]:
        case "missing":
            return f"{fault['loc'][-1]} is missing"
        case "extra_forbidden":
            return unknown(kind, str(fault["loc"][-1]), model.model_fields)
        case _:
            return fault["msg"].removeprefix("Value error, ")


def _pointer(path: tuple[int | str, ...]) -> str:
    """Return a JSON Pointer as a URI fragment (RFC 6901, section 6)."""
    parts = (str(part).replace("~", "~0").replace("/", "~1") for part in path)
    return "#" + "".join(f"/{quote(part)}" for part in parts)


def _invalid(*faults: dict[str, str]) -> ProblemError:
    return problem("invalid-request", faults[0]["detail"], errors=list(faults))


def _json(model: type[BaseModel], document: Any, status: int = 200) -> web.Response:
    """Answer with a document, once it is found to be as described."""
    return web.Response(
        status=status,
        body=documents.answer(model, document),
        headers={"Content-Type": "application/json"},
    )
