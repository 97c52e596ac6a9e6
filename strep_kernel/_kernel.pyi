from collections.abc import Sequence
from typing import Any, Self

from numpy.typing import NDArray

VERSION: int

class Columns:
    def __new__(cls, *arrays: NDArray[Any]) -> Self: ...

def receive(
    messages: Columns, local: Columns, fd: int, start: int, capacity: int, stamp: int, /
) -> int: ...
def receive_merged(
    messages: Columns,
    batch: Columns,
    local: Columns,
    fd: int,
    start: int,
    capacity: int,
    slot_bytes: int,
    stamp: int,
    merged: int,
    /,
) -> int: ...
def parse(
    batch: Columns, n: int, capacity: int, slot_bytes: int, strep: int, rtp: int, /
) -> tuple[int, int]: ...
def lookup(
    table: Columns, keys: Columns, n: int, shift: int, bucket_shift: int, buckets: int, /
) -> int: ...
def strangers(pins: Columns, packets: Columns, n: int, /) -> int: ...
def advance(
    state: Columns, packets: Columns, out: Columns, n: int, epoch: int, max_ahead_ns: int, /
) -> tuple[Sequence[tuple[int, int, int]], int, int, int]: ...
def gather(payloads: Columns, n: int, slot_bytes: int, size: int, /) -> None: ...
def decode(payloads: Columns, n: int, slot_bytes: int, size: int, /) -> None: ...
def weave(codes: Columns, n: int, at: int, channels: int, law: int, /) -> None: ...
def judge(
    state: Columns,
    frames: Columns,
    n: int,
    samples: int,
    length_samples: int,
    start_samples: int,
    stop_samples: int,
    window_samples: int,
    /,
) -> tuple[int, int]: ...
def stage(
    stages: Columns, frames: Columns, n: int, samples: int, stage_samples: int, law: int, /
) -> int: ...
def tones(
    state: Columns,
    frames: Columns,
    over: Columns,
    n: int,
    samples: int,
    shift: int,
    hop: int,
    hits: int,
    pause_samples: int,
    bridge_samples: int,
    room: int,
    /,
) -> int: ...
