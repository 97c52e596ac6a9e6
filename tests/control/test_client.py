import asyncio
import inspect
import json
import logging
import traceback
import uuid
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from aiohttp import web
from commandmaker import make
from structlog.testing import capture_logs

from strep.control import CallControl
from strep.control.base import CommandResult
from strep.control.commands import COMMANDS, Dial, ForkStop, Hangup
from strep.control.errors import (
    AnswerError,
    AuthenticationError,
    CallEndedError,
    NotFoundError,
    ParameterError,
    RateLimitError,
    ServerError,
    TransportError,
    ValidationError,
)
from strep.specs import ConfigError

SAMPLES = Path(__file__).parent / "samples"
KEY = "KEY0123456789_secret"
CALL = "v3:MdI91X4lWFEs7IgbBEOT9M4AigoY08M0WWZFISt1Yw2axZ_IiE4pqg"
CALL_DATA = {
    "call_control_id": CALL,
    "call_leg_id": "2dc6fc34-f9e0-11ea-b68e-02420a0f7768",
    "call_session_id": "2dc1b3c8-f9e0-11ea-bc5a-02420a0f7768",
    "is_alive": False,
    "record_type": "call",
}


class Request(NamedTuple):
    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def document(self):
        return json.loads(self.body)


def answer(status, document, **headers):
    """Return a handler that answers so; a document that is no dict is sent as it is."""
    body = json.dumps(document).encode() if isinstance(document, dict) else document

    async def handle(_request):
        return web.Response(status=status, body=body, headers=headers)

    return handle


def errors(status, code, title="", detail="", **headers):
    fault = {"code": code, "title": title, "detail": detail}
    return answer(status, {"errors": [fault]}, **headers)


async def hang(_request):
    await asyncio.Event().wait()


async def close(request):
    request.transport.close()
    return web.Response()


OK = answer(200, {"data": {"result": "ok"}})


class Carrier:
    """A server that answers by a script, whose last handler stays, and keeps what it was asked."""

    def __init__(self, handlers):
        self.handlers = list(handlers)
        self.requests = []
        self.base_url = ""

    async def handle(self, request):
        body = await request.read()
        self.requests.append(Request(request.method, request.raw_path, dict(request.headers), body))
        handler = self.handlers.pop(0) if len(self.handlers) > 1 else self.handlers[0]
        return await handler(request)

    @property
    def command_ids(self):
        return [request.document["command_id"] for request in self.requests]


@asynccontextmanager
async def carrier(*handlers):
    script = Carrier(handlers)
    # Handlers end when the client has gone.
    server = web.Server(script.handle, handler_cancellation=True, access_log=None)
    runner = web.ServerRunner(server)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0]
        script.base_url = f"http://{host}:{port}/v2"
        yield script
    finally:
        await runner.cleanup()


class Hours:
    """Time that passes by sleeping alone."""

    def __init__(self):
        self.time_s = 0.0
        self.waits = []

    def clock(self):
        return self.time_s

    async def sleep(self, wait_s):
        self.waits.append(wait_s)
        self.time_s += wait_s


def client(server, hours=None, **options):
    hours = hours or Hours()
    return CallControl(
        key=KEY,
        base_url=server if isinstance(server, str) else server.base_url,
        clock=hours.clock,
        sleep=hours.sleep,
        now=lambda: 784111760.0,
        chance=lambda: 0.0,
        **options,
    )


def sends(*handlers, command=None, call=CALL, hours=None, **options):
    """Send a command to a carrier that answers so; return its result or error, and the carrier."""

    async def run():
        async with carrier(*handlers) as server, client(server, hours, **options) as control:
            try:
                return await control.send(command or Hangup(), call), server
            except Exception as error:  # noqa: BLE001 -- looked at by the caller
                return error, server

    return asyncio.run(run())


# What is sent -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "fork_start"])
def test_documented_sample_goes_over_the_wire_byte_for_byte(name):
    sample = json.loads((SAMPLES / f"{name}.json").read_bytes())
    data = CALL_DATA if name == "dial" else {"result": "ok"}
    command = COMMANDS[name].parse(sample)
    result, server = sends(
        answer(200, {"data": data}), command=command, call=None if name == "dial" else CALL
    )
    assert result == command.result(**data)
    [request] = server.requests
    if name == "fork_stop":
        sample["stream_type"] = "raw"  # always sent
    assert request.body == json.dumps(sample).encode()
    assert (request.method, request.path) == (
        "PUT" if name == "client_state_update" else "POST",
        "/v2/calls" if name == "dial" else f"/v2/calls/{CALL}/actions/{name}",
    )
    assert request.headers["Authorization"] == f"Bearer {KEY}"
    assert request.headers["Content-Type"] == "application/json"


