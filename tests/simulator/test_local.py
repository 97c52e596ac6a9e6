from __future__ import annotations

import asyncio
import http.server
import threading

import pytest

from strep.control import CallControl
from strep.simulator import LocalCarrier, RefusedError, difference, expected_audio
from strep.specs import ConfigError

DIAL = {"connection_id": "c", "from": "+18005550101", "to": "+18005550100"}


@pytest.fixture
def carrier():
    with LocalCarrier(speed=20, call={"ring_s": 0}) as carrier:
        yield carrier


@pytest.fixture
def hooks():
    """A web server that takes webhooks, for applications that know no asyncio."""
    came = []

    class Hook(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            came.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Hook) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        came_url = f"http://127.0.0.1:{server.server_port}/", came
        yield came_url
        server.shutdown()
        thread.join()


def answered(carrier):
    return [call for call in carrier.calls() if call["state"] == "answered"]


def test_call_is_dialled_answered_and_hung_up(carrier):
    dialled = carrier.command("dial", **DIAL)
    (call,) = carrier.wait_for(lambda: answered(carrier))
    assert call["call_control_id"] == dialled["call_control_id"]
    carrier.type_digits(call["call_control_id"], "7")
    carrier.hang_up(call["call_control_id"])
    assert carrier.calls()[0]["hangup_cause"] == "normal_clearing"
    assert [webhook["event"]["event_type"] for webhook in carrier.webhooks()] == [
        "call.initiated", "call.answered", "call.dtmf.received", "call.hangup",
    ]  # fmt: skip


def test_commands_of_a_client_are_recorded(carrier):
    async def dial():
        async with CallControl(key=carrier.api_key, base_url=carrier.base_url) as control:
            return await control.dial(connection_id="c", from_="+18005550101", to="+18005550100")

    call = asyncio.run(dial())
    (command,) = carrier.commands()
    assert command["answer"]["data"]["call_leg_id"] == call.call_leg_id


def test_client_gets_over_what_it_was_told_to_try_again(carrier):
    carrier.fail(command="dial", status=503, executed=True)
    carrier.fail(command="dial", status=429, retry_after_s=0)

    async def dial():
        async with CallControl(key=carrier.api_key, base_url=carrier.base_url) as control:
            await control.dial(connection_id="c", from_="+18005550101", to="+18005550100")

    asyncio.run(dial())
    assert [command["status"] for command in carrier.commands()] == [503, 429, 200]
    assert len(carrier.calls()) == 1


def test_webhooks_go_to_the_application_and_wrong_where_asked(carrier, hooks):
    carrier.webhook_url, came = hooks
    assert carrier.webhook_url.startswith("http://127.0.0.1:")
    carrier.spoil(event="call.initiated", kind="twice")
    carrier.place_call("+1", "+2", {"call": {"patience_s": 0.1}})
    delivered = carrier.wait_for(
        lambda: [w for w in carrier.webhooks() if w["fate"] == "delivered"][1:]
    )
    assert delivered[0]["event"]["payload"]["hangup_cause"] == "originator_cancel"
    assert len(came) == 3


def test_logs_tell_what_was_sent(carrier):
    carrier.command("dial", **DIAL)
    (call,) = carrier.wait_for(lambda: answered(carrier))
    carrier.command("fork_start", call["call_control_id"], target="udp:127.0.0.1:9")
    carrier.wait_for(lambda: carrier.logs()[0].counts()["sent"] > 20)
    carrier.hang_up(call["call_control_id"])
    carrier.drain()
    log = carrier.logs()[0]
    assert not log.running
    expected = expected_audio(log)
    assert difference(expected, expected.pcm) is None


def test_what_is_refused_is_raised_where_it_was_asked(carrier):
    with pytest.raises(RefusedError, match="There is no call with this call_control_id"):
        carrier.hang_up("v3:none")
    with pytest.raises(ConfigError, match="unknown scenario 'x'"):
        carrier.place_call("+1", "+2", "x")
    with pytest.raises(ConfigError, match="status: 200 is not a whole number"):
        carrier.fail(status=200)
    with pytest.raises(TimeoutError, match=r"the condition was not true within 0\.05 s"):
        carrier.wait_for(lambda: False, 0.05)


def test_wrong_settings_are_known_before_it_starts(tmp_path):
    with pytest.raises(ConfigError, match=r"network\.loss: 2 is not a number from 0 to 0\.99"):
        LocalCarrier(network={"loss": 2})
    wrong_later = LocalCarrier(audio={"inbound": "x.wav"}, folder=tmp_path)
    with pytest.raises(ConfigError, match=r"cannot read audio from .*x\.wav: no such file"):
        wrong_later.start()
    wrong_later.stop()


def test_carriers_are_told_apart(carrier):
    with LocalCarrier() as other:
        assert other.base_url != carrier.base_url
        assert other.control_url != carrier.control_url
        assert other.api_key != carrier.api_key
        assert other.public_key != carrier.public_key


def test_keys_can_be_chosen():
    with LocalCarrier(api_key="k", signing_key=bytes(32)) as carrier:
        assert carrier.api_key == "k"
        assert carrier.public_key == "O2onvM62pC1io6jQKm8Nc2UyFXcd4kOmOsBIoYtZ2ik="
