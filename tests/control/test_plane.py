from __future__ import annotations

import asyncio
from collections import deque
from contextlib import nullcontext, suppress
from uuid import UUID, uuid4

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from planebench import (
    CALL,
    ENDED,
    LEG,
    OK,
    T0,
    Bench,
    CarrierDouble,
    FailingStore,
    NotedWorkers,
    S,
    bench,
    refusal,
)

from strep.control import driver, plane
from strep.control.base import CommandResult
from strep.control.errors import (
    AuthenticationError,
    CallControlError,
    CallEndedError,
    NotFoundError,
    TransportError,
    ValidationError,
)
from strep.control.events import event_of
from strep.control.forks import (
    CallHasForkError,
    CallOverError,
    ForkError,
    ForkParameterError,
    NoPortsError,
    TooManyForksError,
    UnknownForkError,
    UnknownLegError,
)
from strep.control.memory import Memory
from strep.control.plane import ControlPlane
from strep.control.ports import PortPair
from strep.control.settings import ControlSettings
from strep.store import Page, Store

PORTS = {
    "fork_way": "ports",
    "port_range": "20000-20003",
    "advertised_host": "192.0.2.1",
    "port_cooldown_s": 30,
}
ONE, TWO = PortPair(20_000, 20_001), PortPair(20_002, 20_003)
RULE = {"auto_fork": ["7267"]}


def lives(plane):
    return [(fork.state, fork.why) for fork in plane.forks()]


# -- forks by rule, from the answer to the hangup


def test_answered_call_of_a_chosen_connection_is_forked(tmp_path):
    async def scenario(one):
        one.tell("call.answered", connection_id="7267", **{"from": "+35319605860"})
        await one.quiet()
        (fork,) = one.plane.forks()
        assert one.carrier.commands == [
            (
                "fork_start",
                CALL,
                {
                    "stream_type": "raw",
                    "target": "udp:192.0.2.1:9000",
                    "command_id": fork.command_id("fork_start"),
                },
            )
        ]
        assert (fork.state, fork.why, fork.call_leg_id) == ("requested", "rule", LEG)
        one.tell("call.fork.started", stream_type="raw")
        assert fork.state == "started"
        one.hear()
        assert fork.state == "flowing"
        assert one.workers.facts[LEG] == {
            "call_control_id": CALL,
            "call_leg_id": str(LEG),
            "connection_id": "7267",
            "from": "+35319605860",
            "state": "answered",
            "started_at": "2023-11-14T22:13:20.000Z",
            "answered_at": "2023-11-14T22:13:21.000Z",
            "fork_id": str(fork.id),
        }

    bench(tmp_path, scenario, **RULE)


@pytest.mark.parametrize(
    ("rule", "is_forked"),
    [
        ("7267", True),
        ("*", True),
        ("726?", True),
        ("7268", False),
        ("7267,direction=incoming", True),
        ("7267,direction=outgoing", False),
        ("7267,from=+353*", True),
        ("7267,from=+49*", False),
        ("7267,to=sip:*", False),
    ],
)
def test_rule_says_which_answered_calls_are_forked(tmp_path, rule, is_forked):
    async def scenario(one):
        told = {"connection_id": "7267", "from": "+35319605860", "to": "+18005550100"}
        one.tell("call.initiated", direction="incoming", **told)
        one.tell("call.answered", **told)
        await one.quiet()
        assert bool(one.plane.forks()) is is_forked

    bench(tmp_path, scenario, auto_fork=[rule])


def test_call_is_forked_by_rule_once(tmp_path):
    async def scenario(one):
        one.tell("call.answered", connection_id="7267")
        await one.quiet()
        (fork,) = one.plane.forks()
        await one.plane.stop_fork(fork.id)
        one.tell("call.answered", connection_id="7267")
        await one.quiet()
        assert one.plane.forks() == [fork]

    bench(tmp_path, scenario, **RULE)


def test_first_rule_that_fits_declares_the_codecs(tmp_path):
    async def scenario(one):
        one.tell("call.answered", connection_id="7267")
        await one.quiet()
        assert one.workers.facts[LEG]["codecs"] == "OPUS,PCMU"

    rules = ["1", "7267,codecs=OPUS+PCMU", "*,codecs=G722"]
    bench(tmp_path, scenario, auto_fork=rules)


def test_direction_that_was_overtaken_by_the_answer_still_fits_a_rule(tmp_path):
    async def scenario(one):
        one.tell("call.answered", connection_id="7267")
        assert one.plane.forks() == []
        one.tell("call.initiated", connection_id="7267", direction="incoming", at_ns=T0)
        await one.quiet()
        assert lives(one.plane) == [("requested", "rule")]

    bench(tmp_path, scenario, auto_fork=["*,direction=incoming"])


def test_call_that_was_over_before_its_answer_was_told_is_not_forked(tmp_path):
    async def scenario(one):
        one.tell("call.hangup")
        one.tell("call.answered", connection_id="7267", at_ns=T0)
        await one.quiet()
        assert one.plane.forks() == []

    bench(tmp_path, scenario, **RULE)


