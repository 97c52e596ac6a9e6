"""Blocks of audio on their way into a sink's process, as few large pieces."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.block import AudioBlock
from pipeline.codecs import CODECS, Codec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.block import Origin

OUT_OF_MEMORY = 75
"""Exit code of a process whose sink asked for more memory than it may have."""

_BY_NAME: dict[str, Codec] = {codec.name: codec for codec in CODECS.values()}
_linear: dict[tuple[str, int, int, int], Codec] = {}


@dataclass(frozen=True, slots=True)
class Setup:
    """What a process has to know to begin."""

    name: str
    options: Mapping[str, object]
    defaults: Mapping[str, object]
    max_memory_mb: int


Parcel = tuple[tuple[str, int, int, int], "Origin", bytes, bytes, int]
"""Codec, origin, five columns of int64 one behind the other, payloads, bytes of each payload."""


def packed(block: AudioBlock) -> Parcel:
    """Return a block as bytes."""
    codec = block.codec
    columns = np.concatenate(
        [block.rows, block.position, block.gap_samples, block.lost, block.arrival_ns],
        dtype=np.int64,
    )
    payload = block.payload
    return (
        (codec.name, codec.sample_rate_hz, codec.samples_per_unit, codec.silence),
        block.origin,
        columns.tobytes(),
        payload.tobytes(),
        payload.shape[1],
    )


def unpacked(parcel: Parcel) -> AudioBlock:
    """Return the block that was packed, with memory of its own."""
    key, origin, raw, payload, size = parcel
    columns = np.frombuffer(bytearray(raw), np.int64).reshape(5, -1)
    return AudioBlock(
        codec=_codec(key),
        rows=columns[0].astype(np.intp, copy=False),
        position=columns[1],
        gap_samples=columns[2],
        lost=columns[3],
        arrival_ns=columns[4],
        payload=np.frombuffer(bytearray(payload), np.uint8).reshape(columns.shape[1], size),
        origin=origin,
    )


def message(*parts: Any) -> bytes:
    """Return a message of a kind and what belongs to it."""
    return pickle.dumps(parts, pickle.HIGHEST_PROTOCOL)


def _codec(key: tuple[str, int, int, int]) -> Codec:
    name, sample_rate_hz, samples_per_unit, silence = key
    if name in _BY_NAME:
        return _BY_NAME[name]
    if key not in _linear:
        _linear[key] = Codec(
            name=name,
            sample_rate_hz=sample_rate_hz,
            samples_per_unit=samples_per_unit,
            silence=silence,
        )
    return _linear[key]
