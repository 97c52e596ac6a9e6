"""Real calls beside a fault: known speech, sent at its time, and looked for in the recordings."""

from __future__ import annotations

import json
import threading
import time
import warnings
from typing import TYPE_CHECKING

import numpy as np
import soundfile

from bench.sending import Sender
from bench.traffic import FRAME_SAMPLES, PacketWriter, Traffic, schedule

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import audioop

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType
    from typing import Self
    from uuid import UUID

    from numpy.typing import NDArray

RATE_HZ = 8000
_FOREVER_S = 600
_STEP_S = 0.001
_LAW = np.array([audioop.ulaw2lin(bytes([code]), 2) for code in range(256)], dtype=np.bytes_).view(
    "<i2"
)
_KEY_FRAMES = 10
"""Frames that a recording is recognised by."""
_APART = 400
"""Samples that the two sides of a call may end apart."""


class Calls:
    """Calls with both directions, 20 ms of PCMU each, sent by a thread until the end of `with`."""

    def __init__(
        self, to: tuple[str, int], calls: int, *, burst_ms: float = 0.0, seed: int = 1
    ) -> None:
        self.traffic = Traffic(tracks=2 * calls, sides=2, seed=seed, burst_ms=burst_ms)
        self.writer = PacketWriter(self.traffic)
        self.sent: list[tuple[int, int]] = []
        """When bursts had left (monotonic ns), and how many packets had been sent by then."""
        # not as segments: several workers would get them all by the first one's call leg
        self._sender = Sender(to[0], [to[1]], method="sendmmsg")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send, daemon=True)

    @property
    def legs(self) -> list[UUID]:
        """The call leg of each call."""
        return self.writer.call_leg_ids

    @property
    def packets(self) -> int:
        """Packets sent so far."""
        return self.sent[-1][1] if self.sent else 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop sending, after a whole number of packets of each track."""
        if not self._stop.is_set():
            self._stop.set()
            self._thread.join()
            self._sender.close()

    def sent_of(self, track: int, until_ns: int | None = None) -> int:
        """Return how many packets of a track had been sent, until a time."""
        packets = self.packets
        if until_ns is not None:
            packets = max((n for at, n in self.sent if at <= until_ns), default=0)
        return -(-(packets - track) // self.traffic.tracks) if packets > track else 0

    def speech(self, track: int, packets: int) -> NDArray[np.int16]:
        """Return what the first packets of a track say."""
        index = np.arange(packets, dtype=np.int64) * self.traffic.tracks + track
        out = np.empty((packets, self.writer.datagram_bytes), np.uint8)
        self.writer.write(index, out)
        return np.asarray(_LAW[out[:, -FRAME_SAMPLES:].ravel()], np.int16)

    def _send(self) -> None:
        total, tracks = round(self.traffic.total_pps * _FOREVER_S), self.traffic.tracks
        buffer = np.empty((4096, self.writer.datagram_bytes), np.uint8)
        start = time.monotonic_ns()
        for slab in schedule(self.traffic, 0, total):
            done, count = 0, len(slab.index)
            if len(buffer) < count:
                buffer = np.empty((count, self.writer.datagram_bytes), np.uint8)
            self.writer.write(slab.index, buffer[:count])
            while done < count:
                ready = int(slab.due_ns.searchsorted(time.monotonic_ns() - start, "right"))
                if self._stop.is_set():
                    # up to the end of a turn, so that all tracks are as long
                    ready = done + -(done + int(slab.index[0])) % tracks
                    ready = min(ready, count)
                    self._out(buffer[done:ready], int(slab.index[0]) + ready)
                    return
                if ready <= done:
                    time.sleep(_STEP_S)
                    continue
                self._out(buffer[done:ready], int(slab.index[0]) + ready)
                done = ready

    def _out(self, datagrams: NDArray[np.uint8], stop: int) -> None:
        if len(datagrams):
            self._sender.send(datagrams)
            self.sent.append((time.monotonic_ns(), stop))


def files_of(folder: Path, leg: UUID) -> list[Path]:
    """Return the recordings of a call leg, finished or not, in the order of their beginning."""
    return sorted(
        each for each in folder.glob(f"*{leg}-a*") if each.name.endswith((".wav", ".wav.part"))
    )


def channels(path: Path) -> NDArray[np.int16]:
    """Read a recording as any player does: (2, samples), whatever its state."""
    with path.open("rb") as file:  # a name that ends in .part tells soundfile nothing
        samples, rate = soundfile.read(file, dtype="int16", always_2d=True)
    if rate != RATE_HZ or samples.shape[1] != 2:
        raise ValueError(f"{path.name} has {rate} Hz and {samples.shape[1]} channels")
    return np.ascontiguousarray(samples.T)


def whole_frames(
    channel: NDArray[np.int16], speech: NDArray[np.int16], surely: int | None = None
) -> int:
    """Return how many frames of a speech a channel has, from the first one on, each sample right.

    Before them may be silence only; -1 where the beginning is not found, or something stands before
    it. The first `surely` frames have to be there, all of them where that is not said.
    """
    sure = speech if surely is None else speech[: surely * FRAME_SAMPLES]
    # a side that began a moment after the other lacks the end of what the file has room for
    shorter = speech[: max(0, len(channel) - FRAME_SAMPLES)]
    places = {
        find(channel, looked_for)
        for looked_for in (sure, shorter, speech[: len(channel)])
        if looked_for.any()
    }
    frames = max((_frames_from(channel, at, speech) for at in places), default=-1)
    if not sure.any():  # silence, of which nobody can tell where in the channel's it begins
        frames = max(frames, min(_silence(channel), _silence(speech)) // FRAME_SAMPLES)
    return frames


def _frames_from(channel: NDArray[np.int16], at: int, speech: NDArray[np.int16]) -> int:
    """Return how many frames of a speech stand there, behind silence; -1 where that cannot be."""
    if at < 0 or channel[:at].any():
        return -1
    both = min(len(channel) - at, len(speech))
    differ = np.flatnonzero(channel[at : at + both] != speech[:both])
    return (int(differ[0]) if len(differ) else both) // FRAME_SAMPLES


def _silence(samples: NDArray[np.int16]) -> int:
    """Return how many samples are silent before the first that is not."""
    return int((samples != 0).argmax()) if samples.any() else len(samples)


def find(channel: NDArray[np.int16], speech: NDArray[np.int16]) -> int:
    """Return where the first sample of a speech stands in a channel; -1 where it is not.

    Looks for its loudest frames, of which there is one place; 0 where all of it is silence.
    """
    window = _KEY_FRAMES * FRAME_SAMPLES
    starts = np.arange(0, max(1, len(speech) - window), FRAME_SAMPLES)
    power = np.convolve(speech.astype(np.float64) ** 2, np.ones(min(window, len(speech) or 1)))
    start = int(starts[power[np.minimum(starts + window, len(power)) - 1].argmax()])
    key = speech[start : start + window]
    if not key.any():
        return 0
    data = channel.tobytes()
    found = data.find(key.tobytes())
    while found >= 0 and found % 2:
        found = data.find(key.tobytes(), found + 1)
    return found // 2 - start if found // 2 >= start else -1


def not_exact(
    calls: Calls, folder: Path, which: list[int] | None = None, *, may_miss: bool = False
) -> list[str]:
    """Say of which calls the recording is not, to the last bit, what was sent.

    One that may miss something is right but for where its manifest says that it could not be
    written.
    """
    wrong = []
    for call in range(len(calls.legs)) if which is None else which:
        files = files_of(folder, calls.legs[call])
        if len(files) != 1 or files[0].suffix != ".wav":
            names = ", ".join(each.name for each in files)
            wrong.append(f"call {call} has {len(files)} files, expected a finished one: {names}")
            continue
        missed = _missed(files[0]) if may_miss else []
        for side, channel in enumerate(channels(files[0])):
            track = 2 * call + side
            sent = calls.sent_of(track)
            speech = calls.speech(track, sent)
            if missed:
                if not is_right_outside(missed, channel, speech):
                    wrong.append(f"call {call} side {side} is not right outside of {missed}")
                continue
            frames = whole_frames(channel, speech)
            if frames != sent:
                wrong.append(f"call {call} side {side} has {frames} of {sent} packets in order")
    return wrong


def is_right_outside(
    missed: list[tuple[int, int]], channel: NDArray[np.int16], speech: NDArray[np.int16]
) -> bool:
    """Tell whether a channel is a speech to its end, but for some stretches of silence."""
    holes = [*missed, (len(channel), len(channel))]
    heard = list(
        zip([0, *(stop for _, stop in missed)], (start for start, _ in holes), strict=True)
    )
    # where the speech begins is told by the first frames that are loud
    for frames in (_KEY_FRAMES, 1):
        window = frames * FRAME_SAMPLES
        for begin, end in sorted(heard, key=lambda span: span[0] - span[1]):
            for first in range(begin, end - window + 1, window):
                key = channel[first : first + window]
                if np.count_nonzero(key) <= window // 2:
                    continue
                # one that begins before the speech does is nowhere in it: the next one is
                places = _places(key, speech)
                if any(_is_kept(channel, speech, first - at, missed) for at in places):
                    return True
    # nothing loud is heard: both sides end in the same turn of packets, some samples apart
    last = len(channel) - len(speech)
    return any(
        _is_kept(channel, speech, at, missed) for at in range(max(0, last - _APART), last + 1)
    )


def _places(key: NDArray[np.int16], speech: NDArray[np.int16]) -> list[int]:
    """Return where some samples stand in a speech."""
    data, wanted, places = speech.tobytes(), key.tobytes(), []
    found = data.find(wanted)
    while found >= 0:
        if found % 2 == 0:
            places.append(found // 2)
        found = data.find(wanted, found + 1)
    return places


def _is_kept(
    channel: NDArray[np.int16], speech: NDArray[np.int16], at: int, missed: list[tuple[int, int]]
) -> bool:
    whole = np.zeros(len(channel), np.int16)
    if at < 0 or at + len(speech) > len(channel):
        return False
    whole[at : at + len(speech)] = speech
    is_wrong = channel != whole
    for start, stop in missed:  # of one side there may be more than was missed of both
        is_wrong[start:stop] &= channel[start:stop] != 0
    return not is_wrong.any()


def _missed(recording: Path) -> list[tuple[int, int]]:
    """Return what could not be written to a recording, in samples, as its manifest says."""
    manifest = json.loads(recording.with_suffix(".json").read_text(encoding="utf-8"))
    told = [track.get("wav", {}) for track in manifest["tracks"]]
    spans = {(0.0, each["missed_until_s"]) for each in told if "missed_until_s" in each}
    spans |= {(a, b) for each in told for a, b in each.get("missed_at_s", ())}
    return [(round(a * RATE_HZ), round(b * RATE_HZ)) for a, b in sorted(spans)]