def test_hangup_stops_the_fork_and_finishes_recordings_after_the_grace(tmp_path):
    async def scenario(one):
        one.tell("call.answered", connection_id="7267")
        await one.quiet()
        one.hear()
        one.tell("call.hangup", hangup_cause="normal_clearing")
        assert lives(one.plane) == [("stopped", "hangup")]
        assert one.workers.facts[LEG]["hangup_cause"] == "normal_clearing"
        await one.wait(0.999)
        assert one.workers.told == []
        await one.wait(0.001)
        assert one.workers.told == [("close_call", LEG), ("forget", LEG)]
        assert one.carrier.names == ["fork_start"]
        # what comes later still is known, but its leg is admitted no more
        one.tell("call.recording.saved")
        assert one.workers.facts == {}

    bench(tmp_path, scenario, stop_grace_s=1.0, **RULE)


def test_call_whose_media_others_forked_is_finished_by_its_webhooks(tmp_path):
    async def scenario(one):
        one.tell("call.fork.started")
        one.hear()
        one.tell("call.fork.stopped")
        await one.wait(1)
        assert one.workers.told == [("close_call", LEG)]
        assert LEG in one.workers.facts
        one.tell("call.hangup")
        await one.wait(1)
        assert one.workers.told[1:] == [("close_call", LEG), ("forget", LEG)]
        assert one.plane.figures().foreign_forks == 2
        assert one.plane.forks() == []

    bench(tmp_path, scenario)


def test_answered_call_that_cannot_be_forked_is_said_and_counted(tmp_path):
    async def scenario(one):
        for number in range(3):
            call = {"call": f"v3:{number}", "leg": UUID(int=number)}
            one.tell("call.answered", connection_id="7267", **call)
        await one.quiet()
        assert len(one.plane.forks()) == 2
        assert one.plane.figures().refused == {"no_ports": 1}
        assert len(one.workers.facts) == 3

    bench(tmp_path, scenario, **PORTS | RULE)


# -- forks that users ask for


def test_fork_with_ports_has_them_open_before_the_carrier_is_asked(tmp_path):
    async def scenario(one):
        one.tell("call.answered")
        one.carrier.gate.clear()
        starting = asyncio.create_task(
            one.plane.start_fork(CALL, stream_type="decrypted", client_state="YWJj")
        )
        await one.carrier.arrived.acquire()
        assert one.workers.open == {ONE: LEG}
        one.carrier.gate.set()
        fork = await starting
        assert one.carrier.commands == [
            (
                "fork_start",
                CALL,
                {
                    "stream_type": "decrypted",
                    "rx": "udp:192.0.2.1:20000",
                    "tx": "udp:192.0.2.1:20001",
                    "command_id": fork.command_id("fork_start"),
                    "client_state": "YWJj",
                },
            )
        ]

    bench(tmp_path, scenario, **PORTS)


def test_stopped_fork_gives_its_ports_back_after_grace_and_cooldown(tmp_path):
    async def scenario(one):
        one.tell("call.answered")
        fork = await one.plane.start_fork(CALL)
        one.hear()
        assert await one.plane.stop_fork(fork.id) is fork
        assert (fork.state, fork.why) == ("stopped", "asked")
        assert one.carrier.commands[1] == (
            "fork_stop",
            CALL,
            {"stream_type": "raw", "command_id": fork.command_id("fork_stop")},
        )
        await one.wait(0.999)
        assert one.workers.told == [("open_ports", ONE)]
        await one.wait(0.001)
        assert one.workers.told[1:] == [("close_call", LEG), ("close_ports", ONE)]
        figures = one.plane.figures()
        assert (figures.port_pairs_held, figures.port_pairs_resting) == (0, 1)
        assert [(await restart(one)).pair for _ in range(2)] == [TWO, ONE]

    async def restart(one):
        """Start a fork and stop it, and wait until its ports are closed."""
        fork = await one.plane.start_fork(CALL)
        await one.plane.stop_fork(fork.id)
        await one.wait(30)
        return fork

    bench(tmp_path, scenario, stop_grace_s=1.0, **PORTS)


def test_call_has_one_fork_at_most(tmp_path):
    async def scenario(one):
        fork = await one.plane.start_fork(CALL)
        with pytest.raises(
            CallHasForkError,
            match=rf"^the call has a fork already, {fork.id}, which is requested$",
        ):
            await one.plane.start_fork(CALL)
        assert one.plane.forks() == [fork]
        assert one.carrier.names == ["fork_start"]
        assert one.plane.figures().refused == {"call_has_fork": 1}

    bench(tmp_path, scenario)


def test_used_up_port_range_refuses_the_fork_and_changes_nothing(tmp_path):
    async def scenario(one):
        for number in range(3):
            one.tell("call.answered", call=f"v3:{number}", leg=UUID(int=number))
        for number in range(2):
            await one.plane.start_fork(f"v3:{number}")
        with pytest.raises(NoPortsError, match=r"^no port pair of 2 is free: 2 held"):
            await one.plane.start_fork("v3:2")
        assert len(one.plane.forks()) == 2
        assert len(one.carrier.commands) == 2

    bench(tmp_path, scenario, **PORTS)


