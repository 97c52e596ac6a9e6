"""The two ways of the hot loops: compiled, and in NumPy."""

from __future__ import annotations

import pytest

import strep_kernel


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
