"""What is answered when something is wrong: always a problem document, to the letter."""

from __future__ import annotations

import gzip
import json
import re
import socket
from pathlib import Path
from unittest.mock import ANY

import pytest
import structlog
from apibench import DEADLINE_S, ApiBench
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from planebench import ENDED, OK, refusal

from strep.api.problems import PROBLEMS, problem_of
from strep.control import errors, forks
from strep.store import AmbiguousCallError, Store, StoredCall, StoreError, UnknownCallError

LEG = "428c31b6-7af4-4bcb-b7f5-5013ef9657c1"
OTHER_LEG = "428c31b6-f9e0-11ea-b68e-02420a0f7768"
UNKNOWN_ID = "5f7d7b0e-8a57-4bd0-b8a3-7d3a0c7a4a01"
CALL = "v3:call-1"
FORK = {"call_control_id": CALL}
AN_ID = "a call_control_id, 1 to 512 characters of ASCII without blanks"
A_MOMENT = "a date or time from 1678 to 2262, such as 2026-01-31 or 2026-01-31T12:00:00Z"
MEMBERS = "call_control_id, call_leg_id, client_state, codecs, stream_type, way"
PORTS = {"port_range": "20000-20001", "advertised_host": "192.0.2.1"}


@pytest.fixture(autouse=True)
def log():
    with structlog.testing.capture_logs() as lines:
        yield lines


@pytest.fixture
def api(tmp_path):
    with ApiBench(tmp_path, plane=PORTS) as bench:
        yield bench


def plain(status, title, detail):
    return {"type": "about:blank", "title": title, "status": status, "detail": detail}


def typed(name, detail, **further):
    kind = PROBLEMS[name]
    return {
        "type": f"/problems/{name}",
        "title": kind.title,
        "status": kind.status,
        "detail": detail,
    } | further


def assert_problem(answer, expected):
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.document == expected
    assert answer.status == expected["status"]


# -- what HTTP itself finds wrong


def test_unknown_route(api):
    assert_problem(
        api.get("/v1/nothing"), plain(404, "Not Found", "there is nothing at /v1/nothing")
    )


def test_method_that_a_route_does_not_take(api):
    answer = api.ask("PUT", "/v1/forks")
    detail = "/v1/forks takes GET,HEAD,POST, not PUT"
    assert_problem(answer, plain(405, "Method Not Allowed", detail))
    assert answer.headers["Allow"] == "GET,HEAD,POST"


@pytest.mark.parametrize("body", [b"", b'{"call_control_id": ', b"\xff", b"[" * 5000, b"{} {}"])
def test_body_that_is_not_json(api, body):
    answer = api.post("/v1/forks", body)
    detail = answer.document["detail"]
    assert detail.startswith("the body is not JSON: ")  # the rest are the parser's words
    assert_problem(answer, plain(400, "Bad Request", detail))
    assert api.get("/v1/forks").document == {"forks": []}


def test_body_that_is_too_large(api):
    answer = api.post("/v1/forks", b" " * 65_537)
    detail = "the body has more than 65536 bytes"
    assert_problem(answer, plain(413, "Request Entity Too Large", detail))


def test_body_that_is_too_large_when_it_is_unpacked(api):
    body = gzip.compress(b" " * 10_000_000)
    assert len(body) < 20_000
    answer = api.post("/v1/forks", body, Content_Encoding="gzip")
    detail = "the body has more than 65536 bytes"
    assert_problem(answer, plain(413, "Request Entity Too Large", detail))


def test_body_whose_encoding_is_broken(api):
    answer = api.post("/v1/forks", b"no gzip", Content_Encoding="gzip")
    assert_problem(answer, plain(400, "Bad Request", "the body's encoding is broken"))


@pytest.mark.parametrize(
    "sent",
    [
        b"hello\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",  # as TLS begins
        b"GET / HTTP/1.1\r\nHost x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 9000 + b"\r\n\r\n",
    ],
)
def test_what_is_no_http(api, sent):
    with socket.create_connection(("127.0.0.1", api.port), timeout=DEADLINE_S) as connection:
        connection.sendall(sent)
        head, _, body = connection.makefile("rb").read().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.0 400 Bad Request\r\n")
    assert b"\r\nContent-Type: application/problem+json\r\n" in head
    document = json.loads(body)
    assert re.fullmatch(r".{8,200}", document["detail"])  # the parser's words, on one line
    assert document == plain(400, "Bad Request", document["detail"])


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_body_of_another_type(api, content_type):
    answer = api.post("/v1/forks", FORK, Content_Type=content_type)
    detail = "the body is to be application/json"
    assert_problem(answer, plain(415, "Unsupported Media Type", detail))
    assert answer.headers["Accept"] == "application/json"
    assert api.get("/v1/forks").document == {"forks": []}