@pytest.mark.parametrize(
    ("parameters", "error", "sentence"),
    [
        (
            {"way": "target", "stream_type": "decrypted"},
            ForkParameterError,
            "decrypted media comes by ports alone, not by target",
        ),
        (
            {"way": "ports"},
            ForkParameterError,
            "a fork by ports needs port_range and advertised_host in the settings",
        ),
        (
            {"client_state": "no base64"},
            ForkParameterError,
            "client_state: 'no base64' is not Base64",
        ),
        (
            {"call_control_id": ""},
            ForkParameterError,
            "a call_control_id has 1 to 512 characters, not 0",
        ),
        (
            {"call_control_id": "v3:unknown", "call_leg_id": LEG},
            ForkParameterError,
            f"call_leg_id {LEG} is another call's",
        ),
        (
            {"call_leg_id": UUID(int=7)},
            ForkParameterError,
            f"call_leg_id {UUID(int=7)} is not this call's, which has {LEG}",
        ),
        ({"call_control_id": "v3:over"}, CallOverError, "the call is over"),
    ],
)
def test_fork_that_cannot_be_is_refused_and_changes_nothing(tmp_path, parameters, error, sentence):
    async def scenario(one):
        one.tell("call.answered")
        one.tell("call.hangup", call="v3:over", leg=UUID(int=7))
        with pytest.raises(error) as raised:
            await one.plane.start_fork(**{"call_control_id": CALL} | parameters)
        assert str(raised.value) == sentence
        assert (one.plane.forks(), one.carrier.commands) == ([], [])
        assert one.plane.calls.by_control_id("v3:unknown") is None

    bench(tmp_path, scenario)


def test_fork_with_ports_needs_the_calls_leg(tmp_path):
    async def scenario(one):
        with pytest.raises(UnknownLegError, match=r"^the call's call_leg_id is not known, and"):
            await one.plane.start_fork(CALL)
        fork = await one.plane.start_fork(CALL, call_leg_id=LEG)
        assert one.workers.open == {ONE: LEG}
        assert fork.call_leg_id == LEG

    bench(tmp_path, scenario, **PORTS)


def test_open_forks_are_bounded(tmp_path):
    async def scenario(one):
        await one.plane.start_fork("v3:0")
        with pytest.raises(TooManyForksError, match=r"^there are 1 forks already, the most"):
            await one.plane.start_fork("v3:1")

    bench(tmp_path, scenario, max_forks=1)


def test_unknown_fork_cannot_be_stopped(tmp_path):
    async def scenario(one):
        with pytest.raises(UnknownForkError):
            await one.plane.stop_fork(uuid4())

    bench(tmp_path, scenario)


def test_closed_fork_can_be_stopped_without_asking_anybody(tmp_path):
    async def scenario(one):
        fork = await one.plane.start_fork(CALL)
        await one.plane.stop_fork(fork.id)
        assert await one.plane.stop_fork(fork.id) is fork
        assert one.carrier.names == ["fork_start", "fork_stop"]

    bench(tmp_path, scenario)


def test_ports_that_others_have_are_not_used(tmp_path):
    async def scenario(one):
        one.workers.taken = {20_001}
        one.tell("call.answered")
        fork = await one.plane.start_fork(CALL)
        assert fork.pair == TWO
        assert one.carrier.commands[0][2]["rx"] == "udp:192.0.2.1:20002"
        figures = one.plane.figures()
        assert (figures.port_pairs_held, figures.port_pairs_resting) == (1, 1)

    bench(tmp_path, scenario, **PORTS)


@pytest.mark.parametrize(
    ("high", "sentence"),
    [
        (20_003, "no port pair of 2 is free: 0 held by forks, 2 resting after one"),
        (20_099, "none of 3 port pairs could be opened: others have them"),
    ],
)
def test_fork_whose_ports_cannot_be_opened_has_failed_without_a_command(tmp_path, high, sentence):
    async def scenario(one):
        one.workers.taken = set(range(20_000, 20_100))
        one.tell("call.answered")
        with pytest.raises(NoPortsError) as raised:
            await one.plane.start_fork(CALL)
        assert str(raised.value) == sentence
        assert lives(one.plane) == [("failed", "no_ports")]
        assert one.carrier.commands == []
        await one.wait(1)
        assert one.plane.figures().port_pairs_held == 0

    bench(tmp_path, scenario, **PORTS | {"port_range": f"20000-{high}"})


def test_commands_under_way_at_once_are_bounded(tmp_path):
    async def scenario(one):
        one.carrier.gate.clear()
        starting = [asyncio.create_task(one.plane.start_fork(f"v3:{n}")) for n in range(9)]
        for _ in range(3):
            await one.carrier.arrived.acquire()
        one.carrier.gate.set()
        await asyncio.gather(*starting)
        assert len(one.carrier.commands) == 9
        assert one.carrier.most_at_once == 3

    bench(tmp_path, scenario, max_commands=3)


def test_user_who_does_not_wait_for_the_answer_has_a_fork_nevertheless(tmp_path):
    async def scenario(one):
        one.carrier.gate.clear()
        starting = asyncio.create_task(one.plane.start_fork(CALL))
        await one.carrier.arrived.acquire()
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        one.carrier.gate.set()
        await one.quiet()
        (fork,) = one.plane.forks()
        assert (fork.state, fork.ask) == ("requested", None)

    bench(tmp_path, scenario)


