"""One measurement: a receiver under load, and what the operating system says of it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench import accounting, machine
from bench.receivers import ROOT
from bench.traffic import FRAME_SAMPLES, SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.accounting import CpuTime
    from bench.receivers import Receiver
    from bench.sending import Method
    from bench.traffic import Traffic

SETTLE_S = 1.2
"""Pause after each load: longer than packets wait at a hole and than recordings are staged."""
EMPTY_TIMEOUT_S = 20.0
WARM_UP_PACKETS = 3
"""Packets of each track that open it."""
WARM_UP_S = 0.2
WARM_UP_PPS = 50_000.0
SENDER_TIMEOUT_S = 60.0
SENDER_START_S = 0.5
"""CPU time, about, that the load generator takes before and after it sends."""
LATE_SHARE = 0.98
"""A sender below this share of its rate is told of."""
FOREIGN_SHARE = 0.05
"""So is a core of which others took more than this."""


class LoadError(RuntimeError):
    """The load generator failed, in words for a person."""


@dataclass(frozen=True, slots=True)
class Load:
    """What a load generator reported."""

    report: dict[str, Any]

    @property
    def sent(self) -> int:
        """Packets that were handed to the kernel."""
        return int(self.report["sent"])

    @property
    def rate_share(self) -> float:
        """Return the share of the wanted rate that was reached."""
        return float(self.report["rate_pps"] / self.report["wanted_pps"])


@dataclass(slots=True)
class Run:
    """A receiver under one load."""

    load: Load
    cpu: CpuTime
    seconds: float
    """From the first packet to the last."""
    drops: int
    """Packets that the kernel dropped at the receiver's sockets."""
    backlog_drops: int
    """Packets that it dropped before them, on the sender's side."""
    foreign: tuple[float, float]
    """Shares of the receiver's and the sender's core that others took meanwhile."""
    stolen: tuple[float, float]
    """Shares that the hypervisor took."""
    missing: int = 0
    """Packets that were sent and, by the receiver's own count, did not come out."""

    @property
    def arrived(self) -> int:
        """Packets that reached the receiver."""
        return self.load.sent - self.drops

    @property
    def us_per_packet(self) -> float:
        """CPU microseconds for each of them."""
        return self.cpu.run_s * 1e6 / self.arrived if self.arrived else float("nan")

    @property
    def core_share(self) -> float:
        """CPU seconds per second of load."""
        return self.cpu.run_s / self.seconds if self.seconds else float("nan")

    def as_dict(self) -> dict[str, Any]:
        """Return the figures, ready for JSON."""
        return {
            "us_per_packet": round(self.us_per_packet, 4),
            "user_us": round(self.cpu.user_s * 1e6 / max(1, self.arrived), 4),
            "system_us": round(self.cpu.system_s * 1e6 / max(1, self.arrived), 4),
            "core_share": round(self.core_share, 5),
            "sent": self.load.sent,
            "drops": self.drops,
            "rate_pps": self.load.report["rate_pps"],
            "backlog_drops": self.backlog_drops,
            "missing": self.missing,
            "foreign": [round(share, 3) for share in self.foreign],
            "stolen": [round(share, 3) for share in self.stolen],
            "sender": self.load.report,
        }


class Source:
    """Sends a traffic in stretches, each going on where the one before stopped."""

    def __init__(
        self,
        traffic: Traffic,
        *,
        core: int | None,
        method: Method | None = None,
        most_segments: int | None = None,
    ) -> None:
        self.traffic = traffic
        self.sent = 0
        self._method = method
        self._most_segments = most_segments
        self._core = core
        self._next = 0
        self._begun_s: float | None = None
        self._pause_samples = 0

    def send(self, receiver: Receiver, packets: int, *, rate_pps: float | None = None) -> Load:
        """Send so many packets; `rate_pps` (of all tracks) instead of the traffic's own rate."""
        with self.start(receiver, packets, rate_pps=rate_pps) as process:
            timeout_s = packets / (rate_pps or self.traffic.total_pps) * 3 + SENDER_TIMEOUT_S
            return self.finish(process, timeout_s)

    def start(
        self, receiver: Receiver, packets: int, *, rate_pps: float | None = None
    ) -> subprocess.Popen[bytes]:
        """Begin to send; `finish` waits for the end."""
        traffic, ports = self.traffic, receiver.ports
        command = [
            sys.executable, "-m", "bench.load", "--to", f"127.0.0.1:{ports[0]}",
            "--tracks", str(traffic.tracks), "--rate", repr(rate_pps or traffic.total_pps),
            "--first", str(self._next), "--packets", str(packets), "--sides", str(traffic.sides),
            "--loss", str(traffic.loss), "--reorder", str(traffic.reorder),
            "--reorder-ms", str(traffic.reorder_ms), "--burst-ms", str(traffic.burst_ms),
            "--seed", str(traffic.seed), "--pause-samples", str(self._pause()),
        ]  # fmt: skip
        if traffic.wrapping == "rtp":
            command.append("--rtp")
        if len(ports) > 1:
            command += ["--port-step", str(ports[1] - ports[0])]
        if self._method is not None:
            command += ["--method", self._method]
        if self._most_segments is not None:
            command += ["--most-segments", str(self._most_segments)]
        if self._core is not None:
            command += ["--cpu", str(self._core)]
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def _pause(self) -> int:
        """Return by how much the timestamps have to catch up with the clock, as real ones do."""
        now_s = time.monotonic()
        if self._begun_s is None:
            self._begun_s = now_s
        told = self._next // self.traffic.tracks * FRAME_SAMPLES
        behind = round((now_s - self._begun_s) * SAMPLE_RATE_HZ) - told
        self._pause_samples = max(self._pause_samples, behind)
        return self._pause_samples

    def finish(self, process: subprocess.Popen[bytes], timeout_s: float) -> Load:
        """Wait for a sender that was started and return its report. Raises `LoadError`."""
        try:
            said, complaints = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            raise LoadError(f"the load generator did not end in {timeout_s:.0f} s") from None
        if process.returncode:
            lines = complaints.decode().splitlines() or ["nothing"]
            raise LoadError(f"the load generator failed and said: {lines[-1]}")
        load = Load(json.loads(said))
        self.sent += load.sent
        self._next = int(load.report["next"])
        return load


