"""A real daemon's answers against the description, which its own parts do not read."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
from contextlib import closing
from uuid import UUID

import pytest
from loopback import Serve

from strep.api import documents
from strep.media import packetize
from strep.voices import load_voice
from strep.wire import Direction, StrepHeader

LEG = "428c31b6-7af4-4bcb-b7f5-5013ef9657c1"
CALL = "v3:call-1"
TOKEN = "s3cret-token"  # noqa: S105 -- the test's own


def ask(serve, path, document=None, token=TOKEN):
    """Return status and body; a document is posted."""
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    with closing(http.client.HTTPConnection(serve.http, timeout=5)) as connection:
        if document is None:
            connection.request("GET", path, headers=headers)
        else:
            connection.request("POST", path, json.dumps(document), headers)
        answer = connection.getresponse()
        return answer.status, answer.read()


def as_described(model, content):
    """Return a document whose every member is one that the model names."""
    given = json.loads(content)
    read = model.model_validate_json(content)
    assert unnamed(read) == set()
    return given


def unnamed(read):
    """Return the members, at any depth, that are not described."""
    if isinstance(read, list):
        return set().union(*map(unnamed, read))
    if not isinstance(read, documents._Answer):
        return set()
    inside = [unnamed(getattr(read, name)) for name in type(read).model_fields]
    return set(read.model_extra).union(*inside)


@pytest.fixture(scope="module")
def serve(tmp_path_factory):
    """A daemon that has received a second of both sides of a call, which is open."""
    folder = tmp_path_factory.mktemp("daemon")
    control = {
        "STREP_HTTP_TOKEN": TOKEN,
        "STREP_API_KEY": "KEY",
        "STREP_CONTROL_BASE_URL": "http://127.0.0.1:1/v2",
        "STREP_CONTROL_MEDIA_TARGET": "udp:192.0.2.1:9000",
        "STREP_CONTROL_ALLOW_UNSIGNED_WEBHOOKS": "true",
        "STREP_CONTROL_COMMAND_TIMEOUT_S": "0.2",
    }
    with Serve(folder, env=control) as daemon, socket.socket(type=socket.SOCK_DGRAM) as sender:
        event = {
            "event_type": "call.answered",
            "id": "0ccc7b54-4df3-4bca-a65a-3da1ecc777f0",
            "occurred_at": "2026-01-31T12:00:00Z",
            "payload": {"call_control_id": CALL, "call_leg_id": LEG, "from": "+35319605860"},
        }
        assert ask(daemon, "/webhooks", {"data": event})[0] == 200
        for direction in (Direction.INBOUND, Direction.OUTBOUND):
            for datagram in packetize(
                load_voice("caller")[:8000],
                payload_type=0,
                ssrc=1,
                first_sequence=1,
                first_timestamp=0,
                strep=StrepHeader(UUID(LEG), direction=direction),
            ):
                sender.sendto(bytes(datagram), daemon.to)
        daemon.wait_until(
            lambda: ask(daemon, "/v1/calls")[1].count(b'"packets": 50') == 2,
            "all packets of both tracks are counted",
        )
        yield daemon


def test_health_and_readiness(serve):
    for path, model in (("/healthz", documents.Health), ("/readyz", documents.Readiness)):
        status, content = ask(serve, path, token="")
        assert status == 200
        as_described(model, content)


def test_open_calls(serve):
    status, content = ask(serve, "/v1/calls")
    assert status == 200
    (call,) = as_described(documents.OpenCalls, content)["calls"]
    assert (call["call_leg_id"], call["from"]) == (LEG, "+35319605860")
    assert {track["direction"]: track["packets"] for track in call["tracks"]} == {
        "inbound": 50,
        "outbound": 50,
    }


def test_calls_of_the_database(serve):
    status, content = ask(serve, "/v1/calls?open=true&number=1960")
    assert status == 200
    page = as_described(documents.CallPage, content)
    assert [call["call_leg_id"] for call in page["calls"]] == [LEG]
    assert page["calls"][0]["from"] == "+35319605860"


def test_a_call_in_full(serve):
    status, content = ask(serve, f"/v1/calls/{CALL}")
    assert status == 200
    documents.CallDetails.model_validate_json(content)
    document = json.loads(content)
    assert document["is_open"] is True
    assert {track["direction"] for track in document["tracks"]} == {"inbound", "outbound"}


def test_a_fork_in_doubt_while_the_carrier_is_down(serve):
    status, content = ask(serve, "/v1/forks", {"call_control_id": "v3:other"})
    assert status == 202
    fork = as_described(documents.Fork, content)
    assert fork["in_doubt"] is True
    status, content = ask(serve, "/v1/forks")
    assert status == 200
    assert as_described(documents.ForkList, content) == {"forks": [fork]}


def test_without_the_token_nothing_is_told(serve):
    assert ask(serve, "/v1/calls", token="")[0] == 401
    assert ask(serve, "/metrics", token="wrong")[0] == 401  # noqa: S106 -- a wrong one
    assert b"strep_tracks_open 2.0" in ask(serve, "/metrics")[1]


def test_without_a_token_a_daemon_is_not_served_to_other_hosts(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "strep", "serve", "--http", "0.0.0.0:0", "--media", "127.0.0.1:0"],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("strep: http: 0.0.0.0:0 can be reached from other hosts")
    assert done.stderr.count("\n") == 1