def test_closed_forks_are_listed_up_to_a_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(driver, "FORKS_REMEMBERED", 2)

    async def scenario(one):
        forks = []
        for number in range(3):
            one.now_ns += S
            forks.append(await one.plane.start_fork(f"v3:{number}"))
            await one.plane.stop_fork(forks[-1].id)
        assert one.plane.forks() == forks[1:]
        assert one.plane.fork(forks[1].id) is forks[1]
        with pytest.raises(UnknownForkError):
            one.plane.fork(forks[0].id)

    bench(tmp_path, scenario)


# -- media


def test_fork_without_media_has_failed_and_is_tried_again_on_other_ports(tmp_path):
    async def scenario(one):
        one.tell("call.answered", connection_id="7267")
        await one.quiet()
        await one.wait(9.999)
        assert one.carrier.names == ["fork_start"]
        await one.wait(0.001)
        assert one.carrier.names == ["fork_start", "fork_stop", "fork_start"]
        await one.wait(10)
        assert lives(one.plane) == [("failed", "no_media"), ("failed", "no_media")]
        assert [fork.changes[0].why for fork in one.plane.forks()] == ["rule", "again"]
        assert [fork.attempt for fork in one.plane.forks()] == [1, 2]
        assert [fork.pair for fork in one.plane.forks()] == [ONE, TWO]
        assert one.carrier.names == ["fork_start", "fork_stop"] * 2
        assert len({body["command_id"] for _, _, body in one.carrier.commands}) == 4
        assert one.plane.figures().fork_changes == {
            ("requested", "rule"): 1,
            ("requested", "again"): 1,
            ("failed", "no_media"): 2,
        }

    bench(tmp_path, scenario, retry_forks=1, first_media_timeout_s=10, **PORTS | RULE)


def test_fork_without_media_is_not_tried_again_when_its_call_is_over(tmp_path):
    async def scenario(one):
        one.carrier.replies.extend([OK, ENDED])
        one.tell("call.answered", connection_id="7267")
        await one.quiet()
        await one.wait(10)
        assert lives(one.plane) == [("failed", "no_media")]
        assert one.carrier.names == ["fork_start", "fork_stop"]
        assert one.plane.calls.by_leg(LEG).is_over

    bench(tmp_path, scenario, retry_forks=3, **RULE)


def test_fork_that_no_ports_are_left_for_is_not_tried_again(tmp_path):
    async def scenario(one):
        one.tell("call.answered")
        await one.plane.start_fork(CALL)
        await one.wait(10)
        assert lives(one.plane) == [("failed", "no_media")]

    bench(tmp_path, scenario, retry_forks=1, **PORTS | {"port_range": "20000-20001"})


def test_packets_before_the_webhook_wait_to_be_told_of(tmp_path):
    async def scenario(one):
        fork = await one.plane.start_fork(CALL)
        one.hear()
        assert (fork.state, one.plane.figures().legs_pending) == ("requested", 1)
        assert one.workers.facts == {}
        one.tell("call.fork.started")
        assert fork.state == "flowing"
        assert one.workers.facts[LEG]["fork_id"] == str(fork.id)
        assert one.plane.figures().calls.legs_joined == 1

    bench(tmp_path, scenario)


def test_leg_that_nobody_tells_of_is_counted(tmp_path):
    async def scenario(one):
        one.hear()
        await one.wait(10)
        assert one.plane.figures().calls.legs_expired == 1
        assert one.workers.facts == {}

    bench(tmp_path, scenario, pending_leg_s=10)


def test_tracks_of_a_fork_are_closed_before_the_next_one_begins(tmp_path):
    async def scenario(one):
        one.tell("call.answered")
        fork = await one.plane.start_fork(CALL)
        one.hear()
        await one.plane.stop_fork(fork.id)
        again = await one.plane.start_fork(CALL)
        assert one.workers.told == [("close_call", LEG)]
        assert again.state == "requested"
        # the webhook of the first one's end is not taken for the second one's
        one.tell("call.fork.stopped")
        assert again.state == "requested"
        one.hear()
        assert again.state == "flowing"
        await one.wait(1)
        assert one.workers.told == [("close_call", LEG)]

    bench(tmp_path, scenario)


@pytest.mark.parametrize(
    ("reply", "state"), [(ENDED, ("stopped", "call_ended")), (OK, ("flowing", "packet"))]
)
def test_fork_that_fell_silent_is_asked_about(tmp_path, reply, state):
    async def scenario(one):
        one.tell("call.answered")
        fork = await one.plane.start_fork(CALL)
        one.hear("inbound")
        one.hear("outbound")
        one.fall_silent("inbound")
        await one.wait(0.1)
        assert one.carrier.names == ["fork_start"]
        one.carrier.replies.append(reply)
        one.fall_silent("outbound")
        await one.wait(0.1)
        assert one.carrier.commands[0] == one.carrier.commands[1]
        assert (fork.state, fork.why) == state

    bench(tmp_path, scenario)


def test_what_the_media_may_be_is_told_to_the_workers_with_the_fork(tmp_path):
    async def scenario(one):
        await one.plane.start_fork(CALL, call_leg_id=LEG, codecs="OPUS,G722,PCMU")
        assert one.workers.facts[LEG]["codecs"] == "OPUS,G722,PCMU"

    bench(tmp_path, scenario)


