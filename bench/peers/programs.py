"""What the peers share that are programs with files: started, waited for, ended and counted."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from bench import accounting
from bench.peers.program import say

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

READY_TIMEOUT_S = 60.0
END_TIMEOUT_S = 30.0
_WAV_HEADER_BYTES = 44
_FRAME_BYTES = 320


def run(commands: Callable[[Path], Sequence[Sequence[str]]], ports: Sequence[int]) -> None:
    """Run programs that record what comes to `ports`, until SIGTERM.

    `commands(folder)` returns how each is started; each writes its recordings as `*.wav`, 16 bits
    mono, into the folder and finishes them on SIGINT.
    """
    signal.signal(signal.SIGTERM, lambda *_: None)
    with TemporaryDirectory() as name:
        folder = Path(name)
        programs = [
            subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=sys.stderr
            )
            for command in commands(folder)
        ]
        try:
            _until_bound(ports, programs)
            say(ready=True, pids=[program.pid for program in programs])
            signal.pause()
        finally:
            for program in programs:
                program.send_signal(signal.SIGINT)
            for program in programs:
                try:
                    program.wait(END_TIMEOUT_S)
                except subprocess.TimeoutExpired:
                    program.kill()
        say(packets=sum(map(_frames, folder.glob("*.wav"))))


def _until_bound(ports: Sequence[int], programs: Sequence[subprocess.Popen[bytes]]) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while accounting.bound_ports(ports) < len(ports):
        if any(program.poll() is not None for program in programs):
            sys.exit("a program ended before it received anything")
        if time.monotonic() > deadline:
            sys.exit(f"not all of {len(ports)} ports were open after {READY_TIMEOUT_S:g} s")
        time.sleep(0.05)


def _frames(wav: Path) -> int:
    return max(0, wav.stat().st_size - _WAV_HEADER_BYTES) // _FRAME_BYTES
