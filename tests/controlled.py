"""A daemon that controls calls at a stand-in carrier, each on ports of loopback of its own."""

from __future__ import annotations

import http.client
import json
import random
import socket
import urllib.request
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING

import soundfile
from loopback import Serve

from strep.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from strep.simulator import LocalCarrier

SAMPLE_RATE_HZ = 8000
CHANNELS = ("inbound", "outbound")


def free_ports(pairs: int) -> str:
    """Return a range of UDP ports, beginning with an even one, of which none is in use."""
    for _ in range(100):
        # below those that the kernel gives out; other tests look for ports at the same time
        low = random.randrange(20_000, 32_000 - 2 * pairs, 2)
        with suppress(OSError):
            for port in range(low, low + 2 * pairs):
                with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
                    sock.bind(("127.0.0.1", port))
            return f"{low}-{low + 2 * pairs - 1}"
    raise AssertionError("no ports are free")


@contextmanager
def controlled(
    folder: Path, carrier: LocalCarrier, *arguments: str, pairs: int = 4, **control: object
) -> Iterator[Serve]:
    """Give out a daemon that is not entered yet; `control` are its settings of that section."""
    serve = Serve(folder, *arguments)
    settings = {
        "base_url": carrier.base_url,
        "webhook_public_key": carrier.public_key,
        "media_target": f"udp:{serve.media}",
        "port_range": free_ports(pairs),
        "port_host": "127.0.0.1",
        "advertised_host": "127.0.0.1",
        "stop_grace_s": 0.5,
    } | control
    serve._env |= {"STREP_API_KEY": carrier.api_key}
    serve._env |= {f"STREP_CONTROL_{key.upper()}": str(value) for key, value in settings.items()}
    carrier.webhook_url = f"http://{serve.http}/webhooks"
    yield serve


def get(serve: Serve, path: str):
    with urllib.request.urlopen(f"http://{serve.http}{path}", timeout=5) as answer:
        return json.load(answer)


def post(serve: Serve, path: str, body: bytes, headers: dict[str, str] | None = None) -> int:
    """Return the status of the answer, whatever it is."""
    with closing(http.client.HTTPConnection(serve.http, timeout=5)) as connection:
        given = {"Content-Type": "application/json"} | (headers or {})
        connection.request("POST", path, body, given)
        return connection.getresponse().status


def answer(carrier: LocalCarrier, number: int = 0) -> str:
    """Let somebody call in and the call be answered; return its call_control_id."""
    call = carrier.place_call(f"+1555010{number:04}", "+15550199999")["call_control_id"]
    carrier.command("answer", call)
    return call


def leg_of(carrier: LocalCarrier, call: str) -> str:
    return next(c["call_leg_id"] for c in carrier.calls() if c["call_control_id"] == call)


def logs_of(carrier: LocalCarrier, call: str):
    """Return what the carrier says that it sent of a call, by direction."""
    return {log.direction: log for log in carrier.logs() if log.call_control_id == call}


def manifests(folder: Path, leg: str) -> list[dict]:
    """Return the manifests of a call leg in the order in which they began."""
    found = [json.loads(path.read_text()) for path in folder.glob(f"*-{leg}-a*.json")]
    return sorted(found, key=lambda manifest: manifest["started_at"])


def recorded(folder: Path, manifest: dict) -> dict:
    """Return the recorded samples by direction, from each track's first one to its last."""
    (name,) = manifest["recordings"]
    pcm, rate_hz = soundfile.read(folder / name, dtype="int16")
    assert rate_hz == SAMPLE_RATE_HZ
    samples = {}
    for track in manifest["tracks"]:
        start = round(track["offset_s"] * SAMPLE_RATE_HZ)
        stop = start + round(track["duration_s"] * SAMPLE_RATE_HZ)
        samples[track["direction"]] = pcm[start:stop, CHANNELS.index(track["direction"])]
    return samples


def stored(folder: Path, leg: str):
    with Store(folder / "strep.db", read_only=True) as store:
        return store.details(leg)
