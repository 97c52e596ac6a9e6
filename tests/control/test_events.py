from __future__ import annotations

import copy
import json
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from strep.control import events
from strep.control.events import EVENT_TYPES, CallEvent, Event, EventError, event_of, parse_event

LEG = UUID("428c31b6-7af4-4bcb-b7f5-5013ef9657c1")
OF_CALL = {
    "call_control_id": "v3:MdI91X4lWFEs7IgbBEOT9M4AigoY08M0WWZFISt1Yw2axZ_IiE4pqg",
    "call_leg_id": "428c31b6-7af4-4bcb-b7f5-5013ef9657c1",
    "call_session_id": "428c31b6-7af4-4bcb-b7f5-5013ef9657c1",
    "client_state": "aGF2ZSBhIG5pY2UgZGF5ID1d",
    "connection_id": "7267xxxxxxxxxxxxxx",
}
PARTIES = {"from": "+35319605860", "to": "+35319605861"}
# Every type, its class, and the keys of its payload beside those of OF_CALL.
CASES = [
    ("call.answered", events.CallAnswered, {**PARTIES, "state": "answered"}),
    ("call.bridged", events.CallBridged, {**PARTIES, "state": "bridged"}),
    (
        "call.dequeued",
        events.CallDequeued,
        {"queue": "support", "queue_position": 3, "reason": "leave"},
    ),
    ("call.dtmf.received", events.CallDtmfReceived, {**PARTIES, "digit": "#"}),
    ("call.enqueued", events.CallEnqueued, {"current_position": 5, "queue": "support"}),
    ("call.fork.started", events.CallForkStarted, {"stream_type": "decrypted"}),
    ("call.fork.stopped", events.CallForkStopped, {"stream_type": "raw"}),
    (
        "call.gather.ended",
        events.CallGatherEnded,
        {**PARTIES, "digits": "123", "status": "valid"},
    ),
    (
        "call.hangup",
        events.CallHangup,
        {
            **PARTIES,
            "hangup_cause": "call_rejected",
            "hangup_source": "caller",
            "sip_hangup_cause": "603",
            "state": "hangup",
        },
    ),
    (
        "call.initiated",
        events.CallInitiated,
        {**PARTIES, "direction": "incoming", "state": "parked"},
    ),
    (
        "call.machine.detection.ended",
        events.CallMachineDetectionEnded,
        {**PARTIES, "result": "human"},
    ),
    (
        "call.machine.greeting.ended",
        events.CallMachineGreetingEnded,
        {**PARTIES, "result": "beep_detected"},
    ),
    (
        "call.playback.ended",
        events.CallPlaybackEnded,
        {"media_name": "tune", "overlay": False, "status": "completed"},
    ),
    (
        "call.playback.started",
        events.CallPlaybackStarted,
        {"media_url": "http://192.0.2.1/a.wav", "overlay": True},
    ),
    ("call.recording.error", events.CallRecordingError, {"reason": "Internal server error"}),
    (
        "call.recording.saved",
        events.CallRecordingSaved,
        {"channels": "dual", "recording_urls": {"wav": "https://192.0.2.1/r?sig=x", "mp3": None}},
    ),
    ("call.speak.ended", events.CallSpeakEnded, {"status": "completed"}),
    ("call.speak.started", events.CallSpeakStarted, {}),
    ("streaming.started", events.StreamingStarted, {"stream_url": "wss://192.0.2.1/s"}),
    ("streaming.stopped", events.StreamingStopped, {"stream_url": "wss://192.0.2.1/s"}),
]


def document(event_type: str = "call.hangup", **payload: object) -> dict[str, dict[str, object]]:
    return {
        "data": {
            "event_type": event_type,
            "id": "0ccc7b54-4df3-4bca-a65a-3da1ecc777f0",
            "occurred_at": "2018-02-02T22:25:27.521992Z",
            "payload": {**OF_CALL, **payload},
            "record_type": "event",
        }
    }


@pytest.mark.parametrize(("event_type", "kind", "payload"), CASES)
def test_every_type_has_its_class_and_the_fields_of_its_payload(event_type, kind, payload):
    event = parse_event(json.dumps(document(event_type, **payload)).encode())
    assert type(event) is kind
    assert event.event_type == event_type
    assert event.id == "0ccc7b54-4df3-4bca-a65a-3da1ecc777f0"
    assert event.occurred_at == datetime(2018, 2, 2, 22, 25, 27, 521992, tzinfo=UTC)
    assert event.call_leg_id == LEG
    assert event.call_control_id == OF_CALL["call_control_id"]
    assert event.call_session_id == OF_CALL["call_session_id"]
    assert event.connection_id == "7267xxxxxxxxxxxxxx"
    assert event.payload == {**OF_CALL, **payload}
    assert {key: getattr(event, "from_" if key == "from" else key) for key in payload} == payload


