from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from strep.control.commands import COMMANDS
from strep.simulator.calls import MediaChange, Notice
from strep.simulator.carrier import Carrier
from strep.simulator.problems import RefusedError
from strep.simulator.scenario import Scenario

START = datetime(2026, 1, 1, tzinfo=UTC)
STATE = "aGF2ZSBhIG5pY2UgZGF5ID1d"
DIAL = {"from": "+18005550101", "to": "+18005550100", "connection_id": "7267"}


class Desk:
    """A carrier and a hand on its clock."""

    def __init__(self, **tables):
        self.scenario = Scenario.model_validate(tables)
        self.now_s = 0.0
        self.carrier = Carrier(
            seed=1,
            wall=lambda now_s: START + timedelta(seconds=now_s),
            connection_id="incoming",
            webhook_url="http://127.0.0.1:1/hooks",
            scenario_for=lambda to: Scenario.model_validate({"call": {"outcome": "busy"}})
            if to.endswith("busy") else self.scenario,
        )  # fmt: skip

    def command(self, name, call=None, /, **body):
        control_id = None if call is None else call.control_id
        return self.carrier.command(name, control_id, body, self.now_s)

    def dial(self, **changes):
        answer = self.command("dial", **(DIAL | changes))
        return self.carrier.call(answer["call_control_id"])

    def up(self, **changes):
        """Return a call that was answered, and forget what was said about that."""
        call = self.dial(**changes)
        self.to(self.now_s + 1.0)
        self.carrier.take_effects()
        return call

    def to(self, now_s):
        self.now_s = now_s
        self.carrier.tick(now_s)

    def effects(self):
        return self.carrier.take_effects()

    def events(self, call=None):
        """Return the types of the webhooks since the last time, of one call or all."""
        notices = [effect for effect in self.effects() if isinstance(effect, Notice)]
        return [n.event["event_type"] for n in notices if call is None or n.call is call]

    def payloads(self):
        return [e.event["payload"] for e in self.effects() if isinstance(e, Notice)]


@pytest.fixture
def desk():
    return Desk()


def refusal(desk, name, call, /, **body):
    with pytest.raises(RefusedError) as error:
        desk.command(name, call, **body)
    (only,) = error.value.as_json()["errors"]
    return error.value.status, only["code"], only["detail"]


# dial and what follows


def test_dial_is_answered_at_once_with_a_call_that_is_not_alive(desk):
    answer = desk.command("dial", **DIAL, client_state=STATE)
    call = desk.carrier.call(answer["call_control_id"])
    assert answer == {
        "call_control_id": call.control_id,
        "call_leg_id": str(call.leg_id),
        "call_session_id": str(call.session_id),
        "client_state": STATE,
        "is_alive": False,
        "record_type": "call",
    }
    assert call.control_id.startswith("v3:")


def test_dialled_call_is_initiated_rings_and_is_answered(desk):
    call = desk.dial()
    assert (call.state, desk.events()) == ("initiated", ["call.initiated"])
    desk.to(0.5)
    assert (call.state, desk.events()) == ("ringing", [])
    desk.to(1.0)
    assert (call.state, desk.events()) == ("answered", ["call.answered"])
    assert call.answered_s == 1.0


def test_webhook_has_the_documented_shape(desk):
    call = desk.dial(client_state=STATE)
    desk.to(1.0)
    _, notice = desk.effects()
    assert (notice.url, notice.method) == ("http://127.0.0.1:1/hooks", "POST")
    event_id = notice.event.pop("id")
    assert len(event_id) == 36
    assert notice.event == {
        "event_type": "call.answered",
        "occurred_at": "2026-01-01T00:00:01.000000Z",
        "payload": {
            "call_control_id": call.control_id,
            "call_leg_id": str(call.leg_id),
            "call_session_id": str(call.session_id),
            "client_state": STATE,
            "connection_id": "7267",
            "from": "+18005550101",
            "start_time": "2026-01-01T00:00:00.000000Z",
            "state": "answered",
            "to": "+18005550100",
        },
        "record_type": "event",
    }


def test_command_may_name_its_own_place_for_webhooks(desk):
    desk.dial(webhook_url="http://127.0.0.1:2/mine", webhook_url_method="GET")
    (notice,) = desk.effects()
    assert (notice.url, notice.method) == ("http://127.0.0.1:2/mine", "GET")


