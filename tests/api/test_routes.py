"""What each route answers when all is well."""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import ANY

import pytest
import structlog
from apibench import HEALTH, OPEN_CALLS, ApiBench
from planebench import OK, S
from storedcalls import CALL as STORED
from storedcalls import CLOSED, FORK, LEG, NOON_NS

from strep.pauses import PauseError
from strep.store import Store, StoredCall, StoredTrack

OTHER_LEG = "428c31b6-f9e0-11ea-b68e-02420a0f7768"
CALL = "v3:call-1"
PORTS = {"port_range": "20000-20003", "advertised_host": "192.0.2.1"}
FIRST = {
    "call_leg_id": LEG,
    "started_at": "2026-01-31T12:00:00.000Z",
    "call_control_id": CALL,
    "call_session_id": None,
    "connection_id": "7267",
    "from": "+35319605860",
    "to": "+18005550100",
    "direction": "incoming",
    "client_state": None,
    "state": "hangup",
    "answered_at": "2026-01-31T12:00:05.000Z",
    "ended_at": "2026-01-31T12:00:20.000Z",
    "hangup_cause": "normal_clearing",
    "codecs": None,
    "told_at": None,
    "is_open": False,
    "duration_s": 15.0,
    "packets": 500,
    "lost": 3,
    "quality": {
        "mos": 4.2,
        "mos_concealed": 4.4,
        "loss_ratio": 0.006,
        "discard_ratio": 0.002,
        "reorder_ratio": 0.0,
        "burst_mean_packets": 1.5,
        "burst_longest_packets": 2,
        "jitter_mean_ms": 1.25,
        "drift_ppm": 4.5,
    },
}


@pytest.fixture(autouse=True)
def log():
    with structlog.testing.capture_logs() as lines:
        yield lines


@pytest.fixture
def api(tmp_path):
    with ApiBench(tmp_path, plane=PORTS) as bench:
        yield bench


@pytest.fixture
def with_calls(tmp_path):
    """Three calls: one that is over, one a minute later that is open, one of which media came."""
    with ApiBench(tmp_path) as bench:
        with Store(bench.one.path) as store:
            store.put_call(
                replace(
                    STORED,
                    call_control_id=CALL,
                    call_session_id=None,
                    client_state=None,
                    ended_ns=NOON_NS + 20 * S,
                )
            )
            store.put_call(
                StoredCall(
                    call_leg_id=OTHER_LEG,
                    started_ns=NOON_NS + 60 * S,
                    call_control_id="v3:call-2",
                    from_number="sip:bob@example.org",
                    state="answered",
                )
            )
            store.put_fork(replace(FORK, call_control_id=CALL))
            store.put_track(StoredTrack.of(CLOSED, worker=1))
        yield bench


def found(api, query):
    answer = api.get(f"/v1/calls?{query}")
    assert answer.status == 200, answer.body
    return [call["call_leg_id"] for call in answer.document["calls"]]


# -- the daemon


@pytest.mark.parametrize(("status", "code"), [("ok", 200), ("degraded", 200), ("down", 503)])
def test_health_is_told_by_the_status(api, status, code):
    api.source.status["status"] = status
    answer = api.get("/healthz")
    assert (answer.status, answer.headers["Content-Type"]) == (code, "application/json")
    assert answer.document == HEALTH | {"status": status}


def test_ready_unless_there_is_a_reason(api):
    assert api.get("/readyz")[::2] == (200, b'{"ready":true,"reasons":[]}')
    api.source.reasons = ["the daemon stops"]
    assert api.get("/readyz")[::2] == (503, b'{"ready":false,"reasons":["the daemon stops"]}')


def test_metrics_are_in_the_format_of_prometheus(api):
    answer = api.get("/metrics")
    assert (answer.status, answer.body) == (200, b"strep_tracks_open 2.0\n")
    assert answer.headers["Content-Type"].startswith("text/plain; version=")


def test_whatever_can_be_got_can_be_asked_for_its_head(api):
    answer = api.ask("HEAD", "/healthz")
    assert (answer.status, answer.body) == (200, b"")


# -- calls


def test_without_parameters_calls_are_those_that_are_received_now(api):
    answer = api.get("/v1/calls")
    assert (answer.status, answer.headers["Content-Type"]) == (
        200,
        "application/json; charset=utf-8",
    )
    assert answer.document == OPEN_CALLS


