"""Wrong requests, over HTTP and on the command line: said clearly, and nothing is changed.

The carrier and the daemon are processes of their own.
"""

from __future__ import annotations

import http.client
import json
import time
from contextlib import closing

import pytest
from carrierprocess import CarrierProcess
from controlled import answer, controlled, get
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from loopback import DEADLINE_S

from strep import cli
from strep.control.webhooks import sign

UNKNOWN_ID = "5f7d7b0e-8a57-4bd0-b8a3-7d3a0c7a4a01"
NOT_FOUND = (
    "the carrier answered 404, code 10005: Resource not found: "
    "There is no call with this call_control_id."
)
WRONG_KEY = (
    "fork_start: the carrier answered 401, code 10009: Authentication failed: "
    "The required authentication headers were either invalid or not included."
)
NO_TARGET = (
    "fork_start: target: 'nowhere' is not udp:IP:PORT "
    "(such as udp:192.0.2.1:9000, ports 1 to 65535)"
)
REFUSED = "asks for another token: set STREP_HTTP_TOKEN to it, or give --token-file"


def asked(serve, method, path, body=None, **headers):
    """Ask the daemon; return (status, name of the problem's type, its detail)."""
    content = json.dumps(body).encode() if isinstance(body, dict) else body
    with closing(http.client.HTTPConnection(serve.http, timeout=DEADLINE_S)) as connection:
        given = {"Content-Type": "application/json"} | headers
        connection.request(method, path, content, given)
        response = connection.getresponse()
        assert response.headers.get_content_type() == "application/problem+json"
        problem = json.load(response)
        assert problem["status"] == response.status
        return response.status, problem["type"].rpartition("/")[2], problem["detail"]


@pytest.fixture
def command(monkeypatch, capsys):
    """Run `strep` as its process would; return (exit code, stdout, stderr)."""

    def run(serve, carrier, *arguments):
        monkeypatch.setenv("STREP_DAEMON", f"http://{serve.http}")
        monkeypatch.setenv("STREP_API_KEY", carrier.api_key)
        monkeypatch.setenv("STREP_CONTROL_BASE_URL", carrier.base_url)
        with pytest.raises(SystemExit) as ended:
            cli.main(list(arguments))
        return ended.value.code, *capsys.readouterr()

    return run


def state(serve, carrier):
    """Return all that a wrong request must leave as it is."""
    metrics = serve.metrics()
    return (
        [fork for fork in get(serve, "/v1/forks")["forks"] if fork["state"] != "failed"],
        [call["call_control_id"] for call in get(serve, "/v1/calls?open=true")["calls"]],
        {key: metrics[key] for key in metrics if key.startswith(("strep_forks{", "strep_port_"))},
        [(call["call_control_id"], call["state"], call["forks"]) for call in carrier.calls()],
    )


def hangup_by_somebody_else(call):
    """Return the body and headers of a webhook that is signed, but not by the carrier."""
    payload = {"call_control_id": call, "call_leg_id": UNKNOWN_ID, "call_session_id": UNKNOWN_ID}
    event = {"record_type": "event", "event_type": "call.hangup", "id": UNKNOWN_ID}
    event |= {"occurred_at": "2026-01-31T12:00:00.000000Z", "payload": payload}
    body = json.dumps({"data": event}).encode()
    return body, sign(body, Ed25519PrivateKey.generate(), time.time())


