from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from strep.simulator.audio import PCMU, load_audio
from strep.simulator.ledger import Fate, Ledger, TrackLog, payloads_of
from strep.simulator.scenario import Scenario
from strep.simulator.stream import Stream

VOICE = load_audio("caller", Path())


def packets(seconds, **tables):
    scenario = Scenario.model_validate(tables)
    return Stream(VOICE, scenario, seed=(1,), types=True).until(seconds)


def filled(ledger, made):
    return ledger.add(made, made.made_s)


def test_packets_are_pending_until_said_otherwise():
    ledger = Ledger()
    made = packets(0.1)
    span = filled(ledger, made)
    rows = ledger.read([span])
    assert rows["fate"].tolist() == [Fate.PENDING] * 5
    assert rows["sequence"].tolist() == made.sequence.tolist()
    assert rows["timestamp"].tolist() == made.timestamp.tolist()
    assert rows["sent_unix_ns"].tolist() == [0] * 5


def test_first_copy_gives_the_time_and_all_are_counted():
    ledger = Ledger()
    span = filled(ledger, packets(0.1))
    ledger.settle(np.array([4]), Fate.LOST)
    ledger.mark_sent(np.array([0, 1, 1]), 100)
    ledger.mark_sent(np.array([1, 2]), 200)
    rows = ledger.read([span])
    assert rows["copies"].tolist() == [1, 3, 1, 0, 0]
    assert rows["sent_unix_ns"].tolist() == [100, 100, 200, 0, 0]
    assert rows["fate"].tolist() == [Fate.SENT] * 3 + [Fate.PENDING, Fate.LOST]


def test_cancelled_packets_are_in_no_log():
    ledger = Ledger()
    made = packets(0.1)
    span = filled(ledger, made)
    ledger.cancel([span], float(made.made_s[2]))
    assert ledger.read([span])["sequence"].tolist() == made.sequence[:2].tolist()


def test_tracks_are_told_apart_by_their_spans():
    ledger = Ledger()
    made = packets(0.1)
    spans = [filled(ledger, made) for _ in range(3)]
    ledger.mark_sent(np.arange(spans[1].first, spans[1].stop), 7)
    assert ledger.read([spans[0], spans[2]])["copies"].tolist() == [0] * 10
    assert ledger.read([spans[1]])["copies"].tolist() == [1] * 5
    assert len(ledger.read([])) == 0


def test_oldest_rows_are_forgotten_beyond_the_cap_and_the_rest_keep_their_numbers():
    ledger = Ledger(most_rows=100)
    made = packets(0.4)
    spans = [filled(ledger, made) for _ in range(10)]
    assert ledger.forgotten(spans[:1]) == 20
    assert ledger.forgotten(spans[-1:]) == 0
    known = 200 - ledger.forgotten(spans)
    assert 25 <= known <= 100
    assert len(ledger.read(spans)) == known
    ledger.mark_sent(np.array([0, spans[-1].first]), 5)  # the first is no longer there
    assert ledger.read(spans)["copies"].sum() == 1
    assert ledger.read(spans[-1:])["copies"][0] == 1


def log_of(rows, payloads, **changes):
    values = {
        "track": 1, "call_control_id": "v3:x", "call_leg_id": "y", "leg": "A",
        "direction": "inbound", "wrapping": "strep", "to": "127.0.0.1:9", "packet_ms": 20,
        "running": False, "forgotten": 0, "columns": rows, "payloads": payloads,
    }  # fmt: skip
    return TrackLog(**(values | changes))


def test_log_survives_json():
    ledger = Ledger()
    span = filled(ledger, packets(0.2, event=[{"kind": "digits", "at_s": 0.1, "digits": "5"}]))
    ledger.mark_sent(np.array([0, 1, 1]), 9)
    rows = ledger.read([span])
    log = log_of(rows, payloads_of(rows, VOICE, 160))
    again = TrackLog.from_json(json.loads(json.dumps(log.as_json())))
    assert again.payloads == log.payloads
    for name in ("made_s", "sequence", "timestamp", "ssrc", "payload_type", "marker", "fate",
                 "copies", "sent_unix_ns"):  # fmt: skip
        assert np.array_equal(again.columns[name], log.columns[name]), name
    assert again.counts() == {
        "pending": len(rows) - 2, "sent": 2, "lost": 0, "failed": 0, "datagrams": 3,
    }  # fmt: skip
    assert again.call_leg_id == "y"


def test_summary_has_counts_and_no_packets():
    rows = Ledger().read([])
    assert "packets" not in log_of(rows, ()).as_json(packets=False)
    assert log_of(rows, ()).as_json(packets=False)["counts"]["sent"] == 0


def test_payloads_are_frames_and_telephone_events():
    ledger = Ledger()
    made = packets(0.2, event=[{"kind": "digits", "at_s": 0.1, "digits": "5"}])
    rows = ledger.read([filled(ledger, made)])
    payloads = payloads_of(rows, VOICE, 160)
    assert payloads[0] == VOICE.frames(PCMU, 160)[0].tobytes()
    assert payloads[5].hex() == "050a00a0"
    assert payloads[-1].hex() == "058a0320"


def test_document_of_something_else_is_refused():
    with pytest.raises(KeyError):
        TrackLog.from_json({"packets": {"sequence": [1]}})