def test_a_search_tells_calls_with_the_sums_of_their_tracks(with_calls):
    answer = with_calls.get("/v1/calls?number=5550100")
    assert answer.status == 200
    assert answer.document == {"calls": [FIRST], "next": None}


@pytest.mark.parametrize(
    ("query", "legs"),
    [
        ("limit=10", [OTHER_LEG, LEG]),
        ("limit=1", [OTHER_LEG]),
        ("number=%2B3531960", [LEG]),
        ("number=bob%40example", [OTHER_LEG]),
        ("since=2026-01-31T12:00:30Z", [OTHER_LEG]),
        ("until=2026-01-31T13:00:30%2B01:00", [LEG]),
        ("since=2026-01-31&until=2026-02-01", [OTHER_LEG, LEG]),
        ("leg=428C31B6-7", [LEG]),
        ("open=true", [OTHER_LEG]),
        ("open=false", [OTHER_LEG, LEG]),
        ("open=true&number=%2B353", []),
    ],
)
def test_a_search_finds_calls_for_which_all_holds(with_calls, query, legs):
    assert found(with_calls, query) == legs


def test_pages_follow_each_other_by_the_cursor(with_calls):
    first = with_calls.get("/v1/calls?limit=1").document
    assert first["next"] == OTHER_LEG
    second = with_calls.get(f"/v1/calls?limit=1&cursor={first['next']}").document
    assert [call["call_leg_id"] for call in second["calls"]] == [LEG]
    assert second["next"] is None


@pytest.mark.parametrize("call_id", [LEG, CALL, "428c31b6-7"])
def test_a_call_is_told_with_its_forks_and_tracks(with_calls, call_id):
    answer = with_calls.get(f"/v1/calls/{call_id}")
    assert answer.status == 200
    document = answer.document
    assert document.pop("forks") == [
        {
            "id": FORK.id,
            "call_control_id": CALL,
            "call_leg_id": LEG,
            "state": "stopped",
            "why": "call.hangup",
            "way": "ports",
            "stream_type": "decrypted",
            "rx_port": 20_000,
            "tx_port": 20_001,
            "requested_at": "2026-01-31T12:00:05.000Z",
            "started_at": None,
            "flowing_at": None,
            "stopped_at": "2026-01-31T12:01:05.000Z",
            "command_id": None,
            "client_state": None,
            "attempt": None,
            "ask": None,
            "carrier_started_at": None,
        }
    ]
    columns = {"worker": 1, "speech_s": 0.5, "loss_runs": 2, "longest_loss": 2}
    assert document.pop("tracks") == [CLOSED | columns | {"mos": 4.2, "mos_concealed": 4.4}]
    assert document == FIRST


def test_without_a_database_open_calls_are_known(tmp_path):
    with ApiBench(tmp_path, database=False) as api:
        answer = api.get(f"/v1/calls/{LEG}")
    assert (answer.status, answer.document) == (200, OPEN_CALLS["calls"][0])


# -- forks


def fork(**differing):
    return {
        "id": ANY,
        "call_control_id": CALL,
        "call_leg_id": None,
        "state": "requested",
        "why": "asked",
        "is_stopping": False,
        "in_doubt": False,
        "error": None,
        "way": "target",
        "rx_port": None,
        "tx_port": None,
        "stream_type": "raw",
        "attempt": 1,
        "changes": [change("requested")],
    } | differing


def change(state, why="asked", detail=None):
    return {"state": state, "why": why, "at": "2023-11-14T22:13:20.000Z", "detail": detail}


def test_a_fork_is_started_looked_at_and_stopped(api):
    assert api.get("/v1/forks").document == {"forks": []}
    started = api.post("/v1/forks", {"call_control_id": CALL})
    assert (started.status, started.document) == (201, fork())
    path = f"/v1/forks/{started.document['id']}"
    assert started.headers["Location"] == path
    assert api.get(path)[::2] == (200, started.body)
    assert api.get("/v1/forks").document == {"forks": [started.document]}

    stopped = api.delete(path)
    changes = [change("requested"), change("stopped")]
    assert (stopped.status, stopped.document) == (200, fork(state="stopped", changes=changes))
    assert [(name, call) for name, call, _ in api.one.carrier.commands] == [
        ("fork_start", CALL),
        ("fork_stop", CALL),
    ]
    again = api.delete(path)
    assert (again.status, again.body) == (200, stopped.body)
    assert len(api.one.carrier.commands) == 2


