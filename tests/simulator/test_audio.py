from __future__ import annotations

from pathlib import Path
from uuid import UUID

import numpy as np
import pytest
import soundfile
from capturefile import datagram, ethernet, pcap

from strep.media import packetize
from strep.simulator.audio import PCMA, PCMU, SAMPLES, AudioError, load_audio, resample
from strep.voices import load_voice
from strep.wire import RtpHeader, StrepHeader

HERE = Path()


def write_wav(path, pcm, rate_hz=8000):
    soundfile.write(path, pcm, rate_hz, subtype="PCM_16")
    return str(path)


def linear(audio, payload_type=PCMU):
    """The samples of an audio, without the silent frame at the end."""
    return SAMPLES[payload_type][audio.frames(payload_type, 1)[:-1, 0]]


def test_shipped_voices_are_their_own_codes():
    frames = load_audio("caller", HERE).frames(PCMU, 160)
    voice = load_voice("caller")
    assert np.array_equal(frames[:10].ravel(), voice[:1600])
    assert (frames[-1] == 0xFF).all()


def test_silence_is_silent_in_both_laws():
    audio = load_audio("silence", HERE)
    assert (audio.frames(PCMU, 160) == 0xFF).all()
    assert (audio.frames(PCMA, 160) == 0xD5).all()
    assert audio.frames(PCMU, 160).shape == (51, 160)
    assert audio.is_silent(160, -60).all()


