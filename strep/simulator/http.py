"""The simulator's HTTP: the carrier's API below `/v2`, and its own interface below `/simulator`.

The carrier's API wants the key as a bearer token. The own interface does without on loopback.

| request | |
|---|---|
| `GET /simulator` | addresses, public key, figures |
| `POST /simulator/calls` | somebody calls in: `from`, `to`, `scenario`, `webhook_url` |
| `GET /simulator/calls`, `GET /simulator/calls/{id}` | calls and their states |
| `POST /simulator/calls/{id}/hangup` | the other side hangs up |
| `POST /simulator/calls/{id}/digits` | the other side types `digits` |
| `GET /simulator/commands` | the commands that came in, and their answers |
| `GET /simulator/webhooks` | the webhooks, and what became of them |
| `PUT /simulator/webhook_url` | where webhooks go from now on: `webhook_url` |
| `GET /simulator/sent`, `GET /simulator/sent/{track}` | what each track sent and dropped |
| `POST /simulator/faults`, `POST /simulator/webhook_faults` | a fault, as in the settings |
| `DELETE /simulator/faults` | no faults any more |
"""

from __future__ import annotations

import asyncio
import hmac
import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Annotated, Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from strep.control.commands import COMMANDS
from strep.control.parameters import Text, WebUrl  # noqa: TC001 -- pydantic reads annotations
from strep.simulator.calls import rfc3339
from strep.simulator.faults import CommandFault, WebhookFault
from strep.simulator.problems import RefusedError
from strep.simulator.scenario import Digits  # noqa: TC001 -- pydantic reads annotations
from strep.simulator.settings import check
from strep.specs import ConfigError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from strep.simulator.simulator import Simulator

LONGEST_BODY_BYTES = 2**20
SECRET = "sip_auth_password"  # noqa: S105 -- a parameter's name


@dataclass(frozen=True, slots=True)
class CommandRecord:
    """A command that came in, and its answer."""

    at: str
    """RFC 3339."""
    command: str
    call_control_id: str | None
    body: object
    status: int | None
    """None where there was no answer."""
    answer: Any
    fault: str | None


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class _Incoming(_Document):
    from_: Annotated[Text, Field(alias="from")]
    to: Text
    scenario: str | dict[str, Any] | None = None
    webhook_url: WebUrl | None = None


class _Typed(_Document):
    digits: Digits


class _WebhookUrl(_Document):
    webhook_url: WebUrl | None


def application(simulator: Simulator) -> web.Application:
    """Return the application of a simulator."""
    app = web.Application(middlewares=[_errors], client_max_size=LONGEST_BODY_BYTES)
    for name, kind in COMMANDS.items():
        app.router.add_route(kind.method, f"/v2{kind.path}", _Command(simulator, name).handle)
    own = _Own(simulator)
    app.add_routes(
        [
            web.get("/simulator", own.status),
            web.post("/simulator/calls", own.place_call),
            web.get("/simulator/calls", own.calls),
            web.get("/simulator/calls/{id}", own.call),
            web.post("/simulator/calls/{id}/hangup", own.hang_up),
            web.post("/simulator/calls/{id}/digits", own.type_digits),
            web.get("/simulator/commands", own.commands),
            web.get("/simulator/webhooks", own.webhooks),
            web.put("/simulator/webhook_url", own.set_webhook_url),
            web.get("/simulator/sent", own.sent),
            web.get("/simulator/sent/{track}", own.sent_by),
            web.post("/simulator/faults", own.add_fault),
            web.post("/simulator/webhook_faults", own.add_webhook_fault),
            web.delete("/simulator/faults", own.clear_faults),
        ]
    )
    return app


@web.middleware
async def _errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Answer every error in the carrier's shape."""
    try:
        return await handler(request)
    except RefusedError as error:
        return _refusal(error)
    except ConfigError as error:
        return _refusal(RefusedError(422, "10015", str(error)))
    except web.HTTPException as error:
        code = "10005" if error.status in {404, 405} else "10015"
        return _refusal(RefusedError(error.status, code, error.reason))


def refuse(status: int, reason: str) -> web.Response:
    """Return the answer to what is no HTTP request, and so came to no route."""
    return _refusal(RefusedError(status, "10015", reason))


def _refusal(error: RefusedError) -> web.Response:
    return web.json_response(error.as_json(), status=error.status)


def _authenticate(request: web.Request, simulator: Simulator) -> None:
    given = request.headers.get("Authorization", "")
    if not hmac.compare_digest(given.encode(), f"Bearer {simulator.api_key}".encode()):
        raise RefusedError(
            401, "10009", "The required authentication headers were either invalid or not included."
        )


async def _document(request: web.Request) -> Any:
    """Return the JSON of a request. Raises `RefusedError`."""
    try:
        return json.loads(await request.read() or b"{}")
    except (ValueError, RecursionError):
        raise RefusedError(400, "10015", "The body of the request is not JSON.") from None


