"""A few of the faults of `make faults`, a few times each."""

from __future__ import annotations

import pytest

from faults import floods, kills
from faults.outcome import Outcome


@pytest.mark.parametrize(
    ("fault", "times"),
    [(kills.kill_daemon, 1), (floods.injection, 10_000)],
    ids=["kill-daemon", "injection"],
)
def test_what_is_lost_is_within_the_bound(fault, times, tmp_path):
    outcome = fault(tmp_path, times, lambda _: None)
    assert isinstance(outcome, Outcome)
    assert outcome.wrong == []
    assert outcome.times == times
