"""A recorded call in which everything happens that a report can show.

    PYTHONPATH=tests python -m reportcall FOLDER

writes its recording and its manifest. The conversation is the one that ships; the agent is half a
second early and so talks over the caller, keys are pressed, the recording is paused, and the
network has a bad minute.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import soundfile

from pipeline.codecs import PCMU
from strep.voices import load_voice

RATE_HZ = 8000
CALL_LEG_ID = "428c31b6-7af4-4bcb-b7f5-5013ef9657c1"
AGAIN_S = 36.0
PAUSED_S = (22.5, 29.0)
END_S = 60.0


def make_call(folder: Path) -> Path:
    """Write the call and return its manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    channels = [_channel("caller", 0.0), _channel("agent", -0.9)]
    soundfile.write(folder / "call.wav", np.stack(channels, axis=1), RATE_HZ, "PCM_16")
    rng = np.random.default_rng(3)
    tracks = [
        _track(
            "inbound", "left", channels[0], rng, bad_s=(40, 50), mos=(3.71, 4.2), drift_ppm=18.3
        ),
        _track(
            "outbound", "right", channels[1], rng, bad_s=(8, 10), mos=(4.28, 4.38), drift_ppm=-2.1
        ),
    ]
    tracks[0]["dtmf"] = [
        {"digit": digit, "start_s": 30.2 + 0.9 * n, "duration_ms": 160.0, "kind": "telephone-event"}
        for n, digit in enumerate("4711#")
    ]
    manifest = {
        "version": 1,
        "call_leg_id": CALL_LEG_ID,
        "leg": "A",
        "started_at": "2026-01-31T09:14:27.000Z",
        "ended_at": "2026-01-31T09:15:27.000Z",
        "call": {
            "from": "+15550100001",
            "to": "+15550199999",
            "direction": "incoming",
            "hangup_cause": "normal_clearing",
        },
        "marks": [
            {"kind": "paused", "at_s": PAUSED_S[0], "at": "2026-01-31T09:14:49.500Z"},
            {"kind": "resumed", "at_s": PAUSED_S[1], "at": "2026-01-31T09:14:56.000Z"},
        ],
        "recordings": ["call.wav"],
        "tracks": tracks,
    }
    path = folder / "call.json"
    path.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return path


def _channel(voice: str, early_s: float) -> np.ndarray:
    said = PCMU.table[load_voice(voice)]
    channel = np.zeros(round(END_S * RATE_HZ), np.int16)
    for at_s in (0.3, AGAIN_S):
        start = max(0, round((at_s + early_s) * RATE_HZ))
        heard = said[: len(channel) - start]
        channel[start : start + len(heard)] = heard
    channel[round(PAUSED_S[0] * RATE_HZ) : round(PAUSED_S[1] * RATE_HZ)] = 0
    return channel


def _track(direction, channel, samples, rng, *, bad_s, mos, drift_ppm):
    seconds = round(END_S)
    is_bad = (np.arange(seconds) >= bad_s[0]) & (np.arange(seconds) < bad_s[1])
    lost = rng.binomial(50, np.where(is_bad, 0.06, 0.002))
    jitter_ms = (
        2.5 + rng.gamma(2.0, 0.5, seconds) + np.where(is_bad, rng.gamma(4.0, 2.0, seconds), 0)
    )
    lost_at_s = sorted(
        float(at) for s, n in enumerate(lost.tolist()) for at in (s + rng.random(n)).round(2)
    )
    return {
        "call_leg_id": CALL_LEG_ID,
        "leg": "A",
        "direction": direction,
        "source": "192.0.2.10:31000",
        "ssrc": "0x0000abcd",
        "codec": "PCMU",
        "started_at": "2026-01-31T09:14:27.000Z",
        "ended_at": "2026-01-31T09:15:27.000Z",
        "reason": "closed",
        "packets": 3000 - int(lost.sum()),
        "lost": int(lost.sum()),
        "late": 3,
        "duplicate": 0,
        "reordered": 5,
        "resets": 0,
        "jitter_mean_ms": round(float(jitter_ms.mean()), 3),
        "jitter_max_ms": round(float(jitter_ms.max()), 3),
        "sample_rate_hz": RATE_HZ,
        "silence_s": round(0.02 * int(lost.sum()), 2),
        "duration_s": END_S,
        "drift_ppm": drift_ppm,
        "lost_at_s": lost_at_s,
        "recording": "call.wav",
        "channel": channel,
        "offset_s": 0.0,
        "speech": _speech(samples),
        "quality": {"mos": mos[0], "mos_concealed": mos[1], "burst": {"longest_packets": 3}},
        "timeline": {
            "interval_s": 1.0,
            "packets": (50 - lost).tolist(),
            "lost": lost.tolist(),
            "jitter_ms": jitter_ms.round(1).tolist(),
        },
    }


def _speech(samples: np.ndarray) -> list[list[float]]:
    """Return where there is sound, pauses of up to half a second included."""
    frames = samples[: len(samples) // 160 * 160].reshape(-1, 160).astype(float)
    loud = np.flatnonzero(np.sqrt((frames**2).mean(axis=1)) > 200)
    runs = np.split(loud, np.flatnonzero(np.diff(loud) > 25) + 1)
    return [
        [round(run[0] * 0.02, 2), round((run[-1] + 1) * 0.02, 2)] for run in runs if len(run) > 5
    ]


if __name__ == "__main__":
    print(make_call(Path(sys.argv[1])))  # noqa: T201
