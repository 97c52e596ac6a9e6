"""The two ways of the hot loops, compiled and in NumPy; and how long hypothesis looks."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

import strep_kernel

# Half of the usual examples, so that all tests take minutes; the fuzz targets look for longer, and
# so does HYPOTHESIS_PROFILE=thorough.
settings.register_profile("quick", max_examples=50)
settings.register_profile("thorough", max_examples=1000)
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
