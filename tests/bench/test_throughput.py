from __future__ import annotations

import pytest

from bench.throughput import search


class Receiver:
    """Takes any rate up to a limit; a longer try shows a lower one."""

    def __init__(self, limit, long_limit=None, beyond="kernel"):
        self.limit = limit
        self.long_limit = limit if long_limit is None else long_limit
        self.beyond = beyond
        self.tries = []

    def probe(self, rate, factor=1.0):
        self.tries.append((round(rate), factor))
        return (
            "clean" if rate <= (self.limit if factor == 1.0 else self.long_limit) else self.beyond
        )


def test_highest_rate_is_found_to_within_the_precision():
    receiver = Receiver(300_000)
    rate, limit = search(receiver.probe, precision=1.04)
    assert 300_000 / 1.04 < rate <= 300_000
    assert limit == "kernel"
    assert len(receiver.tries) == 8


def test_highest_rate_has_to_hold_for_longer():
    receiver = Receiver(300_000, long_limit=270_000, beyond="sink")
    rate, limit = search(receiver.probe, precision=1.04)
    assert 270_000 * 0.9 < rate <= 270_000
    assert limit == "sink"
    assert receiver.tries[-1] == (round(rate), 2.0)


def test_receiver_that_outruns_the_sender_is_limited_by_it():
    rate, limit = search(Receiver(2e6).probe, lowest=10_000, highest=800_000, precision=1.04)
    assert rate > 800_000 / 1.04
    assert limit == "sender"


def test_sender_that_falls_short_is_named():
    _, limit = search(Receiver(100_000, beyond="short").probe)
    assert limit == "sender"


@pytest.mark.parametrize("limit", [0, 9_000])
def test_receiver_that_never_holds_has_no_rate(limit):
    rate, why = search(Receiver(limit, beyond="receiver").probe, lowest=10_000)
    assert (rate, why) == (0.0, "receiver")
