"""Turns: all conversations at once tell what each by itself does, and forget what has ended."""

from __future__ import annotations

from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.sinks.turns import INBOUND, OUTBOUND, OVER, QUIET, Told, Turns


def test_talk_over_is_told_of_who_spoke_up_last():
    turns = Turns(over_ns=300, quiet_ns=1000)
    turns.open(0, 0)
    turns.add(0, 1000, 1, INBOUND, "Ann")
    turns.add(0, 2000, 1, OUTBOUND, "Bob")
    turns.add(0, 2400, -1, INBOUND, "Ann")
    assert turns.settle(1500) == [Told(0, QUIET, 0, None, None), Told(0, QUIET, 0, 1000, None)]
    assert turns.settle(2350) == [Told(0, OVER, 2000, None, "Bob")]
    assert turns.settle(2500) == [Told(0, OVER, 2000, 2400, "Bob")]
    assert turns.pending == 0


def test_what_is_told_late_counts_from_what_is_settled():
    turns = Turns(over_ns=300, quiet_ns=1000)
    turns.open(0, 0)
    assert turns.settle(5000) == [Told(0, QUIET, 0, None, None)]
    turns.add(0, 3000, 1, INBOUND, "Ann")
    assert turns.settle(5500) == [Told(0, QUIET, 0, 5000, None)]


def test_conversations_do_not_hear_each_other():
    turns = Turns(over_ns=300, quiet_ns=10_000)
    turns.open(0, 0)
    turns.open(1, 0)
    turns.add(0, 1000, 1, INBOUND, "Ann")
    turns.add(1, 1000, 1, OUTBOUND, "Bob")
    assert turns.settle(9000) == []


def test_end_stops_what_was_told():
    turns = Turns(over_ns=300, quiet_ns=1000)
    turns.open(7, 0)
    turns.add(7, 500, 1, INBOUND, "Ann")
    turns.add(7, 600, 1, OUTBOUND, "Bob")
    turns.settle(1000)
    assert turns.close(7, 2000) == [Told(7, OVER, 600, 2000, "Bob")]


def test_what_waited_of_a_conversation_that_has_ended_is_not_the_next_ones():
    turns = Turns(over_ns=300, quiet_ns=1000)
    turns.open(0, 0)
    turns.add(0, 900, 1, INBOUND, "Ann")
    turns.close(0, 100)
    turns.open(0, 100)
    assert turns.settle(1050) == []
    assert turns.settle(1100) == [Told(0, QUIET, 100, None, None)]
    assert turns.pending == 0


def test_half_of_what_waits_is_settled_early():
    turns = Turns(over_ns=300, quiet_ns=10_000)
    turns.open(0, 0)
    for at_ns in range(1000, 2000, 100):
        turns.add(0, at_ns, 1, INBOUND, "Ann")
        turns.add(0, at_ns + 50, -1, INBOUND, "Ann")
    assert turns.settle_half() == []
    assert turns.pending == 10


def telling(edges, beat):
    """Yield what is told of (told at, conversation, side, moment, step), and when."""
    turns, waiting = Turns(over_ns=3, quiet_ns=5), list(edges)
    for number in range(4):
        turns.open(number, 0)
    for now in range(0, 200, beat):
        while waiting and waiting[0][0] <= now:
            _, number, side, moment, step = waiting.pop(0)
            turns.add(number, moment, step, side, f"{number}{side}")
        told = [(now, *each) for each in turns.settle(now - 6)]
        yield from sorted(told, key=lambda each: each[1])  # in order, of each conversation
    for number in range(4):
        yield from turns.close(number, 250)


spoken = st.lists(
    st.tuples(st.integers(0, 3), st.booleans(), st.integers(0, 9), st.integers(0, 9)), max_size=40
)
"""Which conversation, which side, how long after its last word it speaks and for how long."""


@given(spoken, st.lists(st.integers(0, 9), min_size=1, max_size=20), st.integers(1, 7))
@settings(max_examples=300)
def test_all_at_once_tell_what_each_tells_by_itself(spoken, lateness, beat):
    edges, at = [], {}
    for number, is_outbound, pause, length in spoken:
        key = number, int(is_outbound)
        start = at.get(key, 0) + pause
        at[key] = start + length
        for moment, step in ((start, 1), (start + length, -1)):
            late = lateness[len(edges) % len(lateness)]
            told = max([moment + late, *(edge[0] for edge in edges if edge[1:3] == key)])
            edges.append((told, *key, moment, step))
    edges.sort(key=lambda edge: edge[0])
    tellings = []
    for many in (1, 1000):
        with patch("pipeline.sinks.turns.MANY", many):
            tellings.append(list(telling(edges, beat)))
    assert tellings[0] == tellings[1]