def test_a_fork_is_as_it_was_asked_for(api):
    wanted = {
        "call_control_id": CALL,
        "call_leg_id": LEG,
        "way": "ports",
        "stream_type": "decrypted",
        "client_state": "dGlja2V0IDE3",
    }
    started = api.post("/v1/forks", wanted)
    assert (started.status, started.document) == (
        201,
        fork(call_leg_id=LEG, way="ports", rx_port=20_000, tx_port=20_001, stream_type="decrypted"),
    )
    ((_, _, body),) = api.one.carrier.commands
    assert body == {
        "stream_type": "decrypted",
        "rx": "udp:192.0.2.1:20000",
        "tx": "udp:192.0.2.1:20001",
        "command_id": ANY,
        "client_state": "dGlja2V0IDE3",
    }


def test_null_is_the_same_as_not_given(api):
    wanted = {"call_control_id": CALL, "call_leg_id": None, "way": None, "client_state": None}
    assert api.post("/v1/forks", wanted, Content_Type="application/json; charset=utf-8")[0] == 201


def test_start_whose_outcome_is_not_known_is_accepted_in_doubt(api):
    api.one.carrier.replies.append((500, b"out of order"))
    started = api.post("/v1/forks", {"call_control_id": CALL})
    said = "fork_start: the carrier answered 500"
    assert (started.status, started.document) == (202, fork(in_doubt=True, error=said))
    assert started.headers["Location"] == f"/v1/forks/{started.document['id']}"


def test_stop_whose_outcome_is_not_known_is_accepted_in_doubt(api):
    api.one.carrier.replies += [OK, (200, b"rubbish")]
    path = api.post("/v1/forks", {"call_control_id": CALL}).headers["Location"]
    stopped = api.delete(path)
    said = "fork_stop: the answer is not JSON but 7 bytes of 'application/octet-stream'"
    assert (stopped.status, stopped.document) == (
        202,
        fork(is_stopping=True, in_doubt=True, error=said),
    )


# -- webhooks


def event(kind):
    payload = {"call_control_id": CALL, "call_leg_id": LEG}
    return {
        "data": {
            "event_type": kind,
            "id": "0ccc7b54-4df3-4bca-a65a-3da1ecc777f0",
            "occurred_at": "2023-11-14T22:13:21Z",
            "payload": payload,
        }
    }


def test_a_webhook_reaches_the_control_plane(api):
    path = api.post("/v1/forks", {"call_control_id": CALL}).headers["Location"]
    assert api.tell(event("call.fork.started"))[::2] == (200, b"")
    api.quiet()
    seen = api.get(path).document
    assert (seen["state"], seen["why"], seen["call_leg_id"]) == ("started", "webhook", LEG)


# -- the description


def test_each_type_of_problem_is_explained_where_its_type_points(api):
    type_ = api.get(f"/v1/calls/{LEG}").document["type"]
    assert type_ == "/problems/unknown-call"
    explained = api.get(type_)
    assert (explained.status, explained.headers["Content-Type"]) == (
        200,
        "text/plain; charset=utf-8",
    )
    assert explained.body == (
        b"There is no such call (404).\n\nNeither is its media received nor is it in the database;"
        b" or the carrier knows no call of this call_control_id.\n"
    )


# -- pauses


def test_open_call_is_paused_and_resumed(with_calls):
    call = next(each for each in with_calls.get("/v1/calls?open=true").document["calls"])
    for action, is_paused in (("pause", True), ("resume", False), ("resume", False)):
        answer = with_calls.post(f"/v1/calls/{call['call_leg_id']}/recording/{action}", {})
        assert (answer.status, answer.document) == (
            200, {"call_leg_id": call["call_leg_id"], "is_paused": is_paused},
        )  # fmt: skip
        assert with_calls.source.paused == {call["call_leg_id"]: is_paused}


def test_call_that_is_over_or_unknown_is_not_paused(with_calls):
    over = with_calls.post(f"/v1/calls/{CALL}/recording/pause", {})
    assert (over.status, over.document["type"]) == (409, "/problems/call-over")
    unknown = with_calls.post("/v1/calls/v3:none/recording/resume", {})
    assert (unknown.status, unknown.document["type"]) == (404, "/problems/unknown-call")


def test_worker_that_is_silent_makes_a_pause_unsure(with_calls):
    with_calls.source.error = PauseError("worker 1, which receives it, does not answer")
    answer = with_calls.post(f"/v1/calls/{CALL}/recording/pause", {})
    assert (answer.status, answer.document["type"]) == (503, "/problems/recording-unsure")
    assert answer.document["detail"] == "worker 1, which receives it, does not answer"
