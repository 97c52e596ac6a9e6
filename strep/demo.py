"""`strep demo`: a phone call on loopback, from its dialling to its recording.

The stand-in carrier and the daemon run as processes of their own; this process is the application
that dials. Webhooks tell the daemon what becomes of the call. As soon as it is answered, the daemon
has it forked, and its media arrives as STREP over a network that loses, delays and reorders
packets. When the other side has hung up, the daemon finishes the recording.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp

from strep.control.client import CallControl
from strep.control.errors import CallControlError
from strep.control.key import KEY_VARIABLE
from strep.picture import PictureError, draw_call
from strep.report import ReportError, from_path, write_report
from strep.voices import SAMPLE_RATE_HZ, load_voice

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping

    from strep.control.base import Call

FROM, TO = "+15550100001", "+15550199999"
CONNECTION_ID = "2000000000000000001"
NETWORK = (
    "--loss", "0.01", "--reorder", "0.01", "--reorder-ms", "35", "--jitter-ms", "2.5",
    "--delay-ms", "20",
)  # fmt: skip
PACKET_MS = 20
SPEEDS = (0.1, 100.0)
READY_TIMEOUT_S = 20.0
END_TIMEOUT_S = 20.0
"""For what is left to do when the conversation is over."""
STOP_TIMEOUT_S = 30.0
LOOK_S = 0.1
"""How often it is looked how far the call is."""


class DemoError(RuntimeError):
    """The demo could not run, in words for a person."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the carrier sent and what the daemon made of it."""

    call: Mapping[str, Any]
    """What the manifest says of the call."""
    sent: int
    """Packets that the network delivered."""
    dropped: int
    """Packets that the network lost."""
    tracks: list[dict[str, Any]]
    """The tracks of the manifest."""
    recording: Path
    manifest: Path
    picture: Path | None
    """None where matplotlib is not installed."""
    report: Path
    """A page to look at and listen to the call."""
    database: Path


async def run(
    out: Path,
    *,
    speed: float = 1.0,
    seed: int = 7,
    progress: Callable[[str, float | None], None] | None = None,
) -> Outcome:
    """Run the demo into the folder `out`. Raises `DemoError`.

    `seed` is of the network's misfortunes. `progress` is told what goes on, and how much of the
    conversation is over, from 0 to 1, or None before there is one.
    """
    tell = progress or (lambda _text, _part: None)
    if not SPEEDS[0] <= speed <= SPEEDS[1]:
        raise DemoError(f"the speed is {speed:g}, expected {SPEEDS[0]:g} to {SPEEDS[1]:g}")
    carrier_log, daemon_log, database = _fresh(out, "carrier.log", "daemon.log", "demo.db")
    talk_s = len(load_voice("caller")) / SAMPLE_RATE_HZ
    tell("starting the carrier and the daemon", None)
    async with _carrier(talk_s, speed=speed, seed=seed, log=carrier_log) as carrier:
        http = f"127.0.0.1:{_free_port(socket.SOCK_STREAM)}"
        async with _daemon(http, out, database, carrier, daemon_log), _session() as session:
            tell(f"{FROM} calls {TO}", None)
            call = await _dial(carrier, f"http://{http}/webhooks")
            loop = asyncio.get_running_loop()
            deadline_s = loop.time() + talk_s / speed + END_TIMEOUT_S
            while not (tracks := await _recorded(session, http, call)):
                if loop.time() > deadline_s:
                    raise DemoError(f"the call was not recorded in time; see {daemon_log}")
                status = await _get(session, carrier["control_url"])
                if status["datagrams"]:
                    tell("they talk", status["datagrams"] * PACKET_MS / 1000 / (2 * talk_s))
                await asyncio.sleep(LOOK_S)
            sent = (await _get(session, f"{carrier['control_url']}/sent"))["tracks"]
    tell("drawing the call", 1.0)
    return _outcome(Path(tracks[0]["manifest"]), sent, database)


