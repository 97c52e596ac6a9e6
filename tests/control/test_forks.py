from __future__ import annotations

from itertools import pairwise
from uuid import UUID

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from strep.control.forks import NEXT, Change, Fork
from strep.control.ports import PortPair

S = 1_000_000_000
T0 = 1_700_000_000 * S
CALL = "v3:MdI91X4lWFEs7IgbBEOT9M4AigoY08M0WWZFISt1Yw2axZ_IiE4pqg"
LEG = UUID("428c31b6-7af4-4bcb-b7f5-5013ef9657c1")
FORK = UUID("0ccc7b54-4df3-4bca-a65a-3da1ecc777f0")


def make(**what):
    given = {"id": FORK, "call_control_id": CALL, "call_leg_id": LEG, "way": "target"}
    changes = [Change("requested", "asked", T0)]
    return Fork(**given | {"changes": changes} | what)


def started():
    fork = make()
    fork.answered("fork_start", "done", T0)
    fork.carrier_started(T0 + S, T0 + S)
    return fork


def flowing():
    fork = started()
    fork.packet(T0 + 2 * S)
    return fork


def life(fork):
    """States, why and seconds after the request."""
    return [(c.state, c.why, (c.at_ns - T0) / S) for c in fork.changes]


def test_life_of_a_fork_that_goes_well():
    fork = make()
    assert fork.due(T0) == "fork_start"
    fork.answered("fork_start", "done", T0 + S)
    assert fork.due(T0 + S) is None
    fork.carrier_started(T0 + 2 * S, T0 + S)
    fork.packet(T0 + 3 * S)
    fork.stop(T0 + 60 * S)
    assert fork.is_stopping
    assert fork.due(T0 + 60 * S) == "fork_stop"
    fork.answered("fork_stop", "done", T0 + 61 * S)
    assert life(fork) == [
        ("requested", "asked", 0),
        ("started", "webhook", 2),
        ("flowing", "packet", 3),
        ("stopped", "asked", 61),
    ]
    assert fork.is_settled


def test_packets_may_come_before_the_webhook_and_the_answer():
    fork = make()
    fork.packet(T0 + S)
    assert fork.due(T0 + S) is None
    fork.carrier_started(T0 + 2 * S, T0)
    fork.answered("fork_start", "done", T0 + 3 * S)
    assert life(fork) == [("requested", "asked", 0), ("flowing", "packet", 1)]


@pytest.mark.parametrize("is_started", [False, True])
def test_fork_that_brings_no_packet_in_time_has_failed_and_is_stopped(is_started):
    fork = make(first_media_timeout_ns=10 * S)
    fork.answered("fork_start", "done", T0)
    if is_started:
        fork.carrier_started(T0 + 4 * S, T0)
    last_ns = T0 + (14 if is_started else 10) * S
    assert fork.wake_ns == last_ns
    fork.tick(last_ns - 1)
    assert fork.is_open
    fork.tick(last_ns)
    assert (fork.state, fork.why) == ("failed", "no_media")
    assert fork.due(last_ns) == "fork_stop"
    assert not fork.is_settled
    fork.answered("fork_stop", "done", last_ns)
    assert (fork.state, fork.why) == ("failed", "no_media")
    assert fork.is_settled


def test_first_packet_is_not_waited_for_while_the_outcome_of_the_start_is_unknown():
    fork = make()
    fork.answered("fork_start", "unknown", T0 + S, "no answer")
    fork.tick(T0 + 3600 * S)
    assert (fork.state, fork.in_doubt, fork.error) == ("requested", True, "no answer")


def test_first_packet_is_not_waited_for_where_it_could_not_be_known():
    fork = make(call_leg_id=None)
    fork.answered("fork_start", "done", T0)
    fork.tick(T0 + 3600 * S)
    assert fork.state == "requested"
    fork.named(LEG, T0 + 3600 * S)
    fork.tick(T0 + 3609 * S)
    assert fork.state == "requested"
    fork.tick(T0 + 3610 * S)
    assert (fork.state, fork.why) == ("failed", "no_media")


def test_second_webhook_of_a_start_gives_no_more_time():
    fork = started()
    fork.carrier_started(T0 + 10 * S, T0 + S)
    fork.tick(T0 + 11 * S)
    assert fork.why == "no_media"


def test_first_name_of_the_leg_stays():
    fork = make(call_leg_id=None)
    fork.named(LEG, T0)
    fork.named(FORK, T0)
    assert fork.call_leg_id == LEG