def test_body_that_does_not_come_in_time(tmp_path):
    with (
        ApiBench(tmp_path, plane={}, body_timeout_s=0.05) as api,
        socket.create_connection(("127.0.0.1", api.port), DEADLINE_S) as sock,
    ):
        sock.sendall(
            b"POST /v1/forks HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Connection: close\r\nContent-Length: 30\r\n\r\n{"
        )
        answer = sock.recv(65_536)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    detail = "the body did not come whole within 0.05 s"
    assert json.loads(body) == plain(408, "Request Timeout", detail)


# -- requests that are not valid


@pytest.mark.parametrize(
    ("document", "faults"),
    [
        ([], [("#", "Input should be an object")]),
        ({}, [("#/call_control_id", "call_control_id is missing")]),
        (
            {"call_control_id": "v3 call"},
            [
                (
                    "#/call_control_id",
                    f"'v3 call' is not {AN_ID}",
                )
            ],
        ),
        (
            {"call_control_id": 7, "call_leg_id": "x", "way": "udp", "client_state": "?"},
            [
                (
                    "#/call_control_id",
                    f"7 is not {AN_ID}",
                ),
                ("#/call_leg_id", f"'x' is not a UUID, such as {LEG}"),
                ("#/way", "Input should be 'target' or 'ports'"),
                ("#/client_state", "'?' is not Base64"),
            ],
        ),
        (
            FORK | {"stream_typ": "raw"},
            [("#/stream_typ", "unknown member 'stream_typ'; did you mean stream_type?")],
        ),
        (
            FORK | {"~a/b c": 1},
            [
                (
                    "#/~0a~1b%20c",
                    f"unknown member '~a/b c'; known are {MEMBERS}",
                )
            ],
        ),
    ],
)
def test_each_fault_of_a_body_is_told_with_its_place(api, document, faults):
    told = [{"pointer": pointer, "detail": detail} for pointer, detail in faults]
    expected = typed("invalid-request", faults[0][1], errors=told)
    assert_problem(api.post("/v1/forks", document), expected)
    assert api.get("/v1/forks").document == {"forks": []}


def test_of_very_many_faults_ten_are_told(api):
    answer = api.post("/v1/forks", {f"m{number}": 0 for number in range(5000)})
    assert answer.status == 422
    assert len(answer.document["errors"]) == 10


@pytest.mark.parametrize(
    ("query", "faults"),
    [
        ("limit=0", [("limit", "'0' is not a whole number from 1 to 1000")]),
        ("limit=1001", [("limit", "'1001' is not a whole number from 1 to 1000")]),
        ("limit=1&limit=2", [("limit", "limit is given twice")]),
        ("open=yes", [("open", "'yes' is not true or false")]),
        ("number=", [("number", "'' is not a text of 1 to 256 characters")]),
        ("leg=xyz", [("leg", "'xyz' is not a call_leg_id, or the beginning of one")]),
        ("opne=true", [("opne", "unknown parameter 'opne'; did you mean open?")]),
        (
            "since=now&until=2300-01-01",
            [
                (
                    "since",
                    f"'now' is not {A_MOMENT}",
                ),
                (
                    "until",
                    f"'2300-01-01' is not {A_MOMENT}",
                ),
            ],
        ),
        ("cursor=x", [("cursor", "no page was followed by x")]),
    ],
)
def test_each_fault_of_a_query_is_told_with_its_parameter(api, query, faults):
    told = [{"parameter": parameter, "detail": detail} for parameter, detail in faults]
    expected = typed("invalid-request", faults[0][1], errors=told)
    assert_problem(api.get(f"/v1/calls?{query}"), expected)


# -- calls


def test_unknown_call(api):
    expected = typed("unknown-call", f"there is no call {UNKNOWN_ID}")
    assert_problem(api.get(f"/v1/calls/{UNKNOWN_ID}"), expected)


def test_several_calls_that_begin_so(api):
    with Store(api.one.path) as store:
        for number, leg in enumerate((LEG, OTHER_LEG)):
            store.put_call(StoredCall(call_leg_id=leg, started_ns=number))
    expected = typed("ambiguous-call", f"several calls begin with 428c31b6: {OTHER_LEG}, {LEG}")
    assert_problem(api.get("/v1/calls/428c31b6"), expected)


def test_search_without_a_database(tmp_path):
    with ApiBench(tmp_path, database=False) as api:
        expected = typed("no-database", "the daemon keeps no database to search")
        assert_problem(api.get("/v1/calls?limit=1"), expected)


