import json

import pytest
from commandmaker import make
from hypothesis import given
from hypothesis import strategies as st

from strep.control.answers import read_answer, retry_after_s
from strep.control.base import Call, CommandResult
from strep.control.commands import COMMANDS
from strep.control.errors import (
    AnswerError,
    AuthenticationError,
    CallControlError,
    CallEndedError,
    CarrierFault,
    NotFoundError,
    RateLimitError,
    ServerError,
    TransportError,
    ValidationError,
)

CALL = {
    "call_control_id": "v3:MdI91X4lWFEs7IgbBEOT9M4AigoY08M0WWZFISt1Yw2axZ_IiE4pqg",
    "call_duration": 50,
    "call_leg_id": "2dc6fc34-f9e0-11ea-b68e-02420a0f7768",
    "call_session_id": "2dc1b3c8-f9e0-11ea-bc5a-02420a0f7768",
    "client_state": "aGF2ZSBhIG5pY2UgZGF5ID1d",
    "is_alive": False,
    "record_type": "call",
}
ENDED = {"errors": [{"code": "90018", "title": "Call has already ended", "detail": "It is over."}]}


def read(name, status, document, headers=None):
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return read_answer(make(name), status, headers or {}, body, now_s=0.0)


def test_documented_answer_of_dial_is_a_call():
    call = read("dial", 200, {"data": CALL})
    assert isinstance(call, Call)
    assert call.model_dump() == CALL


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "dial"])
def test_documented_answer_of_the_others_is_a_result(name):
    result = read(name, 200, {"data": {"result": "ok"}})
    assert result == CommandResult(result="ok", already_ended=False)


def test_what_the_reference_does_not_name_is_kept():
    result = read("fork_start", 200, {"data": {"result": "ok", "fork_id": 7}})
    assert result.model_extra == {"fork_id": 7}


@pytest.mark.parametrize(
    ("status", "kind", "name"),
    [
        (400, ValidationError, "validation"),
        (401, AuthenticationError, "authentication"),
        (403, AuthenticationError, "authentication"),
        (404, NotFoundError, "not_found"),
        (408, TransportError, "transport"),
        (409, ValidationError, "validation"),
        (422, ValidationError, "validation"),
        (429, RateLimitError, "rate_limit"),
        (500, ServerError, "server"),
        (502, ServerError, "server"),
        (599, ServerError, "server"),
        (302, AnswerError, "answer"),
    ],
)
def test_each_status_has_its_kind_of_error(status, kind, name):
    with pytest.raises(kind) as raised:
        read("hangup", status, b"<html>")
    assert type(raised.value) is kind
    assert (raised.value.kind, raised.value.status) == (name, status)
    assert str(raised.value) == f"hangup: the carrier answered {status}"
    assert (raised.value.code, raised.value.title, raised.value.detail) == (None, None, None)
    assert raised.value.meta == {}


def test_errors_of_the_carrier_are_told_whole():
    with pytest.raises(ValidationError) as raised:
        read(
            "fork_start",
            422,
            {
                "errors": [
                    {
                        "code": 10015,
                        "title": "Bad value",
                        "detail": "The target\r\nis wrong.",
                        "source": {"pointer": "/target"},
                        "meta": {"url": "https://example.com/10015"},
                    },
                    {"code": "1", "title": "More"},
                    "nonsense",
                ]
            },
        )
    error = raised.value
    assert str(error) == (
        "fork_start: the carrier answered 422, code 10015: Bad value: The target is wrong."
    )
    assert (error.code, error.title, error.detail) == (
        "10015",
        "Bad value",
        "The target\r\nis wrong.",
    )
    assert error.meta == {"url": "https://example.com/10015"}
    assert error.faults[0].source == {"pointer": "/target"}
    assert error.faults[1:] == (CarrierFault(code="1", title="More", source={}, meta={}),)


