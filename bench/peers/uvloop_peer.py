"""The obvious receiver, thorough, on uvloop."""

from __future__ import annotations

import uvloop

from bench.peers.datagrams import ThoroughReceiver
from bench.peers.program import serve

if __name__ == "__main__":
    serve(ThoroughReceiver, uvloop.run)