def test_laws_of_one_voice_agree_within_their_steps():
    audio = load_audio("agent", HERE)
    mu, a = linear(audio, PCMU).astype(int), linear(audio, PCMA).astype(int)
    assert np.abs(mu).max() > 8000
    assert (np.abs(mu - a) <= np.maximum(np.abs(mu) // 16, 16)).all()


def test_frames_that_are_below_the_level_are_silent(tmp_path):
    pcm = np.zeros(480, np.int16)
    pcm[160:320] = 3000  # -20.8 dBFS
    audio = load_audio(write_wav(tmp_path / "step.wav", pcm), HERE)
    assert audio.is_silent(160, -30).tolist() == [True, False, True, True]
    assert audio.is_silent(160, -20).tolist() == [True, True, True, True]


def test_wav_at_8_khz_keeps_its_samples_to_the_law_s_precision(tmp_path):
    pcm = np.array([0, 8, -8, 100, -100, 1000, -1000, 30000, -30000], np.int16)
    audio = load_audio(write_wav(tmp_path / "levels.wav", pcm), HERE)
    assert linear(audio).tolist() == [0, 8, -8, 104, -104, 988, -988, 30076, -30076]


def test_relative_file_is_meant_from_the_folder(tmp_path):
    write_wav(tmp_path / "here.wav", np.zeros(80, np.int16))
    assert load_audio("here.wav", tmp_path).samples == 80


@pytest.mark.parametrize("rate_hz", [8000, 11025, 16000, 22050, 44100, 48000, 96000])
def test_tone_of_any_rate_comes_out_at_its_pitch_and_level(rate_hz):
    seconds = np.arange(2 * rate_hz) / rate_hz
    made = resample(0.5 * np.sin(2 * np.pi * 440 * seconds), rate_hz)
    assert len(made) == 16000
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(16000) / 8000)
    assert np.abs(made - expected)[800:-800].max() < 0.003


def test_what_is_above_4_khz_is_cut_off():
    seconds = np.arange(48000) / 48000
    made = resample(0.5 * np.sin(2 * np.pi * 6000 * seconds), 48000)
    assert np.abs(made[400:-400]).max() < 0.001


def test_length_that_is_no_whole_period_is_kept():
    assert len(resample(np.zeros(1000), 44100)) == 181


def test_channel_is_chosen_by_number(tmp_path):
    pcm = np.tile(np.array([[1000, -1000]], np.int16), (80, 1))
    name = write_wav(tmp_path / "both.wav", pcm)
    assert set(linear(load_audio(f"{name}#1", HERE)).tolist()) == {988}
    assert set(linear(load_audio(f"{name}#2", HERE)).tolist()) == {-988}


def capture(path, packets):
    frames = [(i * 20_000_000, ethernet(datagram(packet))) for i, packet in enumerate(packets)]
    path.write_bytes(pcap(frames))
    return str(path)


def rtp(timestamp, payload, *, ssrc=1, payload_type=PCMU, sequence=0):
    return RtpHeader(payload_type, sequence, timestamp, ssrc).pack() + payload


def test_capture_is_laid_out_by_timestamps(tmp_path):
    packets = [
        rtp(2**32 - 4, b"\x01\x02\x03\x04"),
        b"not RTP",
        rtp(8, b"\x09\x0a"),
        rtp(0, b"\x05\x06"),  # out of order
    ]
    audio = load_audio(capture(tmp_path / "a.pcap", packets), HERE)
    codes = audio.frames(PCMU, 1)[:-1, 0]
    assert codes.tobytes().hex() == "010203040506ffffffffffff090a"


def test_stream_of_a_capture_is_chosen_by_number(tmp_path):
    packets = [rtp(0, b"\x11" * 8), rtp(0, b"\x22" * 8, ssrc=2, payload_type=PCMA)]
    name = capture(tmp_path / "two.pcap", packets)
    assert set(load_audio(name, HERE).frames(PCMU, 8)[0].tolist()) == {0x11}
    assert set(load_audio(f"{name}#2", HERE).frames(PCMA, 8)[0].tolist()) == {0x22}


def test_strep_of_a_capture_is_unwrapped(tmp_path):
    rows = packetize(
        load_voice("caller")[40000:40320],
        payload_type=0, ssrc=5, first_sequence=1, first_timestamp=1,
        strep=StrepHeader(UUID(int=7)),
    )  # fmt: skip
    audio = load_audio(capture(tmp_path / "s.pcap", [row.tobytes() for row in rows]), HERE)
    assert np.array_equal(audio.frames(PCMU, 320)[0], load_voice("caller")[40000:40320])


def test_packets_of_the_other_law_are_transcoded(tmp_path):
    packets = [rtp(0, b"\xff" * 4), rtp(4, b"\xd5" * 4, payload_type=PCMA)]
    audio = load_audio(capture(tmp_path / "mixed.pcap", packets), HERE)
    assert audio.frames(PCMU, 8)[0].tobytes().hex() == "fffffffffefefefe"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere.wav", "cannot read audio from nowhere.wav: no such file"),
        ("both.wav", "both.wav has 2 channels: choose one, as in both.wav#1"),
        ("both.wav#3", "both.wav has 2 channels, not 3"),
        ("empty.wav", "empty.wav has 0 s of audio, expected some and at most 4 h"),
        ("text.wav", "cannot read audio from text.wav: Format not recognised."),
        ("nowhere.pcap", "cannot read capture nowhere.pcap: No such file or directory"),
        ("silent.pcap", "silent.pcap has 0 G.711 streams, not 1"),
        ("one.pcap#2", "one.pcap has 1 G.711 streams, not 2"),
        ("far.pcap", "far.pcap has timestamps that span more than 4 h"),
    ],
)
def test_source_that_cannot_be_used_is_named(source, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_wav(tmp_path / "both.wav", np.zeros((80, 2), np.int16))
    write_wav(tmp_path / "empty.wav", np.zeros(0, np.int16))
    (tmp_path / "text.wav").write_text("hello")
    capture(tmp_path / "silent.pcap", [b"not RTP"])
    capture(tmp_path / "one.pcap", [rtp(0, b"\x11" * 8)])
    capture(tmp_path / "far.pcap", [rtp(0, b"\x11" * 8), rtp(2**30, b"\x11" * 8)])
    with pytest.raises(AudioError) as error:
        load_audio(source, HERE)
    assert str(error.value) == message
