from __future__ import annotations

import asyncio
import io
import json

import aiohttp
import pytest

from strep.control import AnswerError, CallControl, ServerError, TransportError
from strep.control.commands import COMMANDS
from strep.simulator.expected import expected_audio
from strep.simulator.ledger import TrackLog
from strep.simulator.settings import Settings
from strep.simulator.simulator import Simulator
from strep.specs import Address

KEY = "KEY-of-tests"
DIAL = {"connection_id": "c", "from": "+18005550101", "to": "+18005550100"}
AT_ONCE = {"call": {"ring_s": 0}}


class Client:
    """Requests to a simulator."""

    def __init__(self, session, simulator):
        self.simulator = simulator
        self._session = session

    async def ask(self, method, path, body=None, *, key=KEY):
        """Return the status and the JSON of an answer."""
        url = f"http://127.0.0.1:{self.simulator.http.port}{path}"
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        if not isinstance(body, bytes):
            body = b"" if body is None else json.dumps(body).encode()
        async with self._session.request(
            method, url, data=io.BytesIO(body), headers=headers
        ) as answer:
            self.headers = answer.headers
            return answer.status, await answer.json()

    async def dial(self, **changes):
        status, answer = await self.ask("POST", "/v2/calls", DIAL | changes)
        assert status == 200
        return answer["data"]["call_control_id"]

    async def act(self, call, name, **body):
        return await self.ask("POST", f"/v2/calls/{call}/actions/{name}", body)


def talk(conversation, settings=None, **options):
    """Run `await conversation(client)` with a simulator in which nothing takes time to ring."""

    async def run():
        simulator = Simulator(
            Settings.model_validate({**AT_ONCE, **(settings or {})}), api_key=KEY, **options
        )
        async with simulator, aiohttp.ClientSession() as session:
            return await conversation(Client(session, simulator))

    return asyncio.run(run())


async def answered(client, call):
    """Let a call be answered, which is due at once."""
    while not client.simulator.carrier.call(call).is_up:  # noqa: ASYNC110 -- one turn of the loop
        await asyncio.sleep(0)


def error_of(status_and_answer):
    status, answer = status_and_answer
    (error,) = answer["errors"]
    assert set(error) >= {"code", "title", "detail", "meta"}
    return status, error["code"], error["title"]


def test_every_command_has_its_path_and_method():
    async def conversation(client):
        return [
            (name, error_of(await client.ask(kind.method,
             "/v2" + kind.path.format(call_control_id="v3:none"), {})))
            for name, kind in COMMANDS.items()
        ]  # fmt: skip

    for name, answer in talk(conversation):
        unknown_call = (404, "10005", "Resource not found")
        missing = (422, "10004", "Missing required parameter")
        assert answer == (missing if name == "dial" else unknown_call), name


def test_dial_and_hangup_are_answered_as_documented():
    async def conversation(client):
        status, answer = await client.ask("POST", "/v2/calls", DIAL)
        assert status == 200
        assert set(answer["data"]) == {
            "call_control_id", "call_leg_id", "call_session_id", "is_alive", "record_type",
        }  # fmt: skip
        call = answer["data"]["call_control_id"]
        assert await client.act(call, "hangup") == (200, {"data": {"result": "ok"}})
        assert error_of(await client.act(call, "hangup")) == (
            422, "90018", "Call has already ended",
        )  # fmt: skip

    talk(conversation)


def test_put_updates_the_client_state():
    async def conversation(client):
        call = await client.dial()
        path = f"/v2/calls/{call}/actions/client_state_update"
        assert (await client.ask("PUT", path, {"client_state": "YQ=="}))[0] == 200
        assert client.simulator.carrier.call(call).client_state == "YQ=="

    talk(conversation)


@pytest.mark.parametrize("key", [None, "", "wrong", KEY + "x", "ключ".encode().decode("latin-1")])
def test_wrong_key_is_refused_and_does_nothing(key):
    async def conversation(client):
        answer = error_of(await client.ask("POST", "/v2/calls", DIAL, key=key))
        assert answer == (401, "10009", "Authentication failed")
        assert not client.simulator.carrier.calls

    talk(conversation)


@pytest.mark.parametrize(
    ("method", "path", "body", "expected"),
    [
        ("POST", "/v2/calls", b"{", (400, "10015")),
        ("POST", "/v2/calls", b"\xff", (400, "10015")),
        ("POST", "/v2/calls", b"[" * 100_000, (400, "10015")),
        ("POST", "/v2/calls", b"[]", (422, "10015")),
        ("POST", "/v2/calls", b"", (422, "10004")),
        ("POST", "/v2/calls", b" " * (2**20 + 1), (413, "10015")),
        ("GET", "/v2/calls", None, (405, "10005")),
        ("POST", "/v2/calls/x/actions/fly", b"{}", (404, "10005")),
        ("GET", "/", None, (404, "10005")),
    ],
)
def test_what_is_no_command_is_a_clear_problem(method, path, body, expected):
    async def conversation(client):
        return error_of(await client.ask(method, path, body))[:2]

    assert talk(conversation) == expected


