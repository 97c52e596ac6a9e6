"""The compiled kernel: the hot loops of the path, in C, where a compiler was there to build it.

Every function has a twin in Python beside its use, which does the same with NumPy and which it is
tested against; nothing but time depends on which of the two runs. `load` returns the kernel or
None. The environment variable STREP_KERNEL=off leaves it out.

The functions take `Columns`, which hold arrays, and integers. They keep the interpreter's lock,
`receive` excepted, and trust what they are given: rows and slots are in range, and dtypes are those
that the C source declares.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["load"]

try:
    from strep_kernel import _kernel
except ImportError:  # built without a compiler
    _kernel = None  # type: ignore[assignment]


def load() -> ModuleType | None:
    """Return the compiled kernel; None where there is none or where it is not wanted."""
    return None if os.environ.get("STREP_KERNEL") == "off" else _kernel
