"""One target under atheris: `python -m fuzz.one TARGET CORPUS... [libFuzzer options]`."""

from __future__ import annotations

import sys

import atheris


def main() -> None:
    """Fuzz until libFuzzer ends it; a target that raises ends it at once."""
    with atheris.instrument_imports(include=["strep", "pipeline"]):
        from fuzz.targets import TARGETS  # noqa: PLC0415 -- what is imported here is instrumented
    name = sys.argv.pop(1)
    atheris.Setup(sys.argv, TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
