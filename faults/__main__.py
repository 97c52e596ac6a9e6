"""Break things, and say what was lost: `python -m faults [--quick] [NAME...]`."""

from __future__ import annotations

import json
import shutil
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.arguments import Parser, between
from faults import clocks, floods, kills, places
from faults.outcome import CannotRunError, Fault, Outcome

TOLD_EVERY_S = 30.0
"""How often it is said how far a fault has come, where nobody watches a terminal."""
FAULTS = [
    Fault("kill-daemon", kills.kill_daemon, times=200, quick=3),
    Fault("repair", kills.repair, times=20, quick=1),
    Fault("kill-worker", kills.kill_worker, times=60, quick=1),
    Fault("suspend", kills.suspend, times=3, quick=1),
    Fault("stall", kills.stall, times=30, quick=2),
    Fault("clock-steps", clocks.clock_steps, times=24, quick=2),
    Fault("spoofed-legs", floods.spoofed_legs, times=1_000_000, quick=10_000),
    Fault("random-bytes", floods.random_bytes, times=1_000_000, quick=10_000),
    Fault("hostile-fields", floods.hostile_fields, times=1_000_000, quick=10_000),
    Fault("injection", floods.injection, times=1_000_000, quick=10_000),
    Fault("bad-sinks", places.bad_sinks, times=5, quick=1),
    Fault("unruly-processes", places.unruly_processes, times=5, quick=1),
    Fault("full-disk", places.full_disk, times=5, quick=1),
    Fault("read-only", places.read_only, times=5, quick=1),
    Fault("vanishing-folder", places.vanishing_folder, times=5, quick=1),
    Fault("few-files", places.few_files, times=3, quick=1),
    Fault("soak", places.soak, times=50_000, quick=500),
]


def main() -> int:
    """Run the command; return 1 where a bound was not kept, 130 where it was interrupted."""
    parser = Parser(prog="python -m faults", description=__doc__)
    names = [fault.name for fault in FAULTS]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument("--quick", action="store_true", help="each a few times only")
    parser.add_argument("--times", type=between(1, 10**9), metavar="N", help="how often, instead")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table there, too")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="and there, for people")
    given = parser.parse_args()
    if unknown := set(given.names) - set(names):
        parser.error(f"there is no fault {', '.join(sorted(unknown))}: of {', '.join(names)}")
    chosen = [fault for fault in FAULTS if not given.names or fault.name in given.names]
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    rows: list[dict[str, Any]] = []
    is_interrupted = False
    for number, fault in enumerate(chosen, 1):
        times = given.times or (fault.quick if given.quick else fault.times)
        try:
            rows.append(_run(fault, times, f"{number}/{len(chosen)}"))
        except KeyboardInterrupt:
            is_interrupted = True
            rows.append(_row(fault, Outcome("interrupted", 0, "", ""), "interrupted", 0.0))
        _print(rows[-1])
        if given.json is not None:
            _write(given.json, json.dumps(rows, indent=2) + "\n")
        if given.markdown is not None:
            _write(given.markdown, _table(rows))
        if is_interrupted:
            break
    bad = [row["fault"] for row in rows if row["verdict"] == "NOT OK"]
    good = sum(row["verdict"] == "ok" for row in rows)
    print(f"\n{good} of {len(chosen)} faults within their bounds", end="")
    skipped = [row["fault"] for row in rows if row["verdict"] == "skipped"]
    print(f"; skipped: {', '.join(skipped)}" if skipped else "", end="")
    print(f"; not: {', '.join(bad)}" if bad else "")
    return 130 if is_interrupted else int(bool(bad))


def _run(fault: Fault, times: int, number: str) -> dict[str, Any]:
    """Run one fault in a folder of its own."""
    began_s = told_s = time.monotonic()
    is_terminal = sys.stderr.isatty()

    def say(what: str) -> None:
        nonlocal told_s
        now_s = time.monotonic()
        line = f"{number} {fault.name}: {now_s - began_s:.0f} s, {what}"
        if is_terminal:
            sys.stderr.write(f"\r\033[K{line}")
        elif now_s - told_s >= TOLD_EVERY_S:
            told_s = now_s
            sys.stderr.write(f"{line}\n")
        sys.stderr.flush()

    folder = Path(tempfile.mkdtemp(prefix="strep-faults-"))
    say("begins")
    try:
        outcome = fault.run(folder, times, say)
        verdict = "ok" if outcome.is_ok else "NOT OK"
    except CannotRunError as error:
        outcome, verdict = Outcome(f"skipped: {error}", 0, "", ""), "skipped"
    except Exception as error:  # noqa: BLE001 -- the other faults have their turn
        traceback.print_exc()
        outcome = Outcome(f"failed: {error!r}", 0, "", "", [repr(error)])
        verdict = "NOT OK"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if is_terminal:
            sys.stderr.write("\r\033[K")
    return _row(fault, outcome, verdict, time.monotonic() - began_s)


def _row(fault: Fault, outcome: Outcome, verdict: str, seconds: float) -> dict[str, Any]:
    return {
        "fault": fault.name, **asdict(outcome), "verdict": verdict, "seconds": round(seconds, 1),
    }  # fmt: skip


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as Markdown."""
    lines = [
        "| fault | done | times | lost | bound | verdict | s |",
        "|---|---|--:|---|---|---|--:|",
    ]
    for row in rows:
        lost = "; ".join([row["lost"], *row["wrong"][:5]])
        cells = (
            row["fault"], row["done"], f"{row['times']:,}", lost, row["bound"],
            row["verdict"], f"{row['seconds']:.0f}",
        )  # fmt: skip
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def _print(row: dict[str, Any]) -> None:
    print(f"{row['fault']:17} {row['verdict']:7} {row['times']:>9,} times {row['seconds']:7.1f} s")
    for key in ("done", "lost", "bound"):
        if row[key]:
            print(f"    {key + ':':7}{row[key]}")
    for line in row["wrong"][:5]:
        print(f"    wrong: {line}")
    if len(row["wrong"]) > 5:
        print(f"    and {len(row['wrong']) - 5} more")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