@pytest.mark.parametrize("path", ["/v1/calls?limit=1", f"/v1/calls/{LEG}"])
def test_database_that_cannot_be_read(api, path):
    api.source.error = StoreError("/srv/strep.db: the disk is full")
    expected = typed("database-failed", "/srv/strep.db: the disk is full")
    assert_problem(api.get(path), expected)


# -- forks


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize(
    ("fork_id", "detail"),
    [
        (UNKNOWN_ID, f"there is no fork {UNKNOWN_ID}, or it was closed long ago"),
        ("5f7d", "there is no fork 5f7d: the id of one is a UUID"),
    ],
)
def test_unknown_fork(api, method, fork_id, detail):
    answer = api.ask(method, f"/v1/forks/{fork_id}")
    assert_problem(answer, typed("unknown-fork", detail))
    assert api.one.carrier.commands == []


def test_second_fork_of_a_call(api):
    first = api.post("/v1/forks", FORK).document
    answer = api.post("/v1/forks", FORK)
    detail = f"the call has a fork already, {first['id']}, which is requested"
    assert_problem(answer, typed("call-has-fork", detail))
    assert api.get("/v1/forks").document == {"forks": [first]}
    assert len(api.one.carrier.commands) == 1


def test_fork_of_a_call_that_is_over(api):
    api.do(lambda: api.one.tell("call.hangup", call=CALL))
    assert_problem(api.post("/v1/forks", FORK), typed("call-over", "the call is over"))
    assert api.one.carrier.commands == []


def test_fork_by_ports_of_a_call_whose_leg_is_not_known(api):
    answer = api.post("/v1/forks", FORK | {"way": "ports"})
    detail = (
        "the call's call_leg_id is not known, and packets on ports of their own do not tell it:"
        " give it, or wait for the call's first webhook"
    )
    assert_problem(answer, typed("unknown-leg", detail))


def test_fork_that_contradicts_itself(api):
    answer = api.post("/v1/forks", FORK | {"way": "target", "stream_type": "decrypted"})
    detail = "decrypted media comes by ports alone, not by target"
    assert_problem(answer, typed("impossible-fork", detail))


def test_fork_where_all_ports_are_used(api):
    wanted = {"way": "ports", "call_leg_id": LEG}
    assert api.post("/v1/forks", FORK | wanted).status == 201
    other = {"way": "ports", "call_leg_id": OTHER_LEG, "call_control_id": "v3:call-2"}
    detail = "no port pair of 1 is free: 1 held by forks, 0 resting after one"
    assert_problem(api.post("/v1/forks", other), typed("no-ports", detail))
    assert len(api.get("/v1/forks").document["forks"]) == 1


def test_fork_beyond_the_most_that_there_may_be(tmp_path):
    with ApiBench(tmp_path, plane={"max_forks": 1}) as api:
        assert api.post("/v1/forks", FORK).status == 201
        answer = api.post("/v1/forks", {"call_control_id": "v3:call-2"})
    detail = "there are 1 forks already, the most allowed"
    assert_problem(answer, typed("too-many-forks", detail))


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (
            refusal(401, "10009", "Authentication failed"),
            typed(
                "carrier-refused-key",
                "fork_start: the carrier answered 401, code 10009: Authentication failed",
                carrier={
                    "status": 401,
                    "errors": [{"code": "10009", "title": "Authentication failed", "detail": None}],
                },
            ),
        ),
        (
            refusal(404, "10005", "Resource not found"),
            typed(
                "unknown-call",
                "fork_start: the carrier answered 404, code 10005: Resource not found",
                carrier={
                    "status": 404,
                    "errors": [{"code": "10005", "title": "Resource not found", "detail": None}],
                },
            ),
        ),
        (
            ENDED,
            typed(
                "call-over",
                "fork_start: the carrier answered 422, code 90018: Call has already ended",
                carrier={
                    "status": 422,
                    "errors": [
                        {"code": "90018", "title": "Call has already ended", "detail": None}
                    ],
                },
            ),
        ),
        (
            (
                422,
                {
                    "errors": [
                        {
                            "code": "10015",
                            "title": "Bad Request",
                            "detail": "The call is not active yet.",
                            "meta": {"url": "https://example.org/10015"},
                        }
                    ]
                },
            ),
            typed(
                "carrier-refused",
                "fork_start: the carrier answered 422, code 10015: Bad Request: The call is not"
                " active yet.",
                carrier={
                    "status": 422,
                    "errors": [
                        {
                            "code": "10015",
                            "title": "Bad Request",
                            "detail": "The call is not active yet.",
                            "meta": {"url": "https://example.org/10015"},
                        }
                    ],
                },
            ),
        ),
    ],
)
def test_fork_that_the_carrier_refuses(api, reply, expected):
    api.one.carrier.replies.append(reply)
    assert_problem(api.post("/v1/forks", FORK), expected)
    (fork,) = api.get("/v1/forks").document["forks"]
    assert (fork["state"], fork["is_stopping"], fork["in_doubt"]) == ("failed", False, False)


