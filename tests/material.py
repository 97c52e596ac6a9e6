"""Where the captures and oracles lie that are not part of the project."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest

MATERIAL = Path(
    os.environ.get("STREP_MATERIAL", Path(__file__).parents[2] / "shared" / "data")
).resolve()

needs_material = pytest.mark.skipif(
    not MATERIAL.is_dir(), reason="no captures at ../shared/data nor at $STREP_MATERIAL"
)


def table(name: str) -> list[dict[str, str]]:
    """Return the rows of a CSV file of the material, none where there is no material."""
    path = MATERIAL / name
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