def test_what_is_no_http_is_a_problem_in_the_carriers_shape():
    async def conversation(client):
        reader, writer = await asyncio.open_connection("127.0.0.1", client.simulator.http.port)
        writer.write(b"hello\r\n\r\n")
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        return head.split(b"\r\n")[0], json.loads(body)["errors"]

    status, (error,) = talk(conversation)
    assert status == b"HTTP/1.0 400 Bad Request"
    assert (error["code"], error["title"]) == ("10015", "Bad Request")


def test_wrong_parameter_is_pointed_at():
    async def conversation(client):
        return await client.ask("POST", "/v2/calls", DIAL | {"timeout_secs": 1})

    status, answer = talk(conversation)
    assert status == 422
    assert answer["errors"][0]["source"] == {"pointer": "/timeout_secs"}
    assert "5 to 120" in answer["errors"][0]["detail"]


# faults


def test_fault_429_has_retry_after_and_does_nothing():
    async def conversation(client):
        answer = error_of(await client.ask("POST", "/v2/calls", DIAL))
        assert answer == (429, "10011", "Too many requests")
        assert client.headers["Retry-After"] == "7"
        assert not client.simulator.carrier.calls
        await client.dial()

    talk(conversation, {"fault": [{"command": "dial", "status": 429, "retry_after_s": 7}]})


def test_fault_500_may_come_after_the_deed():
    async def conversation(client):
        body = DIAL | {"command_id": "a"}
        answer = error_of(await client.ask("POST", "/v2/calls", body))
        assert answer == (500, "10007", "Unexpected error")
        await client.dial(command_id="a")
        assert len(client.simulator.carrier.calls) == 1

    talk(conversation, {"fault": [{"executed": True}]})


def fault_seen_by_the_client(fault, **options):
    """Return the error that one attempt of a client ends with."""

    async def conversation(client):
        base_url = client.simulator.base_url
        async with CallControl(key=KEY, base_url=base_url, attempts=1, **options) as control:
            await control.dial(connection_id="c", from_="+18005550101", to="+18005550100")

    talk(conversation, {"fault": [fault]})


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ({"kind": "error", "status": 503}, ServerError),
        ({"kind": "rubbish"}, AnswerError),
        ({"kind": "disconnect"}, TransportError),
        ({"kind": "slow", "delay_s": 5}, TransportError),
    ],
)
def test_faults_are_what_the_client_calls_them(fault, error):
    with pytest.raises(error):
        fault_seen_by_the_client(fault, attempt_timeout_s=0.1)


def test_slow_answer_is_the_right_one():
    async def conversation(client):
        await client.dial()
        return client.simulator.commands[0]

    record = talk(conversation, {"fault": [{"kind": "slow", "delay_s": 0.01}]})
    assert (record.fault, record.status) == ("slow", 200)


# the simulator's own interface


def test_somebody_calls_in_with_a_scenario_of_their_own():
    async def conversation(client):
        scenario = {"call": {"patience_s": 0.01}}
        status, answer = await client.ask(
            "POST", "/simulator/calls", {"from": "+1", "to": "+2", "scenario": scenario}, key=None
        )
        assert status == 201
        call = answer["data"]
        assert (call["direction"], call["state"]) == ("incoming", "initiated")
        known = client.simulator.carrier.call(call["call_control_id"])
        assert known.scenario.call.patience_s == 0.01
        assert known.scenario.call.ring_s == 0

    talk(conversation)


def test_calls_are_listed_and_shown():
    async def conversation(client):
        call = await client.dial(client_state="YQ==")
        await answered(client, call)
        await client.act(call, "fork_start", target="udp:127.0.0.1:9")
        _, listed = await client.ask("GET", "/simulator/calls")
        _, shown = await client.ask("GET", f"/simulator/calls/{call}")
        assert listed["calls"] == [shown["data"]]
        assert shown["data"]["state"] == "answered"
        assert shown["data"]["forks"] == ["raw"]
        assert shown["data"]["client_state"] == "YQ=="
        assert shown["data"]["answered_at"].endswith("Z")
        assert shown["data"]["ended_at"] is None
        assert error_of(await client.ask("GET", "/simulator/calls/x"))[:2] == (404, "10005")

    talk(conversation)


def test_other_side_types_and_hangs_up():
    async def conversation(client):
        call = await client.dial()
        await answered(client, call)
        done = (200, {"data": {"result": "ok"}})
        assert await client.ask("POST", f"/simulator/calls/{call}/digits", {"digits": "1#"}) == done
        assert await client.ask("POST", f"/simulator/calls/{call}/hangup") == done
        _, answer = await client.ask("GET", "/simulator/webhooks")
        return [(w["event"]["event_type"], w["fate"]) for w in answer["webhooks"]]

    assert talk(conversation) == [
        ("call.initiated", "logged"),
        ("call.answered", "logged"),
        ("call.dtmf.received", "logged"),
        ("call.dtmf.received", "logged"),
        ("call.hangup", "logged"),
    ]


