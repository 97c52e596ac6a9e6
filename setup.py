"""The compiled kernel, which is left out where it cannot be built; all else is in pyproject.toml.

STREP_PURE=1 leaves it out on purpose.
"""

import os

from setuptools import Extension, setup

KERNEL = Extension(
    "strep_kernel._kernel",
    sources=[
        f"strep_kernel/{name}.c" for name in ("module", "receive", "packets", "audio", "tones")
    ],
    depends=["strep_kernel/kernel.h"],
    # no fused multiply-add: the figures are those of NumPy to the last bit
    extra_compile_args=["-O3", "-ffp-contract=off", "-fvisibility=hidden"],
    define_macros=[("Py_LIMITED_API", "0x030B0000")],
    py_limited_api=True,
    optional=True,
)

setup(ext_modules=[] if os.environ.get("STREP_PURE") else [KERNEL])
