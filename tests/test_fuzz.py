"""The fuzz targets over their seeds, and over what fuzzing has found."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("fuzz")
from fuzz.corpus import seeds
from fuzz.targets import TARGETS

FOUND = Path(__file__).parents[1] / "fuzz" / "found"


@pytest.mark.parametrize("target", TARGETS)
def test_seeds_and_their_beginnings_do_no_harm(target):
    for seed in seeds(target):
        for end in {len(seed), len(seed) * 7 // 8}:
            TARGETS[target](seed[:end])


@pytest.mark.parametrize("target", TARGETS)
def test_what_was_found_stays_right(target):
    for path in sorted(FOUND.glob(f"{target}/*")):
        TARGETS[target](path.read_bytes())