def test_commands_are_recorded_with_their_answers_and_without_secrets():
    async def conversation(client):
        call = await client.dial(further=1, sip_auth_password="s")  # noqa: S106 -- not one
        await client.act(call, "leave_queue")
        _, answer = await client.ask("GET", "/simulator/commands")
        return call, answer["commands"]

    call, (dialled, refused) = talk(conversation)
    assert (dialled["command"], dialled["call_control_id"], dialled["status"]) == (
        "dial", None, 200,
    )  # fmt: skip
    assert dialled["body"] == {**DIAL, "sip_auth_password": "***", "further": 1}
    assert dialled["answer"]["data"]["call_control_id"] == call
    assert (refused["command"], refused["call_control_id"], refused["status"]) == (
        "leave_queue", call, 422,
    )  # fmt: skip


def test_log_of_a_track_comes_over_http_whole():
    async def conversation(client):
        call = await client.dial()
        await answered(client, call)
        await client.act(call, "fork_start", rx="udp:127.0.0.1:9", tx="udp:127.0.0.1:9")
        await asyncio.wait_for(packets(client.simulator.media, 10), 5)
        await client.act(call, "hangup")
        await client.simulator.media.drain()
        _, summary = await client.ask("GET", "/simulator/sent")
        _, document = await client.ask("GET", "/simulator/sent/1")
        assert error_of(await client.ask("GET", "/simulator/sent/3"))[:2] == (404, "10005")
        assert error_of(await client.ask("GET", "/simulator/sent/x"))[:2] == (404, "10005")
        return summary["tracks"], document, client.simulator.media.log(1)

    tracks, document, log = talk(conversation, {"speed": 20})
    assert [(t["leg"], t["direction"], t["wrapping"]) for t in tracks] == [
        ("A", "inbound", "rtp"), ("A", "outbound", "rtp"),
    ]  # fmt: skip
    assert tracks[0]["counts"] == document["counts"]
    read = TrackLog.from_json(document)
    assert expected_audio(read).pcm.tolist() == expected_audio(log).pcm.tolist()
    assert len(expected_audio(read).pcm) >= 160


async def packets(media, count):
    while media.datagrams < count:  # noqa: ASYNC110 -- packets leave in their own time
        await asyncio.sleep(0.005)


def test_faults_are_added_and_cleared_over_http():
    async def conversation(client):
        for path, fault in (("faults", {"command": "dial", "times": 0}),
                            ("webhook_faults", {"kind": "lost", "times": 0})):  # fmt: skip
            assert (await client.ask("POST", f"/simulator/{path}", fault))[0] == 200
        assert (await client.ask("POST", "/v2/calls", DIAL))[0] == 500
        assert client.simulator.webhook_faults.pick("call.answered").kind == "lost"
        assert (await client.ask("DELETE", "/simulator/faults"))[0] == 200
        await client.dial()
        assert client.simulator.webhook_faults.pick("call.answered") is None

    talk(conversation)


def test_webhook_url_can_be_changed():
    async def conversation(client):
        url = "http://127.0.0.1:1/hooks"
        path = "/simulator/webhook_url"
        assert (await client.ask("PUT", path, {"webhook_url": url}))[0] == 200
        assert client.simulator.carrier.webhook_url == url
        assert (await client.ask("PUT", path, {"webhook_url": None}))[0] == 200
        assert client.simulator.carrier.webhook_url is None

    talk(conversation)


def test_status_tells_addresses_and_figures():
    async def conversation(client):
        await client.dial()
        return client.simulator, (await client.ask("GET", "/simulator"))[1]

    simulator, status = talk(conversation)
    assert status["base_url"] == simulator.base_url
    assert status["public_key"] == simulator.public_key
    assert (status["calls"], status["seed"], status["speed"]) == (1, 1, 1.0)
    assert KEY not in json.dumps(status)


@pytest.mark.parametrize(
    ("path", "body", "detail"),
    [
        ("calls", {"from": "+1"}, "to is missing"),
        ("calls", {"from": "+1", "to": "+2", "scenario": "x"},
         "unknown scenario 'x'; there are none with names"),
        ("calls", {"from": "+1", "to": "+2", "scenario": {"network": {"loss": 9}}},
         "network.loss: 9 is not a number from 0 to 0.99"),
        ("calls", [], "a table is expected"),
        ("faults", {"comand": "x"}, "unknown key 'comand'; did you mean command?"),
        ("webhook_faults", {"kind": "x"},
         "kind: 'x' is not late, twice, swapped, bad_signature, stale or lost"),
    ],
)  # fmt: skip
def test_wrong_wish_is_a_clear_problem(path, body, detail):
    async def conversation(client):
        return await client.ask("POST", f"/simulator/{path}", body)

    status, answer = talk(conversation)
    assert (status, answer["errors"][0]["detail"]) == (422, detail)


def test_own_interface_wants_the_key_where_others_can_reach_it():
    async def conversation(client):
        assert error_of(await client.ask("GET", "/simulator", key=None))[:2] == (401, "10009")
        assert (await client.ask("GET", "/simulator"))[0] == 200

    talk(conversation, http=Address("0.0.0.0", 0))  # noqa: S104 -- what this test is about
