"""The obvious receiver on uvloop, with no more than the level of each frame."""

from __future__ import annotations

import uvloop

from bench.peers.datagrams import DatagramReceiver
from bench.peers.program import serve

if __name__ == "__main__":
    serve(DatagramReceiver, uvloop.run)