# -- a carrier that refuses, fails or is not there


@pytest.mark.parametrize(
    ("reply", "error", "why"),
    [
        (refusal(401, "10009"), AuthenticationError, "refused"),
        (refusal(404, "10005"), NotFoundError, "refused"),
        (refusal(422, "90055"), ValidationError, "refused"),
        (ENDED, CallEndedError, "call_ended"),
    ],
)
def test_fork_that_the_carrier_refuses_has_failed(tmp_path, reply, error, why):
    async def scenario(one):
        one.carrier.replies.append(reply)
        with pytest.raises(error):
            await one.plane.start_fork(CALL)
        assert lives(one.plane) == [("failed", why)]
        assert (await one.plane.start_fork("v3:other")).state == "requested"

    bench(tmp_path, scenario)


@pytest.mark.parametrize(
    "reply",
    [
        refusal(500, "10000"),
        refusal(429, "10011"),
        (200, b"<html>rubbish</html>"),
        (200, {"data": 7}),
    ],
    ids=["500", "429", "not JSON", "another shape"],
)
def test_fork_is_in_doubt_until_the_carrier_answers_the_same_command(tmp_path, reply):
    async def scenario(one):
        one.carrier.replies.extend([reply, reply])
        one.tell("call.answered")
        fork = await one.plane.start_fork(CALL)
        assert (fork.state, fork.in_doubt) == ("requested", True)
        assert fork.error.startswith("fork_start: ")
        assert one.plane.figures().forks_in_doubt == 1
        await one.wait(1.999)
        assert len(one.carrier.commands) == 1
        await one.wait(0.001)
        await one.wait(3.999)
        assert len(one.carrier.commands) == 2
        await one.wait(0.001)
        assert not fork.in_doubt
        assert one.carrier.commands == [one.carrier.commands[0]] * 3
        assert one.plane.figures().commands == {
            ("fork_start", "unknown"): 2,
            ("fork_start", "done"): 1,
        }

    bench(tmp_path, scenario)


def test_fork_is_in_doubt_where_its_command_meets_a_defect(tmp_path, monkeypatch):
    async def scenario(one):
        async def fail(_command, _call_control_id):
            raise RuntimeError("a defect")

        with monkeypatch.context() as patch:
            patch.setattr(one.plane._driver._carrier, "send", fail)
            fork = await one.plane.start_fork(CALL)
            assert (fork.in_doubt, fork.error) == (True, "a defect")
        await one.wait(2)
        assert not fork.in_doubt

    bench(tmp_path, scenario)


def test_forks_in_doubt_are_resolved_when_the_carrier_is_back(tmp_path):
    async def scenario(one):
        one.tell("call.answered")
        flowing = await one.plane.start_fork(CALL)
        one.hear()
        await one.carrier.stop()
        starting = await one.plane.start_fork("v3:other")
        await one.plane.stop_fork(flowing.id)
        assert [fork.in_doubt for fork in one.plane.forks()] == [True, True]
        assert [fork.state for fork in one.plane.forks()] == ["flowing", "requested"]
        await one.wait(2)
        assert [fork.in_doubt for fork in one.plane.forks()] == [True, True]
        await one.carrier.start()
        await one.wait(4)
        assert lives(one.plane) == [("stopped", "asked"), ("requested", "asked")]
        assert not starting.in_doubt

    bench(tmp_path, scenario)


def test_fork_in_doubt_is_resolved_by_packets_without_another_command(tmp_path):
    async def scenario(one):
        one.carrier.replies.append(refusal(503, "10000"))
        one.tell("call.answered")
        fork = await one.plane.start_fork(CALL)
        one.hear()
        assert (fork.state, fork.in_doubt) == ("flowing", False)
        await one.wait(60)
        assert one.carrier.names == ["fork_start"]

    bench(tmp_path, scenario)


def test_stop_with_a_wrong_key_is_said_and_asked_again(tmp_path):
    async def scenario(one):
        fork = await one.plane.start_fork(CALL)
        one.carrier.replies.append(refusal(401, "10009"))
        with pytest.raises(AuthenticationError):
            await one.plane.stop_fork(fork.id)
        assert fork.is_stopping
        await one.wait(2)
        assert (fork.state, fork.why) == ("stopped", "asked")

    bench(tmp_path, scenario)


def test_stop_of_a_call_that_has_ended_is_success(tmp_path):
    async def scenario(one):
        one.tell("call.answered")
        fork = await one.plane.start_fork(CALL)
        one.carrier.replies.append(ENDED)
        await one.plane.stop_fork(fork.id)
        assert (fork.state, fork.why) == ("stopped", "call_ended")
        assert one.plane.calls.by_leg(LEG).is_over
        await one.wait(1)
        assert one.workers.told == [("close_call", LEG), ("forget", LEG)]

    bench(tmp_path, scenario)


def test_hangup_while_the_start_is_under_way_ends_the_fork(tmp_path):
    async def scenario(one):
        one.carrier.gate.clear()
        one.tell("call.answered")
        starting = asyncio.create_task(one.plane.start_fork(CALL))
        await one.carrier.arrived.acquire()
        one.tell("call.hangup")
        one.carrier.gate.set()
        fork = await starting
        assert (fork.state, fork.why) == ("stopped", "hangup")
        await one.wait(1)
        assert one.plane.figures().port_pairs_held == 0
        assert one.workers.open == {}

    bench(tmp_path, scenario, **PORTS)


