"""Which kernel is used, and what is said of one that cannot be."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
from test_layers import ROOT

import strep_kernel


@pytest.mark.parametrize(
    ("compiled", "fault"),
    [
        (SimpleNamespace(), "has version 0, and this code needs 7"),
        (SimpleNamespace(VERSION=6), "has version 6, and this code needs 7"),
        (ImportError("undefined symbol"), r"cannot be loaded \(undefined symbol\)"),
    ],
    ids=["no version", "old", "broken"],
)
def test_kernel_that_does_not_belong_to_this_code_is_left_out_with_a_warning(
    compiled, fault, monkeypatch
):
    def stale(_name):
        if isinstance(compiled, ImportError):
            raise compiled
        return compiled

    monkeypatch.delenv("STREP_KERNEL", raising=False)
    monkeypatch.setattr(strep_kernel, "VERSION", 7)
    monkeypatch.setattr(strep_kernel, "import_module", stale)
    with pytest.warns(RuntimeWarning, match=f"kernel {fault}: .*pip install --editable") as said:
        assert strep_kernel._find() is None
    assert len(said) == 1


def test_no_kernel_is_no_reason_to_warn(monkeypatch):
    def none(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(strep_kernel, "import_module", none)
    assert strep_kernel._find() is None


def test_version_is_that_of_the_c_sources():
    header = (ROOT / "strep_kernel" / "kernel.h").read_text()
    assert re.findall(r"#define KERNEL_VERSION (\d+)", header) == [str(strep_kernel.VERSION)]
