from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from strep.control.calls import Call, Calls, moment_ns
from strep.control.events import event_of

S = 1_000_000_000
NOW = 1_517_610_327 * S
CALL = "v3:MdI91X4lWFEs7IgbBEOT9M4AigoY08M0WWZFISt1Yw2axZ_IiE4pqg"
LEG = UUID("428c31b6-7af4-4bcb-b7f5-5013ef9657c1")
OTHER = UUID("2dc6fc34-f9e0-11ea-b68e-02420a0f7768")
SIDE = ("A", "inbound")


def event(kind, *, at="2018-02-02T22:25:27.521992Z", **payload):
    ids = {"call_control_id": CALL, "call_leg_id": str(LEG)}
    return event_of(
        {
            "data": {
                "event_type": kind,
                "id": "0ccc7b54-4df3-4bca-a65a-3da1ecc777f0",
                "occurred_at": at,
                "payload": ids | payload,
            }
        }
    )


def calls(**what):
    return Calls(**{"pending_ns": 10 * S} | what)


def test_webhooks_tell_who_called_whom():
    known = calls()
    known.told(
        event(
            "call.initiated",
            at="2018-02-02T22:25:20Z",
            start_time="2018-02-02T22:25:19.5Z",
            direction="incoming",
            **{"from": "+35319605860", "to": "+18005550100"},
        ),
        NOW,
    )
    known.told(
        event(
            "call.answered",
            call_session_id="session",
            connection_id="7267",
            client_state="aGF2ZSBhIG5pY2UgZGF5ID1d",
        ),
        NOW,
    )
    known.told(
        event(
            "call.hangup",
            at="2018-02-02T22:26:00Z",
            hangup_cause="normal_clearing",
            hangup_source="caller",
            sip_hangup_cause="200",
        ),
        NOW,
    )
    assert known.facts(LEG) == {
        "call_control_id": CALL,
        "call_leg_id": "428c31b6-7af4-4bcb-b7f5-5013ef9657c1",
        "call_session_id": "session",
        "connection_id": "7267",
        "from": "+35319605860",
        "to": "+18005550100",
        "direction": "incoming",
        "client_state": "aGF2ZSBhIG5pY2UgZGF5ID1d",
        "state": "hangup",
        "started_at": "2018-02-02T22:25:19.500Z",
        "answered_at": "2018-02-02T22:25:27.521Z",
        "ended_at": "2018-02-02T22:26:00.000Z",
        "hangup_cause": "normal_clearing",
        "hangup_source": "caller",
        "sip_hangup_cause": "200",
    }
    assert known.by_leg(LEG).is_over
    assert list(known) == []


def test_nothing_is_known_of_a_leg_that_nobody_told_of():
    assert calls().facts(LEG) == {}


def test_webhooks_in_another_order_tell_the_same():
    told = [
        event(
            "call.initiated", at="2018-02-02T22:25:01Z", direction="incoming", client_state="YQ=="
        ),
        event("call.answered", at="2018-02-02T22:25:02Z", client_state="Yg=="),
        event("call.bridged", at="2018-02-02T22:25:03Z", client_state="Yw=="),
        event("call.hangup", at="2018-02-02T22:25:04Z", hangup_cause="timeout"),
        event("call.recording.saved", at="2018-02-02T22:25:05Z", client_state="ZA=="),
    ]
    forwards, backwards = calls(), calls()
    for each in told:
        forwards.told(each, NOW)
    for each in reversed(told):
        backwards.told(each, NOW)
    assert forwards.facts(LEG) == backwards.facts(LEG)
    assert forwards.facts(LEG)["client_state"] == "ZA=="
    assert forwards.facts(LEG)["state"] == "hangup"


def test_state_does_not_go_back_when_an_event_comes_late():
    known = calls()
    known.told(event("call.bridged", at="2018-02-02T22:25:03Z"), NOW)
    call = known.told(event("call.answered", at="2018-02-02T22:25:02Z"), NOW)
    assert call.state == "bridged"


