"""ffmpeg: a process per stream, from an SDP file to a WAV file.

Plain RTP on a port per stream, and RTCP on the next one. ffmpeg puts packets in order in a queue
of its own (up to 500 packets, at most 60 ms here).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.peers.program import assignment
from bench.peers.programs import run

if TYPE_CHECKING:
    from pathlib import Path

_SDP = """v=0
o=- 0 0 IN IP4 127.0.0.1
s=-
c=IN IP4 127.0.0.1
t=0 0
m=audio {port} RTP/AVP 0
a=rtpmap:0 PCMU/8000
"""


def commands(folder: Path, ports: list[int]) -> list[list[str]]:
    """Write the SDP files and return how to start the programs."""
    found = []
    for port in ports:
        sdp = folder / f"{port}.sdp"
        sdp.write_text(_SDP.format(port=port))
        found.append(
            [
                "ffmpeg", "-nostdin", "-loglevel", "error",
                "-protocol_whitelist", "file,udp,rtp", "-max_delay", "60000",
                "-analyzeduration", "0", "-probesize", "32",
                "-i", str(sdp), "-c:a", "pcm_s16le", "-bitexact", f"{folder / str(port)}.wav",
            ]
        )  # fmt: skip
    return found


if __name__ == "__main__":
    task = assignment()
    all_ports = [task.port + 2 * stream for stream in range(task.streams)]
    run(lambda folder: commands(folder, all_ports), all_ports)
