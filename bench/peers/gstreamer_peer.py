"""GStreamer: a pipeline per stream in one process, from the socket to a WAV file.

Each is `udpsrc ! rtpjitterbuffer ! rtppcmudepay ! mulawdec ! wavenc ! filesink`, with the latency
of the jitter buffer set to the 60 ms that the others wait at a hole. Plain RTP, since GStreamer
knows no STREP, and so a port per stream.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.peers.program import assignment
from bench.peers.programs import run

if TYPE_CHECKING:
    from pathlib import Path

_CAPS = "application/x-rtp,media=audio,clock-rate=8000,encoding-name=PCMU,payload=0"


def commands(folder: Path, ports: list[int], buffer_bytes: int) -> list[list[str]]:
    """Return how to start it: one program for all streams."""
    chains = [
        f"udpsrc address=127.0.0.1 port={port} buffer-size={buffer_bytes} caps={_CAPS} "
        "! rtpjitterbuffer latency=60 ! rtppcmudepay ! mulawdec ! wavenc "
        f"! filesink location={folder / str(port)}.wav"
        for port in ports
    ]
    return [["gst-launch-1.0", "-q", "-e", *" ".join(chains).split()]]


if __name__ == "__main__":
    task = assignment()
    all_ports = [task.port + 2 * stream for stream in range(task.streams)]
    # the buffer is per stream here, and so is what is asked for
    share = max(212_992, task.buffer_bytes // task.streams)
    run(lambda folder: commands(folder, all_ports, share), all_ports)