@asynccontextmanager
async def _carrier(
    talk_s: float, *, speed: float, seed: int, log: Path
) -> AsyncIterator[dict[str, str]]:
    """Run the stand-in carrier; gives its addresses and keys."""
    async with _process(
        "simulate", "--http", "127.0.0.1:0", "--json", "--seed", str(seed), "--speed", str(speed),
        "--talk-s", str(talk_s), "--packet-ms", str(PACKET_MS), *NETWORK,
        log=log, stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        line = b""
        if process.stdout is not None:
            with suppress(TimeoutError):
                line = await asyncio.wait_for(process.stdout.readline(), READY_TIMEOUT_S)
        if not line:
            raise DemoError(f"the carrier did not start; see {log}")
        yield json.loads(line)


@asynccontextmanager
async def _daemon(
    http: str, out: Path, database: Path, carrier: Mapping[str, str], log: Path
) -> AsyncIterator[None]:
    """Run the daemon, which forks the calls of our connection."""
    media = f"127.0.0.1:{_free_port(socket.SOCK_DGRAM)}"
    async with _process(
        "serve", "--media", media, "--http", http,
        "--recordings", str(out), "--database", str(database),
        "--log-format", "json",
        "--control-base-url", carrier["base_url"],
        "--control-webhook-public-key", carrier["public_key"],
        "--control-media-target", f"udp:{media}",
        "--control-auto-fork", CONNECTION_ID,
        log=log, secrets={KEY_VARIABLE: carrier["api_key"]},
    ) as process:  # fmt: skip
        await _until_ready(process, http, log)
        yield
    if process.returncode != 0:
        raise DemoError(f"the daemon did not end as it should; see {log}")


@asynccontextmanager
async def _process(
    *arguments: str, log: Path, secrets: Mapping[str, str] | None = None, stdout: int | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a command of strep until it is told to end; settings of our environment are not its."""
    environment = {key: text for key, text in os.environ.items() if not key.startswith("STREP_")}
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "strep", *arguments, stderr=errors,
            stdout=subprocess.DEVNULL if stdout is None else stdout,
            env={**environment, **(secrets or {})},
        )  # fmt: skip
    try:
        yield process
    finally:
        await _stop(process)


async def _dial(carrier: Mapping[str, str], webhook_url: str) -> Call:
    try:
        async with CallControl(key=carrier["api_key"], base_url=carrier["base_url"]) as control:
            return await control.dial(
                connection_id=CONNECTION_ID, from_=FROM, to=TO, webhook_url=webhook_url
            )
    except CallControlError as error:
        raise DemoError(f"the call could not be dialled: {error}") from None


async def _recorded(session: aiohttp.ClientSession, http: str, call: Call) -> list[dict[str, Any]]:
    """Return the tracks of the call, once it is over and its recording is finished."""
    url = f"http://{http}/v1/calls/{call.call_leg_id}"
    known = await _get(session, url)
    tracks: list[dict[str, Any]] = known.get("tracks", [])
    is_over = known.get("ended_at") is not None and not known["is_open"]
    return tracks if is_over and all(track["manifest"] for track in tracks) else []


async def _get(session: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    """Return a JSON object; an empty one where there is none yet."""
    try:
        async with session.get(url) as answer:
            document: dict[str, Any] = await answer.json() if answer.status == 200 else {}
            return document
    except (aiohttp.ClientError, TimeoutError) as error:
        raise DemoError(f"{url} does not answer: {error}") from None


async def _until_ready(process: asyncio.subprocess.Process, http: str, log: Path) -> None:
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + READY_TIMEOUT_S
    async with _session() as session:
        while loop.time() < deadline_s and process.returncode is None:
            with suppress(DemoError):
                if (await _get(session, f"http://{http}/readyz")).get("ready"):
                    return
            await asyncio.sleep(LOOK_S / 2)
    raise DemoError(f"the daemon did not start; see {log}")


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        await asyncio.wait_for(process.wait(), STOP_TIMEOUT_S)
    except TimeoutError:
        process.kill()
        await process.wait()


def _outcome(manifest: Path, sent: Iterable[Mapping[str, Any]], database: Path) -> Outcome:
    document = json.loads(manifest.read_text())
    counts = [track["counts"] for track in sent]
    return Outcome(
        call=document["call"],
        sent=sum(count["datagrams"] for count in counts),
        dropped=sum(count["lost"] for count in counts),
        tracks=sorted(document["tracks"], key=lambda track: str(track["direction"])),
        recording=manifest.with_suffix(".wav"),
        manifest=manifest,
        picture=_draw(manifest),
        report=_report(manifest),
        database=database,
    )


def _draw(manifest: Path) -> Path | None:
    picture = manifest.with_suffix(".png")
    try:
        draw_call(manifest, picture)
    except PictureError:
        return None
    return picture


def _report(manifest: Path) -> Path:
    try:
        sources, _ = from_path(manifest)
        return write_report(sources, manifest.with_suffix(".html")).path
    except ReportError as error:
        raise DemoError(str(error)) from None


def _fresh(out: Path, *names: str) -> list[Path]:
    """Make the folder and return files in it that are not there.

    The carrier's ids are the same each time: a database that knew them would tell of two calls.
    """
    files = [out / name for name in names]
    try:
        out.mkdir(parents=True, exist_ok=True)
        for file in files:
            for suffix in ("", "-wal", "-shm"):
                file.with_name(file.name + suffix).unlink(missing_ok=True)
        files[0].touch()
    except OSError as error:
        raise DemoError(f"cannot write to {out}: {error.strerror}") from None
    return files


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5.0))


def _free_port(kind: socket.SocketKind) -> int:
    with closing(socket.socket(socket.AF_INET, kind)) as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