# -- what stays when the daemon does not


def restarted(folder, before, after, **settings):
    """Run a scenario, then another with the next daemon, whose workers know nothing."""

    async def main():
        carrier = CarrierDouble()
        await carrier.start()
        for scenario in (before, after):
            one = Bench(folder, carrier)
            async with one.running(**settings):
                await scenario(one)
        await carrier.stop()

    asyncio.run(main())


def test_restarted_daemon_goes_on_with_its_forks(tmp_path):
    async def before(one):
        one.tell("call.answered", connection_id="7267", **{"from": "+35319605860"})
        await one.quiet()
        one.tell("call.fork.started")
        one.hear()

    async def after(one):
        (fork,) = one.plane.forks()
        assert [(c.state, c.why, c.at_ns) for c in fork.changes] == [
            ("requested", "asked", T0),
            ("started", "webhook", T0),
            ("flowing", "packet", T0),
        ]
        assert one.workers.open == {ONE: LEG}
        assert one.workers.facts[LEG]["from"] == "+35319605860"
        one.hear()
        await one.wait(60)
        assert one.carrier.names == ["fork_start"]
        one.tell("call.hangup")
        await one.wait(1)
        assert one.workers.open == {}
        details = one.stored()
        assert details.overview.call.hangup_cause is None
        assert details.overview.call.state == "hangup"
        assert [(f.id, f.state, f.why) for f in details.forks] == [
            (str(fork.id), "stopped", "hangup")
        ]

    restarted(tmp_path, before, after, **PORTS | RULE)


def test_what_comes_late_after_a_restart_changes_nothing(tmp_path):
    """Such as a replay: the ids of events are not remembered over it."""
    other = {"call": "v3:other", "leg": UUID(int=7), "connection_id": "7267"}

    async def before(one):
        one.tell("call.answered", client_state="YWJj", connection_id="7267")
        await one.quiet()
        one.tell("call.fork.started")
        one.hear()
        one.tell("call.answered", **other)
        await one.quiet()
        one.tell("call.hangup", **other)
        await one.quiet()

    async def after(one):
        one.tell("call.initiated", at_ns=T0 - 60 * S, client_state="eHl6")
        one.tell("call.fork.stopped", at_ns=T0 - 60 * S)
        one.tell("call.answered", **other)
        await one.quiet()
        assert one.carrier.names == ["fork_start", "fork_start"]
        assert lives(one.plane) == [("flowing", "packet")]
        facts = one.workers.facts[LEG]
        assert (facts["state"], facts["client_state"]) == ("answered", "YWJj")
        await one.memory.written()
        with Store(one.path, read_only=True) as store:
            assert store.details(str(UUID(int=7))).overview.call.state == "hangup"

    restarted(tmp_path, before, after, **RULE)


def test_restarted_daemon_asks_about_forks_that_bring_nothing(tmp_path):
    async def before(one):
        one.tell("call.answered")
        await one.plane.start_fork(CALL)
        one.hear()

    async def after(one):
        one.carrier.replies.append(ENDED)
        await one.wait(10)
        assert one.carrier.commands[0] == one.carrier.commands[1]
        assert lives(one.plane) == [("stopped", "call_ended")]

    restarted(tmp_path, before, after)


def test_restarted_daemon_asks_again_for_what_was_in_doubt(tmp_path):
    async def before(one):
        one.tell("call.answered")
        fork = await one.plane.start_fork(CALL)
        one.carrier.replies.extend([refusal(500, "10000"), refusal(500, "10000")])
        await one.plane.stop_fork(fork.id)
        await one.plane.start_fork("v3:other")

    async def after(one):
        await one.quiet()
        assert one.carrier.names[:3] == ["fork_start", "fork_stop", "fork_start"]
        assert one.carrier.commands[3:] == one.carrier.commands[1:3]
        assert lives(one.plane) == [("stopped", "asked"), ("requested", "asked")]

    restarted(tmp_path, before, after)


def test_restarted_daemon_stops_a_fork_that_had_failed_and_tries_once_more_as_it_was_asked_for(
    tmp_path,
):
    async def before(one):
        one.tell("call.answered")
        await one.plane.start_fork(CALL, client_state="YWJj", codecs="OPUS,PCMU")
        one.carrier.replies.append(refusal(500, "10000"))
        await one.wait(10)
        assert lives(one.plane) == [("failed", "no_media")]
        assert one.carrier.names == ["fork_start", "fork_stop"]

    async def after(one):
        await one.quiet()
        assert one.carrier.names == ["fork_start", "fork_stop", "fork_stop", "fork_start"]
        assert one.carrier.commands[1] == one.carrier.commands[2]
        assert {body["client_state"] for _, _, body in one.carrier.commands} == {"YWJj"}
        assert one.workers.facts[LEG]["codecs"] == "OPUS,PCMU"
        await one.wait(10)
        assert [fork.attempt for fork in one.plane.forks()] == [1, 2]
        assert lives(one.plane) == [("failed", "no_media")] * 2
        assert len(one.carrier.commands) == 5

    restarted(tmp_path, before, after, retry_forks=1, first_media_timeout_s=10)


