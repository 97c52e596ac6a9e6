"""Tones in the codecs that can be encoded here."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile


def tone(samples, rate_hz, *, frequency_hz=1000, level_dbfs=-12.0):
    """Return a sine, int16, whose power is so far below that of a square wave of full scale."""
    amplitude = 32767 * 2**0.5 * 10 ** (level_dbfs / 20)
    phase = 2 * np.pi * frequency_hz * np.arange(samples) / rate_hz
    return np.round(amplitude * np.sin(phase)).astype(np.int16)


def measured(pcm, rate_hz):
    """Return the strongest frequency in Hz and the level in dBFS of int16 samples."""
    spectrum = np.abs(np.fft.rfft(pcm * np.hanning(len(pcm))))
    frequency_hz = np.argmax(spectrum) * rate_hz / len(pcm)
    power = np.mean((pcm / 32768.0) ** 2)
    return float(frequency_hz), float(10 * np.log10(power))


def encode(name, pcm, rate_hz, samples, **options):
    """Return the payloads of frames of so many samples each, by one of FFmpeg's encoders."""
    av = pytest.importorskip("av", reason="needs PyAV: strep[codecs]")
    context = av.CodecContext.create(name, "w")
    context.sample_rate, context.layout, context.format = rate_hz, "mono", "s16"
    context.options = {key: str(value) for key, value in options.items()}
    payloads = []
    for start in range(0, len(pcm), samples):
        frame = av.AudioFrame.from_ndarray(
            pcm[None, start : start + samples], format="s16", layout="mono"
        )
        frame.sample_rate, frame.pts = rate_hz, start
        payloads += [bytes(packet) for packet in context.encode(frame)]
    return payloads


def g722(pcm, ms=20):
    return encode("g722", pcm, 16_000, 16 * ms)


def opus(pcm, ms=20):
    return encode("libopus", pcm, 48_000, round(48 * ms), frame_duration=ms, application="voip")


def gsm(pcm):
    file = io.BytesIO()
    soundfile.write(file, pcm, 8000, format="RAW", subtype="GSM610")
    return [file.getvalue()[i : i + 33] for i in range(0, len(file.getvalue()), 33)]


def l16(pcm, samples):
    codes = pcm.astype(">i2").tobytes()
    return [codes[i : i + 2 * samples] for i in range(0, len(codes), 2 * samples)]
