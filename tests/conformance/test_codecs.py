"""Real captures of codecs other than G.711: durations, losses and recordings that can be played."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from material import MATERIAL, needs_material

from pipeline.decoders import load_library
from pipeline.formats import PayloadTypes
from pipeline.sinks.load import load
from strep.analyze import analyze

pytestmark = [
    needs_material,
    pytest.mark.skipif(load_library() is None, reason="needs PyAV: strep[codecs]"),
]

CAPTURES = MATERIAL / "captures"

# name, payload types, codec, rate, seconds of audio, of silence (None where frames are so late that
# their arrival says where they stand), and power of all in dBFS, from and to
CASES = [
    ("rtpproxy/call1_g722.a.rtp.derived.pcap", "", "G722", 16_000, 622 * 0.02, 0, (-45, -10)),
    ("rtpproxy/call1_g722.o.rtp.derived.pcap", "", "G722", 16_000, 619 * 0.02, 0, (-45, -10)),
    ("rtpproxy/call1_g729.a.rtp.derived.pcap", "", "G729", 8000, 519 * 0.02, 0, (-45, -10)),
    ("rtpproxy/call1_gsm.a.rtp.derived.pcap", "", "GSM", 8000, 966 * 0.02, 0.02, (-45, -10)),
    ("rtpproxy/dups.a.rtp.pcap", "", "G729", 8000, 383 * 0.02, 0, (-60, -10)),
    ("rtpproxy/lost.a.rtp.pcap", "", "G729", 8000, 244 * 0.01, 3.21, (-60, -10)),
    ("rtpproxy/lost.o.rtp.pcap", "", "G729", 8000, 246 * 0.02, 0, (-60, -10)),
    (
        "asterisk-testsuite/opus-2013785496.pcap",
        *("96=opus", "opus", 48_000, 725 * 0.02, 35_200 / 48_000, (-60, -5)),
    ),
    (
        "mediastreamer2/rtp-120late-1000total.pcapng",
        *("124=opus", "opus", 48_000, 904 * 0.02, None, (-60, -5)),
    ),
]


@pytest.mark.parametrize(
    ("name", "payload_types", "codec", "rate_hz", "audio_s", "silence_s", "level_dbfs"),
    CASES,
    ids=[case[0] for case in CASES],
)
def test_capture_becomes_a_recording_of_its_length(
    tmp_path, name, payload_types, codec, rate_hz, audio_s, silence_s, level_dbfs
):
    sinks = {"wav": load("wav", {"layout": "mono", "directory": str(tmp_path)})}
    told = PayloadTypes.parse(payload_types)
    (track,) = analyze(CAPTURES / name, sinks, payload_types=told).tracks
    assert (track["codec"], track["sample_rate_hz"]) == (codec, rate_hz)
    assert track["undecoded"] == 0
    assert track["duration_s"] - track["silence_s"] == pytest.approx(audio_s, abs=1e-4)
    if silence_s is not None:
        assert track["silence_s"] == pytest.approx(silence_s, abs=1e-4)
    pcm, rate = soundfile.read(tmp_path / Path(track["recording"]).name, dtype="int16")
    assert (rate, len(pcm)) == (rate_hz, round(track["duration_s"] * rate_hz))
    power = np.mean((pcm / 32768) ** 2)
    assert level_dbfs[0] < 10 * np.log10(power) < level_dbfs[1]


def test_telephone_events_beside_opus_are_no_audio():
    told = PayloadTypes.parse("96=opus")
    (track,) = analyze(
        CAPTURES / "asterisk-testsuite/opus-2013785496.pcap", {}, payload_types=told
    ).tracks
    assert track["payload_types"] == {"96": 725, "101": 40}
    assert track["unknown_payload"] == 0
    assert "".join(press["digit"] for press in track["dtmf"]) == "2013785496"


def test_opus_of_several_frames_lasts_as_its_timestamps_say():
    told = PayloadTypes.parse("124=opus")
    name = "mediastreamer2/opus-poor-quality.pcapng"
    (track,) = analyze(CAPTURES / name, {}, payload_types=told).tracks
    assert (track["packets"], track["lost"], track["undecoded"]) == (4228, 1, 0)
    assert track["duration_s"] - track["silence_s"] == pytest.approx(188.08)
