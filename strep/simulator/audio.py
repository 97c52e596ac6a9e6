"""Where simulated parties get their voices from: shipped voices, sound files and captures.

A source is written as a text:

- `caller`, `agent`: the two sides of the conversation that ships with the package;
- `silence`: a second of it;
- a sound file (WAV, FLAC and what else libsndfile reads) of any sample rate, resampled to 8 kHz;
  of one with several channels one is chosen, as in `call.wav#2`;
- a capture (pcap or pcapng): the audio of its first G.711 stream, or as in `call.pcap#2` of a later
  one, each packet at its timestamp and silence where there is none.

G.711 is converted by the standard library, not by the pipeline: what a recording is judged by
does not come from what made the recording.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from strep.media import SILENCE, frames
from strep.receive.capture import CaptureError, CaptureReader
from strep.voices import load_voice
from strep.wire import DropReason, PacketBatch, WireError
from strep.wire.datagram import Datagram

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from strep.wire import RtpHeader

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import audioop

SAMPLE_RATE_HZ = 8000
PCMU, PCMA = 0, 8
LONGEST_S = 4 * 3600
"""Of a source; as long as the longest call."""
CAPTURE_SUFFIXES = (".pcap", ".pcapng", ".cap", ".pcap.gz", ".pcapng.gz", ".cap.gz")

_EVERY_CODE = bytes(range(256))
SAMPLES: Mapping[int, NDArray[np.int16]] = {
    PCMU: np.frombuffer(audioop.ulaw2lin(_EVERY_CODE, 2), np.int16),
    PCMA: np.frombuffer(audioop.alaw2lin(_EVERY_CODE, 2), np.int16),
}
"""(256,) int16: the sample of each code, by RTP payload type."""
_ENCODE = {PCMU: audioop.lin2ulaw, PCMA: audioop.lin2alaw}


class AudioError(ValueError):
    """A source of audio cannot be used; one sentence that names it."""


class Audio:
    """Audio at 8 kHz, as codes of both laws; what it was made of stays as it was."""

    def __init__(self, payload_type: int, codes: NDArray[np.uint8]) -> None:
        """`codes` are of the law of `payload_type`, 0 or 8."""
        self._own = payload_type
        self._codes = {payload_type: codes}
        self._frames: dict[tuple[int, int], NDArray[np.uint8]] = {}

    @property
    def samples(self) -> int:
        """How many samples there are."""
        return len(self._codes[self._own])

    def frames(self, payload_type: int, samples: int) -> NDArray[np.uint8]:
        """Return frames of so many samples, uint8 (n + 1, samples), the last one all silence."""
        key = payload_type, samples
        if key not in self._frames:
            silence = SILENCE[payload_type]
            cut = frames(self._law(payload_type), samples, silence=silence)
            still = np.full((1, samples), silence, np.uint8)
            self._frames[key] = np.concatenate([cut, still])
        return self._frames[key]

    def is_silent(self, samples: int, below_dbfs: float) -> NDArray[np.bool_]:
        """Tell of each of `frames` whether its level is below so much, (n + 1,) bool."""
        pcm = SAMPLES[self._own][self.frames(self._own, samples)].astype(np.float64)
        power = np.square(pcm / 32768).mean(axis=1)
        silent: NDArray[np.bool_] = power < 10 ** (below_dbfs / 10)
        return silent

    def _law(self, payload_type: int) -> NDArray[np.uint8]:
        if payload_type not in self._codes:
            pcm = SAMPLES[self._own][self._codes[self._own]]
            encoded = _ENCODE[payload_type](pcm.tobytes(), 2)
            self._codes[payload_type] = np.frombuffer(encoded, np.uint8)
        return self._codes[payload_type]


def load_audio(source: str, folder: Path) -> Audio:
    """Load a source; relative paths are meant from `folder`. Raises `AudioError`."""
    if source in {"caller", "agent"}:
        return Audio(PCMU, load_voice("caller" if source == "caller" else "agent"))
    if source == "silence":
        return Audio(PCMU, np.full(SAMPLE_RATE_HZ, SILENCE[PCMU], np.uint8))
    name, which = _split(source)
    path = folder / Path(name).expanduser()
    if name.lower().endswith(CAPTURE_SUFFIXES):
        audio = _from_capture(path, which or 1)
    else:
        audio = _from_sound_file(path, which)
    if not 0 < audio.samples <= LONGEST_S * SAMPLE_RATE_HZ:
        raise AudioError(
            f"{path} has {audio.samples / SAMPLE_RATE_HZ:g} s of audio, expected some and at most "
            f"{LONGEST_S // 3600} h"
        )
    return audio


def resample(pcm: NDArray[np.float64], rate_hz: int) -> NDArray[np.float64]:
    """Return (samples,) audio of any rate at 8 kHz; what is above 4 kHz is cut off, not folded.

    By Fourier transform: a whole number of periods of both rates is taken, its spectrum cut off or
    filled up, and transformed back.
    """
    if rate_hz == SAMPLE_RATE_HZ:
        return pcm
    period_in = rate_hz // np.gcd(rate_hz, SAMPLE_RATE_HZ)
    wanted = round(len(pcm) * SAMPLE_RATE_HZ / rate_hz)
    padded = np.pad(pcm, (0, -len(pcm) % period_in))
    n_out = len(padded) * SAMPLE_RATE_HZ // rate_hz
    spectrum = np.fft.rfft(padded)
    kept = np.zeros(n_out // 2 + 1, np.complex128)
    bins = min(len(spectrum), len(kept))
    kept[:bins] = spectrum[:bins]
    whole: NDArray[np.float64] = np.fft.irfft(kept, n_out) * (SAMPLE_RATE_HZ / rate_hz)
    return whole[:wanted]


def _split(source: str) -> tuple[str, int | None]:
    """Split `call.wav#2` into the name of the file and a number from 1."""
    match = re.fullmatch(r"(?P<name>.+?)(?:#(?P<which>[1-9][0-9]{0,3}))?", source, re.DOTALL)
    if match is None:
        raise AudioError(f"{source!r} is not caller, agent, silence or a file")
    return match["name"], int(match["which"]) if match["which"] else None


def _from_sound_file(path: Path, channel: int | None) -> Audio:
    import soundfile  # noqa: PLC0415 -- the shipped voices do without it

    try:
        with soundfile.SoundFile(path) as file:
            if file.frames > LONGEST_S * file.samplerate:
                raise AudioError(f"{path} is longer than {LONGEST_S // 3600} h")
            channels, rate_hz = file.channels, file.samplerate
            if channel is None and channels > 1:
                raise AudioError(f"{path} has {channels} channels: choose one, as in {path.name}#1")
            if (channel or 1) > channels:
                raise AudioError(f"{path} has {channels} channels, not {channel}")
            pcm = file.read(dtype="float64", always_2d=True)[:, (channel or 1) - 1]
    except (soundfile.SoundFileError, OSError) as error:
        reason = "no such file" if not path.is_file() else str(error).rpartition(": ")[2]
        raise AudioError(f"cannot read audio from {path}: {reason}") from None
    linear = np.clip(np.round(resample(pcm, rate_hz) * 32768), -32768, 32767).astype(np.int16)
    return Audio(PCMU, np.frombuffer(audioop.lin2ulaw(linear.tobytes(), 2), np.uint8))


def _from_capture(path: Path, which: int) -> Audio:
    """Put the packets of the `which`-th G.711 stream of a capture where their timestamps say."""
    streams: dict[tuple[bytes, bytes, int], list[_Packet]] = {}
    batch = PacketBatch(slot_bytes=65536)
    try:
        with CaptureReader(path) as reader:
            while count := reader.read(batch):
                for row in range(count):
                    try:
                        rtp, payload = _audio_packet(batch, row)
                    except WireError:
                        continue
                    ends = batch.source[row].tobytes(), batch.destination[row].tobytes()
                    packet = _Packet(rtp.timestamp, rtp.payload_type, bytes(payload))
                    streams.setdefault((*ends, rtp.ssrc), []).append(packet)
    except CaptureError as error:
        raise AudioError(str(error)) from None
    if len(streams) < which:
        raise AudioError(f"{path} has {len(streams)} G.711 streams, not {which}")
    return _placed(path, list(streams.values())[which - 1])


class _Packet(NamedTuple):
    timestamp: int
    payload_type: int
    payload: bytes


def _audio_packet(batch: PacketBatch, row: int) -> tuple[RtpHeader, memoryview]:
    """Return the RTP header and the payload of a datagram. Raises WireError if it is no G.711."""
    datagram = Datagram.parse(batch.datagram(row), length_bytes=int(batch.length_bytes[row]))
    if datagram.rtp.payload_type not in SAMPLES:
        raise WireError(DropReason.OTHER, "not G.711")
    return datagram.rtp, datagram.payload


def _placed(path: Path, packets: list[_Packet]) -> Audio:
    first, law, _ = packets[0]
    # where each stands behind the first: the shorter way around the 32 bits
    places = [(packet.timestamp - first + 2**31) % 2**32 - 2**31 for packet in packets]
    end = max(place + len(packet.payload) for place, packet in zip(places, packets, strict=True))
    if end > LONGEST_S * SAMPLE_RATE_HZ:
        raise AudioError(f"{path} has timestamps that span more than {LONGEST_S // 3600} h")
    codes = np.full(end, SILENCE[law], np.uint8)
    for place, (_, payload_type, payload) in zip(places, packets, strict=True):
        if place < 0:  # what came before the first packet, out of order
            continue
        octets = np.frombuffer(payload, np.uint8)
        if payload_type != law:
            linear = SAMPLES[payload_type][octets]
            octets = np.frombuffer(_ENCODE[law](linear.tobytes(), 2), np.uint8)
        codes[place : place + len(octets)] = octets
    return Audio(law, codes)