@pytest.mark.parametrize(
    ("outcome", "at_s", "cause", "sip", "source"),
    [
        ("busy", 1.0, "user_busy", "486", "callee"),
        ("reject", 1.0, "call_rejected", "603", "callee"),
        ("no_answer", 5.0, "timeout", "487", "caller"),
    ],
)
def test_call_that_is_not_answered_ends_with_its_cause(outcome, at_s, cause, sip, source):
    desk = Desk(call={"outcome": outcome})
    call = desk.dial(timeout_secs=5)
    desk.to(at_s - 0.01)
    assert desk.events() == ["call.initiated"]
    desk.to(at_s)
    (payload,) = desk.payloads()
    assert (payload["hangup_cause"], payload["sip_hangup_cause"]) == (cause, sip)
    assert (payload["hangup_source"], payload["state"]) == (source, "hangup")
    assert (call.state, call.hangup_cause) == ("ended", cause)


def test_call_that_rings_longer_than_it_may_times_out():
    desk = Desk(call={"ring_s": 6.0})
    call = desk.dial(timeout_secs=5)
    desk.to(10.0)
    assert desk.events() == ["call.initiated", "call.hangup"]
    assert call.hangup_cause == "timeout"


def test_time_limit_hangs_up(desk):
    call = desk.up(time_limit_secs=30)
    desk.to(30.9)
    assert desk.events() == []
    desk.to(31.0)
    assert (desk.events(), call.hangup_cause) == (["call.hangup"], "time_limit")


def test_other_side_hangs_up_after_its_talk():
    desk = Desk(call={"talk_s": 3.0})
    desk.up()
    desk.to(4.0)
    (payload,) = desk.payloads()
    assert (payload["hangup_cause"], payload["hangup_source"]) == ("normal_clearing", "callee")
    assert payload["end_time"] == "2026-01-01T00:00:04.000000Z"


def test_first_answer_of_several_destinations_ends_the_others(desk):
    first = desk.dial(to=["+1", "sip:a@example.com", "+1busy"])
    calls = list(desk.carrier.calls.values())
    assert [call.to for call in calls] == ["+1", "sip:a@example.com", "+1busy"]
    assert len({call.session_id for call in calls}) == 1
    assert desk.events() == ["call.initiated"] * 3
    desk.to(1.0)
    assert [call.state for call in calls] == ["answered", "ended", "ended"]
    assert desk.events(first) == ["call.answered"]


def test_linked_call_shares_the_session(desk):
    first = desk.dial()
    assert desk.dial(link_to=first.control_id).session_id == first.session_id
    assert refusal(desk, "dial", None, **DIAL, link_to="x") == (
        422, "90015", "The call_control_id provided was not valid.",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("machine", "detection", "events"),
    [
        (False, "detect", [("call.machine.detection.ended", "human")]),
        (True, "detect", [("call.machine.detection.ended", "machine")]),
        (True, "greeting_end", [("call.machine.detection.ended", "machine"),
                                ("call.machine.greeting.ended", "ended")]),
        (True, "detect_beep", [("call.machine.detection.ended", "machine"),
                               ("call.machine.greeting.ended", "beep_detected")]),
        (True, "disabled", []),
    ],
)  # fmt: skip
def test_machine_detection_tells_who_answered(machine, detection, events):
    desk = Desk(call={"machine": machine})
    desk.up(answering_machine_detection=detection)
    desk.to(2.9)
    early = [(e.event["event_type"], e.event["payload"]["result"]) for e in desk.effects()]
    assert early == events[:1]
    desk.to(3.0)
    late = [(e.event["event_type"], e.event["payload"]["result"]) for e in desk.effects()]
    assert late == events[1:]


def test_stream_is_started_with_the_answer_and_stopped_with_the_call(desk):
    call = desk.dial(stream_url="wss://example.com/media")
    desk.to(1.0)
    assert desk.events() == ["call.initiated", "call.answered", "streaming.started"]
    desk.command("hangup", call)
    assert desk.events() == ["streaming.stopped", "call.hangup"]


def test_file_of_dial_is_played_on_answer(desk):
    desk.dial(media_name="hello")
    desk.to(2.0)
    assert desk.events() == [
        "call.initiated", "call.answered", "call.playback.started", "call.playback.ended",
    ]  # fmt: skip


# recording