def test_command_of_unknown_outcome_is_sent_again_ever_more_rarely():
    fork = make()
    now_ns, waits_s = T0, []
    for _ in range(8):
        assert fork.due(now_ns) == "fork_start"
        fork.answered("fork_start", "unknown", now_ns, "503")
        assert fork.due(fork.ask_at_ns - 1) is None
        waits_s.append((fork.ask_at_ns - now_ns) / S)
        now_ns = fork.ask_at_ns
    assert waits_s == [2, 4, 8, 16, 32, 60, 60, 60]


def test_command_has_the_same_id_each_time_and_after_a_restart():
    fork, again = make(), make()
    assert fork.command_id("fork_start") == again.command_id("fork_start")
    assert fork.command_id("fork_start") == "0118b838-847f-59d9-82c1-da4ced0a2424"
    assert fork.command_id("fork_stop") != fork.command_id("fork_start")


@pytest.mark.parametrize(
    ("resolve", "state"),
    [
        (lambda fork: fork.carrier_started(T0 + 9 * S, T0), "started"),
        (lambda fork: fork.packet(T0 + 9 * S), "flowing"),
        (lambda fork: fork.carrier_stopped(T0 + 9 * S, T0), "stopped"),
        (lambda fork: fork.call_over(T0 + 9 * S), "stopped"),
        (lambda fork: fork.answered("fork_start", "done", T0 + 9 * S), "requested"),
        (lambda fork: fork.answered("fork_start", "refused", T0 + 9 * S), "failed"),
        (lambda fork: fork.answered("fork_start", "call_ended", T0 + 9 * S), "failed"),
    ],
)
def test_doubt_about_a_start_is_resolved(resolve, state):
    fork = make()
    fork.answered("fork_start", "unknown", T0, "no answer")
    resolve(fork)
    assert (fork.state, fork.in_doubt, fork.ask) == (state, False, None)


@pytest.mark.parametrize(
    ("resolve", "why"),
    [
        (lambda fork: fork.carrier_stopped(T0 + 9 * S, T0 + 9 * S), "asked"),
        (lambda fork: fork.call_over(T0 + 9 * S), "hangup"),
        (lambda fork: fork.answered("fork_stop", "done", T0 + 9 * S), "asked"),
        (lambda fork: fork.answered("fork_stop", "refused", T0 + 9 * S), "asked"),
        (lambda fork: fork.answered("fork_stop", "call_ended", T0 + 9 * S), "call_ended"),
        (lambda fork: fork.answered("fork_stop", "not_found", T0 + 9 * S), "call_ended"),
    ],
)
def test_doubt_about_a_stop_is_resolved(resolve, why):
    fork = flowing()
    fork.stop(T0 + 3 * S)
    fork.answered("fork_stop", "unknown", T0 + 4 * S, "no answer")
    assert (fork.state, fork.in_doubt, fork.is_stopping) == ("flowing", True, True)
    resolve(fork)
    assert (fork.state, fork.why, fork.is_settled) == ("stopped", why, True)


@pytest.mark.parametrize(
    ("outcome", "why"),
    [
        ("refused", "refused"),
        ("unauthorized", "refused"),
        ("not_found", "refused"),
        ("call_ended", "call_ended"),
    ],
)
def test_start_that_was_not_done_is_a_failure(outcome, why):
    fork = make()
    fork.answered("fork_start", outcome, T0 + S, "what the carrier said")
    assert life(fork)[1:] == [("failed", why, 1)]
    assert fork.changes[-1].detail == "what the carrier said"
    assert fork.is_settled


def test_stop_with_a_wrong_key_is_asked_again():
    fork = flowing()
    fork.stop(T0 + 3 * S)
    fork.answered("fork_stop", "unauthorized", T0 + 3 * S, "401")
    assert (fork.state, fork.is_stopping, fork.error) == ("flowing", True, "401")
    assert fork.due(T0 + 5 * S) == "fork_stop"


def test_stop_that_is_asked_for_again_is_sent_at_once():
    fork = flowing()
    fork.stop(T0 + 3 * S)
    fork.answered("fork_stop", "unknown", T0 + 3 * S, "503")
    fork.stop(T0 + 4 * S)
    assert fork.due(T0 + 4 * S) == "fork_stop"


