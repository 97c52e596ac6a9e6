"""`python -m bench`: runs benchmarks and shows what they brought."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NoReturn

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from bench import (
    accounting,
    analysis,
    codecs,
    comparison,
    latency,
    memory,
    merging,
    realtime,
    scaling,
    stages,
    throughput,
    vad,
)
from bench.arguments import Parser, between
from bench.report import Context, PlotError, plot

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.report import Benchmark

_MODULES = (
    comparison, throughput, analysis, merging, realtime, latency, memory, scaling, stages, codecs,
    vad,
)  # fmt: skip
BENCHMARKS = {module.BENCHMARK.name: module.BENCHMARK for module in _MODULES}

WIDTH = 120
"""Of tables, where they do not go to a terminal."""

out = Console(width=None if sys.stdout.isatty() else WIDTH)
err = Console(stderr=True)


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    names = arguments.names or list(BENCHMARKS)
    for name in names:
        if name not in BENCHMARKS:
            parser.error(f"there is no benchmark {name!r}; there are {', '.join(BENCHMARKS)}")
    if not accounting.AVAILABLE:
        parser.error("the benchmarks read Linux's /proc and run on Linux only")
    for folder in (arguments.json, arguments.plots, arguments.scratch):
        try:
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            parser.error(f"cannot use {folder}: {error.strerror}")
    try:
        for name in names:
            _run(BENCHMARKS[name], arguments)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(0)


def _run(benchmark: Benchmark, arguments: argparse.Namespace) -> None:
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(),
        console=err, transient=True,
    )  # fmt: skip
    with TemporaryDirectory(prefix="strep-bench-", dir=arguments.scratch) as scratch, bar:
        task = bar.add_task(benchmark.name, total=1.0)

        def progress(what: str, share: float) -> None:
            bar.update(task, description=f"{benchmark.name}: {what}", completed=share)
            if not err.is_terminal:
                err.print(f"{benchmark.name} {share:4.0%}: {what}", highlight=False)

        report = benchmark.run(
            Context(Path(scratch), arguments.quick, arguments.seconds, arguments.rounds, progress)
        )
    for table in benchmark.tables(report):
        out.print(table)
        out.print()
    for note in report.notes:
        out.print(f"note: {note}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    if arguments.json:
        report.write(arguments.json / f"{benchmark.name}.json")
    if arguments.plots:
        try:
            plot(benchmark, report, arguments.plots / f"{benchmark.name}.png")
        except PlotError as error:
            err.print(f"note: {error}", style="yellow", markup=False, highlight=False)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m bench",
        description="Measure the receiver, alone and beside others. Everything runs on loopback.",
        epilog="benchmarks:\n"
        + "".join(f"  {b.name:<12} {b.text}\n" for b in BENCHMARKS.values())
        + "\nexample:\n  python -m bench peers --quick --json results --plots results",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all of them")
    parser.add_argument("--quick", action="store_true", help="a rough idea, soon")
    parser.add_argument(
        "--seconds", type=between(0.1, 86_400.0), metavar="S",
        help="how long each load lasts (default: it depends)",
    )  # fmt: skip
    parser.add_argument(
        "--rounds", type=between(1, 1000), metavar="N", help="repetitions (default 5)"
    )
    parser.add_argument("--json", type=Path, metavar="DIR", help="write NAME.json there")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="write NAME.png there")
    parser.add_argument(
        "--scratch", type=Path, metavar="DIR", help="where recordings are written and removed"
    )
    return parser


if __name__ == "__main__":
    main()