def test_recording_is_saved_when_the_call_ends(desk):
    call = desk.up(record="record-from-answer", record_format="wav", record_channels="single")
    desk.command("record_pause", call)
    assert call.recording.paused
    desk.command("record_resume", call)
    assert not call.recording.paused
    assert desk.events() == []
    desk.to(9.0)
    desk.command("hangup", call)
    hangup, saved = desk.effects()
    assert hangup.event["event_type"] == "call.hangup"
    payload = saved.event["payload"]
    assert saved.event["event_type"] == "call.recording.saved"
    assert payload["channels"] == "single"
    assert list(payload["recording_urls"]) == ["wav"]
    assert payload["recording_started_at"] == "2026-01-01T00:00:01.000000Z"
    assert payload["recording_ended_at"] == "2026-01-01T00:00:09.000000Z"


def test_recording_ends_at_its_maximum_length(desk):
    call = desk.up(record="record-from-answer", record_max_length=5)
    desk.to(6.0)
    assert desk.events() == ["call.recording.saved"]
    assert refusal(desk, "record_pause", call)[2] == "The call is not being recorded."


# incoming calls


def test_incoming_call_waits_for_the_answer(desk):
    call = desk.carrier.place("+1", "+2", desk.scenario, 0.0)
    (payload,) = desk.payloads()
    assert (payload["direction"], payload["state"]) == ("incoming", "parked")
    assert (payload["from"], payload["to"], payload["connection_id"]) == ("+1", "+2", "incoming")
    assert desk.command("answer", call, client_state=STATE) == {"result": "ok"}
    (payload,) = desk.payloads()
    assert (payload["state"], payload["client_state"]) == ("answered", STATE)


def test_caller_gives_up_after_a_while(desk):
    call = desk.carrier.place("+1", "+2", desk.scenario, 0.0)
    desk.to(30.0)
    assert desk.events() == ["call.initiated", "call.hangup"]
    assert call.hangup_cause == "originator_cancel"


def test_answer_may_move_the_webhooks_and_start_a_stream(desk):
    call = desk.carrier.place("+1", "+2", desk.scenario, 0.0)
    desk.command("answer", call, webhook_url="http://127.0.0.1:3/", stream_url="wss://example.com")
    _, answered, streaming = desk.effects()
    assert answered.url == "http://127.0.0.1:3/"
    assert streaming.event["event_type"] == "streaming.started"


def test_only_an_unanswered_incoming_call_can_be_answered(desk):
    why = "Only an incoming call that was not answered can be answered."
    assert refusal(desk, "answer", desk.dial()) == (422, "10015", why)
    call = desk.carrier.place("+1", "+2", desk.scenario, 0.0)
    desk.command("answer", call)
    assert refusal(desk, "answer", call) == (422, "10015", why)


# hangup


@pytest.mark.parametrize(
    ("incoming", "answered", "here", "cause", "sip", "source"),
    [
        (False, True, True, "normal_clearing", "200", "caller"),
        (False, True, False, "normal_clearing", "200", "callee"),
        (False, False, True, "originator_cancel", "487", "caller"),
        (False, False, False, "call_rejected", "603", "callee"),
        (True, True, True, "normal_clearing", "200", "callee"),
        (True, True, False, "normal_clearing", "200", "caller"),
        (True, False, True, "call_rejected", "603", "callee"),
        (True, False, False, "originator_cancel", "487", "caller"),
    ],
)
def test_hangup_says_who_ended_what(desk, incoming, answered, here, cause, sip, source):
    if incoming:
        call = desk.carrier.place("+1", "+2", desk.scenario, 0.0)
        if answered:
            desk.command("answer", call)
    else:
        call = desk.up() if answered else desk.dial()
    desk.effects()
    if here:
        desk.command("hangup", call)
    else:
        desk.carrier.hang_up_there(call, desk.now_s)
    (payload,) = desk.payloads()
    assert (payload["hangup_cause"], payload["sip_hangup_cause"]) == (cause, sip)
    assert payload["hangup_source"] == source


def test_hangup_ends_everything_first(desk):
    call = desk.up(record="record-from-answer", stream_url="wss://example.com/media")
    desk.command("fork_start", call, target="udp:127.0.0.1:9000")
    desk.command("playback_start", call, media_name="music", loop="infinity")
    desk.command("gather", call)
    desk.command("enqueue", call, queue_name="support")
    desk.effects()
    desk.command("hangup", call)
    assert desk.events() == [
        "call.gather.ended",
        "call.playback.ended",
        "call.dequeued",
        "call.fork.stopped",
        "streaming.stopped",
        "call.hangup",
        "call.recording.saved",
    ]
    desk.to(100.0)
    assert desk.events() == []