def test_methods_send_their_commands():
    async def run():
        async with (
            carrier(answer(200, {"data": CALL_DATA}), OK) as server,
            client(server) as control,
        ):
            call = await control.dial(
                connection_id="7267", from_="+18005550101", to="+18005550100", command_id="a"
            )
            await control.fork_start(
                call.call_control_id, target="udp:192.0.2.1:9000", command_id="b"
            )
            await control.bridge(call.call_control_id, call_control_id="v3:other", command_id="c")
            await control.client_state_update(call.call_control_id, client_state="ticket 17")
            return server.requests

    assert [(each.path, each.document) for each in asyncio.run(run())] == [
        (
            "/v2/calls",
            {
                "connection_id": "7267",
                "from": "+18005550101",
                "to": "+18005550100",
                "command_id": "a",
            },
        ),
        (
            f"/v2/calls/{CALL}/actions/fork_start",
            {"target": "udp:192.0.2.1:9000", "command_id": "b"},
        ),
        (f"/v2/calls/{CALL}/actions/bridge", {"call_control_id": "v3:other", "command_id": "c"}),
        (f"/v2/calls/{CALL}/actions/client_state_update", {"client_state": "dGlja2V0IDE3"}),
    ]


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_a_method_with_its_parameters(name):
    method = getattr(CallControl, name)
    assert method.__name__ == name
    assert method.__doc__ == COMMANDS[name].__doc__
    parameters = inspect.signature(method).parameters.values()
    assert [each.name for each in parameters if each.kind is each.KEYWORD_ONLY] == list(
        COMMANDS[name].model_fields
    )
    positional = [each.name for each in parameters if each.kind is each.POSITIONAL_ONLY]
    assert positional == (["self"] if name == "dial" else ["self", "call"])


def test_command_id_is_made_where_none_is_given():
    _, server = sends(OK)
    assert str(uuid.UUID(server.command_ids[0])) == server.command_ids[0]
    _, server = sends(OK, command=Hangup(command_id="mine"))
    assert server.command_ids == ["mine"]


def test_client_state_update_has_no_command_id():
    _, server = sends(OK, command=make("client_state_update"))
    assert server.requests[0].document == {"client_state": "c3RhdGU="}


def test_fork_stop_always_says_its_stream_type():
    _, server = sends(OK, command=ForkStop(command_id="a"))
    assert server.requests[0].body == b'{"command_id": "a", "stream_type": "raw"}'
    _, server = sends(OK, command=ForkStop(stream_type="decrypted", command_id="a"))
    assert server.requests[0].body == b'{"stream_type": "decrypted", "command_id": "a"}'


def test_call_control_id_cannot_leave_its_place_in_the_path():
    _, server = sends(OK, call="../v3?a=b#c/%2F")
    assert server.requests[0].path == "/v2/calls/..%2Fv3%3Fa=b%23c%2F%252F/actions/hangup"


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (None, "None does not name a call"),
        ("", "'' does not name a call"),
        ("..", "'..' does not name a call"),
        ("v3 x", "'v3 x' does not name a call"),
        ("v3\r\n", r"'v3\r\n' does not name a call"),
        ("\ud800", r"'\ud800' does not name a call"),
    ],
)
def test_command_without_a_call_is_refused_and_not_sent(call, sentence):
    error, server = sends(OK, call=call)
    assert isinstance(error, ParameterError)
    assert str(error) == f"hangup: call_control_id: {sentence}"
    assert server.requests == []


def test_wrong_parameter_is_refused_and_not_sent():
    async def run():
        async with carrier(OK) as server, client(server) as control:
            with pytest.raises(ParameterError, match="rx is missing"):
                await control.fork_start(CALL, tx="udp:192.0.2.1:9000")
            return server.requests

    assert asyncio.run(run()) == []


# Errors and retries -----------------------------------------------------------------------------


def test_answer_429_is_waited_for_as_long_as_it_asks():
    hours = Hours()
    result, server = sends(errors(429, "10011", **{"Retry-After": "3"}), OK, hours=hours)
    assert result == CommandResult(result="ok")
    assert hours.waits == [3.125]
    assert len(server.requests) == 2


def test_answer_429_with_a_date_is_waited_for():
    hours = Hours()
    dates = {
        "Date": "Sun, 06 Nov 1994 08:49:30 GMT",
        "Retry-After": "Sun, 06 Nov 1994 08:49:37 GMT",
    }
    result, _ = sends(errors(429, "10011", **dates), OK, hours=hours)
    assert result == CommandResult(result="ok")
    assert hours.waits == [7.125]