def test_command_and_webhook_meet_in_one_call():
    known = calls()
    by_command = known.known(CALL, None, NOW)
    assert known.told(event("call.answered"), NOW) is by_command
    assert known.by_leg(LEG) is known.by_control_id(CALL) is by_command
    assert len(known) == 1


def test_what_two_sides_told_apart_is_put_together_by_who_tells_both_ids():
    known = calls()
    one = known.known(CALL, None, NOW)
    other = known.told(event("call.answered", call_control_id=None, connection_id="7267"), NOW + S)
    known.track_opened(LEG, SIDE, NOW + S)
    assert one is not other
    assert len(known) == 2
    call = known.known(CALL, LEG, NOW + 2 * S)
    assert known.by_leg(LEG) is known.by_control_id(CALL) is call
    assert (call.connection_id, call.state, call.tracks) == ("7267", "answered", {SIDE})
    assert call.started_ns == NOW
    assert len(known) == 1


def test_end_that_was_told_of_the_leg_alone_is_the_calls():
    known = calls()
    known.known(CALL, None, NOW)
    known.told(event("call.hangup", call_control_id=None), NOW)
    call = known.known(CALL, LEG, NOW)
    assert (call.is_over, call.state) == (True, "hangup")
    assert list(known) == []
    assert len(known) == 1


@pytest.mark.parametrize(
    ("pair", "expected"),
    [((CALL, OTHER), CALL), (("v3:other", LEG), CALL)],
)
def test_pair_of_ids_that_contradicts_what_was_told_is_not_believed(pair, expected):
    known = calls()
    known.known(CALL, LEG, NOW)
    assert known.known(*pair, NOW).call_control_id == expected
    assert known.by_leg(OTHER) is None
    assert known.by_control_id("v3:other") is None
    assert known.counts.conflicts == 1


def test_leg_that_is_heard_first_waits_to_be_told_of():
    known = calls()
    assert known.track_opened(LEG, SIDE, NOW) is None
    assert known.track_opened(LEG, ("A", "outbound"), NOW) is None
    assert known.pending == 1
    known.track_closed(LEG, SIDE, NOW)
    call = known.told(event("call.fork.started"), NOW + 9 * S)
    assert call.tracks == {("A", "outbound")}
    assert (known.pending, known.counts.legs_joined) == (0, 1)


def test_leg_that_nobody_tells_of_expires():
    known = calls(pending_ns=10 * S)
    known.track_opened(LEG, SIDE, NOW)
    known.track_opened(OTHER, SIDE, NOW + S)
    known.tick(NOW + 10 * S - 1)
    assert (known.pending, known.counts.legs_expired) == (2, 0)
    known.tick(NOW + 10 * S)
    assert (known.pending, known.counts.legs_expired) == (1, 1)


def test_legs_that_wait_are_bounded():
    known = calls(max_pending=2)
    for number in range(5):
        known.track_opened(UUID(int=number), SIDE, NOW)
    assert (known.pending, known.counts.legs_refused) == (2, 3)


def test_calls_are_bounded_and_ended_ones_go_first():
    known = calls(max_calls=3)
    for number in range(3):
        known.known(f"v3:{number}", None, NOW + number)
    known.over(known.by_control_id("v3:2"), NOW + 3)
    known.known("v3:3", None, NOW + 4)
    assert known.by_control_id("v3:2") is None
    known.known("v3:4", None, NOW + 5)
    assert known.by_control_id("v3:0") is None
    assert len(known) == 3
    assert known.counts.evicted == 2
    assert [call.call_control_id for call in known.tick(NOW + 6)] == ["v3:2", "v3:0"]
    assert known.tick(NOW + 6) == []