def test_the_table_holds_just_these_types():
    assert dict(EVENT_TYPES) == {event_type: kind for event_type, kind, _ in CASES}


def test_times_of_the_payload_are_read():
    hangup = event_of(document("call.hangup", start_time="2018-02-02T22:20:27.521992Z"))
    assert isinstance(hangup, events.CallHangup)
    assert hangup.start_time == datetime(2018, 2, 2, 22, 20, 27, 521992, tzinfo=UTC)
    saved = event_of(
        document(
            "call.recording.saved",
            recording_started_at="2018-02-02T22:20:27Z",
            recording_ended_at="2018-02-02T23:21:27+01:00",
        )
    )
    assert isinstance(saved, events.CallRecordingSaved)
    assert saved.recording_started_at == datetime(2018, 2, 2, 22, 20, 27, tzinfo=UTC)
    assert saved.recording_ended_at == datetime(2018, 2, 2, 22, 21, 27, tzinfo=UTC)


@pytest.mark.parametrize("event_type", list(EVENT_TYPES))
def test_the_call_leg_id_is_all_that_a_payload_must_have(event_type):
    bare = document(event_type)
    bare["data"]["payload"] = {"call_leg_id": OF_CALL["call_leg_id"]}
    event = event_of(bare)
    assert isinstance(event, CallEvent)
    assert event.call_leg_id == LEG
    fields = set(type(event).model_fields) - set(Event.model_fields) - {"call_leg_id"}
    assert {getattr(event, field) for field in fields} == {None}


@pytest.mark.parametrize(("event_type", "kind", "payload"), CASES)
def test_null_stands_for_absent(event_type, kind, payload):
    nulls = dict.fromkeys([*payload, *OF_CALL], None)
    event = event_of(document(event_type, **{**nulls, "call_leg_id": str(LEG)}))
    assert type(event) is kind
    assert event.client_state is None
    assert event.decoded_client_state() is None


def test_keys_without_a_field_stay_in_the_payload():
    event = event_of(document("call.hangup", call_quality_stats={"mos": "4.50"}))
    assert type(event) is events.CallHangup
    assert event.payload["call_quality_stats"] == {"mos": "4.50"}


def test_keys_of_the_payload_do_not_pass_for_those_of_the_envelope():
    mine = dict.fromkeys(["id", "event_type", "occurred_at", "payload"], "mine")
    whole = document("call.hangup")
    whole["data"]["payload"] = {**OF_CALL, **mine}
    event = event_of(whole)
    assert event.id == "0ccc7b54-4df3-4bca-a65a-3da1ecc777f0"
    assert event.event_type == "call.hangup"
    assert event.payload == {**OF_CALL, **mine}
    for key in ("id", "event_type", "occurred_at"):
        lacking = copy.deepcopy(whole)
        del lacking["data"][key]
        with pytest.raises(EventError, match=rf"^data\.{key} is missing$"):
            event_of(lacking)


def test_a_number_where_a_text_is_documented_is_read_as_text():
    event = event_of(document("call.hangup", sip_hangup_cause=603, connection_id=7267))
    assert isinstance(event, events.CallHangup)
    assert event.sip_hangup_cause == "603"
    assert event.connection_id == "7267"


def test_an_unknown_type_is_passed_on_with_its_payload():
    unknown = document("call.teleported")
    unknown["data"]["payload"] = {"where": ["Mars"], "from": None}
    event = event_of(unknown)
    assert type(event) is Event
    assert event.event_type == "call.teleported"
    assert event.payload == {"where": ["Mars"], "from": None}


def test_client_state_is_decoded_on_demand():
    event = event_of(document(client_state="aGF2ZSBhIG5pY2UgZGF5ID1d"))
    assert isinstance(event, CallEvent)
    assert event.client_state == "aGF2ZSBhIG5pY2UgZGF5ID1d"
    assert event.decoded_client_state() == b"have a nice day =]"


@pytest.mark.parametrize("state", ["?", "aGF2ZQ", "aGF2ZQ==\n", "Ж"])
def test_client_state_that_is_not_base64_is_an_error_only_when_it_is_decoded(state):
    event = event_of(document(client_state=state))
    assert isinstance(event, CallEvent)
    with pytest.raises(EventError, match=r"^client_state is not base64$"):
        event.decoded_client_state()