# client state


def test_client_state_is_in_every_later_webhook(desk):
    call = desk.up(client_state=STATE)
    desk.command("client_state_update", call, client_state="YQ==")
    assert desk.effects() == []
    desk.command("fork_start", call, target="udp:127.0.0.1:9000")
    desk.command("fork_stop", call, client_state="Yg==")
    desk.command("hangup", call)
    states = [payload["client_state"] for payload in desk.payloads()]
    assert states == ["YQ==", "Yg==", "Yg=="]


def test_refused_command_leaves_the_client_state(desk):
    call = desk.up(client_state=STATE)
    refusal(desk, "leave_queue", call, client_state="YQ==")
    assert call.client_state == STATE


# bridge


def test_bridge_tells_both_legs_and_ends_both(desk):
    one, other = desk.up(), desk.up()
    desk.command("bridge", one, call_control_id=other.control_id)
    assert (one.state, other.state) == ("bridged", "bridged")
    assert desk.events() == ["call.bridged", "call.bridged"]
    desk.command("hangup", other)
    assert (one.state, other.state) == ("ended", "ended")


def test_parked_leg_stays_when_the_other_one_leaves(desk):
    one, other = desk.up(), desk.up()
    desk.command("bridge", one, call_control_id=other.control_id, park_after_unbridge="self")
    desk.command("hangup", other)
    assert (one.state, other.state) == ("answered", "ended")
    desk.command("hangup", one)


def test_bridge_with_a_queue_takes_the_call_that_waits_longest(desk):
    one, first, second = desk.up(), desk.up(), desk.up()
    for call in (first, second):
        desk.command("enqueue", call, queue_name="support")
    desk.effects()
    desk.command("bridge", one, queue="support")
    assert one.partner is first
    assert desk.events() == ["call.dequeued", "call.bridged", "call.bridged"]
    assert first.queue is None


@pytest.mark.parametrize(
    ("parameters", "detail"),
    [
        ({"call_control_id": "x"}, "The call_control_id provided was not valid."),
        ({"queue": "nowhere"}, "The queue nowhere is empty."),
    ],
)
def test_bridge_with_what_is_not_there_is_refused(desk, parameters, detail):
    assert refusal(desk, "bridge", desk.up(), **parameters)[2] == detail


def test_bridge_needs_two_calls_that_are_up_and_free(desk):
    one, other, third, ringing = desk.up(), desk.up(), desk.up(), desk.dial()
    itself = refusal(desk, "bridge", one, call_control_id=one.control_id)
    assert itself[2] == "A call cannot be bridged with itself."
    not_up = refusal(desk, "bridge", one, call_control_id=ringing.control_id)
    assert not_up[2] == "The call to bridge with is not up."
    desk.command("bridge", one, call_control_id=other.control_id)
    taken = refusal(desk, "bridge", third, call_control_id=one.control_id)
    assert taken[2] == "One of the two calls is bridged already."


# queues


def test_queue_tells_positions(desk):
    one, other = desk.up(), desk.up()
    desk.command("enqueue", one, queue_name="support")
    desk.command("enqueue", other, queue_name="support")
    desk.command("leave_queue", other)
    assert [
        (p["queue"], p.get("current_position"), p.get("queue_position"), p.get("reason"))
        for p in desk.payloads()
    ] == [
        ("support", 1, None, None),
        ("support", 2, None, None),
        ("support", None, 2, "leave"),
    ]


def test_call_that_waits_too_long_leaves_the_queue(desk):
    call = desk.up()
    desk.command("enqueue", call, max_wait_time_secs=10)
    desk.to(11.0)
    _, payload = desk.payloads()
    assert payload["reason"] == "timeout"
    assert call.queue is None


def test_time_of_an_earlier_waiting_is_over_with_it(desk):
    call = desk.up()
    desk.command("enqueue", call, max_wait_time_secs=10)
    desk.command("leave_queue", call)
    desk.command("enqueue", call)
    desk.to(50.0)
    assert call.queue == "default"


def test_full_queue_takes_nobody_and_keeps_its_size(desk):
    one, other = desk.up(), desk.up()
    desk.command("enqueue", one, queue_name="q", max_size=1)
    full = refusal(desk, "enqueue", other, queue_name="q", max_size=5)
    assert full == (422, "10015", "The queue q is full.")


