"""Fifty calls at once over a bad network, half of them as STREP and half as plain RTP.

The carrier, the daemon and the command that lists the calls are processes of their own.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from carrierprocess import CarrierProcess
from controlled import controlled, get, manifests, post, recorded
from loopback import DEADLINE_S, needs_steering

from strep.simulator import difference, expected_audio
from strep.store import Store

CALLS = 50
WAYS = ["ports", "target"]
SCENARIO = (
    "--talk-s", "7", "--reinvite", "2", "--hold", "4:1",
    "--loss", "0.02", "--loss-burst-packets", "2", "--reorder", "0.01", "--reorder-ms", "40",
)  # fmt: skip


def commanded(folder):
    """Return the calls that `strep calls` lists."""
    command = ["calls", "--database", str(folder / "strep.db"), "--limit", "100", "--json"]
    listed = subprocess.run(
        [sys.executable, "-m", "strep", *command],
        capture_output=True,
        timeout=DEADLINE_S,
        check=True,
    )
    return json.loads(listed.stdout)["calls"]


@pytest.mark.parametrize("workers", [2])
def test_every_recording_is_what_was_sent_less_what_was_lost(tmp_path, workers):
    needs_steering(workers)
    with (
        CarrierProcess(tmp_path, *SCENARIO) as carrier,
        controlled(
            tmp_path, carrier, "--workers", str(workers), "--reorder-ms", "800",
            pairs=CALLS, admission="known", port_cooldown_s=0, first_media_timeout_s=30,
        ) as serve,
        serve,
    ):  # fmt: skip
        for number in range(CALLS):
            call = carrier.place_call(f"+1555010{number:04}", "+15550199999")
            carrier.command("answer", call["call_control_id"])
            # at once, so that it has begun before the other source does
            asked = {key: call[key] for key in ("call_control_id", "call_leg_id")}
            asked["way"] = WAYS[number % 2]
            assert post(serve, "/v1/forks", json.dumps(asked).encode()) == 201
        carrier.wait_for(
            lambda: {call["state"] for call in carrier.calls()} == {"ended"}, DEADLINE_S
        )
        carrier.drain()
        serve.wait_until(lambda: serve.metrics()["strep_tracks_open"] == 0, "all is closed")
        serve.wait_until(
            lambda: serve.metrics()["strep_port_pairs{held}"] == 0, "the ports are back"
        )
        serve.wait_until(lambda: not get(serve, "/v1/calls?open=true")["calls"], "no call is open")
        listed = get(serve, "/v1/calls?limit=100")["calls"]
        forks = get(serve, "/v1/forks")["forks"]
        metrics = serve.metrics()
        legs = [call["call_leg_id"] for call in carrier.calls()]
        logs = {leg: {} for leg in legs}
        for log in carrier.logs():
            logs[log.call_leg_id][log.direction] = log
        assert serve.stop() == 0
    lost = sum(log.counts()["lost"] for each in logs.values() for log in each.values())
    sent = sum(log.counts()["datagrams"] for each in logs.values() for log in each.values())
    assert lost > 0
    assert metrics["strep_datagrams_read_total"] == sent
    assert metrics["strep_datagrams_total{accepted}"] == sent
    assert metrics["strep_packets_late_total"] == 0
    assert metrics["strep_tracks_opened_total"] == 2 * CALLS
    assert metrics["strep_port_pairs{free}"] + metrics["strep_port_pairs{resting}"] == CALLS
    assert {(fork["state"], fork["why"]) for fork in forks} <= {
        ("stopped", "webhook"), ("stopped", "hangup"),
    }  # fmt: skip
    assert sorted(fork["way"] for fork in forks) == sorted(WAYS * (CALLS // 2))
    assert not list(tmp_path.glob("*.part"))
    assert {call["call_leg_id"]: call["from"] for call in listed} == {
        leg: f"+1555010{number:04}" for number, leg in enumerate(legs)
    }
    assert {call["is_open"] for call in listed} == {False}
    with Store(tmp_path / "strep.db", read_only=True) as store:
        assert store.search(is_open=True).calls == []
        assert store.unsettled_forks() == []
    assert {call["call_leg_id"]: call["from"] for call in commanded(tmp_path)} == {
        leg: f"+1555010{number:04}" for number, leg in enumerate(legs)
    }
    for leg, each in logs.items():
        (manifest,) = manifests(tmp_path, leg)
        samples = recorded(tmp_path, manifest)
        for direction, log in each.items():
            assert len(expected_audio(log).pieces) == 2
            assert difference(expected_audio(log), samples[direction], most_gap_s=2) is None
