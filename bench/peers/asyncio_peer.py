"""The obvious receiver, thorough, on asyncio's own event loop."""

from __future__ import annotations

import asyncio

from bench.peers.datagrams import ThoroughReceiver
from bench.peers.program import serve

if __name__ == "__main__":
    serve(ThoroughReceiver, asyncio.run)
