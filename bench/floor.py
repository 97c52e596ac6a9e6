"""Builds the floor, the C program that only counts (`floor.c`)."""

from __future__ import annotations

import subprocess
from pathlib import Path

from bench import machine
from bench.receivers import ReceiverError

SOURCE = Path(__file__).with_name("floor.c")


class BuildError(ReceiverError):
    """The floor cannot be had here, in words for a person."""


def build(folder: Path) -> Path:
    """Compile the program into a folder and return its path. Raises `BuildError`."""
    compiler = machine.compiler()
    if compiler is None:
        raise BuildError("no C compiler was found: apt-get install gcc, or set CC")
    program = folder / "floor"
    done = subprocess.run(
        [compiler, "-O2", "-Wall", "-Wextra", "-o", str(program), str(SOURCE)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        reason = next((line for line in done.stderr.splitlines() if "error" in line), "")
        raise BuildError(f"{compiler} cannot compile {SOURCE.name}: {reason}")
    return program