def test_restarted_daemon_stops_a_fork_whose_ports_it_cannot_have_again(tmp_path):
    async def before(one):
        one.tell("call.answered")
        await one.plane.start_fork(CALL)
        one.hear()

    async def after(one):
        (fork,) = one.plane.forks()
        assert fork.is_stopping
        await one.quiet()
        assert (fork.state, one.carrier.names[1:]) == ("stopped", ["fork_stop"])
        await one.wait(1)
        assert one.plane.figures().port_pairs_held == 0

    async def main():
        carrier = CarrierDouble()
        await carrier.start()
        first, second = Bench(tmp_path, carrier), Bench(tmp_path, carrier)
        async with first.running(**PORTS):
            await before(first)
        second.workers.taken = {20_000}
        async with second.running(**PORTS):
            await after(second)
        await carrier.stop()

    asyncio.run(main())


def test_fork_is_on_disk_before_the_carrier_hears_of_it(tmp_path):
    async def scenario(one):
        one.carrier.gate.clear()
        one.tell("call.answered", connection_id="7267")
        await one.carrier.arrived.acquire()
        (fork,) = one.stored().forks
        assert (fork.state, fork.why, fork.way) == ("requested", "rule", "target")
        one.carrier.gate.set()

    bench(tmp_path, scenario, **RULE)


def test_tracks_of_a_worker_that_died_are_interrupted_and_no_sign_of_media_any_more(tmp_path):
    async def scenario(one):
        one.tell("call.answered")
        await one.plane.start_fork(CALL)
        one.hear()
        (track,) = one.plane.worker_died(0)
        assert (track.call_leg_id, track.reason) == (str(LEG), "interrupted")
        await one.quiet()
        assert [track.reason for track in one.stored().tracks] == ["interrupted"]
        assert one.plane.calls.by_leg(LEG).tracks == set()

    bench(tmp_path, scenario)


def test_plane_goes_on_looking_at_the_time_after_a_defect(tmp_path, monkeypatch):
    monkeypatch.setattr(plane, "TICK_S", 0)

    async def scenario(one):
        closed = asyncio.Event()

        def fail(_call_leg_id):
            one.workers.close_call = lambda _: closed.set()
            raise RuntimeError("a defect")

        one.workers.close_call = fail
        one.tell("call.hangup")
        one.tell("call.hangup", call="v3:other", leg=UUID(int=7))
        one.now_ns += S
        await closed.wait()

    bench(tmp_path, scenario, stop_grace_s=1)


# -- whatever happens in whatever order


class Instantly:
    """A carrier that answers at once, as `outcomes` say, and a store that keeps nothing."""

    def __init__(self):
        self.outcomes = deque()

    async def send(self, command, _call_control_id):
        error = self.outcomes.popleft() if self.outcomes else None
        if error is not None:
            raise error(f"{command.name}: no")
        return CommandResult(result="ok")

    def together(self):
        return nullcontext()

    def put_call(self, _call): ...
    def put_fork(self, _fork): ...
    def put_track(self, _track): ...

    def unsettled_forks(self):
        return []

    def calls_ended_since(self, _moment_ns):
        return []

    def search(self, **_conditions):
        return Page(calls=[], next=None)