def test_stop_whose_key_the_carrier_refuses(api):
    api.one.carrier.replies += [OK, refusal(401, "10009", "Authentication failed")]
    path = api.post("/v1/forks", FORK).headers["Location"]
    answer = api.delete(path)
    expected = typed(
        "carrier-refused-key",
        "fork_stop: the carrier answered 401, code 10009: Authentication failed",
        carrier=ANY,
    )
    assert_problem(answer, expected)
    assert api.get(path).document["state"] == "requested"


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_forks_without_a_control_plane(tmp_path, method):
    with ApiBench(tmp_path) as api:
        answer = api.ask(method, "/v1/forks", b"no matter what")
    detail = "the daemon's settings have no section [control]"
    assert_problem(answer, typed("no-control-plane", detail))


# -- webhooks


def test_webhook_of_somebody_else_changes_nothing(api):
    answer = api.tell({"data": {}}, key=Ed25519PrivateKey.generate())
    expected = plain(
        401, "Unauthorized", "the signature is not the carrier's for this timestamp and body"
    )
    assert_problem(answer, expected | {"reason": "bad_signature"})


def test_webhook_that_is_too_large(api):
    answer = api.ask("POST", "/webhooks", b" " * 300_000)
    expected = plain(413, "Request Entity Too Large", "the body has more than 262144 bytes")
    assert_problem(answer, expected | {"reason": "too_large"})


def test_webhooks_without_a_control_plane(tmp_path):
    with ApiBench(tmp_path) as api:
        answer = api.post("/webhooks", {"data": {}})
    assert_problem(answer, plain(404, "Not Found", "there is nothing at /webhooks"))


# -- the rest


def test_unknown_type_of_problem(api):
    expected = plain(404, "Not Found", "there is no type of problem trouble")
    assert_problem(api.get("/problems/trouble"), expected)


@pytest.mark.parametrize("error", [RuntimeError("the secret of line 17"), ConnectionError("x")])
def test_what_nobody_expected_is_logged_once_and_not_told(api, log, error):
    api.source.error = error
    expected = plain(
        500, "Internal Server Error", "something unexpected happened, which the log tells"
    )
    assert_problem(api.get("/healthz"), expected)
    (line,) = [line for line in log if line["event"] == "request failed"]
    assert (line["log_level"], line["method"], line["path"]) == ("error", "GET", "/healthz")
    assert line["exc_info"]


def test_document_that_is_not_as_described_is_not_given_out(api, log):
    del api.source.status["version"]
    assert api.get("/healthz").status == 500
    assert [line["event"] for line in log] == ["request failed"]


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (forks.NoPortsError("x"), "no-ports"),
        (forks.CallHasForkError("x"), "call-has-fork"),
        (errors.ParameterError("fork_start", None, "x"), "impossible-fork"),
        (errors.ServerError("x", status=503), "carrier-failed"),
        (errors.AnswerError("x", status=200), "carrier-failed"),
        (errors.TransportError("x"), "carrier-unreachable"),
        (UnknownCallError("x"), "unknown-call"),
        (AmbiguousCallError("x"), "ambiguous-call"),
    ],
)
def test_each_kind_of_error_is_a_type_of_problem(error, name):
    found = problem_of(error)
    assert found.document["type"] == f"/problems/{name}"
    assert found.status == PROBLEMS[name].status


def test_busy_carrier_says_when_to_come_back():
    found = problem_of(errors.RateLimitError("x", status=429, retry_after_s=1.2))
    assert (found.status, dict(found.headers)) == (503, {"Retry-After": "2"})
    assert problem_of(errors.RateLimitError("x", status=429)).headers == {}


def test_other_errors_are_no_problems():
    assert problem_of(ValueError("x")) is None


def test_the_documentation_has_every_type_of_problem():
    table = (Path(__file__).parents[2] / "docs" / "http.md").read_text()
    documented = re.findall(r"^\| `/problems/([a-z-]+)` \| (\d+) \|", table, re.MULTILINE)
    assert {name: int(status) for name, status in documented} == {
        name: kind.status for name, kind in PROBLEMS.items()
    }