def settle(receiver: Receiver) -> None:
    """Wait until the receiver has read all that was sent, and worked it off."""
    deadline = time.monotonic() + EMPTY_TIMEOUT_S
    while accounting.udp_sockets(receiver.ports).queued_bytes and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(SETTLE_S)


def measure(
    receiver: Receiver, source: Source, packets: int, *, rate_pps: float | None = None
) -> Run:
    """Load a receiver whose tracks are open and return what that took."""
    receiving_core, sending_core = machine.cores()
    before = accounting.udp_sockets(receiver.ports)
    backlog = accounting.backlog_drops()
    cores = [accounting.core_time(core) for core in (receiving_core, sending_core)]
    cpu = receiver.cpu()
    began = time.monotonic()
    load = source.send(receiver, packets, rate_pps=rate_pps)
    settle(receiver)
    used = receiver.cpu().since(cpu)
    elapsed_s = time.monotonic() - began
    own_s = [used.run_s, load.report["cpu_s"] + SENDER_START_S]
    if receiving_core == sending_core:
        own_s = [sum(own_s)] * 2
    after = [accounting.core_time(core) for core in (receiving_core, sending_core)]
    foreign = [
        max(0.0, now.busy_s - then.busy_s - own) / elapsed_s
        for then, now, own in zip(cores, after, own_s, strict=True)
    ]
    stolen = [
        (now.stolen_s - then.stolen_s) / elapsed_s for then, now in zip(cores, after, strict=True)
    ]
    return Run(
        load,
        used,
        float(load.report["seconds"]),
        drops=accounting.udp_sockets(receiver.ports).drops - before.drops,
        backlog_drops=accounting.backlog_drops() - backlog,
        foreign=(foreign[0], foreign[1]),
        stolen=(stolen[0], stolen[1]),
    )


def warm_up(receiver: Receiver, source: Source) -> None:
    """Open all tracks with a few packets of each, and let the receiver come to rest."""
    rate_pps = min(WARM_UP_PPS, source.traffic.total_pps)
    source.send(receiver, warm_up_packets(source.traffic), rate_pps=rate_pps)
    settle(receiver)


def warm_up_packets(traffic: Traffic) -> int:
    """Return how many packets `warm_up` sends."""
    return max(traffic.tracks * WARM_UP_PACKETS, round(traffic.total_pps * WARM_UP_S))


def notes_on(runs: Mapping[str, Sequence[Run]]) -> list[str]:
    """Say what disturbed these runs, by receiver: the worst of each kind, in sentences."""
    every = [run for found in runs.values() for run in found]
    notes = []
    for number, whose in enumerate(("receivers'", "sender's")):
        if (worst := max((run.foreign[number] for run in every), default=0)) > FOREIGN_SHARE:
            notes.append(
                f"other processes took up to {worst:.0%} of the {whose} core: the figures are "
                "worse than on an idle machine"
            )
        if (worst := max((run.stolen[number] for run in every), default=0)) > FOREIGN_SHARE:
            notes.append(f"the hypervisor took up to {worst:.0%} of the {whose} core")
    for name, found in runs.items():
        if (least := min(run.load.rate_share for run in found)) < LATE_SHARE:
            notes.append(f"{name}: the sender reached only {least:.0%} of the rate")
        errors = sum((Counter(run.load.report["errors"]) for run in found), Counter[str]())
        if errors:
            counts = ", ".join(f"{n:,} {error}" for error, n in errors.items())
            notes.append(f"{name}: the sender had errors: {counts}")
        if lost := sum(run.backlog_drops for run in found):
            notes.append(f"{name}: {lost:,} packets were lost between sender and socket")
        if missing := max(run.missing for run in found):
            notes.append(f"{name}: up to {missing:,} packets of a run did not come out")
    return notes
