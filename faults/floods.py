"""Floods beside running calls."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING

from bench.receivers import ROOT
from faults.calls import Calls, not_exact
from faults.outcome import Outcome
from faults.service import Service

if TYPE_CHECKING:
    from pathlib import Path

    from faults.outcome import Say

MEMORY_BOUND_MB = 400
"""What a flood may add to the memory of the daemon with its default limits."""
LIMITS = "new_tracks_burst = 1000\nnew_tracks_per_s = 50.0\n"
"""What the daemon is told: what is usual is for a carrier that sends from a single address."""
MANY = 100_000
"""Of a flood of so many, 200 calls run beside it; else 10."""


def flood(
    folder: Path, number: int, say: Say, *, kind: str, what: str, rate: float, hosts: int = 64
) -> Outcome:
    """Send a flood beside calls whose recordings have to be whole, to the last bit."""
    count = 200 if number >= MANY else 10
    limits = folder / "limits.toml"
    limits.write_text(LIMITS)
    with Service(folder, "--config", str(limits)) as service, Calls(service.to, count) as calls:
        time.sleep(1.5)
        before = service.resources()["memory_mb"]
        host, port = service.to
        sender = subprocess.Popen(
            [
                sys.executable, "-m", "faults.flood", "--to", f"{host}:{port}", "--kind", kind,
                "--number", str(number), "--rate", str(rate), "--calls", str(count),
                "--hosts", str(hosts),
            ],
            cwd=ROOT,
        )  # fmt: skip
        most = before
        try:
            while sender.poll() is None:
                time.sleep(0.25)
                most = max(most, service.resources()["memory_mb"])
                say(f"{most - before} MB more than before")
        finally:
            sender.kill()
            sender.wait()
        time.sleep(0.5)
        calls.stop()
        time.sleep(0.5)
        metrics = service.metrics()
        service.stop()
    reasons = {
        name.split('"')[1]: value
        for name, value in metrics.items()
        if name.startswith("strep_datagrams_total{") and value
    }
    wrong = not_exact(calls, folder)
    read = metrics["strep_datagrams_read_total"]
    waiting = metrics["strep_packets_on_probation"] + metrics["strep_packets_pending"]
    drops = metrics["strep_kernel_drops_total"]
    if read != sum(reasons.values()) + waiting:
        wrong.append(f"{read:.0f} were read, {sum(reasons.values()) + waiting:.0f} accounted for")
    if read + drops != calls.packets + number:
        wrong.append(f"{read:.0f} of {calls.packets + number} were read, {drops:.0f} dropped")
    if most - before > MEMORY_BOUND_MB:
        wrong.append(f"memory grew by {most - before} MB")
    dropped = {name: int(value) for name, value in reasons.items() if name != "accepted"}
    told = ", ".join(f"{name} {value:,}" for name, value in sorted(dropped.items()))
    whole = "nothing of the calls" if not wrong else f"{len(wrong)} things"
    return Outcome(
        f"{what}, {rate:,.0f} a second, beside {count} calls",
        number,
        f"{whole}; {most - before} MB more memory; {told}",
        f"nothing of the calls, to the last bit; all counted; {MEMORY_BOUND_MB} MB",
        wrong,
        {"memory_mb": most - before, "kernel_drops": drops, **dropped},
    )


def spoofed_legs(folder: Path, number: int, say: Say) -> Outcome:
    """Send right packets of call legs that nobody knows, one each."""
    what = "spoofed call leg ids from 4 addresses"
    return flood(folder, number, say, kind="legs", what=what, rate=20_000, hosts=4)


def random_bytes(folder: Path, number: int, say: Say) -> Outcome:
    """Send bytes without any meaning."""
    what = "random bytes from 4 addresses"
    return flood(folder, number, say, kind="random", what=what, rate=100_000, hosts=4)


def hostile_fields(folder: Path, number: int, say: Say) -> Outcome:
    """Send headers with fields that lie."""
    what = "fields that lie, from 4 addresses"
    return flood(folder, number, say, kind="hostile", what=what, rate=20_000, hosts=4)


def injection(folder: Path, number: int, say: Say) -> Outcome:
    """Send noise into the running calls, with all their ids, from other addresses."""
    what = "noise with the ids of the calls from other addresses"
    return flood(folder, number, say, kind="inject", what=what, rate=20_000)
