"""How real networks delayed packets, from a CSV file.

The first line names the columns, each further one is a packet:

    seq,rtp_ms,arrival_ms,relative_delay_ms
    21710,0.0,0.0,1.807
    21711,20.0,18.826,0.633

`relative_delay_ms` is what the packet's delay was above the shortest one, in milliseconds. `seq`,
where there is such a column, counts packets: those that it leaves out were lost. Other columns may
be there.
"""

from __future__ import annotations

import csv
import math
from typing import TYPE_CHECKING

import numpy as np

from strep.network import DelayTrace

if TYPE_CHECKING:
    from pathlib import Path

DELAY, SEQUENCE = "relative_delay_ms", "seq"
MOST_PACKETS = 1_000_000
LONGEST_DELAY_MS = 60_000


class TraceError(ValueError):
    """A trace cannot be used; one sentence that names the file and the line."""


def load_trace(path: Path) -> DelayTrace:
    """Read a trace. Raises `TraceError`."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file)
            if DELAY not in (rows.fieldnames or ()):
                raise TraceError(f"{path}: the first line names no column {DELAY}")
            packets = [_packet(path, rows.line_num, row) for row in rows]
    except OSError as error:
        raise TraceError(f"{path}: cannot be read: {error.strerror}") from None
    except (csv.Error, UnicodeDecodeError):
        raise TraceError(f"{path}: not a CSV file") from None
    if not packets:
        raise TraceError(f"{path}: there are no packets in it")
    # without numbers no packet was lost
    numbers = [i if number is None else number for i, (number, _) in enumerate(packets)]
    sent = numbers[-1] - numbers[0] + 1
    if (np.diff(numbers) <= 0).any() or sent > MOST_PACKETS:
        raise TraceError(f"{path}: {SEQUENCE} does not rise by 1 or a little more on each line")
    place = np.array(numbers) - numbers[0]
    delay_s = np.zeros(sent)
    lost = np.ones(sent, bool)
    delay_s[place] = [delay_ms / 1000 for _, delay_ms in packets]
    lost[place] = False
    return DelayTrace(delay_s, lost)


def _packet(path: Path, line: int, row: dict[str, str | None]) -> tuple[int | None, float]:
    try:
        number = int(row[SEQUENCE] or "") if SEQUENCE in row else None
        delay_ms = float(row[DELAY] or "")
    except ValueError:
        delay_ms = math.nan
    if not 0 <= delay_ms <= LONGEST_DELAY_MS:
        raise TraceError(
            f"{path}, line {line}: expected a whole number as {SEQUENCE} and 0 to "
            f"{LONGEST_DELAY_MS} as {DELAY}"
        )
    return number, delay_ms
