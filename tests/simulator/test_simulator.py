"""Commands, calls and media put together."""

from __future__ import annotations

import asyncio

import pytest

import strep.simulator
from strep.http import HttpError
from strep.simulator.settings import Settings
from strep.simulator.simulator import Clock, Simulator
from strep.simulator.stream import TELEPHONE_EVENT

TARGET = {"target": "udp:127.0.0.1:9"}


def simulated(story, **settings):
    """Run `await story(simulator)`."""

    async def run():
        async with Simulator(Settings.model_validate(settings)) as simulator:
            return await story(simulator)

    return asyncio.run(run())


def caller(simulator, **tables):
    """Return the id of a call that came in and was answered."""
    call = simulator.place_call("+1", "+2", tables)
    simulator.command("answer", call.control_id, {})
    return call.control_id


def sides(simulator, *, running=True):
    """Return leg, direction, wrapping and destination of the tracks."""
    logs = [log for log in simulator.logs(summary=True) if log.running == running]
    return [f"{log.leg} {log.direction} {log.wrapping} {log.to}" for log in logs]


def test_fork_to_a_target_sends_both_directions_as_strep():
    async def story(simulator):
        call = caller(simulator)
        simulator.command("fork_start", call, TARGET)
        assert sides(simulator) == [
            "A inbound strep 127.0.0.1:9", "A outbound strep 127.0.0.1:9",
        ]  # fmt: skip
        simulator.command("fork_stop", call, {})
        await simulator.media.drain()
        assert sides(simulator) == []
        assert len(sides(simulator, running=False)) == 2

    simulated(story)


def test_fork_to_two_ports_sends_each_direction_to_its_own():
    async def story(simulator):
        ports = {"rx": "udp:127.0.0.1:8", "tx": "udp:[::1]:9", "stream_type": "decrypted"}
        simulator.command("fork_start", caller(simulator), ports)
        return sides(simulator)

    assert simulated(story) == ["A inbound rtp 127.0.0.1:8", "A outbound rtp [::1]:9"]


def test_bridged_call_has_a_leg_b_that_hears_what_leg_a_says():
    async def story(simulator):
        one, other = caller(simulator), caller(simulator)
        simulator.command("fork_start", one, TARGET)
        simulator.command("bridge", one, {"call_control_id": other, "park_after_unbridge": "self"})
        logs = {(log.leg, log.direction): log for log in simulator.logs()}
        tracks = simulator.media._tracks.values()
        heard = {(t.plan.leg.name, t.plan.direction.label): t.plan.audio for t in tracks}
        caller_, agent = map(simulator.scenarios.audio, ("caller", "agent"))
        assert heard["A", "inbound"] is heard["B", "outbound"] is caller_
        assert heard["A", "outbound"] is heard["B", "inbound"] is agent
        simulator.hang_up(other)
        return logs, [track.plan.leg.name for track in tracks if not track.stopped]

    logs, left = simulated(story)
    assert list(logs) == [
        ("A", "inbound"), ("A", "outbound"), ("B", "inbound"), ("B", "outbound"),
    ]  # fmt: skip
    assert len({log.call_leg_id for log in logs.values()}) == 1
    assert len({int(log.columns["ssrc"][0]) for log in logs.values()}) == 4
    assert left == ["A", "A"]


def test_digits_are_in_the_packets_of_the_side_that_types():
    async def story(simulator):
        event = {"kind": "digits", "at_s": 0.5, "digits": "1"}
        call = caller(simulator, call={"legs": 2}, event=[event])
        simulator.command("fork_start", call, TARGET)
        types = [log.columns["payload_type"] for log in simulator.logs()]
        async with asyncio.timeout(10):
            while TELEPHONE_EVENT not in types[0]:
                await asyncio.sleep(0.01)
                types = [log.columns["payload_type"] for log in simulator.logs()]
        return [TELEPHONE_EVENT in each for each in types]

    assert simulated(story) == [True, False, False, False]


def test_hangup_ends_the_media():
    async def story(simulator):
        call = caller(simulator)
        simulator.command("fork_start", call, TARGET)
        simulator.command("hangup", call, {})
        await simulator.media.drain()
        return sides(simulator), simulator.status()

    running, status = simulated(story)
    assert running == []
    assert (status["calls"], status["calls_up"], status["tracks"]) == (1, 0, 0)


def test_traffic_comes_in_at_its_rate_and_has_numbers():
    async def story(simulator):
        await asyncio.wait_for(simulator.traffic_is_over.wait(), 10)
        calls = list(simulator.carrier.calls.values())
        tracks = len(simulator.media.numbers())
        return calls, tracks

    calls, tracks = simulated(
        story,
        speed=100,
        call={"talk_s": 3},
        traffic={"calls": 3, "rate_per_s": 2, "from": "+15550009", "fork": "127.0.0.1:9"},
    )
    assert [call.from_ for call in calls] == ["+15550009", "+15550010", "+15550011"]
    begun_s = [call.begun_s for call in calls]
    assert begun_s[1] >= begun_s[0] + 0.4
    assert begun_s[2] >= 1.0
    assert [call.hangup_cause for call in calls] == ["normal_clearing"] * 3
    assert tracks == 6


def test_same_seed_gives_the_same_packets():
    async def story(simulator):
        simulator.command("fork_start", caller(simulator, network={"loss": 0.5}), TARGET)
        log = simulator.logs()[0]
        fates = log.columns["fate"] == 2
        return log.call_leg_id, log.columns["ssrc"][0], fates[:20].tolist()

    first, again, other = (simulated(story, seed=seed) for seed in (5, 5, 6))
    assert first == again
    assert first != other


def test_what_goes_wrong_inside_is_raised_at_the_end():
    async def story(simulator):
        simulator.carrier.tick = lambda _: 1 / 0
        simulator.place_call("+1", "+2", {"call": {"patience_s": 0}})
        await asyncio.wait_for(simulator.run(), 5)

    with pytest.raises(ZeroDivisionError):
        simulated(story)


def test_clock_runs_as_fast_as_told_and_maps_back():
    clock = Clock(speed=1000.0)
    begin, later = clock.wall(0.0), clock.wall(5000.0)
    assert (later - begin).total_seconds() == 5.0
    assert 0 <= clock.now_s() < 60_000


def test_address_that_is_taken_is_named_and_nothing_is_left_open():
    async def story(simulator):
        other = Simulator(http=simulator.http)
        with pytest.raises(HttpError, match=f"cannot serve HTTP on {simulator.http}"):
            await other.start()

    simulated(story)


def test_simulator_that_was_not_started_says_so():
    with pytest.raises(RuntimeError, match="the simulator was not started"):
        Simulator().place_call("+1", "+2")


def test_package_has_what_it_names_and_nothing_else():
    for name in strep.simulator.__all__:
        assert getattr(strep.simulator, name).__name__ == name
    with pytest.raises(AttributeError, match=r"'strep\.simulator' has no attribute 'nothing'"):
        _ = strep.simulator.nothing
