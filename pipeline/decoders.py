"""Decoding of all that is not G.711, packet by packet, with a decoder for each track.

    payload type -> format -> units of the RTP clock, told by the payload alone
                           -> samples, by the track's decoder

What a payload type stands for is in RFC 3551, in the settings or, for a dynamic one, in what was
declared of a call. How long a packet lasts follows from its payload without decoding it, so that
one that cannot be decoded is a gap of its own length. L16 is decoded here, all else by FFmpeg
through PyAV, which is an extra: without it such packets count as of an unknown payload type, and
the log says once for each codec what to install.

Decoders have a state: they are made with a track's first packet, made anew where its sequence
restarts or its codec changes, and freed when it is closed.
"""

from __future__ import annotations

import importlib
import logging
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.codecs import CODECS, PAYLOAD_TYPES, Codec
from pipeline.formats import STATIC, Format, is_dynamic
from pipeline.packets import Packets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    Part = tuple[Packets, NDArray[np.int64] | None]

_logger = logging.getLogger("pipeline.decoders")

INSTALL = "pip install 'strep[codecs]'"
MAX_DECODERS = 4096
"""Decoders at once; packets of tracks beyond are not decoded, and counted."""

_TABLES: Mapping[str, Codec] = {codec.name: codec for codec in CODECS.values()}
_LIBRARY = {"G722": ("g722",), "G729": ("g729",), "GSM": ("gsm",), "opus": ("libopus", "opus")}
"""Names of FFmpeg's decoders, the best first."""
_EVENT_BYTES = 4
"""Length of a telephone-event (RFC 4733 section 2.3)."""


@dataclass(slots=True)
class Decoded(Packets):
    """Packets of one length whose payloads are what `codec` says: linear samples, or G.711."""

    codec: Codec
    received: Packets
    """The same, as they came."""

    @classmethod
    def of(cls, packets: Packets, codec: Codec, received: Packets) -> Decoded:
        """Return packets with these payloads."""
        columns = {each.name: getattr(packets, each.name) for each in fields(packets)}
        return cls(**columns, codec=codec, received=received)

    def take(self, which: NDArray[np.intp]) -> Decoded:
        """Return the packets at these indices; the payloads are not copied."""
        received = self.received.take(which)
        return Decoded.of(Packets.take(self, which), self.codec, received)

    def copy(self) -> Decoded:
        """Return packets that own their payloads, and may be kept; without them as they came."""
        columns = {each.name: getattr(self, each.name).copy() for each in fields(Packets)}
        columns |= {
            "store": self.store.take(self.slot, axis=0),
            "slot": np.arange(len(self.rows)),
        }
        received = replace(self.received, store=np.zeros((0, 0), np.uint8))
        return Decoded(**columns, codec=self.codec, received=received)


def duration_units(encoding: str, payload: bytes, channels: int = 1) -> int | None:
    """Return how long a payload lasts, in units of its RTP clock; None where it is malformed.

    0 where it holds no audio: what is left of comfort noise in G.729 Annex B.
    """
    size = len(payload)
    match encoding:
        case "G722":  # RFC 3551 section 4.5.2: an octet in each unit
            return size
        case "L16":  # section 4.5.11
            return None if size % (2 * channels) else size // (2 * channels)
        case "GSM":  # section 4.5.8.1: frames of 33 octets, 20 ms
            return None if size % 33 else size // 33 * 160
        case "G729":  # section 4.5.6: frames of 10 octets, 10 ms, and comfort noise of 2 behind
            return None if size % 10 not in {0, 2} else size // 10 * 80
        case "opus":
            return _opus_units(payload)
        case _:
            return None


def _opus_units(payload: bytes) -> int | None:
    """Return the duration of an Opus packet at 48 kHz (RFC 6716 sections 3.1 and 3.2)."""
    if not payload:
        return None
    config, code = payload[0] >> 3, payload[0] & 0b11
    if config < 12:  # SILK
        frame = (480, 960, 1920, 2880)[config & 0b11]
    elif config < 16:  # hybrid
        frame = (480, 960)[config & 0b1]
    else:  # CELT
        frame = (120, 240, 480, 960)[config & 0b11]
    frames = 1 if code == 0 else 2
    if code == 3:
        if len(payload) < 2:
            return None
        frames = payload[1] & 0x3F
    units = frames * frame
    return units if 0 < units <= 5760 else None  # at most 120 ms: requirement R5 of section 3.4


