"""The receivers under test, each a process of its own: started, watched and ended alike."""

from __future__ import annotations

import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from abc import ABC, abstractmethod
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryFile, mkdtemp
from typing import TYPE_CHECKING, Any

from bench import accounting, machine

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Self

    from bench.accounting import CpuTime

READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 60.0
ROOT = Path(__file__).parent.parent
"""Where `python -m` finds the packages of this project."""
MANY_FILES = 100
FREED_S = 6.0


class ReceiverError(RuntimeError):
    """A receiver did not start, or ended before its time; with what it said last."""


class Receiver(ABC):
    """A running receiver, pinned to one core; a context manager that ends it."""

    ports: Sequence[int]
    """The UDP ports that it receives on."""

    def __init__(
        self, command: Sequence[str], *, core: int | None, output: int = subprocess.PIPE
    ) -> None:
        self._errors = TemporaryFile()  # noqa: SIM115 -- closed with the receiver
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=self._errors
        )  # fmt: skip
        if core is not None and accounting.AVAILABLE:
            # it has one thread yet, whose core all others inherit
            os.sched_setaffinity(self.process.pid, {core})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
        self._errors.close()

    @property
    def pids(self) -> list[int]:
        """The processes whose CPU time is that of the receiver."""
        return [self.process.pid]

    def cpu(self) -> CpuTime:
        """Return what the receiver has used so far."""
        return accounting.cpu_time(self.pids)

    @abstractmethod
    def totals(self) -> dict[str, float]:
        """Return what the receiver itself counts; at least `packets`. May end it."""

    def stop(self) -> str:
        """End it, and return what it still wrote to standard output."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            said, _ = self.process.communicate(timeout=STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            said, _ = self.process.communicate()
        except ValueError:
            return ""  # was ended before
        return (said or b"").decode()

    def complaints(self) -> list[str]:
        """Return what it wrote to standard error."""
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace").splitlines()

    def _failed(self, what: str) -> ReceiverError:
        self.process.kill()
        self.process.wait()
        said = [line for line in self.complaints() if line.strip()]
        self._errors.close()
        if self.process.stdout is not None:
            self.process.stdout.close()
        return ReceiverError(f"{what}: {said[-1]}" if said else what)


class Peer(Receiver):
    """A program that follows the protocol of `bench.peers.program`."""

    def __init__(self, command: Sequence[str], ports: Sequence[int], *, core: int | None) -> None:
        super().__init__(command, core=core)
        self.ports = ports
        self._totals: dict[str, float] = {}
        self._pids: list[int] = self._hello().get("pids", super().pids)

    @property
    def pids(self) -> list[int]:
        """The program's own process, or those that it said it has started."""
        return self._pids

    def totals(self) -> dict[str, float]:
        """End the program and return its counters."""
        if not self._totals:
            lines = self.stop().splitlines()
            if not lines:
                raise self._failed("it ended without a word")
            self._totals = json.loads(lines[-1])
        return self._totals

    def _hello(self) -> dict[str, Any]:
        assert self.process.stdout is not None  # noqa: S101 -- it is a pipe
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            if not selector.select(READY_TIMEOUT_S):
                raise self._failed(f"nothing was heard from it for {READY_TIMEOUT_S:g} s")
        line = self.process.stdout.readline()
        if not line:
            raise self._failed("it did not start")
        hello: dict[str, Any] = json.loads(line)
        return hello


def new_folder(scratch: Path) -> Path:
    """Return a folder for one daemon, that is removed with all others in the end.

    A database would remember the calls of the one before; and see `remove_recordings`.
    """
    return Path(mkdtemp(prefix="recordings-", dir=scratch))


def remove_recordings(folder: Path) -> None:
    """Remove a folder, and wait until its files no longer make the next ones dearer.

    ext4 gives away no inode for 5 s after it was freed, and looks past those one by one: thousands
    of recordings that have just been removed would be paid for by whoever records next.
    """
    count = sum(len(files) for _, _, files in os.walk(folder))
    shutil.rmtree(folder, ignore_errors=True)
    if count >= MANY_FILES:
        time.sleep(FREED_S)