def test_wait_beyond_the_total_time_is_not_begun():
    hours = Hours()
    error, server = sends(errors(429, "10011", **{"Retry-After": "20"}), hours=hours)
    assert isinstance(error, RateLimitError)
    assert (error.retry_after_s, error.code) == (20.0, "10011")
    assert hours.waits == []
    assert len(server.requests) == 1


def test_answer_5xx_is_tried_again_with_the_same_command_id():
    hours = Hours()
    result, server = sends(answer(500, b""), answer(503, b"<html>"), OK, hours=hours)
    assert result == CommandResult(result="ok")
    assert hours.waits == [0.125, 0.25]
    first, second, third = server.command_ids
    assert first == second == third


def test_attempts_are_bounded_in_number():
    hours = Hours()
    error, server = sends(answer(502, b""), hours=hours, attempts=3)
    assert isinstance(error, ServerError)
    assert str(error) == "hangup: the carrier answered 502"
    assert len(server.requests) == 3
    assert hours.waits == [0.125, 0.25]


def test_attempts_are_bounded_in_total_time():
    hours = Hours()
    error, server = sends(answer(502, b""), hours=hours, attempts=100, total_timeout_s=1.0)
    assert isinstance(error, ServerError)
    assert hours.waits == [0.125, 0.25, 0.5]
    assert len(server.requests) == 4


def test_carrier_that_does_not_answer_is_a_transport_error_within_its_time():
    error, server = sends(hang, attempts=2, attempt_timeout_s=0.05)
    assert isinstance(error, TransportError)
    assert str(error) == "hangup: no answer from 127.0.0.1 within 0.05 s"
    first, second = server.command_ids
    assert first == second


def test_attempt_ends_with_the_total_time():
    error, server = sends(hang, attempt_timeout_s=60.0, total_timeout_s=0.05, attempts=1)
    assert isinstance(error, TransportError)
    assert len(server.requests) == 1


def test_answer_that_stops_in_its_middle_is_a_transport_error():
    async def stall(request):
        response = web.StreamResponse(headers={"Content-Length": "100"})
        await response.prepare(request)
        await response.write(b'{"data": ')
        return await hang(request)

    error, _ = sends(stall, attempts=1, attempt_timeout_s=0.05)
    assert isinstance(error, TransportError)


def test_command_is_tried_again_after_a_timeout_or_a_closed_connection():
    result, server = sends(hang, close, OK, attempt_timeout_s=0.2)
    assert result == CommandResult(result="ok")
    assert len(set(server.command_ids)) == 1
    assert len(server.requests) == 3


def test_carrier_that_closes_the_connection_is_a_transport_error():
    error, server = sends(close, attempts=2)
    assert isinstance(error, TransportError)
    assert str(error) == "hangup: no answer from 127.0.0.1: Server disconnected"
    assert len(server.requests) == 2


def test_carrier_that_is_not_there_is_a_transport_error():
    async def run():
        async with carrier(OK) as server:
            base_url = server.base_url
        async with client(base_url) as control:
            await control.hangup(CALL)

    with pytest.raises(TransportError) as raised:
        asyncio.run(run())
    assert str(raised.value) == "hangup: no answer from 127.0.0.1: Connection refused"


def test_what_is_not_http_is_an_answer_error():
    async def run():
        async def speak_smtp(reader, writer):
            await reader.readuntil(b"}")
            writer.write(b"220 mail.example.com ESMTP\r\n\r\n")
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(speak_smtp, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        async with server, client(f"http://{host}:{port}") as control:
            await control.hangup(CALL)

    with pytest.raises(AnswerError, match=r"^hangup: the answer from 127\.0\.0\.1 is not HTTP$"):
        asyncio.run(run())


def test_rubbish_is_an_answer_error_and_not_asked_for_again():
    error, server = sends(answer(200, b"<html>", **{"Content-Type": "text/html"}))
    assert isinstance(error, AnswerError)
    assert str(error) == "hangup: the answer is not JSON but 6 bytes of 'text/html'"
    assert len(server.requests) == 1


def test_answer_without_end_is_cut_off():
    async def flood(request):
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" " * 65536)

    error, _ = sends(flood)
    assert isinstance(error, AnswerError)
    assert str(error) == "hangup: the answer is longer than 1048576 bytes"