class Decoders:
    """The decoders of all tracks by row, and what their payload types stand for.

    `payload_types` stand before the static ones. `on_learnt(row, payload_type, clock_hz)` is called
    when it becomes known which payload type a track's declared codec has.
    """

    def __init__(
        self,
        payload_types: Mapping[int, Format] | None = None,
        *,
        max_decoders: int = MAX_DECODERS,
        on_learnt: Callable[[int, int, int], None] | None = None,
    ) -> None:
        self.payload_types: Mapping[int, Format] = {**STATIC, **(payload_types or {})}
        self.max_decoders = max_decoders
        self.undecoded_total = 0
        """Packets whose payload could not be decoded."""
        self._on_learnt = on_learnt
        self._has_format = np.zeros(PAYLOAD_TYPES, np.bool_)
        self._has_format[list(self.payload_types)] = True
        self._declared: dict[int, Format] = {}
        """By row: a codec whose payload type is not known yet."""
        self._learnt: dict[int, tuple[int, Format]] = {}
        """By row: the payload type of what was declared."""
        self._decoders: dict[int, tuple[Format, _Decoder]] = {}
        self._undecoded: dict[int, int] = {}
        """By row, since it was opened."""
        self._names: dict[str, str | None] = {}
        """Names of FFmpeg's decoders; None for what cannot be decoded here."""

    def __len__(self) -> int:
        """Return how many tracks have a decoder."""
        return len(self._decoders)

    # -- tracks

    def open(self, row: int) -> None:
        """Begin to count for a track, or for the next segment of one."""
        self._undecoded.pop(row, None)
        if row in self._learnt and self._on_learnt is not None:
            payload_type, learnt = self._learnt[row]
            self._on_learnt(row, payload_type, learnt.clock_hz)

    def declare(self, row: int, declared: Format) -> None:
        """Take in that a track may have this codec under a dynamic payload type.

        Which one is known with the first packet of such a type that has no other meaning and is
        longer than a telephone-event.
        """
        if row not in self._learnt:
            self._declared[row] = declared

    def restart(self, rows: NDArray[np.intp]) -> None:
        """Forget what tracks' decoders remember of the packets before."""
        for row in rows.tolist():
            self._decoders.pop(row, None)

    def close(self, row: int) -> None:
        """Free all of a track."""
        for each in (self._declared, self._learnt, self._decoders, self._undecoded):
            each.pop(row, None)

    def format_of(self, row: int, payload_type: int) -> Format | None:
        """Return what a payload type stands for on a track; None where nobody knows."""
        learnt, learnt_format = self._learnt.get(row, (-1, None))
        return learnt_format if learnt == payload_type else self.payload_types.get(payload_type)

    def name(self, row: int, payload_type: int) -> str:
        """Return the name of the codec, `unknown` where there is none."""
        known = self.format_of(row, payload_type)
        return "unknown" if known is None else known.encoding

    def can_decode(self, row: int, payload_type: int) -> bool:
        """Tell whether packets of this type become audio."""
        known = self.format_of(row, payload_type)
        return known is not None and self._is_installed(known.encoding, payload_type)

    def undecoded(self, row: int) -> int:
        """Return how many of a track's packets could not be decoded."""
        return self._undecoded.get(row, 0)

    # -- packets

    def decode(self, packets: Packets, lost: NDArray[np.int64] | None) -> Iterator[Part]:
        """Yield packets of one codec and duration each, with what was lost before them.

        Those that are audio are `Decoded`, the others as they came.
        """
        may_be_audio = self._has_format.take(packets.payload_type).any()
        if not (may_be_audio or self._declared or self._learnt):
            yield packets, lost
            return
        parts: dict[tuple[Codec | None, int], list[int]] = {}
        samples: dict[int, NDArray[np.int16]] = {}
        for i in range(len(packets)):
            codec, pcm = self._decode(packets, i)
            size = int(packets.length[i])
            if pcm is not None:
                samples[i] = pcm
                size = 2 * len(pcm)
            parts.setdefault((codec, size), []).append(i)
        for (codec, size), which in parts.items():
            part = packets.take(np.array(which))
            part_lost = None if lost is None else lost[which]
            if codec is None:
                yield part, part_lost
            elif which[0] not in samples:
                yield Decoded.of(part, codec, part), part_lost
            else:
                linear = np.array([samples[i] for i in which], "<i2").view(np.uint8)
                decoded = replace(
                    part,
                    store=linear,
                    slot=np.arange(len(which)),
                    offset=np.zeros(len(which), np.int64),
                    length=np.full(len(which), size),
                )
                yield Decoded.of(decoded, codec, part), part_lost

    def _decode(self, packets: Packets, i: int) -> tuple[Codec | None, NDArray[np.int16] | None]:
        """Return a packet's codec, None where it is no audio, and its samples if not G.711."""
        row, payload_type = int(packets.rows[i]), int(packets.payload_type[i])
        size, offset = int(packets.length[i]), int(packets.offset[i])
        known = self.format_of(row, payload_type) or self._learn(row, payload_type, size)
        if not size or known is None or not self._is_installed(known.encoding, payload_type):
            return None, None
        if known.encoding in _TABLES:
            return _TABLES[known.encoding], None
        payload = packets.store[packets.slot[i], offset : offset + size].tobytes()
        units = duration_units(known.encoding, payload, known.channels)
        if units == 0:
            return None, None
        codec = _linear(known)
        pcm = None if units is None else self._samples(row, known, payload)
        if units is None or pcm is None or len(pcm) != units * codec.samples_per_unit:
            self._undecoded[row] = self._undecoded.get(row, 0) + 1
            self.undecoded_total += 1
            return None, None
        return codec, pcm

    def _learn(self, row: int, payload_type: int, size: int) -> Format | None:
        if row not in self._declared or not is_dynamic(payload_type) or size <= _EVENT_BYTES:
            return None
        learnt = self._declared.pop(row)
        self._learnt[row] = (payload_type, learnt)
        if self._on_learnt is not None:
            self._on_learnt(row, payload_type, learnt.clock_hz)
        return learnt

    def _samples(self, row: int, known: Format, payload: bytes) -> NDArray[np.int16] | None:
        """Return a packet's samples; None where it cannot be decoded."""
        if known.encoding == "L16":
            linear = np.frombuffer(payload, ">i2").reshape(-1, known.channels)
            return _mono(linear) if known.channels > 1 else linear[:, 0]
        held, decoder = self._decoders.get(row, (None, None))
        if decoder is None or held != known:
            if decoder is None and len(self._decoders) >= self.max_decoders:
                return None
            decoder = _Decoder(self._names[known.encoding] or "", known)
            self._decoders[row] = (known, decoder)
        try:
            return decoder.decode(payload)
        except Exception:  # noqa: BLE001 -- a library, on what the network sent: the caller counts
            return None

    def _is_installed(self, encoding: str, payload_type: int) -> bool:
        """Tell whether a codec can be decoded here, and say once if it cannot."""
        if encoding not in _LIBRARY:
            return True
        if encoding not in self._names:
            self._names[encoding] = _library_name(encoding)
            if self._names[encoding] is None:
                _logger.warning(
                    "%s (payload type %d) cannot be decoded and is left out of the audio: %s",
                    encoding,
                    payload_type,
                    INSTALL if load_library() is None else "the installed PyAV has no decoder",
                )
        return self._names[encoding] is not None


