"""Tracks and blocks for the sink `wav`, and what it has recorded."""

from __future__ import annotations

import contextlib
from concurrent.futures import Future
from types import SimpleNamespace
from uuid import UUID

import numpy as np
import soundfile

from pipeline.block import AudioBlock, Track
from pipeline.codecs import PCMU
from pipeline.sinks.wav import WavSink

CALL = UUID("428c31b6-7af4-4bcb-b7f5-5013ef9657c1")
STEM = f"20260101T000000Z-{CALL}"
UNIX_NS = 1_767_225_600_000_000_000
MS = 1_000_000
FRAME = 160


class Linear:
    """A codec whose payload is linear samples, little-endian int16."""

    name = "L16"
    table = None

    def __init__(self, sample_rate_hz):
        self.sample_rate_hz = sample_rate_hz

    def samples(self, payload_bytes):
        return payload_bytes // 2


class Filler(AudioBlock):
    """Audio that was made up for what is missing."""

    is_received = False


def make_track(row=0, direction="inbound", *, opened_ms=0, call=CALL, leg="A", generation=0):
    return Track(
        row=row,
        generation=generation,
        call_leg_id=call,
        leg=leg,
        direction=direction,
        opened_ns=opened_ms * MS,
        opened_unix_ns=UNIX_NS + opened_ms * MS,
        source="192.0.2.1:4000",
        destination="192.0.2.2:9000",
        ssrc=1,
    )


def block(rows, positions, payloads, *, arrival_ms=0, codec=PCMU, kind=AudioBlock):
    """A block of a frame for each row."""
    count = len(rows)
    return kind(
        codec=codec,
        rows=np.array(rows, np.intp),
        position=np.array(positions, np.int64),
        gap_samples=np.zeros(count, np.int64),
        lost=np.zeros(count, np.int64),
        arrival_ns=np.full(count, arrival_ms * MS, np.int64),
        payload=np.frombuffer(b"".join(payloads), np.uint8).reshape(count, -1),
    )


@contextlib.contextmanager
def recording(directory, **options):
    """A sink that finishes files as it is told, unless it is told otherwise."""
    sink = WavSink(directory=directory, **{"fsync_s": 0} | options)
    sink.start()
    yield sink
    sink.stop()


def close(sink, *tracks):
    """Close tracks; return their results when they are there."""
    results = [sink.close(track, SimpleNamespace(packets=0)) for track in tracks]
    return [each.result(10) if isinstance(each, Future) else each for each in results]


def pcm(path):
    """Samples, (channels, frames)."""
    return soundfile.read(path, dtype="int16", always_2d=True)[0].T


def names(directory):
    return sorted(str(p.relative_to(directory)) for p in directory.rglob("*") if p.is_file())