def test_call_is_in_one_queue_or_none(desk):
    call = desk.up()
    assert refusal(desk, "leave_queue", call)[2] == "The call is in no queue."
    desk.command("enqueue", call)
    again = refusal(desk, "enqueue", call, queue_name="other")
    assert again[2] == "The call is in the queue default already."


# forks


def media(desk):
    return [
        (effect.legs, effect.fork) for effect in desk.effects() if isinstance(effect, MediaChange)
    ]


def test_fork_is_told_and_its_media_sent_until_it_is_stopped(desk):
    call = desk.up()
    desk.command("fork_start", call, target="udp:127.0.0.1:9000")
    notice, change = desk.effects()
    assert notice.event["event_type"] == "call.fork.started"
    assert notice.event["payload"]["stream_type"] == "raw"
    assert (change.legs, change.fork.target) == (1, ("127.0.0.1", 9000))
    desk.command("fork_stop", call)
    change, notice = desk.effects()
    assert notice.event["event_type"] == "call.fork.stopped"
    assert change.legs == 0


def test_decrypted_fork_goes_to_its_two_ports(desk):
    call = desk.up()
    desk.command("fork_start", call, stream_type="decrypted", rx="udp:127.0.0.1:9000",
                 tx="udp:127.0.0.1:9001")  # fmt: skip
    ((_, fork),) = media(desk)
    assert (fork.rx, fork.tx) == (("127.0.0.1", 9000), ("127.0.0.1", 9001))


def test_second_fork_of_a_type_and_stop_of_none_are_refused(desk):
    call = desk.up()
    desk.command("fork_start", call, target="udp:127.0.0.1:9000")
    again = refusal(desk, "fork_start", call, target="udp:127.0.0.1:9000")
    assert again == (422, "10015", "The call has a fork of type raw already.")
    other = refusal(desk, "fork_stop", call, stream_type="decrypted")
    assert other == (422, "10015", "The call has no fork of type decrypted.")


def test_fork_has_leg_b_while_the_call_is_bridged(desk):
    one, other = desk.up(), desk.up()
    desk.command("fork_start", one, target="udp:127.0.0.1:9000")
    desk.command("bridge", one, call_control_id=other.control_id, park_after_unbridge="self")
    desk.command("hangup", other)
    assert [legs for legs, _ in media(desk)] == [1, 2, 1]


def test_scenario_may_give_every_call_two_legs():
    desk = Desk(call={"legs": 2})
    desk.command("fork_start", desk.up(), target="udp:127.0.0.1:9000")
    assert [legs for legs, _ in media(desk)] == [2]


# what all commands have in common

ACTIONS = [name for name in COMMANDS if name != "dial"]
REQUIRED = {
    "bridge": {"queue": "q"},
    "client_state_update": {"client_state": "YQ=="},
    "fork_start": {"target": "udp:127.0.0.1:9000"},
    "gather_using_audio": {"media_name": "m"},
    "gather_using_speak": {"language": "en-US", "payload": "p", "voice": "male"},
    "playback_start": {"media_name": "m"},
}


@pytest.mark.parametrize("name", ACTIONS)
def test_unknown_call_is_not_found(desk, name):
    with pytest.raises(RefusedError) as error:
        desk.carrier.command(name, "v3:nobody", REQUIRED.get(name, {}), 0.0)
    assert (error.value.status, error.value.code) == (404, "10005")


@pytest.mark.parametrize("name", ACTIONS)
def test_ended_call_takes_no_commands(desk, name):
    call = desk.up()
    desk.command("hangup", call)
    assert refusal(desk, name, call, **REQUIRED.get(name, {})) == (
        422, "90018", "This call is no longer active and can't receive commands.",
    )  # fmt: skip


@pytest.mark.parametrize("name", [n for n in ACTIONS if n not in
                                  {"answer", "hangup", "client_state_update"}])  # fmt: skip
def test_commands_wait_for_the_answer(desk, name):
    status, code, _ = refusal(desk, name, desk.dial(), **REQUIRED.get(name, {}))
    assert (status, code) == (422, "90034")