class AnyOrder(RuleBasedStateMachine):
    """Two calls, one pair of ports more than forks may have; in the end all is given back."""

    numbers = st.integers(0, 1)
    EVENTS = ("call.initiated", "call.answered", "call.fork.started", "call.fork.stopped")

    def __init__(self):
        super().__init__()
        self.runner = asyncio.Runner()
        self.now_ns = T0
        self.workers = NotedWorkers()
        self.far = Instantly()
        self.runner.run(self.begin())

    async def begin(self):
        async def execute(work):
            return work()

        self.plane = ControlPlane(
            ControlSettings(
                allow_unsigned_webhooks=True,
                fork_way="ports",
                port_range="20000-20005",
                advertised_host="192.0.2.1",
                port_cooldown_s=5,
                retry_forks=1,
                auto_fork=["7267"],
            ),
            carrier=self.far,
            workers=self.workers,
            memory=Memory(self.far, execute),
            clock=lambda: self.now_ns,
        )

    async def quiet(self):
        while self.plane._driver._tasks:
            await asyncio.gather(*self.plane._driver._tasks)
        await self.plane._memory.written()

    def do(self, act):
        async def main():
            act()
            await self.quiet()

        self.runner.run(main())

    def tell(self, kind, number, **payload):
        ids = {"call_control_id": f"v3:{number}", "call_leg_id": str(UUID(int=number + 1))}
        data = {
            "event_type": kind,
            "id": "0ccc7b54-4df3-4bca-a65a-3da1ecc777f0",
            "occurred_at": self.now_ns / S,
            "payload": ids | payload,
        }
        self.do(lambda: self.plane.on_event(event_of({"data": data})))

    @rule(number=numbers, kind=st.sampled_from(EVENTS), connection=st.sampled_from(["7267", "1"]))
    def carrier_says(self, number, kind, connection):
        self.tell(kind, number, connection_id=connection)

    @rule(number=numbers)
    def call_ends(self, number):
        self.tell("call.hangup", number)

    @rule(number=numbers)
    def user_starts(self, number):
        async def main():
            with suppress(ForkError, CallControlError):
                await self.plane.start_fork(f"v3:{number}", call_leg_id=UUID(int=number + 1))
            await self.quiet()

        self.runner.run(main())

    @rule(data=st.data())
    def user_stops(self, data):
        forks = self.plane.forks()
        if forks:
            fork = data.draw(st.sampled_from(forks))

            async def main():
                with suppress(CallControlError):
                    await self.plane.stop_fork(fork.id)
                await self.quiet()

            self.runner.run(main())

    @rule(number=numbers, direction=st.sampled_from(["inbound", "outbound"]))
    def media_comes(self, number, direction):
        entry = {
            "call_leg_id": str(UUID(int=number + 1)),
            "leg": "A",
            "direction": direction,
            "opened_at": "2023-11-14T22:13:20.000Z",
        }
        self.do(lambda: self.plane.track_opened(entry))

    @rule(seconds=st.sampled_from([0.5, 2, 15, 100]))
    def time_passes(self, seconds):
        self.now_ns += round(seconds * S)
        self.do(lambda: self.plane.tick(self.now_ns))

    @rule(
        outcomes=st.lists(
            st.sampled_from(
                [None, TransportError, AuthenticationError, CallEndedError, NotFoundError]
            ),
            max_size=3,
        )
    )
    def carrier_will_answer(self, outcomes):
        self.far.outcomes = deque(outcomes)

    @rule(taken=st.sets(st.integers(20_000, 20_005), max_size=3))
    def others_take_ports(self, taken):
        self.workers.taken = taken

    @invariant()
    def a_call_has_one_fork_and_a_fork_its_ports(self):
        unsettled = self.plane._driver.unsettled
        assert len({fork.call_control_id for fork in unsettled}) == len(unsettled)
        pairs = [fork.pair for fork in unsettled if fork.pair is not None]
        assert len(set(pairs)) == len(pairs)
        assert set(self.plane.open_ports.items()) == set(self.workers.open.items())
        leaving = len(self.plane._driver.ports._leaving)
        assert self.plane.figures().port_pairs_held == len(pairs) + leaving

    def teardown(self):
        with self.runner:
            self.far.outcomes.clear()
            for number in range(2):
                self.tell("call.hangup", number)
            for seconds in (10, 10, 600):
                self.now_ns += seconds * S
                self.do(lambda: self.plane.tick(self.now_ns))
            figures = self.plane.figures()
            assert (self.workers.open, self.workers.facts) == ({}, {})
            assert (figures.port_pairs_held, figures.forks, figures.forks_in_doubt) == (0, {}, 0)


AnyOrder.TestCase.settings = settings(max_examples=80, stateful_step_count=25, deadline=None)
TestAnyOrder = AnyOrder.TestCase


# -- figures


def test_events_are_counted_by_the_types_that_are_known(tmp_path):
    async def scenario(one):
        one.tell("call.answered")
        one.tell("call.dtmf.received", digit="1")
        one.tell("call.dtmf.received", digit="2")
        one.tell("call.novelty")
        assert one.plane.figures().webhooks == {
            "call.answered": 1,
            "call.dtmf.received": 2,
            "other": 1,
        }

    bench(tmp_path, scenario)


def test_forks_are_counted_by_state_and_reason(tmp_path):
    async def scenario(one):
        one.tell("call.answered", connection_id="7267")
        await one.quiet()
        one.hear()
        await one.plane.start_fork("v3:other")
        figures = one.plane.figures()
        assert figures.forks == {"flowing": 1, "requested": 1}
        assert figures.fork_changes == {
            ("requested", "rule"): 1,
            ("requested", "asked"): 1,
            ("flowing", "packet"): 1,
        }
        assert (figures.calls_known, figures.port_pairs) == (2, 0)

    bench(tmp_path, scenario, **RULE)


def test_call_that_expires_is_forgotten_and_its_fork_lost(tmp_path):
    async def scenario(one):
        one.tell("call.answered", connection_id="7267")
        await one.quiet()
        one.hear()
        await one.wait(5 * 3600)
        assert lives(one.plane) == [("stopped", "lost")]
        await one.wait(1)
        assert one.workers.told == [("forget", LEG), ("close_call", LEG)]
        assert one.plane.figures().calls.expired == 1
        call = one.stored().overview.call
        assert (call.state, call.ended_ns) == ("lost", T0)

    bench(tmp_path, scenario, **RULE)


def test_plane_goes_on_where_the_store_cannot_be_written(tmp_path):
    async def scenario(one):
        one.memory._store.fails = True
        one.tell("call.answered", connection_id="7267")
        await one.quiet()
        one.hear()
        assert lives(one.plane) == [("flowing", "packet")]
        assert one.memory.figures().errors > 0
        one.memory._store.fails = False
        await one.wait(1)
        assert [fork.state for fork in one.stored().forks] == ["flowing"]
        assert one.memory.figures().waiting == 0

    async def main():
        carrier = CarrierDouble()
        await carrier.start()
        one = Bench(tmp_path, carrier)
        async with one.running(**RULE):
            one.memory._store = FailingStore(one.memory._store)
            await scenario(one)
        await carrier.stop()

    asyncio.run(main())
