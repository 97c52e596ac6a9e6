"""What the machine is and lacks: facts beside every figure."""

from __future__ import annotations

import os
import platform
import shutil
import socket
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bench import accounting
from strep.receive.sockets import enlarge_receive_buffer

RECEIVE_BUFFER_BYTES = 32 * 2**20
"""What every receiver asks for, as the daemon does by default."""


def facts() -> dict[str, Any]:
    """Return what the machine is, ready for JSON."""
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in ("numpy", "uvloop", "strep")},
    }


def cores() -> tuple[int, int]:
    """Return the core for receivers and the one for senders, the same where there is only one."""
    usable = sorted(os.sched_getaffinity(0)) if accounting.AVAILABLE else [0]
    return usable[0], usable[-1]


def shortcomings() -> list[str]:
    """Say what stands between this machine and clean figures, in sentences."""
    notes = []
    receiving, sending = cores()
    if receiving == sending:
        notes.append("there is one core only: the sender takes time from the receivers")
    elif (load := os.getloadavg()[0]) > 0.5:
        notes.append(f"the machine was busy before the start (load average {load:.1f})")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        warning = enlarge_receive_buffer(sock, RECEIVE_BUFFER_BYTES).warning
    if warning:
        notes.append(warning)
    return notes


def compiler() -> str | None:
    """Return the C compiler, None where there is none."""
    named = os.environ.get("CC")
    return shutil.which(named) if named else shutil.which("cc") or shutil.which("gcc")


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
