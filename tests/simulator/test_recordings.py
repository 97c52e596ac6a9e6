"""A real daemon records what the simulator sends: every sample where the log says, every key."""

from __future__ import annotations

import json

import soundfile
from loopback import Serve

from strep.simulator import LocalCarrier, difference, expected_audio

CALLS = 4
SCENARIO = {
    "call": {"talk_s": 12},
    "audio": {"clock_ppm": 200},
    "network": {"loss": 0.03, "loss_burst_packets": 2, "duplicate": 0.02, "reorder": 0.03},
    "event": [
        {"kind": "reinvite", "at_s": 3},
        {"kind": "hold", "at_s": 5, "for_s": 1.5},
        {"kind": "codec", "at_s": 8, "codec": "PCMA"},
        {"kind": "digits", "at_s": 9, "digits": "1#"},
    ],
}


def test_recordings_hold_what_was_sent_less_what_was_dropped(tmp_path):
    # a busy machine may be late with a packet that is held back: the daemon waits for it as long
    # as 64 packets behind a hole, its window, take at this speed; and silence has not passed by
    # the clock when it is told
    with Serve(tmp_path, "--reorder-ms", "240", "--max-ahead-s", "60") as daemon:
        traffic = {"calls": CALLS, "rate_per_s": 1000, "fork": daemon.media}
        with LocalCarrier(speed=5, traffic=traffic, **SCENARIO) as carrier:
            carrier.wait_for(lambda: [c["state"] for c in carrier.calls()] == ["ended"] * CALLS, 20)
            carrier.drain()
            logs = carrier.logs()
        sent = sum(log.counts()["datagrams"] for log in logs)
        daemon.wait_for("strep_datagrams_total{accepted}", sent)
        daemon.stop()
    assert len(logs) == 2 * CALLS
    assert sum(log.counts()["lost"] for log in logs) > 20
    for log in logs:
        (manifest,) = tmp_path.glob(f"*-{log.call_leg_id}-a.json")
        tracks = json.loads(manifest.read_text())["tracks"]
        (track,) = [track for track in tracks if track["direction"] == log.direction]
        pcm, rate_hz = soundfile.read(manifest.with_suffix(".wav"), dtype="int16")
        channel = pcm[:, 0 if log.direction == "inbound" else 1]
        recorded = channel[round(track["offset_s"] * rate_hz) :]
        assert difference(expected_audio(log), recorded) is None, log.direction
        assert len(expected_audio(log).pieces) == 2
        keys = "".join(press["digit"] for press in track["dtmf"])
        assert keys == ("1#" if log.direction == "inbound" else "")