def test_wrong_requests_are_told_and_change_nothing(tmp_path, command):
    with (
        CarrierProcess(tmp_path) as carrier,
        controlled(tmp_path, carrier, pairs=1) as serve,
        serve,
    ):
        forked, other, over = (answer(carrier, number) for number in range(3))
        carrier.hang_up(over)
        serve.wait_for("strep_events_total{call.answered}", 3)
        serve.wait_until(
            lambda: serve.metrics().get("strep_events_total{call.hangup}"), "the hangup is told"
        )
        code, out, _ = command(serve, carrier, "fork", "start", forked, "--way", "ports", "--json")
        assert code == 0
        fork_id = json.loads(out)["id"]
        serve.wait_for("strep_forks{flowing}", 1)
        before = state(serve, carrier)

        has_one = f"the call has a fork already, {fork_id}, which is flowing"
        no_ports = "no port pair of 1 is free: 1 held by forks, 0 resting after one"
        no_fork = f"there is no fork {UNKNOWN_ID}, or it was closed long ago"
        for method, path, body, expected in (
            ("POST", "/v1/forks", {"call_control_id": forked}, (409, "call-has-fork", has_one)),
            ("POST", "/v1/forks", {"call_control_id": other, "way": "ports"},
             (503, "no-ports", no_ports)),
            ("POST", "/v1/forks", {"call_control_id": over},
             (409, "call-over", "the call is over")),
            ("POST", "/v1/forks", {"call_control_id": "v3:nobody"},
             (404, "unknown-call", f"fork_start: {NOT_FOUND}")),
            ("POST", "/v1/forks", {"call_control_id": other, "way": "both"},
             (422, "invalid-request", "Input should be 'target' or 'ports'")),
            ("POST", "/v1/forks", b"[]", (422, "invalid-request", "Input should be an object")),
            ("POST", "/v1/forks", b'{"call',
             (400, "blank", "the body is not JSON: EOF while parsing a string at line 1 column 6")),
            ("POST", "/v1/forks", {"call_control_id": "v3:" + 70_000 * "a"},
             (413, "blank", "the body has more than 65536 bytes")),
            ("POST", "/webhooks", 300_000 * b" ",
             (413, "blank", "the body has more than 262144 bytes")),
            ("POST", "/webhooks", b"{}",
             (401, "blank", "there is no header telnyx-signature-ed25519")),
            ("DELETE", f"/v1/forks/{UNKNOWN_ID}", None, (404, "unknown-fork", no_fork)),
            ("GET", "/v1/calls/nobody", None, (404, "unknown-call", "there is no call nobody")),
            ("GET", "/v1/calls?limit=0", None,
             (422, "invalid-request", "'0' is not a whole number from 1 to 1000")),
        ):  # fmt: skip
            problem = asked(serve, method, path, body)
            problem = (problem[0], problem[1].removeprefix("about:"), problem[2])
            assert problem == expected
        forged, headers = hangup_by_somebody_else(forked)
        assert asked(serve, "POST", "/webhooks", forged, **headers)[0] == 401
        assert state(serve, carrier) == before

        commands = {
            ("fork", "start", forked): (2, has_one),
            ("fork", "start", other, "--way", "ports"): (1, no_ports),
            ("fork", "start", "v3:nobody"): (2, f"fork_start: {NOT_FOUND}"),
            ("fork", "stop", UNKNOWN_ID): (2, no_fork),
            ("call", "hangup", "v3:nobody"): (2, f"hangup: {NOT_FOUND}"),
            ("call", "fork_start", other, "--target", "nowhere"): (
                2,
                NO_TARGET,
            ),
            ("calls", "show", "nobody", "--database", str(tmp_path / "strep.db")): (
                2,
                "there is no call nobody",
            ),
        }
        for words, (code, sentence) in commands.items():
            assert command(serve, carrier, *words) == (code, "", f"strep: {sentence}\n")
        assert state(serve, carrier) == before
        metrics = serve.metrics()
        assert serve.stop() == 0
    assert metrics["strep_webhooks_total{too_large}"] == 1
    assert metrics["strep_webhooks_total{missing_header}"] == 1
    assert metrics["strep_webhooks_total{bad_signature}"] == 1
    assert metrics["strep_forks_refused_total{call_has_fork}"] == 2
    assert metrics["strep_forks_refused_total{no_ports}"] == 2
    assert metrics["strep_forks_refused_total{call_over}"] == 1


def test_wrong_keys_are_told_and_start_nothing(tmp_path, command):
    with CarrierProcess(tmp_path) as carrier, controlled(tmp_path, carrier) as serve:
        serve._env |= {"STREP_API_KEY": "wrong", "STREP_HTTP_TOKEN": "the-token"}
        with serve:
            wanted = {"call_control_id": answer(carrier)}
            assert asked(serve, "POST", "/v1/forks", wanted) == (
                401, "about:blank", "the token is missing: give it as Authorization: Bearer",
            )  # fmt: skip
            assert asked(serve, "POST", "/v1/forks", wanted, Authorization="Bearer other") == (
                401, "about:blank", "the token is wrong",
            )  # fmt: skip
            assert asked(serve, "POST", "/v1/forks", wanted, Authorization="Bearer the-token") == (
                502, "carrier-refused-key", WRONG_KEY,
            )  # fmt: skip
            assert command(serve, carrier, "fork", "list") == (
                2, "", f"strep: http://{serve.http} {REFUSED}\n",
            )  # fmt: skip
            assert [call["forks"] for call in carrier.calls()] == [[]]
            assert serve.stop() == 0
        assert "the-token" not in serve.log.read_text()