def test_events_are_frozen():
    event = event_of(document())
    with pytest.raises(ValidationError, match="frozen"):
        event.id = "other"


def test_repr_shows_neither_state_nor_urls_nor_payload():
    text = repr(
        event_of(
            document(
                "call.recording.saved",
                recording_urls={"wav": "https://192.0.2.1/r?sig=hidden"},
                public_recording_urls={"wav": "https://192.0.2.1/r?sig=hidden"},
            )
        )
    )
    assert text.startswith("CallRecordingSaved(id='0ccc7b54")
    assert "hidden" not in text
    assert "aGF2ZSBhIG5pY2UgZGF5ID1d" not in text
    assert "stream_url" not in repr(event_of(document("streaming.started", stream_url="wss://u")))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("id", None, "data.id is missing"),
        ("id", "", "data.id: String should have at least 1 character"),
        ("id", "x" * 513, "data.id: String should have at most 512 characters"),
        ("id", ["x"], "data.id: Input should be a valid string"),
        ("event_type", None, "data.event_type is missing"),
        ("event_type", {}, "data.event_type: Input should be a valid string"),
        ("occurred_at", None, "data.occurred_at is missing"),
        (
            "occurred_at",
            "2018-02-02T22:25:27",
            "data.occurred_at: Input should have timezone info",
        ),
        ("payload", None, "data has no object 'payload'"),
        ("payload", [], "data has no object 'payload'"),
        ("payload.call_leg_id", None, "data.payload.call_leg_id is missing"),
        ("payload.from", ["+35319605860"], "data.payload.from: Input should be a valid string"),
        (
            "payload.call_control_id",
            "",
            "data.payload.call_control_id: String should have at least 1 character",
        ),
    ],
)
def test_what_is_wrong_is_said_with_its_path(path, value, message):
    faulty = copy.deepcopy(document())
    place = faulty["data"]
    *parents, key = path.split(".")
    for parent in parents:
        place = place[parent]
    if value is None:
        del place[key]
    else:
        place[key] = value
    with pytest.raises(EventError) as caught:
        event_of(faulty)
    assert str(caught.value) == message


@pytest.mark.parametrize("leg", ["428c31b6", 7, None, "428c31b6-7af4-4bcb-b7f5-5013ef9657cg"])
def test_a_call_leg_id_that_is_no_uuid_is_an_error(leg):
    with pytest.raises(EventError, match=r"^data\.payload\.call_leg_id: .*UUID"):
        event_of(document(call_leg_id=leg))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the body is not JSON: EOF while parsing"),
        (b"\xff\xfe", "the body is not JSON: expected value"),
        (b'{"data": "\xff"}', "the body is not JSON: invalid unicode"),
        (b'"\\ud800"', "the body is not JSON: "),
        (b'{"data": NaN}', "the body is not JSON: expected value"),
        (b'{"data": {}', "the body is not JSON: EOF while parsing"),
        (b"{} {}", "the body is not JSON: trailing characters"),
        (b"[" * 100_000, "the body is not JSON: recursion limit exceeded"),
        (b'{"a":' * 100_000, "the body is not JSON: recursion limit exceeded"),
        (b"[" + b"9" * 100_000 + b"]", "the body is not JSON: number out of range"),
        (b"null", "the document is not an object"),
        (b"[]", "the document is not an object"),
        (b"{}", "the document has no object 'data'"),
        (b'{"data": null}', "the document has no object 'data'"),
    ],
)
def test_a_body_that_holds_no_event_is_an_error(body, message):
    with pytest.raises(EventError) as caught:
        parse_event(body)
    assert str(caught.value).startswith(message)


TEXT = st.text("aZ09-:\0é", max_size=5)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)


@given(st.binary())
def test_any_bytes_give_an_event_or_an_event_error(body):
    with pytest.raises(EventError):
        parse_event(body)


@given(st.sampled_from(list(EVENT_TYPES)), st.data())
def test_any_values_in_the_payload_give_an_event_or_an_event_error(event_type, data):
    fields = EVENT_TYPES[event_type].model_fields
    keys = sorted(fields[name].alias or name for name in set(fields) - set(Event.model_fields))
    payload = data.draw(st.dictionaries(st.sampled_from(keys), JSON))
    try:
        event = event_of(document(event_type, **payload))
    except EventError as error:
        assert str(error).startswith("data.payload.")  # noqa: PT017 -- either is right
    else:
        assert type(event) is EVENT_TYPES[event_type]
