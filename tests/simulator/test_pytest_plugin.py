"""The fixture as its users have it: a pytest run of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs" / "simulator.md"
PLUGIN = "strep.simulator.pytest_plugin"


OTHER = """
import sys
IMPORTED = set(sys.modules)  # before the other files are collected

def test_nothing_was_imported_for_this_test():
    assert not {"numpy", "aiohttp", "pydantic", "strep.simulator.local"} & IMPORTED
"""
BESIDE = """
import pytest

@pytest.mark.strep_carrier(network={"trace": "trace.csv"}, seed=3)
def test_file_beside_the_test_is_found(strep_carrier):
    assert strep_carrier.calls() == []

@pytest.mark.strep_carrier(sed=3)
def test_wrong_settings_are_an_error(strep_carrier):
    pass
"""


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """What pytest says of such tests, with the plugin as its entry point would load it."""
    folder = tmp_path_factory.mktemp("user")
    (example,) = re.findall(r"```python\n(# test_.*?)```", DOCS.read_text(), re.DOTALL)
    (folder / "trace.csv").write_text("relative_delay_ms\n1\n")
    (folder / "test_1_other.py").write_text(OTHER)
    (folder / "test_2_beside.py").write_text(BESIDE)
    (folder / "test_3_example.py").write_text(example)
    environment = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-v", "-p", PLUGIN, "-W", "error", "--strict-markers",
         "-p", "no:cacheprovider"],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return run.stdout + run.stderr


@pytest.mark.parametrize(
    ("test", "verdict"),
    [
        ("test_1_other.py::test_nothing_was_imported_for_this_test", "PASSED"),
        ("test_2_beside.py::test_file_beside_the_test_is_found", "PASSED"),
        ("test_2_beside.py::test_wrong_settings_are_an_error", "ERROR"),
        ("test_3_example.py::test_my_application", "PASSED"),
    ],
)
def test_fixture_as_its_users_have_it(outcome, test, verdict):
    assert f"{test} {verdict}" in outcome, outcome


def test_wrong_settings_are_named(outcome):
    assert "ConfigError: unknown key 'sed'; did you mean seed?" in outcome