def test_answer_to_the_start_does_not_answer_a_stop_that_was_asked_meanwhile():
    fork = make()
    fork.stop(T0 + S)
    fork.answered("fork_start", "done", T0 + 2 * S)
    assert fork.due(T0 + 2 * S) == "fork_stop"
    fork.tick(T0 + 100 * S)
    assert fork.is_stopping
    fork.answered("fork_start", "unknown", T0 + 100 * S)
    assert not fork.in_doubt


def test_closed_fork_is_changed_by_nothing_that_comes_late():
    fork = flowing()
    fork.call_over(T0 + 3 * S)
    before = life(fork)
    fork.packet(T0 + 4 * S)
    fork.carrier_started(T0 + 4 * S, T0)
    fork.carrier_stopped(T0 + 4 * S, T0 + 4 * S)
    fork.call_over(T0 + 4 * S)
    fork.stop(T0 + 4 * S)
    fork.silent(T0 + 4 * S)
    fork.resume(T0 + 4 * S)
    fork.answered("fork_start", "unknown", T0 + 4 * S)
    fork.answered("fork_stop", "done", T0 + 4 * S)
    fork.tick(T0 + 100_000 * S)
    assert life(fork) == before
    assert fork.is_settled


def test_stop_of_the_fork_before_is_not_taken_for_this_ones():
    fork = make(owes_stopped=True)
    fork.answered("fork_start", "done", T0)
    fork.carrier_stopped(T0 + S, T0 + S)
    assert fork.state == "requested"
    fork.carrier_stopped(T0 + 2 * S, T0 + 2 * S)
    assert fork.state == "stopped"


def test_stop_that_occurred_before_the_start_is_not_taken_for_this_ones():
    fork = started()  # the carrier says at T0 + 1 s
    fork.carrier_stopped(T0 + 3 * S, T0 + S - 1)
    assert fork.state == "started"
    fork.carrier_stopped(T0 + 3 * S, T0 + S)
    assert fork.state == "stopped"


@pytest.mark.parametrize(
    ("close", "awaits"),
    [
        (lambda fork: fork.answered("fork_stop", "done", T0 + 3 * S), True),
        (lambda fork: fork.carrier_stopped(T0 + 3 * S, T0 + 3 * S), False),
        (lambda fork: fork.call_over(T0 + 3 * S), False),
        (lambda fork: fork.answered("fork_stop", "call_ended", T0 + 3 * S), False),
    ],
)
def test_webhook_of_the_stop_is_awaited_until_it_came_or_cannot_come(close, awaits):
    fork = flowing()
    fork.stop(T0 + 3 * S)
    close(fork)
    assert fork.awaits_stopped is awaits


def test_silent_fork_is_asked_about_by_starting_it_again():
    fork = flowing()
    fork.silent(T0 + 130 * S)
    fork.tick(T0 + 130 * S)
    assert (fork.state, fork.due(T0 + 130 * S)) == ("flowing", "fork_start")


@pytest.mark.parametrize("outcome", ["done", "refused", "unauthorized"])
def test_silent_fork_whose_call_goes_on_flows_on(outcome):
    fork = flowing()
    fork.silent(T0 + 130 * S)
    fork.tick(T0 + 130 * S)
    fork.answered("fork_start", outcome, T0 + 131 * S)
    assert (fork.state, fork.ask, fork.media_by_ns) == ("flowing", None, None)


@pytest.mark.parametrize("outcome", ["call_ended", "not_found"])
def test_silent_fork_whose_call_is_over_is_stopped(outcome):
    fork = flowing()
    fork.silent(T0 + 130 * S)
    fork.tick(T0 + 130 * S)
    fork.answered("fork_start", outcome, T0 + 131 * S)
    assert (fork.state, fork.why) == ("stopped", "call_ended")
    assert fork.is_call_over


def test_fork_that_flowed_before_a_restart_is_to_prove_that_it_does():
    fork = make(
        ask=None,
        changes=[Change("requested", "asked", T0), Change("flowing", "packet", T0 + S)],
    )
    fork.resume(T0 + 100 * S)
    fork.tick(T0 + 109 * S)
    assert fork.ask is None
    fork.tick(T0 + 110 * S)
    assert fork.due(T0 + 110 * S) == "fork_start"
    fork.packet(T0 + 111 * S)
    assert fork.ask is None


