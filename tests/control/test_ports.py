from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from strep.control.forks import NoPortsError
from strep.control.ports import PortPair, PortPool

S = 1_000_000_000


def test_pair_is_an_even_port_and_the_next_one():
    pool = PortPool(20_000, 20_003, cooldown_ns=0)
    assert pool.take(0) == PortPair(rx=20_000, tx=20_001)
    assert pool.take(0) == PortPair(rx=20_002, tx=20_003)


@pytest.mark.parametrize(
    ("low", "high", "evens"),
    [
        (20_000, 20_003, [20_000, 20_002]),
        (20_001, 20_004, [20_002]),
        (20_001, 20_003, [20_002]),
        (65_534, 65_535, [65_534]),
        (20_001, 20_002, []),
        (20_000, 20_000, []),
    ],
)
def test_pairs_lie_within_the_range(low, high, evens):
    pool = PortPool(low, high, cooldown_ns=0)
    assert [pool.take(0).rx for _ in range(len(pool))] == evens


def test_used_up_pool_says_who_has_its_pairs():
    pool = PortPool(20_000, 20_005, cooldown_ns=30 * S)
    first = pool.take(0)
    pool.take(0)
    pool.take(0)
    pool.give_back(first, 0)
    with pytest.raises(
        NoPortsError,
        match=r"^no port pair of 3 is free: 2 held by forks, 1 resting after one$",
    ):
        pool.take(29 * S)


def test_pair_rests_until_its_cooldown_is_over():
    pool = PortPool(20_000, 20_001, cooldown_ns=30 * S)
    pair = pool.take(0)
    pool.give_back(pair, 5 * S)
    with pytest.raises(NoPortsError):
        pool.take(35 * S - 1)
    assert pool.take(35 * S) == pair


def test_rest_ends_with_time_and_not_with_the_next_take():
    pool = PortPool(20_000, 20_003, cooldown_ns=30 * S)
    pool.give_back(pool.take(0), 0)
    pool.wake(30 * S - 1)
    assert (pool.held, pool.resting) == (0, 1)
    pool.wake(30 * S)
    assert (pool.held, pool.resting) == (0, 0)


def test_pair_that_has_rested_longest_is_taken_first():
    pool = PortPool(20_000, 20_005, cooldown_ns=0)
    one, two, three = (pool.take(0) for _ in range(3))
    for pair in (two, three, one):
        pool.give_back(pair, 0)
    assert [pool.take(0) for _ in range(3)] == [two, three, one]


def test_pair_that_is_not_held_cannot_be_given_back():
    pool = PortPool(20_000, 20_001, cooldown_ns=0)
    with pytest.raises(ValueError, match=r"^the ports 20000 and 20001 are not held$"):
        pool.give_back(PortPair(20_000, 20_001), 0)


def test_pair_of_an_earlier_daemon_is_held_and_given_to_nobody_else():
    pool = PortPool(20_000, 20_003, cooldown_ns=0)
    pool.hold(PortPair(20_000, 20_001))
    assert pool.take(0) == PortPair(20_002, 20_003)
    with pytest.raises(NoPortsError):
        pool.take(0)
    with pytest.raises(ValueError, match=r"^the ports 20000 and 20001 are held already$"):
        pool.hold(PortPair(20_000, 20_001))


def test_pair_outside_the_range_is_held_but_never_taken():
    pool = PortPool(20_000, 20_001, cooldown_ns=0)
    pool.hold(PortPair(30_000, 30_001))
    assert pool.held == 1
    pool.give_back(PortPair(30_000, 30_001), 0)
    assert (pool.held, pool.resting) == (0, 0)
    assert pool.take(0) == PortPair(20_000, 20_001)
    with pytest.raises(NoPortsError):
        pool.take(0)


def test_pair_that_is_held_while_it_rests_is_not_free_when_it_has_rested():
    pool = PortPool(20_000, 20_001, cooldown_ns=S)
    pair = pool.take(0)
    pool.give_back(pair, 0)
    pool.hold(pair)
    with pytest.raises(NoPortsError):
        pool.take(S)
    pool.give_back(pair, S)
    assert pool.take(2 * S) == pair


class PoolEqualsModel(RuleBasedStateMachine):
    """Beside a model that looks at all pairs each time."""

    COOLDOWN_NS = 10

    def __init__(self):
        super().__init__()
        self.pool = PortPool(30_001, 30_011, cooldown_ns=self.COOLDOWN_NS)
        self.evens = [30_002, 30_004, 30_006, 30_008, 30_010]
        self.now_ns = 0
        self.held = []
        self.given_back_ns = {}

    def free(self):
        """Evens that may be taken; never used before used, then by when they were given back."""
        rested = [
            rx
            for rx in self.evens
            if rx not in self.held
            and self.now_ns - self.given_back_ns.get(rx, -100) >= self.COOLDOWN_NS
        ]
        return sorted(rested, key=lambda rx: self.given_back_ns.get(rx, -100))

    @rule(ns=st.integers(0, 12))
    def time_passes(self, ns):
        self.now_ns += ns

    @rule()
    def take(self):
        free = self.free()
        if not free:
            with pytest.raises(NoPortsError):
                self.pool.take(self.now_ns)
            return
        pair = self.pool.take(self.now_ns)
        assert pair.tx == pair.rx + 1
        longest_ns = self.given_back_ns.get(free[0], -100)
        assert pair.rx in free
        assert self.given_back_ns.get(pair.rx, -100) == longest_ns
        self.held.append(pair.rx)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def give_back(self, data):
        rx = data.draw(st.sampled_from(self.held))
        self.pool.give_back(PortPair(rx, rx + 1), self.now_ns)
        self.held.remove(rx)
        self.given_back_ns[rx] = self.now_ns

    @invariant()
    def held_pairs_are_counted(self):
        assert self.pool.held == len(self.held)
        assert len(self.pool) == 5


PoolEqualsModel.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestPoolEqualsModel = PoolEqualsModel.TestCase
