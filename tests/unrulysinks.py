"""Sinks and analysers that do harm, each in its own way, to be run in processes of their own."""

from __future__ import annotations

import os
import signal
import time

from pipeline.block import Event
from pipeline.sinks.base import Analyzer, Sink, SinkError


class Sums(Sink):
    """Adds up what it hears of each track, and says that it did."""

    def __init__(self, *, scale: int = 1) -> None:
        self.scale = scale
        self.sums: dict[int, list[int]] = {}
        self.heard: list[str] = []

    def open(self, track):
        self.sums[track.row] = [0, 0, 0]

    def write(self, block):
        for row, pcm, position in zip(block.rows, block.pcm, block.position, strict=True):
            self.sums[row][0] += self.scale * len(pcm)
            self.sums[row][1] += int(pcm.astype(int).sum())
            self.sums[row][2] = int(position)

    def event(self, event):
        self.heard.append(event.kind)

    def pause(self, call_leg_id, at_ns):
        self.heard.append(f"pause {call_leg_id.node:x} {at_ns}")

    def silence(self, rows, until):
        self.heard.append(f"silence {rows.tolist()} {until.tolist()}")

    def close(self, track, summary):
        self.emit(Event("summed", track, 7, 8000, {"pid": os.getpid()}))
        samples, total, position = self.sums.pop(track.row)
        return {
            "packets": summary.packets,
            "samples": samples,
            "sum": total,
            "position": position,
            "heard": list(self.heard),
            "facts": self.facts(track.call_leg_id),
            "pid": os.getpid(),
        }


class Obeys(Sums):
    """Does what the position of a frame says, besides."""

    def write(self, block):
        super().write(block)
        match int(block.position[0]):
            case 1:
                os._exit(3)
            case 2:
                time.sleep(600)
            case 3:
                raise RuntimeError("cannot")
            case 4:
                self.kept = [bytearray(2**20) for _ in range(4096)]
            case 5:
                os.kill(os.getpid(), signal.SIGSEGV)


class Leaks(Analyzer):
    """Keeps a megabyte for each frame, whichever track it is of."""

    kept: list[bytearray] = []  # noqa: RUF012 -- that is the leak

    def feed(self, pcm, position):
        for _ in range(1 + 4096 * (position == 4)):
            self.kept.append(bytearray(2**20 + len(pcm)))

    def finish(self):
        return {"kept": len(self.kept)}


class Refuses(Sums):
    def start(self):
        raise SinkError("there is no such device")


class ExitsAtOnce(Sums):
    def start(self):
        os._exit(4)


class After(Sink):
    """Does harm from a frame on."""

    def __init__(self, *, does: str, frames: int) -> None:
        self.does = does
        self.left = frames
        self.kept: list[bytearray] = []

    def write(self, block):
        self.left -= len(block)
        if self.left <= 0:
            match self.does:
                case "exit":
                    os._exit(3)
                case "raise":
                    raise RuntimeError("cannot")
                case "allocate":
                    self.kept.extend(bytearray(2**20) for _ in range(4096))

    def close(self, track, summary):
        return {"packets": summary.packets, "of": track.direction}
