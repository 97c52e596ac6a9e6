from __future__ import annotations

import pytest

from strep.simulator.faults import CommandFault, Faults, WebhookFault


def picks(faults, *names):
    return [fault and getattr(fault, "status", None) for fault in map(faults.pick, names)]


def test_fault_happens_once_to_its_command():
    faults = Faults((CommandFault(command="dial", status=429),), seed=1)
    assert picks(faults, "answer", "dial", "dial") == [None, 429, None]


def test_some_may_go_well_before_and_several_wrong():
    faults = Faults((CommandFault(skip=1, times=2),), seed=1)
    assert picks(faults, "a", "b", "c", "d") == [None, 500, 500, None]


def test_zero_times_is_always():
    faults = Faults((CommandFault(times=0),), seed=1)
    assert picks(faults, *"abcde") == [500] * 5


def test_patterns_stand_for_several_names():
    faults = Faults((WebhookFault(event="call.fork.*", kind="lost"),), seed=1)
    assert faults.pick("call.hangup") is None
    assert faults.pick("call.fork.stopped").kind == "lost"


def test_first_of_several_faults_happens_and_then_the_next():
    faults = Faults((CommandFault(status=429), CommandFault(status=503)), seed=1)
    assert picks(faults, *"abc") == [429, 503, None]


def test_chance_is_the_same_for_the_same_seed():
    fault = CommandFault(chance=0.25, times=0)
    first, again, other = (picks(Faults((fault,), seed=seed), *["x"] * 2000) for seed in (1, 1, 2))
    assert first == again != other
    assert first.count(500) == pytest.approx(500, rel=0.15)


def test_faults_are_added_and_forgotten():
    faults = Faults((), seed=1)
    faults.add(CommandFault(times=0))
    assert picks(faults, "a") == [500]
    faults.clear()
    assert picks(faults, "a") == [None]
