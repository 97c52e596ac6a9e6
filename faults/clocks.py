"""The machine's wall clock, set forwards and backwards under a running daemon.

The clock of this machine is that of everybody on it, and to set it takes root. So the daemon is
given another one, by a library that is loaded before the C library: it adds what the clock was
moved by to the wall clock, and to the kernel's stamps of datagrams that arrived after that.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from faults.calls import Calls, not_exact
from faults.outcome import CannotRunError, Outcome
from faults.service import Service

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from faults.outcome import Say

STEPS_S = (3600.0, -7200.0, 0.5, -0.5, 86_400.0, -30.0)
_NEVER = 1 << 62
_STATE = struct.Struct("=qqq")
_SOURCE = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *moved; /* before, since (real time), after */

__attribute__((constructor)) static void look(void)
{
    const char *path = getenv("STREP_FAULTS_CLOCK");
    int fd = path ? open(path, O_RDONLY) : -1;
    void *at = fd < 0 ? MAP_FAILED : mmap(NULL, 24, PROT_READ, MAP_SHARED, fd, 0);
    moved = at == MAP_FAILED ? NULL : at;
    if (fd >= 0)
        close(fd);
}

static void move(struct timespec *time)
{
    if (!moved)
        return;
    int64_t ns = time->tv_sec * INT64_C(1000000000) + time->tv_nsec;
    ns += ns >= moved[1] ? moved[2] : moved[0];
    time->tv_sec = ns / INT64_C(1000000000);
    time->tv_nsec = ns % INT64_C(1000000000);
}

int clock_gettime(clockid_t clock, struct timespec *time)
{
    int result = (int)syscall(SYS_clock_gettime, clock, time);
    if (!result && clock == CLOCK_REALTIME)
        move(time);
    return result;
}

int recvmmsg(int fd, struct mmsghdr *message, unsigned count, int flags, struct timespec *wait)
{
    int got = (int)syscall(SYS_recvmmsg, fd, message, count, flags, wait);
    for (int i = 0; i < got; i++)
        for (struct cmsghdr *c = CMSG_FIRSTHDR(&message[i].msg_hdr); c;
             c = CMSG_NXTHDR(&message[i].msg_hdr, c))
            if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SO_TIMESTAMPNS) {
                struct timespec stamp;
                memcpy(&stamp, CMSG_DATA(c), sizeof stamp);
                move(&stamp);
                memcpy(CMSG_DATA(c), &stamp, sizeof stamp);
            }
    return got;
}
"""


class WallClock:
    """A wall clock that can be set, for the processes started with `environment`."""

    def __init__(self, folder: Path) -> None:
        """Make it in a folder; raises `CannotRunError` where it cannot be had."""
        compiler = shutil.which("cc") or shutil.which("gcc")
        if sys.platform != "linux" or compiler is None:
            raise CannotRunError("a clock of its own takes Linux and a C compiler")
        source, library = folder / "clock.c", folder / "clock.so"
        source.write_text(_SOURCE, encoding="utf-8")
        done = subprocess.run(
            [compiler, "-O2", "-shared", "-fPIC", "-o", str(library), str(source)],
            capture_output=True,
            check=False,
        )
        if done.returncode:
            raise CannotRunError("the library that moves the clock cannot be compiled here")
        self._file = folder / "clock"
        self._file.write_bytes(_STATE.pack(0, _NEVER, 0))
        self.moved_ns = 0
        self.environment = {"LD_PRELOAD": str(library), "STREP_FAULTS_CLOCK": str(self._file)}

    def step(self, seconds: float) -> None:
        """Set the clock by so much, now."""
        before, self.moved_ns = self.moved_ns, self.moved_ns + round(seconds * 1e9)
        # each of the three is right for whoever reads them meanwhile
        with self._file.open("r+b", buffering=0) as file:
            for offset, value in (
                (0, before), (8, _NEVER), (16, self.moved_ns), (8, time.time_ns()),
            ):  # fmt: skip
                os.pwrite(file.fileno(), struct.pack("=q", value), offset)

    def seen_s(self) -> float:
        """Return by how much a process with `environment` sees it moved."""
        command = [sys.executable, "-c", "import time; print(time.time())"]
        seen = subprocess.run(
            command, env={**os.environ, **self.environment}, capture_output=True, check=True
        )
        return float(seen.stdout) - time.time()


@contextmanager
def _environment(added: Mapping[str, str]) -> Iterator[None]:
    """Let processes that are started have these variables."""
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


def clock_steps(folder: Path, times: int, say: Say) -> Outcome:
    """Set the wall clock forwards and backwards; every other time while packets wait."""
    wrong: list[str] = []
    clock = WallClock(folder)
    with _environment(clock.environment):
        service = Service(folder / "recordings")
    with service, Calls(service.to, 20) as calls:
        for number in range(times):
            say(f"{number} of {times} steps")
            time.sleep(1.0)
            step_s = STEPS_S[number % len(STEPS_S)]
            if number % 2:
                clock.step(step_s)
            else:
                with service.frozen():
                    time.sleep(0.2)
                    clock.step(step_s)
                    time.sleep(0.2)
        if abs(clock.seen_s() - clock.moved_ns / 1e9) > 1:
            wrong.append("the clock was not moved")
        time.sleep(1.0)
        calls.stop()
        time.sleep(0.5)
        metrics = service.metrics()
        service.stop()
    wrong += not_exact(calls, folder / "recordings")
    for what in ("lost", "late", "realignments"):
        if count := metrics[f"strep_packets_{what}_total"]:
            wrong.append(f"{count:.0f} packets: {what}")
    return Outcome(
        "the wall clock set by half a second to a day, forwards and backwards, 20 calls",
        times,
        "nothing, to the last bit" if not wrong else f"{len(wrong)} things",
        "nothing",
        wrong,
    )
