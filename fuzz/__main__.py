"""`python -m fuzz [--seconds N] [TARGET...]`: fuzz all targets, say how it goes, sum up.

What was found to be interesting is kept in `.fuzz/TARGET` and gone on from at the next time. An
input that fails is put there as `crash-...`, and the exit code is 1: fix what it found, and move it
to `fuzz/found/TARGET`, so that the tests run it from then on.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from bench.arguments import Parser, between
from fuzz.corpus import write
from fuzz.targets import TARGETS

ROOT = Path(__file__).parents[1]
LONGEST_BYTES = {"path": 256, "capture": 4096, "webhooks": 4096, "configuration": 4096}
"""Of an input; short ones are tried faster."""
TIMEOUT_S = 20
MEMORY_MB = 2048


class Outcome(NamedTuple):
    """What became of a target."""

    target: str
    inputs: int
    edges: int
    kept: int
    seconds: float
    found: list[Path]
    exit_code: int


def main() -> int:
    """Fuzz; return the exit code."""
    parser = Parser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument(
        "--seconds", type=between(1.0, 604_800.0), default=60, help="for all targets together"
    )
    parser.add_argument("--folder", type=Path, default=ROOT / ".fuzz", help="what is kept")
    arguments = parser.parse_args()
    if unknown := set(arguments.targets) - set(TARGETS):
        parser.error(f"no target {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    if find_spec("atheris") is None:
        sys.stderr.write("atheris is not installed: pip install 'strep[fuzz]'\n")
        return 2
    names = arguments.targets or list(TARGETS)
    each_s = max(1, round(arguments.seconds / len(names)))
    outcomes = [_run(name, each_s, arguments.folder / name) for name in names]
    _sum_up(outcomes)
    return int(any(outcome.exit_code for outcome in outcomes))


def _run(target: str, seconds: int, folder: Path) -> Outcome:
    """Fuzz one target in a process of its own, and show how it goes on one line."""
    write(target, folder / "seeds")
    (folder / "kept").mkdir(exist_ok=True)
    before = set(folder.glob("*-*"))
    regressions = ROOT / "fuzz" / "found" / target
    corpora = [folder / "kept", folder / "seeds", *([regressions] if regressions.is_dir() else [])]
    command = [
        sys.executable, "-m", "fuzz.one", target, *map(str, corpora),
        f"-max_total_time={seconds}", f"-timeout={TIMEOUT_S}", f"-rss_limit_mb={MEMORY_MB}",
        f"-max_len={LONGEST_BYTES.get(target, 1024)}", f"-artifact_prefix={folder}/",
        "-print_final_stats=1",
    ]  # fmt: skip
    began_s = time.monotonic()
    inputs = edges = kept = 0
    last: list[str] = []
    with subprocess.Popen(  # noqa: S603 -- ourselves
        command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
        errors="replace", env=os.environ | {"PYTHONHASHSEED": "0"},
    ) as process:  # fmt: skip
        assert process.stderr is not None
        for line in process.stderr:
            if match := re.match(r"#(\d+)\s", line):
                inputs = int(match[1])
                edges = _number(r"cov: (\d+)", line, edges)
                kept = _number(r"corp: (\d+)", line, kept)
                _show(f"{target:14} {inputs:>10,} inputs  {edges:>6,} edges  {kept:>5,} kept")
            elif match := re.match(r"stat::number_of_executed_units:\s+(\d+)", line):
                inputs = int(match[1])
            else:
                last = [*last[-60:], line]
    found = sorted(set(folder.glob("*-*")) - before)
    if process.returncode:
        sys.stderr.write("\n" + "".join(last))
    return Outcome(
        target, inputs, edges, kept, time.monotonic() - began_s, found, process.returncode
    )


def _number(pattern: str, line: str, default: int) -> int:
    match = re.search(pattern, line)
    return int(match[1]) if match else default


def _show(text: str) -> None:
    """Say how it goes: over the line before on a terminal, not at all elsewhere."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{text}\x1b[K")
        sys.stderr.flush()


def _sum_up(outcomes: list[Outcome]) -> None:
    _show("")
    out = sys.stdout.write
    out(f"{'target':14} {'inputs':>10} {'a second':>9} {'edges':>6} {'kept':>6}  found\n")
    for each in outcomes:
        rate = each.inputs / each.seconds
        what = ", ".join(path.name for path in each.found) or (
            f"ended with {each.exit_code}" if each.exit_code else "nothing"
        )
        out(
            f"{each.target:14} {each.inputs:>10,} {rate:>9,.0f} {each.edges:>6,} {each.kept:>6,}"
            f"  {what}\n"
        )


if __name__ == "__main__":
    sys.exit(main())
