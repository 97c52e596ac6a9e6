"""Who may import whom."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted(p for package in ("strep", "pipeline") for p in (ROOT / package).rglob("*.py"))

KNOWS_PIPELINE = {
    "strep/rescue.py",  # finishes recordings as their sink would have
    "strep/receive/receiver.py",  # hands packets on
    "strep/receive/rtcp.py",  # tells it of reports
    "strep/worker.py",  # puts everything together, live
    "strep/workerprocess.py",  # only the sinks' error, to say it
    "strep/tracknews.py",  # what there is to say of a track
    "strep/calls.py",  # reads the figures of running tracks
    "strep/config.py",  # what payload types stand for
    "strep/sinks.py",  # makes the sinks and writes the manifests
    "strep/analyze.py",  # puts everything together, for a capture
    "strep/cli/__init__.py",  # only the sinks' error, to show it
    "strep/store/records.py",  # moments as text
    "strep/report/view.py",  # talk-over and silence of manifests that do not tell of them
}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_imports_keep_to_the_layers(path):
    name = path.relative_to(ROOT).as_posix()
    for module in imports(path):
        top = module.partition(".")[0]
        if name.startswith("pipeline/"):
            assert top != "strep", f"{name} imports {module}"
        if name.startswith("strep/wire/"):
            standard = top in sys.stdlib_module_names or top in {"numpy", "strep_kernel"}
            assert standard or module.startswith("strep.wire"), f"{name} imports {module}"
        if top == "pipeline" and module != "pipeline.utc" and name.startswith("strep/"):
            assert name in KNOWS_PIPELINE, f"{name} imports {module}"


def test_architecture_lists_every_module():
    chapter = (ROOT / "docs" / "architecture.md").read_text().partition("\n## Modules\n")[2]
    listed = set()
    room = ""
    for line in chapter.splitlines():
        if line.startswith("| `") and line.endswith("| |"):  # a table's head
            room = line.split("`")[1]
        elif line.startswith("| rooms"):
            room = "strep/"
        elif line.startswith("| `"):
            names = re.findall(r"`([^`]+)`", line.split("|")[1])
            inner = names.pop(0) if names[0].endswith("/") else ""
            listed |= {f"{room}{inner}{name}" for name in names}
    kernel = [*(ROOT / "strep_kernel").glob("*.py"), *(ROOT / "strep_kernel").glob("*.c")]
    assert listed == {p.relative_to(ROOT).as_posix() for p in [*MODULES, *kernel]}
