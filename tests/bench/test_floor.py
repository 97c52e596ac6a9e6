from __future__ import annotations

import pytest

from bench import floor, machine, measure, receivers
from bench.traffic import Traffic

pytestmark = pytest.mark.skipif(
    machine.compiler() is None or not machine.accounting.AVAILABLE,
    reason="needs a C compiler and Linux",
)


@pytest.mark.parametrize("with_metadata", [False, True])
def test_floor_counts_what_was_sent(tmp_path, with_metadata):
    program = floor.build(tmp_path)
    with receivers.floor(program, core=None, with_metadata=with_metadata) as receiver:
        source = measure.Source(Traffic(tracks=10, rate_pps=200), core=None)
        source.send(receiver, 400)
        totals = receiver.totals()
    assert totals["packets"] == source.sent == 400
    assert 1 <= totals["batches"] <= 100
    assert totals["user_s"] + totals["system_s"] < 1


def test_missing_compiler_is_said_in_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(floor.BuildError, match="no C compiler was found: apt-get install gcc"):
        floor.build(tmp_path)


def test_program_that_does_not_start_is_told_with_what_it_said(tmp_path):
    with pytest.raises(receivers.ReceiverError, match="it did not start: usage: floor PORT"):
        receivers.Peer([str(floor.build(tmp_path))], [9], core=None)
