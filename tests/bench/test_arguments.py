"""What the commands of bench, fuzz and faults say to a count, a time or a rate without sense."""

from __future__ import annotations

import subprocess
import sys
from argparse import ArgumentTypeError
from pathlib import Path

import pytest

from bench.arguments import between

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("text", ["0.1", "1", "7.25", "10", "1e1"])
def test_a_number_of_the_range_is_read(text):
    assert between(0.1, 10.0)(text) == float(text)


@pytest.mark.parametrize("text", ["1", "10"])
def test_a_whole_number_of_the_range_is_read(text):
    value = between(1, 10)(text)
    assert value == int(text)
    assert isinstance(value, int)


@pytest.mark.parametrize(
    "text", ["-1", "0", "0.09", "10.1", "nan", "inf", "-inf", "1e999", "", "x"]
)
def test_no_other_number_is_read(text):
    with pytest.raises(ArgumentTypeError) as refusal:
        between(0.1, 10.0)(text)
    assert str(refusal.value) == f"'{text}' is not a number from 0.1 to 10"


@pytest.mark.parametrize("text", ["-1", "0", "1.5", "1001", "nan", "inf", "1e2", "", "x"])
def test_no_other_whole_number_is_read(text):
    with pytest.raises(ArgumentTypeError) as refusal:
        between(1, 1000)(text)
    assert str(refusal.value) == f"'{text}' is not a whole number from 1 to 1,000"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("bench vad --seconds -1", "argument --seconds: '-1' is not a number from 0.1 to 86,400"),
        ("bench vad --seconds 0", "argument --seconds: '0' is not a number from 0.1 to 86,400"),
        ("bench vad --seconds nan", "argument --seconds: 'nan' is not a number from 0.1 to 86,400"),
        ("bench vad --seconds inf", "argument --seconds: 'inf' is not a number from 0.1 to 86,400"),
        ("bench vad --rounds 0", "argument --rounds: '0' is not a whole number from 1 to 1,000"),
        ("bench vad --rounds -1", "argument --rounds: '-1' is not a whole number from 1 to 1,000"),
        ("bench.churn --minutes -1",
         "argument --minutes: '-1' is not a whole number from 1 to 10,080"),
        ("bench.load --to 127.0.0.1:9 --tracks 1 --seconds nan",
         "argument --seconds: 'nan' is not a number from 0.001 to 86,400"),
        ("fuzz --seconds 0", "argument --seconds: '0' is not a number from 1 to 604,800"),
        ("fuzz.flood 0", "argument NUMBER: '0' is not a whole number from 1 to 1,000,000,000"),
        ("fuzz.flood --seed -1",
         "argument --seed: '-1' is not a whole number from 0 to 4,294,967,295"),
        ("faults stall --times 0",
         "argument --times: '0' is not a whole number from 1 to 1,000,000,000"),
        ("faults.flood --to 127.0.0.1:9 --kind legs --rate 0",
         "argument --rate: '0' is not a number from 1 to 10,000,000"),
        ("faults.flood --to 127.0.0.1:9 --kind legs --hosts -1",
         "argument --hosts: '-1' is not a whole number from 1 to 65,536"),
        ("faults.flood --to nowhere --kind legs",
         "'nowhere' is not HOST:PORT (such as 0.0.0.0:9000 or [::1]:9000, ports 0 to 65535)"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line(command, message):
    module, *words = command.split()
    done = subprocess.run(
        [sys.executable, "-m", module, *words], cwd=ROOT, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    program = f"python -m {module}"
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"{program}: error: {message} (see {program} --help)\n"
