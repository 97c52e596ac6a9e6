"""A folder of recordings that cannot be written: said, metered, and shown to who gives calls."""

from __future__ import annotations

import json
from uuid import UUID

import numpy as np
import soundfile
from loopback import Serve

from pipeline.codecs import PCMU
from strep.media import packetize
from strep.sender import send_paced
from strep.voices import load_voice
from strep.wire import Direction, StrepHeader
from strep.workerprocess import run_async

CALL = UUID("428c31b6-7af4-4bcb-b7f5-5013ef9657c1")
CODES = load_voice("caller")[: 160 * 40]


def send(serve, first, last):
    datagrams = packetize(
        CODES,
        payload_type=0,
        ssrc=1,
        first_sequence=0,
        first_timestamp=0,
        strep=StrepHeader(CALL, direction=Direction.INBOUND),
    )[first:last]
    run_async(send_paced([bytes(each) for each in datagrams], np.zeros(last - first), serve.to))


def test_recordings_that_cannot_begin_are_shown_until_they_have_begun(tmp_path):
    folder, elsewhere = tmp_path / "calls", tmp_path / "elsewhere"
    sink = f"wav:flush_s=0.05,layout=mono,directory={folder}"
    with Serve(tmp_path, "--sink", sink) as serve:
        assert serve.readiness() == (200, [])
        folder.rename(elsewhere)
        folder.write_text("in the way")
        send(serve, 0, 20)
        serve.wait_for("strep_recordings_put_off{wav}", 1)
        assert serve.readiness() == (503, ["recordings cannot be written: wav"])
        assert serve.metrics()["strep_recording_attempts_failed_total{wav}"] >= 1
        folder.unlink()
        send(serve, 20, 40)
        serve.wait_until(lambda: serve.readiness() == (200, []), "the recording has begun")
        assert serve.stop() == 0
    (path,) = folder.glob("*.wav")
    samples = soundfile.read(path, dtype="int16")[0]
    (entry,) = json.loads(path.with_suffix(".json").read_text())["tracks"]
    missed = round(entry["wav"]["missed_until_s"] * 8000)
    expected = np.empty(len(CODES), np.int16)
    PCMU.decode(CODES, expected)
    assert 0 < missed < len(samples) == len(expected)
    assert not samples[:missed].any()
    assert (samples[missed:] == expected[missed:]).all()
