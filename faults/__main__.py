"""Break things, and say what was lost: `python -m faults [--quick] [NAME...]`."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from faults import floods, kills, places
from faults.outcome import CannotRunError, Fault, Outcome

FAULTS = [
    Fault("kill-daemon", kills.kill_daemon, times=200, quick=3),
    Fault("kill-worker", kills.kill_worker, times=60, quick=1),
    Fault("suspend", kills.suspend, times=3, quick=1),
    Fault("stall", kills.stall, times=30, quick=2),
    Fault("spoofed-legs", floods.spoofed_legs, times=1_000_000, quick=10_000),
    Fault("random-bytes", floods.random_bytes, times=1_000_000, quick=10_000),
    Fault("hostile-fields", floods.hostile_fields, times=1_000_000, quick=10_000),
    Fault("injection", floods.injection, times=1_000_000, quick=10_000),
    Fault("bad-sinks", places.bad_sinks, times=10, quick=1),
    Fault("full-disk", places.full_disk, times=5, quick=1),
    Fault("vanishing-folder", places.vanishing_folder, times=5, quick=1),
    Fault("few-files", places.few_files, times=3, quick=1),
    Fault("soak", places.soak, times=100_000, quick=500),
]


def main() -> int:
    """Run the command; return 1 where a bound was not kept."""
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    names = [fault.name for fault in FAULTS]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument("--quick", action="store_true", help="each a few times only")
    parser.add_argument("--times", type=int, metavar="N", help="how often, instead")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table there, too")
    given = parser.parse_args()
    if unknown := set(given.names) - set(names):
        parser.error(f"there is no fault {', '.join(sorted(unknown))}: of {', '.join(names)}")
    rows = []
    for fault in FAULTS:
        if given.names and fault.name not in given.names:
            continue
        times = given.times or (fault.quick if given.quick else fault.times)
        rows.append(_run(fault, times))
        _print(rows[-1])
    if given.json is not None:
        given.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    bad = [row["fault"] for row in rows if row["verdict"] == "NOT OK"]
    print(f"\n{len(rows) - len(bad)} of {len(rows)} faults within their bounds", end="")
    print(f"; not: {', '.join(bad)}" if bad else "")
    return int(bool(bad))


def _run(fault: Fault, times: int) -> dict[str, Any]:
    """Run one fault in a folder of its own."""
    began_s = time.monotonic()

    def say(what: str) -> None:
        if sys.stderr.isatty():
            seconds = time.monotonic() - began_s
            sys.stderr.write(f"\r\033[K{fault.name}: {seconds:.0f} s, {what}")
            sys.stderr.flush()

    folder = Path(tempfile.mkdtemp(prefix="strep-faults-"))
    say("begins")
    try:
        outcome = fault.run(folder, times, say)
        verdict = "ok" if outcome.is_ok else "NOT OK"
    except CannotRunError as error:
        outcome, verdict = Outcome(f"skipped: {error}", 0, "", ""), "skipped"
    except Exception as error:  # noqa: BLE001 -- the other faults have their turn
        outcome = Outcome(f"failed: {error!r}", 0, "", "", [repr(error)])
        verdict = "NOT OK"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if sys.stderr.isatty():
        sys.stderr.write("\r\033[K")
    seconds = round(time.monotonic() - began_s, 1)
    return {"fault": fault.name, **asdict(outcome), "verdict": verdict, "seconds": seconds}


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