def test_ended_call_is_remembered_for_what_comes_late():
    known = calls()
    known.told(event("call.hangup"), NOW)
    assert known.tick(NOW + 600 * S - 1) == []
    (call,) = known.tick(NOW + 600 * S)
    assert (call.call_leg_id, call.state) == (LEG, "hangup")
    assert known.by_leg(LEG) is None
    assert known.counts.expired == 0


def test_call_of_which_nothing_is_heard_for_longer_than_a_call_lasts_is_lost():
    known = calls()
    known.told(event("call.answered"), NOW)
    known.track_opened(LEG, SIDE, NOW + 60 * S)
    assert known.tick(NOW + 60 * S + 5 * 3600 * S - 1) == []
    (call,) = known.tick(NOW + 60 * S + 5 * 3600 * S)
    assert (call.state, call.ended_ns) == ("lost", NOW + 60 * S)
    assert known.counts.expired == 1


def test_call_of_an_earlier_daemon_is_not_put_over_what_was_told_since():
    known = calls()
    told = known.told(event("call.answered"), NOW)
    known.add(Call(call_control_id=CALL, call_leg_id=LEG, started_ns=NOW, heard_ns=NOW))
    assert known.by_leg(LEG) is told
    known.add(Call(call_leg_id=OTHER, started_ns=NOW, heard_ns=NOW))
    assert known.by_leg(OTHER).started_ns == NOW


@pytest.mark.parametrize(
    ("at", "expected_ns"),
    [
        ("2018-02-02T22:25:27.521992Z", 1_517_610_327_521_992_000),
        ("2018-02-02T23:25:27.521992+01:00", 1_517_610_327_521_992_000),
        ("1969-12-31T23:59:59Z", 7),
        ("9999-12-31T23:59:59Z", 7),
    ],
)
def test_moment_that_cannot_be_kept_is_replaced(at, expected_ns):
    assert moment_ns(event("call.answered", at=at).occurred_at, 7) == expected_ns


class Joining(RuleBasedStateMachine):
    """Ids are told in any combination and order, and calls end and are forgotten."""

    controls = st.sampled_from([None, "v3:0", "v3:1", "v3:2", "v3:3"])
    legs = st.sampled_from([None, *(UUID(int=n) for n in range(4))])

    def __init__(self):
        super().__init__()
        self.calls = calls(max_calls=3, max_pending=2)
        self.now_ns = NOW

    @rule(control=controls, leg=legs)
    def tell(self, control, leg):
        if control is None and leg is None:
            return
        call = self.calls.known(control, leg, self.now_ns)
        one, other = self.calls.by_control_id(control), self.calls.by_leg(leg)
        assert call is one or call is other

    @rule(leg=legs.filter(bool), side=st.sampled_from([SIDE, ("B", "outbound")]))
    def hear(self, leg, side):
        self.calls.track_opened(leg, side, self.now_ns)

    @rule(leg=legs.filter(bool))
    def hear_no_more(self, leg):
        self.calls.track_closed(leg, SIDE, self.now_ns)

    @rule(control=controls.filter(bool))
    def end(self, control):
        call = self.calls.by_control_id(control)
        if call is not None:
            self.calls.over(call, self.now_ns)

    @rule(seconds=st.sampled_from([1, 20, 700, 20_000]))
    def time_passes(self, seconds):
        self.now_ns += seconds * S
        self.calls.tick(self.now_ns)

    @invariant()
    def tables_agree(self):
        known = [*self.calls._live.values(), *self.calls._ended.values()]
        assert len(known) == len(self.calls) <= 3
        assert self.calls.pending <= 2
        by_control = {c.call_control_id: c for c in known if c.call_control_id is not None}
        by_leg = {c.call_leg_id: c for c in known if c.call_leg_id is not None}
        assert self.calls._by_control_id == by_control
        assert self.calls._by_leg == by_leg
        assert not set(by_leg) & set(self.calls._pending)
        assert not any(call.is_over for call in self.calls)


Joining.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
TestJoining = Joining.TestCase