@pytest.mark.parametrize(
    ("name", "body", "code", "pointer"),
    [
        ("dial", {"from": "+1800", "to": "+2"}, "10004", "/connection_id"),
        ("dial", DIAL | {"timeout_secs": 4}, "10015", "/timeout_secs"),
        ("dial", DIAL | {"client_state": "?"}, "10015", "/client_state"),
        ("dial", DIAL | {"custom_headers": [{"name": "a b", "value": "c"}]}, "10015",
         "/custom_headers/0/name"),
        ("fork_start", {}, "10004", "/target"),
        ("fork_start", {"target": "127.0.0.1:1"}, "10015", "/target"),
        ("gather_using_speak", {"language": "en-US", "voice": "male"}, "10004", "/payload"),
    ],
)  # fmt: skip
def test_wrong_parameter_is_pointed_at(desk, name, body, code, pointer):
    call = None if name == "dial" else desk.up()
    with pytest.raises(RefusedError) as error:
        desk.command(name, call, **body)
    (only,) = error.value.as_json()["errors"]
    assert (error.value.status, only["code"]) == (422, code)
    assert only["source"] == {"pointer": pointer}
    assert desk.effects() == []


@pytest.mark.parametrize("document", [[], "x", None, 3])
def test_body_that_is_no_object_is_refused(desk, document):
    with pytest.raises(RefusedError) as error:
        desk.carrier.command("dial", None, document, 0.0)
    assert (error.value.status, error.value.code) == (422, "10015")


def test_repeated_dial_is_the_same_call(desk):
    first = desk.command("dial", **DIAL, command_id="a")
    assert desk.command("dial", **DIAL, command_id="a") == first
    assert desk.command("dial", **DIAL, command_id="b") != first
    assert len(desk.carrier.calls) == 2


def test_repeated_command_is_ignored_and_answered_the_same(desk):
    call, other = desk.up(), desk.up()
    body = {"target": "udp:127.0.0.1:9000", "command_id": "a"}
    for _ in range(3):
        assert desk.command("fork_start", call, **body) == {"result": "ok"}
    assert desk.events() == ["call.fork.started"]
    assert desk.command("fork_start", other, **body) == {"result": "ok"}
    assert desk.events() == ["call.fork.started"]


def test_repeated_command_learns_that_the_call_has_ended_since(desk):
    call = desk.up()
    desk.command("fork_start", call, target="udp:127.0.0.1:9000", command_id="a")
    assert desk.command("hangup", call, command_id="b") == {"result": "ok"}
    for name, command_id in (("fork_start", "a"), ("hangup", "b")):
        answer = refusal(desk, name, call, **REQUIRED.get(name, {}), command_id=command_id)
        assert answer[:2] == (422, "90018")


def test_refused_command_may_be_repeated_under_its_id(desk):
    call = desk.up()
    refusal(desk, "leave_queue", call, command_id="a")
    desk.command("enqueue", call)
    assert desk.command("leave_queue", call, command_id="a") == {"result": "ok"}
    assert call.queue is None


def test_unknown_parameters_are_taken(desk):
    call = desk.up()
    assert desk.command("fork_start", call, target="udp:127.0.0.1:9000", of_tomorrow=[1])


def test_ids_are_the_same_for_the_same_seed():
    ids = [[(c.control_id, c.leg_id) for c in (desk.dial(), desk.dial())]
           for desk in (Desk(), Desk())]  # fmt: skip
    assert ids[0] == ids[1]
    assert len(set(ids[0])) == 2


# what grows has an end


def test_oldest_calls_that_are_over_are_forgotten(desk, monkeypatch):
    monkeypatch.setattr("strep.simulator.carrier.MOST_CALLS", 2)
    first, second = desk.up(), desk.up()
    desk.command("hangup", second)
    third = desk.up()
    assert list(desk.carrier.calls.values()) == [first, third]
    fourth = desk.up()  # nothing to forget: all are up
    assert list(desk.carrier.calls.values()) == [first, third, fourth]


def test_oldest_answers_are_forgotten(desk, monkeypatch):
    monkeypatch.setattr("strep.simulator.carrier.MOST_ANSWERS", 1)
    first = desk.command("dial", **DIAL, command_id="a")
    second = desk.command("dial", **DIAL, command_id="b")
    assert desk.command("dial", **DIAL, command_id="b") == second
    assert desk.command("dial", **DIAL, command_id="a") != first


def test_timers_of_calls_that_are_over_are_cleared_away(desk, monkeypatch):
    monkeypatch.setattr("strep.simulator.calls.MANY_TIMERS", 10)
    board = desk.carrier._board
    board._most_timers = 10
    for _ in range(50):
        desk.command("hangup", desk.dial())
    assert len(board._timers) <= 13
    call = desk.up()
    assert call.state == "answered"
