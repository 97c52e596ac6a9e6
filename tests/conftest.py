"""For all tests: the two ways of the hot loops, how long hypothesis looks, logging put back."""

from __future__ import annotations

import logging
import os

import pytest
import structlog
from hypothesis import settings

import strep_kernel

# Half of the usual examples, so that all tests take minutes; the fuzz targets look for longer, and
# so does HYPOTHESIS_PROFILE=thorough. How long an example takes is the doing of the machine.
settings.register_profile("quick", max_examples=50, deadline=None)
settings.register_profile("thorough", max_examples=1000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


@pytest.fixture(scope="module", params=["compiled", "numpy"])
def kernel(request):
    """Hold on the compiled kernel and without it: `pytestmark = usefixtures("kernel")`."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "numpy":
            patch.setattr(strep_kernel, "_compiled", None)
            patch.setenv("STREP_KERNEL", "off")  # for the processes of the tests
        elif strep_kernel.load() is None:
            pytest.skip("needs the compiled kernel: a C compiler at installation")
        yield request.param


@pytest.fixture(autouse=True)
def _logging():
    """Commands that a test runs in its own process set logging up for all of it."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
