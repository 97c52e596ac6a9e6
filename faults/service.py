"""The daemon that is hurt: `strep serve` as a process of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from bench import accounting
from bench.receivers import Daemon

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

_WAIT_S = 30.0


class Service(Daemon):
    """A running daemon; at its end it is told to stop, or killed where it does not."""

    def __init__(self, folder: Path, *flags: str, sinks: Sequence[str] = ("wav",)) -> None:
        super().__init__(sinks, folder, core=None, flags=flags)

    @property
    def to(self) -> tuple[str, int]:
        """Where media goes."""
        return "127.0.0.1", self.ports[0]

    @property
    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self.process.poll() is None

    def kill(self) -> None:
        """End it as the kernel does for want of memory."""
        self.process.kill()
        self.process.wait()

    def freeze(self, seconds: float) -> None:
        """Suspend all of its processes for a while."""
        with self.frozen():
            time.sleep(seconds)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Suspend all of its processes meanwhile."""
        pids = self.pids
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def sum_of(self, name: str, **labels: str) -> float:
        """Return the sum of a metric's samples that have these labels."""
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        return sum(
            value
            for sample, value in self.metrics().items()
            if re.split(r"\{", sample)[0] == name and all(each in sample for each in wanted)
        )

    def workers(self) -> list[int]:
        """Return the pids of the workers."""
        return [int(each["pid"]) for each in json.loads(self._get("/healthz"))["workers"]]

    def wait_until(self, what: Callable[[], bool], timeout_s: float = _WAIT_S) -> bool:
        """Wait until something is so; tell whether it came to be."""
        until = time.monotonic() + timeout_s
        while not what():
            if time.monotonic() > until or not self.is_alive:
                return False
            time.sleep(0.05)
        return True

    def resources(self) -> dict[str, int]:
        """Return memory, descriptors and threads of all its processes."""
        memory = files = threads = 0
        for pid in self.pids:
            with suppress(OSError):
                memory += accounting.resident_bytes(pid)
                files += len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 -- names are enough
                threads += len(os.listdir(f"/proc/{pid}/task"))  # noqa: PTH208
        return {"memory_mb": memory >> 20, "files": files, "threads": threads}