def test_redirect_is_not_followed():
    error, server = sends(answer(302, b"", Location="/v2/elsewhere"))
    assert isinstance(error, AnswerError)
    assert [request.path for request in server.requests] == [f"/v2/calls/{CALL}/actions/hangup"]


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (401, "10009", AuthenticationError),
        (403, "10010", AuthenticationError),
        (404, "10005", NotFoundError),
        (422, "10015", ValidationError),
    ],
)
def test_refused_command_is_not_tried_again(status, code, kind):
    error, server = sends(errors(status, code, "Title", "Detail"))
    assert type(error) is kind
    assert str(error) == f"hangup: the carrier answered {status}, code {code}: Title: Detail"
    assert len(server.requests) == 1


def test_stop_of_a_call_that_has_ended_is_success():
    ended = errors(422, "90018", "Call has already ended")
    result, _ = sends(ended, command=ForkStop())
    assert result == CommandResult(result="ok", already_ended=True)
    error, _ = sends(ended, command=make("fork_start"))
    assert isinstance(error, CallEndedError)


def test_hangup_whose_answer_was_lost_succeeds_when_it_is_tried_again():
    result, server = sends(close, errors(422, "90018", "Call has already ended"))
    assert result == CommandResult(result="ok", already_ended=True)
    assert len(server.requests) == 2


def test_cancelled_command_is_not_tried_again():
    async def run():
        async with carrier(hang) as server, client(server) as control:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(control.hangup(CALL), 0.05)
            return server.requests

    assert len(asyncio.run(run())) == 1


def test_commands_may_run_at_the_same_time():
    async def run():
        async with carrier(OK) as server, client(server) as control:
            await asyncio.gather(*(control.hangup(f"v3:{number}") for number in range(50)))
            return {request.path for request in server.requests}

    assert asyncio.run(run()) == {f"/v2/calls/v3:{number}/actions/hangup" for number in range(50)}


# The key and the other settings -----------------------------------------------------------------


def test_key_is_in_no_repr_error_traceback_or_log(caplog):
    async def echo(request):
        return web.json_response(
            {"errors": [{"code": "1", "title": request.headers["Authorization"]}]}, status=500
        )

    async def compressed(_request):
        return web.Response(status=500, headers={"Content-Encoding": "gzip"}, body=b"no gzip")

    caplog.set_level(logging.DEBUG)
    texts = []
    with capture_logs() as logs:
        for handlers in [(echo,), (close,), (hang,), (compressed,)]:
            error, _ = sends(*handlers, attempts=2, attempt_timeout_s=0.05)
            texts += [repr(error), str(error), repr(vars(error))]
            texts += traceback.TracebackException.from_exception(
                error, capture_locals=True
            ).format()
            assert error.__context__ is None
    assert len(logs) == 4
    texts += [repr(logs), caplog.text, repr(client("http://127.0.0.1"))]
    assert KEY not in "".join(texts)
    assert "Bearer ***" in "".join(texts)


def test_retry_is_logged():
    with capture_logs() as logs:
        sends(answer(500, b""), OK)
    assert logs == [
        {
            "event": "command is tried again",
            "log_level": "warning",
            "command": "hangup",
            "failures": 1,
            "error": "hangup: the carrier answered 500",
            "wait_s": 0.125,
        }
    ]


def test_key_is_taken_from_the_environment():
    async def run():
        async with carrier(OK) as server:
            environment = {"STREP_API_KEY": "KEY_of_the_environment"}
            control = CallControl(base_url=server.base_url, environment=environment)
            async with control:
                await control.hangup(CALL)
            return server.requests

    [request] = asyncio.run(run())
    assert request.headers["Authorization"] == "Bearer KEY_of_the_environment"


def test_slash_at_the_end_of_the_base_url_is_dropped():
    assert repr(client("http://127.0.0.1:1/v2/")) == "CallControl(base_url='http://127.0.0.1:1/v2')"


@pytest.mark.parametrize(
    "base_url",
    ["", "127.0.0.1:80", "ftp://a/", "http://", "http://a:b@c/", "http://a/?b", "http://a:99999"],
)
def test_base_url_that_is_none_is_refused(base_url):
    with pytest.raises(ConfigError, match="is not the URL of an API, such as https://api"):
        CallControl(key=KEY, base_url=base_url)


def test_client_outside_its_async_with_says_so():
    with pytest.raises(RuntimeError, match="outside of its `async with`"):
        asyncio.run(client("http://127.0.0.1:1").hangup(CALL))


def test_dial_is_sent_without_a_call():
    command = Dial(connection_id="7267", from_="+18005550101", to="+18005550100")
    result, server = sends(answer(200, {"data": CALL_DATA}), command=command, call=None)
    assert result.call_leg_id == "2dc6fc34-f9e0-11ea-b68e-02420a0f7768"
    assert server.requests[0].path == "/v2/calls"
