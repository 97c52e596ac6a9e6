"""Sinks that exit, raise and allocate, beside real calls through a real daemon."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from uuid import UUID

import numpy as np
import soundfile
from loopback import Serve

from pipeline.codecs import PCMU
from strep.media import packetize
from strep.sender import send_paced
from strep.voices import load_voice
from strep.wire import Direction, StrepHeader

CALLS, PACKETS = 10, 100
HARM = ("exit", "raise", "allocate")


def test_calls_are_recorded_to_the_last_bit_beside_sinks_that_do_harm(tmp_path):
    voice = load_voice("caller")
    ids = [UUID(int=7 + 2**64 * i, version=4) for i in range(CALLS)]
    codes = {each: voice[800 * i : 800 * i + 160 * PACKETS] for i, each in enumerate(ids)}
    packets = [
        packetize(
            codes[each],
            payload_type=0,
            ssrc=i,
            first_sequence=65_500,
            first_timestamp=2**32 - 800,
            strep=StrepHeader(each, direction=Direction.INBOUND),
        )
        for i, each in enumerate(ids)
    ]
    datagrams = [bytes(call[i]) for i in range(PACKETS) for call in packets]
    bad = [
        f"--sink=unrulysinks:After:run=process,max_memory_mb=200,does={does},frames=400"
        for does in HARM
    ]
    path = os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(Path(__file__).parents[1])])
    with Serve(tmp_path, "--sink=wav", "--sink=vad", *bad, env={"PYTHONPATH": path}) as serve:
        due_s = np.repeat(np.arange(PACKETS) * 0.02, CALLS)
        asyncio.run(send_paced(datagrams, due_s, serve.to, speed=4))
        serve.wait_for("strep_packets_total", CALLS * PACKETS)
        names = dict(zip(HARM, ["", "-2", "-3"], strict=True))
        sinks = {does: f"{{unrulysinks:After{name}}}" for does, name in names.items()}
        for does in ("exit", "allocate"):
            serve.wait_for(f"strep_sink_restarts_total{sinks[does]}", 1)
        serve.wait_for(f"strep_sink_errors_total{sinks['raise']}", 10)
        metrics = serve.metrics()
        assert serve.stop() == 0
    for sink in ("{wav}", "{vad}"):
        assert metrics[f"strep_sink_frames_total{sink}"] == CALLS * PACKETS
        assert metrics[f"strep_sink_dropped_frames_total{sink}"] == 0
    assert metrics[f"strep_sink_up{sinks['raise']}"] == 0
    assert metrics["strep_kernel_drops_total"] == metrics["strep_packets_lost_total"] == 0
    for each in ids:
        [recording] = tmp_path.glob(f"*{each}*.wav")
        pcm, _ = soundfile.read(recording, dtype="int16", always_2d=True)
        assert np.array_equal(pcm[:, 0], PCMU.table[codes[each]])
        [track] = json.loads(recording.with_suffix(".json").read_text())["tracks"]
        for does in ("exit", "allocate"):
            assert track["partial"][sinks[does][1:-1]] == {"interrupted": 1}
    log = serve.log.read_text()
    assert "its process exited with 3" in log
    assert "its process took more than 200 MB of memory and was ended" in log
    assert "raised in write" in log