def test_fork_of_which_nothing_is_heard_for_longer_than_a_call_lasts_is_lost():
    fork = flowing()
    fork.tick(T0 + 2 * S + 5 * 3600 * S - 1)
    assert fork.is_open
    fork.tick(T0 + 2 * S + 5 * 3600 * S)
    assert (fork.state, fork.why) == ("stopped", "lost")
    never = make()
    never.tick(T0 + 5 * 3600 * S)
    assert (never.state, never.why) == ("failed", "lost")


def test_document_says_all_that_is_of_use():
    fork = make(way="ports", pair=PortPair(20_000, 20_001), stream_type="decrypted", attempt=2)
    fork.answered("fork_start", "refused", T0 + S, "no such thing")
    assert fork.document() == {
        "id": "0ccc7b54-4df3-4bca-a65a-3da1ecc777f0",
        "call_control_id": CALL,
        "call_leg_id": "428c31b6-7af4-4bcb-b7f5-5013ef9657c1",
        "state": "failed",
        "why": "refused",
        "is_stopping": False,
        "in_doubt": False,
        "error": None,
        "way": "ports",
        "rx_port": 20_000,
        "tx_port": 20_001,
        "stream_type": "decrypted",
        "attempt": 2,
        "changes": [
            {
                "state": "requested",
                "why": "asked",
                "at": "2023-11-14T22:13:20.000Z",
                "detail": None,
            },
            {
                "state": "failed",
                "why": "refused",
                "at": "2023-11-14T22:13:21.000Z",
                "detail": "no such thing",
            },
        ],
    }


class AnyOrder(RuleBasedStateMachine):
    """Whatever comes in whatever order, the states are legal, and it can be brought to an end."""

    def __init__(self):
        super().__init__()
        self.now_ns = T0
        self.fork = make(call_leg_id=None)
        self.closed_as = None

    @rule(ns=st.integers(0, 20).map(lambda s: s * S))
    def time_passes(self, ns):
        self.now_ns += ns
        wake_ns, before = self.fork.wake_ns, (list(self.fork.changes), self.fork.ask)
        self.fork.tick(self.now_ns)
        if self.now_ns < wake_ns:
            assert (self.fork.changes, self.fork.ask) == before

    @rule()
    def leg_is_told(self):
        self.fork.named(LEG, self.now_ns)

    @rule(back_s=st.integers(0, 30))
    def carrier_says_started(self, back_s):
        self.fork.carrier_started(self.now_ns, self.now_ns - back_s * S)

    @rule(back_s=st.integers(0, 30))
    def carrier_says_stopped(self, back_s):
        self.fork.carrier_stopped(self.now_ns, self.now_ns - back_s * S)

    @rule()
    def packet_comes(self):
        self.fork.packet(self.now_ns)

    @rule()
    def packets_end(self):
        self.fork.silent(self.now_ns)

    @rule()
    def user_stops(self):
        self.fork.stop(self.now_ns)

    @rule()
    def daemon_is_restarted(self):
        self.fork.resume(self.now_ns)

    @rule(
        ask=st.sampled_from(["fork_start", "fork_stop"]),
        outcome=st.sampled_from(
            ["done", "call_ended", "not_found", "refused", "unauthorized", "unknown"]
        ),
    )
    def carrier_answers(self, ask, outcome):
        self.fork.answered(ask, outcome, self.now_ns, outcome)

    @invariant()
    def history_is_legal(self):
        states = [change.state for change in self.fork.changes]
        assert states[0] == "requested"
        assert all(b in NEXT[a] for a, b in pairwise(states))
        times = [change.at_ns for change in self.fork.changes]
        assert times == sorted(times)

    @invariant()
    def closed_is_closed(self):
        fork = self.fork
        if self.closed_as is not None:
            assert fork.changes == self.closed_as
        elif not fork.is_open:
            self.closed_as = list(fork.changes)

    @invariant()
    def what_is_asked_fits_the_state(self):
        fork = self.fork
        if not fork.is_open:
            assert fork.media_by_ns is None
            assert fork.ask is None or (fork.why, fork.ask) == ("no_media", "fork_stop")
        assert fork.is_settled == (not fork.is_open and fork.ask is None)
        assert fork.in_doubt == (fork.asked > 0)

    def teardown(self):
        self.now_ns += S
        self.fork.stop(self.now_ns)
        if self.fork.ask is not None:
            self.fork.answered("fork_stop", "done", self.now_ns)
        assert self.fork.is_settled


AnyOrder.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
TestAnyOrder = AnyOrder.TestCase
