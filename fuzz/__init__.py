"""Fuzzing: whatever comes from outside, in shapes that nobody thought of.

`make fuzz` (SECONDS=300) lets atheris, a fuzzer that is led by coverage, run each target for a
while. What it finds goes into `fuzz/found/TARGET/`, where the tests run it for ever after. Without
atheris `tests/test_fuzz.py` still runs every target over its seeds.
"""

import sys
from pathlib import Path

# the models and packets of the tests are those of the targets
sys.path.append(str(Path(__file__).parents[1] / "tests"))
