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
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["load"]

_compiled: ModuleType | None = None
if os.environ.get("STREP_KERNEL") != "off":
    with suppress(ImportError):  # built without a compiler
        _compiled = import_module("strep_kernel._kernel")


def load() -> ModuleType | None:
    """Return the compiled kernel; None where there is none or where it is not wanted."""
    return _compiled
