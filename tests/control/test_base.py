import json
import string
from uuid import UUID

import pytest
from commandmaker import NEEDED, make
from hypothesis import given
from hypothesis import strategies as st

from strep.control.commands import (
    COMMANDS,
    Dial,
    DialogflowConfig,
    ForkStart,
    Hangup,
    SoundModifications,
)
from strep.control.errors import ParameterError, ValidationError

ID = "891510ac-f3e4-11e8-af5b-de00688a4901"


def test_body_holds_what_was_given_in_the_order_in_which_it_was_given():
    command = ForkStart(tx="udp:192.0.2.1:9001", stream_type="raw", rx="udp:192.0.2.1:9000")
    assert json.dumps(command.body()) == (
        '{"tx": "udp:192.0.2.1:9001", "stream_type": "raw", "rx": "udp:192.0.2.1:9000"}'
    )


def test_none_is_the_same_as_not_given():
    command = ForkStart(target="udp:192.0.2.1:9000", rx=None, stream_type=None, colour=None)
    assert command.body() == {"target": "udp:192.0.2.1:9000"}
    assert command.stream_type == "raw"


def test_parameters_that_the_reference_does_not_name_are_kept_and_sent():
    command = Hangup(sip_code=486, command_id=ID, extra={"deep": [1, None]})
    assert command.body() == {"sip_code": 486, "command_id": ID, "extra": {"deep": [1, None]}}
    assert command.further == {"sip_code": 486, "extra": {"deep": [1, None]}}
    assert Hangup(command_id=ID).further == {}


def test_unknown_keys_of_objects_inside_are_kept_and_sent():
    command = make("dial", custom_headers=[{"name": "X-A", "value": "1", "when": "invite"}])
    assert command.body()["custom_headers"] == [{"name": "X-A", "value": "1", "when": "invite"}]


def test_to_may_be_several():
    command = Dial(connection_id="1", from_="+18005550101", to=["+18005550100", "sip:a@b.example"])
    assert command.body()["to"] == ["+18005550100", "sip:a@b.example"]


def test_billing_group_may_be_a_uuid_or_its_text():
    expected = "0ccc7b54-4df3-4bca-a65a-3da1ecc777f0"
    assert make("answer", billing_group_id=UUID(expected)).body() == {"billing_group_id": expected}
    assert make("answer", billing_group_id=expected).body() == {"billing_group_id": expected}


def test_only_what_was_given_of_objects_inside_is_sent():
    command = make(
        "dial",
        dialogflow_config=DialogflowConfig(analyze_sentiment=True),
        sound_modifications=SoundModifications(octaves=0.5, track=None),
    )
    assert command.body()["dialogflow_config"] == {"analyze_sentiment": True}
    assert command.body()["sound_modifications"] == {"octaves": 0.5}


def test_commands_that_send_the_same_are_equal():
    one = ForkStart(rx="udp:192.0.2.1:9000", tx="udp:192.0.2.1:9001")
    other = ForkStart(tx="udp:192.0.2.1:9001", rx="udp:192.0.2.1:9000")
    assert one == other
    assert hash(one) == hash(other)
    assert one != ForkStart(rx="udp:192.0.2.1:9000", tx="udp:192.0.2.1:9002")
    assert make("hangup") != make("gather_stop")


def test_a_command_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        Hangup(command_id=ID).command_id = "other"


def test_a_request_that_is_no_object_is_refused():
    with pytest.raises(ParameterError, match=r"^hangup: \[1\] is not a JSON object$"):
        Hangup.parse([1])


def test_errors_of_parameters_are_validation_errors_and_value_errors():
    with pytest.raises(ValidationError):
        ForkStart()
    with pytest.raises(ValueError, match="target is missing"):
        ForkStart()


def test_the_sip_password_stands_in_no_repr_and_no_error():
    command = make("dial", sip_auth_password="hunter2")  # noqa: S106 -- not one
    assert "hunter2" not in repr(command)
    with pytest.raises(ParameterError) as raised:
        Dial(sip_auth_password="hunter2")  # noqa: S106 -- not one
    assert "hunter2" not in f"{raised.value!r} {raised.value.__context__}"


@given(
    st.sampled_from(sorted(COMMANDS)),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=8,
    ),
    st.data(),
)
def test_whatever_a_request_holds_makes_a_command_or_a_parameter_error(name, value, data):
    model = COMMANDS[name]
    keys = [field.alias for field in model.model_fields.values()]
    key = data.draw(st.sampled_from(keys) | st.text(string.ascii_lowercase + "_", max_size=8))
    document = {"from" if k == "from_" else k: v for k, v in NEEDED.get(name, {}).items()}
    if name == "client_state_update":
        document["client_state"] = "c3RhdGU="
    try:
        body = model.parse({**document, key: value}).body()
    except ParameterError as error:
        sentence = str(error)
    else:
        sentence = json.dumps(body, allow_nan=False)
    assert "\n" not in sentence