class _Command:
    """One of the carrier's commands."""

    def __init__(self, simulator: Simulator, name: str) -> None:
        self._simulator = simulator
        self._name = name

    async def handle(self, request: web.Request) -> web.Response:
        """Carry it out, or let a fault keep it from that."""
        _authenticate(request, self._simulator)
        control_id = request.match_info.get("call_control_id")
        document = await _document(request)
        fault = self._simulator.command_faults.pick(self._name)
        answer: web.Response | None = None
        if fault is None or fault.executed or fault.kind == "slow":
            answer = self._carry_out(control_id, document)
        if fault is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._simulator.stopping.wait(), fault.delay_s)
            answer = self._faulty(fault, request, answer)
        self._record(control_id, document, answer, fault)
        # of a connection that was cut nobody hears an answer
        return answer or web.Response(status=500)

    def _carry_out(self, control_id: str | None, document: object) -> web.Response:
        try:
            data = self._simulator.command(self._name, control_id, document)
        except RefusedError as error:
            return _refusal(error)
        return web.json_response({"data": data})

    def _faulty(
        self, fault: CommandFault, request: web.Request, answer: web.Response | None
    ) -> web.Response | None:
        match fault.kind:
            case "slow":
                return answer
            case "rubbish":
                return web.Response(text="<html>Bad gateway</html>", content_type="text/html")
            case "disconnect":
                if request.transport is not None:
                    request.transport.abort()
                return None
        code = {429: "10011", 401: "10009", 404: "10005"}.get(fault.status, "10007")
        response = _refusal(RefusedError(fault.status, code, "A fault that was asked for."))
        if fault.retry_after_s is not None:
            response.headers["Retry-After"] = str(fault.retry_after_s)
        return response

    def _record(
        self,
        control_id: str | None,
        document: object,
        answer: web.Response | None,
        fault: CommandFault | None,
    ) -> None:
        if isinstance(document, dict) and SECRET in document:
            document = {**document, SECRET: "***"}
        is_json = answer is not None and answer.content_type == "application/json"
        clock = self._simulator.clock
        self._simulator.commands.append(
            CommandRecord(
                at=rfc3339(clock.wall(clock.now_s())),
                command=self._name,
                call_control_id=control_id,
                body=document,
                status=None if answer is None else answer.status,
                answer=json.loads(answer.text or "null") if answer and is_json else None,
                fault=None if fault is None else fault.kind,
            )
        )


class _Own:
    """The simulator's own interface."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator

    async def status(self, request: web.Request) -> web.Response:
        """Tell addresses and figures."""
        simulator = self._admit(request)
        document = {
            "base_url": simulator.base_url,
            "control_url": simulator.control_url,
            "public_key": simulator.public_key,
            "webhook_url": simulator.carrier.webhook_url,
            "seed": simulator.settings.seed,
            "speed": simulator.settings.speed,
            **simulator.status(),
        }
        return web.json_response(document)

    async def place_call(self, request: web.Request) -> web.Response:
        """Let somebody call in."""
        simulator = self._admit(request)
        wanted = check(await _document(request), _Incoming)
        call = simulator.place_call(
            wanted.from_, wanted.to, wanted.scenario, webhook_url=wanted.webhook_url
        )
        return web.json_response({"data": simulator.call_as_json(call)}, status=201)

    async def calls(self, request: web.Request) -> web.Response:
        """List all calls."""
        simulator = self._admit(request)
        calls = [simulator.call_as_json(call) for call in simulator.carrier.calls.values()]
        return web.json_response({"calls": calls})

    async def call(self, request: web.Request) -> web.Response:
        """Tell of one call."""
        simulator = self._admit(request)
        call = simulator.carrier.call(request.match_info["id"])
        return web.json_response({"data": simulator.call_as_json(call)})

    async def hang_up(self, request: web.Request) -> web.Response:
        """Let the other side hang up."""
        self._admit(request).hang_up(request.match_info["id"])
        return _done()

    async def type_digits(self, request: web.Request) -> web.Response:
        """Let the other side type digits."""
        simulator = self._admit(request)
        typed = check(await _document(request), _Typed)
        simulator.type_digits(request.match_info["id"], typed.digits)
        return _done()

    async def commands(self, request: web.Request) -> web.Response:
        """List the commands that came in."""
        commands = [asdict(record) for record in self._admit(request).commands]
        return web.json_response({"commands": commands})

    async def webhooks(self, request: web.Request) -> web.Response:
        """List the webhooks and what became of them."""
        deliveries = self._admit(request).webhooks.deliveries
        return web.json_response({"webhooks": [each.as_json() for each in deliveries]})

    async def set_webhook_url(self, request: web.Request) -> web.Response:
        """Send webhooks of further calls elsewhere."""
        simulator = self._admit(request)
        wanted = check(await _document(request), _WebhookUrl)
        simulator.carrier.webhook_url = wanted.webhook_url
        return _done()

    async def sent(self, request: web.Request) -> web.Response:
        """Tell of each track how much it sent and dropped."""
        logs = self._admit(request).logs(summary=True)
        tracks = [log.as_json(packets=False) for log in logs]
        return web.json_response({"tracks": tracks})

    async def sent_by(self, request: web.Request) -> web.Response:
        """Tell of one track what it sent and dropped, packet by packet."""
        simulator = self._admit(request)
        try:
            log = simulator.media.log(int(request.match_info["track"]))
        except (KeyError, ValueError):
            raise RefusedError(404, "10005", "There is no track of this number.") from None
        return web.json_response(log.as_json())

    async def add_fault(self, request: web.Request) -> web.Response:
        """Let a command go wrong."""
        simulator = self._admit(request)
        simulator.command_faults.add(check(await _document(request), CommandFault))
        return _done()

    async def add_webhook_fault(self, request: web.Request) -> web.Response:
        """Let a webhook go wrong."""
        simulator = self._admit(request)
        simulator.webhook_faults.add(check(await _document(request), WebhookFault))
        return _done()

    async def clear_faults(self, request: web.Request) -> web.Response:
        """Let nothing go wrong any more."""
        simulator = self._admit(request)
        simulator.command_faults.clear()
        simulator.webhook_faults.clear()
        return _done()

    def _admit(self, request: web.Request) -> Simulator:
        """Return the simulator; anywhere but on loopback only to those who have the key."""
        if not _is_loopback(self._simulator.http.host):
            _authenticate(request, self._simulator)
        return self._simulator


def _done() -> web.Response:
    return web.json_response({"data": {"result": "ok"}})


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
