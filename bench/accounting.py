"""What the operating system says of processes, cores and sockets: Linux's /proc.

Every receiver is measured by the same figures, from outside, whatever it says of itself.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

AVAILABLE = sys.platform == "linux"
_PROC = Path("/proc")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK") if AVAILABLE else 100
_TICK_ERROR_S = 4 / _TICKS_PER_S
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE") if AVAILABLE else 4096


@dataclass(frozen=True, slots=True)
class CpuTime:
    """CPU seconds of processes, all of their threads included."""

    user_s: float = 0.0
    system_s: float = 0.0
    run_s: float = 0.0
    """The scheduler's own sum, in nanoseconds; the other two are counted in ticks of 10 ms."""

    def __add__(self, other: CpuTime) -> CpuTime:
        return CpuTime(
            self.user_s + other.user_s, self.system_s + other.system_s, self.run_s + other.run_s
        )

    def since(self, before: CpuTime) -> CpuTime:
        """Return what was used since, the split brought to the scheduler's exact sum."""
        user_s, system_s = self.user_s - before.user_s, self.system_s - before.system_s
        run_s = self.run_s - before.run_s
        ticks_s = user_s + system_s
        if run_s < ticks_s - _TICK_ERROR_S:
            # threads have ended, and their part of the sum with them
            return CpuTime(user_s, system_s, ticks_s)
        share = user_s / ticks_s if ticks_s else 0.0
        return CpuTime(run_s * share, run_s * (1 - share), run_s)


def cpu_time(pids: Iterable[int]) -> CpuTime:
    """Return what processes have used so far; one that has ended counts as nothing."""
    total = CpuTime()
    for pid in pids:
        try:
            stat = (_PROC / str(pid) / "stat").read_text()
            # the scheduler's sum is per thread: right as long as no thread has ended
            run_ns = sum(
                int(path.read_text().split()[0]) for path in _PROC.glob(f"{pid}/task/*/schedstat")
            )
        except OSError:
            continue
        fields = stat.rpartition(")")[2].split()
        user, system = int(fields[11]), int(fields[12])
        total += CpuTime(user / _TICKS_PER_S, system / _TICKS_PER_S, run_ns / 1e9)
    return total


def descendants(pid: int) -> list[int]:
    """Return the processes that a process has started, and those that they have."""
    found = []
    for path in _PROC.glob(f"{pid}/task/*/children"):
        try:
            children = [int(child) for child in path.read_text().split()]
        except OSError:
            continue
        for child in children:
            found += [child, *descendants(child)]
    return found


def resident_bytes(pid: int | Literal["self"]) -> int:
    """Return the resident memory of a process."""
    return int((_PROC / str(pid) / "statm").read_text().split()[1]) * _PAGE_BYTES


@dataclass(frozen=True, slots=True)
class CoreTime:
    """Seconds that a core has been busy, and stolen from it by the hypervisor."""

    busy_s: float
    stolen_s: float


def core_time(core: int) -> CoreTime:
    """Return what a core has done so far."""
    for line in (_PROC / "stat").read_text().splitlines():
        name, *ticks = line.split()
        if name == f"cpu{core}":
            user, nice, system, _, _, irq, softirq, stolen = map(int, ticks[:8])
            busy = user + nice + system + irq + softirq
            return CoreTime(busy / _TICKS_PER_S, stolen / _TICKS_PER_S)
    raise ValueError(f"there is no core {core}")


@dataclass(frozen=True, slots=True)
class SocketState:
    """What UDP sockets hold and have lost, in sum."""

    queued_bytes: int
    drops: int


def udp_sockets(ports: Collection[int]) -> SocketState:
    """Return the state of the UDP sockets that are bound to these ports."""
    found = [fields for fields in _udp_table() if _port(fields) in ports]
    queued = sum(int(fields[4].rpartition(":")[2], 16) for fields in found)
    return SocketState(queued, drops=sum(int(fields[12]) for fields in found))


def bound_ports(ports: Collection[int]) -> int:
    """Return how many of these ports a UDP socket is bound to."""
    return len({_port(fields) for fields in _udp_table()} & set(ports))


def _udp_table() -> Iterator[list[str]]:
    for table in ("udp", "udp6"):
        try:
            lines = (_PROC / "net" / table).read_text().splitlines()[1:]
        except OSError:
            continue
        yield from map(str.split, lines)


def _port(fields: list[str]) -> int:
    return int(fields[1].rpartition(":")[2], 16)


def backlog_drops() -> int:
    """Return the packets lost between sender and socket: the cores' backlogs were full."""
    lines = (_PROC / "net" / "softnet_stat").read_text().splitlines()
    return sum(int(line.split()[1], 16) for line in lines)