@cache
def load_library() -> Any:
    """Return PyAV, None where it is not installed or cannot be loaded."""
    try:
        return importlib.import_module("av")
    except ImportError:
        return None


def _library_name(encoding: str) -> str | None:
    """Return the name of FFmpeg's decoder for a codec, None where there is none."""
    library = load_library()
    for name in () if library is None else _LIBRARY[encoding]:
        with suppress(ValueError):  # there is no such decoder
            library.Codec(name, "r")
            return name
    return None


@cache
def _linear(known: Format) -> Codec:
    """Return what blocks of a decoded format have as their codec."""
    rate_hz = known.sample_rate_hz
    return Codec(
        name=known.encoding, sample_rate_hz=rate_hz, samples_per_unit=rate_hz // known.clock_hz
    )


class _Decoder:
    """One of FFmpeg's decoders, for one stream, mono."""

    def __init__(self, name: str, known: Format) -> None:
        library = load_library()
        self._packet: Callable[[bytes], Any] = library.Packet
        self._frame_bytes = 10 if known.encoding == "G729" else 33 if known.encoding == "GSM" else 0
        self._context: Any = library.CodecContext.create(name, "r")
        self._context.sample_rate = known.sample_rate_hz
        self._context.layout = "mono"

    def decode(self, payload: bytes) -> NDArray[np.int16]:
        """Return the samples of a packet, (n,) int16; raises whatever the library does."""
        size = self._frame_bytes
        whole = len(payload) - len(payload) % size if size else 0
        parts = [payload[i : i + size] for i in range(0, whole, size)] if size else [payload]
        frames = [f for part in parts for f in self._context.decode(self._packet(part))]
        samples = [_samples_of(frame) for frame in frames]
        return samples[0] if len(samples) == 1 else np.concatenate(samples)


def _samples_of(frame: Any) -> NDArray[np.int16]:
    samples: NDArray[np.int16] = frame.to_ndarray()  # (channels, n); packed: (1, n * channels)
    channels = frame.layout.nb_channels
    if samples.dtype.kind == "f":
        samples = np.clip(np.rint(samples * 32768), -32768, 32767).astype(np.int16)
    if channels == 1:
        return samples.reshape(-1)
    return _mono(samples.T if frame.format.is_planar else samples.reshape(-1, channels))


def _mono(samples: NDArray[Any]) -> NDArray[np.int16]:
    """Return the mean of the channels of samples (n, channels)."""
    mean: NDArray[np.int16] = samples.mean(axis=1).astype(np.int16)
    return mean