class Daemon(Receiver):
    """`strep serve` on loopback, with these sinks; None for its default ones."""

    def __init__(
        self,
        sinks: Sequence[str] | None,
        folder: Path,
        *,
        core: int | None,
        flags: Sequence[str] = (),
    ) -> None:
        port, self._http_port = free_ports(1)[0], free_ports(1, socket.SOCK_STREAM)[0]
        self.ports = [port]
        sink_flags: list[str] = []
        if sinks is not None:
            sink_flags = [text for sink in sinks or ["none"] for text in ("--sink", sink)]
        super().__init__(
            [
                sys.executable, "-m", "strep", "serve",
                "--media", f"127.0.0.1:{port}", "--http", f"127.0.0.1:{self._http_port}",
                "--recordings", str(folder), "--log-level", "warning", "--log-format", "json",
                *sink_flags, *flags,
            ],
            core=core,
            output=subprocess.DEVNULL,  # the sink `log` would wait for who reads a pipe
        )  # fmt: skip
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not self._is_up():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise self._failed("strep serve did not start")
            time.sleep(0.05)

    @property
    def pids(self) -> list[int]:
        """The daemon and its workers."""
        return [self.process.pid, *accounting.descendants(self.process.pid)]

    def metrics(self) -> dict[str, float]:
        """Return the daemon's metrics by name and labels as Prometheus writes them."""
        found = {}
        for line in self._get("/metrics").splitlines():
            if not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                found[name] = float(value)
        return found

    def totals(self) -> dict[str, float]:
        """Return what it has accepted, and how much was lost on the way, by the place."""
        metrics = self.metrics()
        refused = sum(
            value
            for name, value in metrics.items()
            if name.startswith("strep_datagrams_total{") and 'reason="accepted"' not in name
        )
        missed = sum(
            value
            for name, value in metrics.items()
            if name.startswith("strep_sink_dropped_frames_total{")
        )
        return {
            "packets": metrics['strep_datagrams_total{reason="accepted"}'],
            "refused": refused,
            "kernel_drops": metrics["strep_kernel_drops_total"],
            "lost": metrics["strep_packets_lost_total"],
            "late": metrics["strep_packets_late_total"],
            "missed_by_sinks": missed,
        }

    def _is_up(self) -> bool:
        try:
            self._get("/healthz")
        except OSError:
            return False
        return True

    def _get(self, path: str) -> str:
        url = f"http://127.0.0.1:{self._http_port}{path}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return str(answer.read(), "utf-8")


def python_peer(
    name: str, streams: int, *, core: int | None, port_per_stream: bool = False
) -> Peer:
    """Start a peer of `bench.peers` by the name of its module."""
    ports = free_port_range(streams) if port_per_stream else free_ports(1)
    command = [sys.executable, "-m", f"bench.peers.{name}"]
    arguments = [ports[0], streams, machine.RECEIVE_BUFFER_BYTES]
    return Peer([*command, *map(str, arguments)], ports, core=core)


def floor(program: Path, *, core: int | None, with_metadata: bool = False) -> Peer:
    """Start the floor."""
    ports = free_ports(1)
    arguments = [ports[0], machine.RECEIVE_BUFFER_BYTES, 10, int(with_metadata)]
    return Peer([str(program), *map(str, arguments)], ports, core=core)


def free_ports(count: int, kind: socket.SocketKind = socket.SOCK_DGRAM) -> list[int]:
    """Return ports of 127.0.0.1 that nobody uses now."""
    ports = []
    for _ in range(count):
        with closing(socket.socket(socket.AF_INET, kind)) as sock:
            sock.bind(("127.0.0.1", 0))
            ports.append(int(sock.getsockname()[1]))
    return ports


def free_port_range(streams: int) -> list[int]:
    """Return an even port for each stream such that it and the next one are free (RTP, RTCP)."""
    for first in range(20_000, 60_000, 2 * streams + 2):
        wanted = range(first, first + 2 * streams)
        if not accounting.bound_ports(wanted):
            return list(wanted[::2])
    raise ReceiverError(f"no {2 * streams} neighbouring UDP ports are free")
