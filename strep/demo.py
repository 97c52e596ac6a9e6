"""`strep demo`: the daemon, and a phone call to receive, on loopback.

The daemon runs as a process of its own, as it would in production; this process is the carrier.
It sends both directions of a recorded conversation as STREP over a network that loses, delays and
reorders packets, stops the daemon and returns what came out.
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import aiohttp
import numpy as np

from strep.media import packetize
from strep.network import Impairments, traverse
from strep.picture import PictureError, draw_call
from strep.sender import send_paced
from strep.voices import load_voice
from strep.wire import Direction, StrepHeader

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

NETWORK = Impairments(loss=0.01, reorder=0.01, reorder_ms=35, jitter_ms=2.5, delay_ms=20)
PACKET_MS = 20
READY_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 30.0


class DemoError(RuntimeError):
    """The demo could not run, in words for a person."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the demo sent and what the daemon made of it."""

    call_leg_id: UUID
    sent: int
    """Packets that the network delivered."""
    dropped: int
    """Packets that the network lost."""
    manifest: Path
    recording: Path
    tracks: list[dict[str, Any]]
    """The tracks of the manifest."""
    picture: Path | None
    """None where matplotlib is not installed."""


@dataclass(frozen=True, slots=True)
class Call:
    """Both directions of a call as they arrive, after the network."""

    call_leg_id: UUID
    datagrams: list[NDArray[np.uint8]]
    due_s: NDArray[np.float64]
    dropped: int


def make_call(seed: int) -> Call:
    """Prepare the shipped conversation: inbound the caller, outbound the agent."""
    call_leg_id = uuid4()
    random = np.random.default_rng(seed)
    datagrams: list[NDArray[np.uint8]] = []
    times: list[NDArray[np.float64]] = []
    dropped = 0
    for direction, codes in (
        (Direction.INBOUND, load_voice("caller")),
        (Direction.OUTBOUND, load_voice("agent")),
    ):
        packets = packetize(
            codes,
            payload_type=0,
            ssrc=int(random.integers(2**32)),
            first_sequence=int(random.integers(2**16)),
            first_timestamp=int(random.integers(2**32)),
            packet_ms=PACKET_MS,
            strep=StrepHeader(call_leg_id, direction=direction),
        )
        arrivals = traverse(np.arange(len(packets)) * PACKET_MS / 1000, NETWORK, seed=random)
        datagrams += list(packets[arrivals.packet])
        times.append(arrivals.time_s)
        dropped += len(packets) - len(np.unique(arrivals.packet))
    due_s = np.concatenate(times)
    order = due_s.argsort(kind="stable")
    return Call(call_leg_id, [datagrams[i] for i in order], due_s[order], dropped)


async def run(
    out: Path,
    *,
    speed: float = 1.0,
    seed: int = 3,
    started: Callable[[int], None] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Outcome:
    """Run the demo into the folder `out`. Raises `DemoError`.

    `started` is told how many packets will be sent, `progress` how many were.
    """
    call = make_call(seed)
    media_port = _free_port(socket.SOCK_DGRAM)
    http_port = _free_port(socket.SOCK_STREAM)
    log = _new_log(out)
    with log.open("wb") as errors:
        daemon = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "strep", "serve",
            "--media", f"127.0.0.1:{media_port}", "--http", f"127.0.0.1:{http_port}",
            "--recordings", str(out), "--sink", "wav", "--sink", "vad", "--log-format", "json",
            stdout=subprocess.DEVNULL, stderr=errors,
        )  # fmt: skip
    try:
        await _until_ready(daemon, http_port, log)
        if started is not None:
            started(len(call.datagrams))
        await send_paced(
            [bytes(d) for d in call.datagrams], call.due_s, ("127.0.0.1", media_port),
            speed=speed, progress=progress,
        )  # fmt: skip
    finally:
        await _stop(daemon)
    if daemon.returncode != 0:
        raise DemoError(f"the daemon did not finish the recording; its log is {log}")
    return _outcome(call, out, log)


def _new_log(out: Path) -> Path:
    try:
        out.mkdir(parents=True, exist_ok=True)
        log = out / "daemon.log"
        log.write_bytes(b"")
    except OSError as error:
        raise DemoError(f"cannot write to {out}: {error.strerror}") from None
    return log


def _outcome(call: Call, out: Path, log: Path) -> Outcome:
    manifests = list(out.glob(f"*{call.call_leg_id}*.json"))
    if len(manifests) != 1:
        raise DemoError(f"the daemon made {len(manifests)} recordings, not one; its log is {log}")
    manifest = manifests[0]
    tracks = json.loads(manifest.read_text())["tracks"]
    tracks.sort(key=lambda track: track["direction"])
    return Outcome(
        call_leg_id=call.call_leg_id,
        sent=len(call.datagrams),
        dropped=call.dropped,
        manifest=manifest,
        recording=manifest.with_suffix(".wav"),
        tracks=tracks,
        picture=_draw(manifest),
    )


def _draw(manifest: Path) -> Path | None:
    picture = manifest.with_suffix(".png")
    try:
        draw_call(manifest, picture)
    except PictureError:
        return None
    return picture


async def _until_ready(daemon: asyncio.subprocess.Process, http_port: int, log: Path) -> None:
    url = f"http://127.0.0.1:{http_port}/healthz"
    loop = asyncio.get_running_loop()
    deadline = loop.time() + READY_TIMEOUT_S
    async with aiohttp.ClientSession() as session:
        while loop.time() < deadline and daemon.returncode is None:
            with suppress(aiohttp.ClientError):
                async with session.get(url) as response:
                    if response.status == 200:
                        return
            await asyncio.sleep(0.05)
    raise DemoError(f"the daemon did not start; its log is {log}")


async def _stop(daemon: asyncio.subprocess.Process) -> None:
    if daemon.returncode is not None:
        return
    daemon.send_signal(signal.SIGTERM)
    try:
        await asyncio.wait_for(daemon.wait(), STOP_TIMEOUT_S)
    except TimeoutError:
        daemon.kill()
        await daemon.wait()


def _free_port(kind: socket.SocketKind) -> int:
    with closing(socket.socket(socket.AF_INET, kind)) as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