@pytest.mark.parametrize(
    "name", ["fork_stop", "gather_stop", "hangup", "leave_queue", "playback_stop"]
)
def test_stop_of_a_call_that_has_ended_is_success(name):
    assert read(name, 422, ENDED) == CommandResult(result="ok", already_ended=True)


@pytest.mark.parametrize(
    "name",
    sorted(
        COMMANDS.keys() - {"fork_stop", "gather_stop", "hangup", "leave_queue", "playback_stop"}
    ),
)
def test_other_commands_on_a_call_that_has_ended_fail(name):
    with pytest.raises(CallEndedError) as raised:
        read(name, 422, ENDED)
    assert raised.value.code == "90018"


def test_another_reason_to_refuse_a_stop_is_an_error():
    with pytest.raises(ValidationError):
        read("hangup", 422, {"errors": [{"code": "90015", "title": "Invalid call"}]})


@pytest.mark.parametrize(
    ("name", "body", "sentence"),
    [
        ("hangup", b"", "the answer is not JSON but 0 bytes of 'text/html'"),
        ("hangup", b"<html>", "the answer is not JSON but 6 bytes of 'text/html'"),
        ("hangup", b"\xff\xfe", "the answer is not JSON but 2 bytes of 'text/html'"),
        ("hangup", b"[" * 200000, "the answer is not JSON but 200000 bytes of 'text/html'"),
        ("hangup", b"[]", "the answer is JSON without an object `data`"),
        ("hangup", b'{"result": "ok"}', "the answer is JSON without an object `data`"),
        ("hangup", b'{"data": "ok"}', "the answer is JSON without an object `data`"),
        (
            "hangup",
            b'{"data": {"result": 1}}',
            "data.result of the answer is wrong: Input should be a valid string",
        ),
        (
            "dial",
            b'{"data": {"result": "ok"}}',
            "data.call_control_id of the answer is wrong: Field required",
        ),
    ],
)
def test_rubbish_is_an_error_of_its_own(name, body, sentence):
    with pytest.raises(AnswerError) as raised:
        read(name, 200, body, {"Content-Type": "text/html"})
    assert str(raised.value) == f"{name}: {sentence}"
    assert raised.value.status == 200


@given(st.integers(200, 599), st.binary(max_size=200) | st.text().map(str.encode))
def test_whatever_comes_is_a_result_or_an_error_of_a_kind(status, body):
    try:
        result = read("hangup", status, body)
    except CallControlError as error:
        assert error.kind in {  # noqa: PT017 -- either outcome is right
            "answer",
            "authentication",
            "not_found",
            "rate_limit",
            "server",
            "transport",
            "validation",
        }
    else:
        assert isinstance(result, CommandResult)


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({}, None),
        ({"Retry-After": "0"}, 0.0),
        ({"Retry-After": " 120 "}, 120.0),
        ({"Retry-After": "-1"}, None),
        ({"Retry-After": "1.5"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "9" * 5000}, None),
        # 1994-11-06T08:49:37Z is 784111777 s.
        ({"Retry-After": "Sun, 06 Nov 1994 08:49:37 GMT"}, 17.0),
        ({"Retry-After": "Sun, 06 Nov 1994 08:49:10 GMT"}, 0.0),
        (
            {
                "Retry-After": "Sun, 06 Nov 1994 08:49:37 GMT",
                "Date": "Sun, 06 Nov 1994 08:49:33 GMT",
            },
            4.0,
        ),
        ({"Retry-After": "Sun, 06 Nov 1994 08:49:37 GMT", "Date": "yesterday"}, 17.0),
        ({"Retry-After": "Sun, 99 Nov 1994 08:49:37 GMT"}, None),
    ],
)
def test_retry_after_is_seconds_or_a_date(headers, wait_s):
    assert retry_after_s(headers, now_s=784111760.0) == wait_s


@given(st.text(max_size=40), st.text(max_size=40))
def test_retry_after_is_a_wait_or_nothing_whatever_it_says(text, date):
    wait_s = retry_after_s({"Retry-After": text, "Date": date}, now_s=0.0)
    assert wait_s is None or wait_s >= 0.0
