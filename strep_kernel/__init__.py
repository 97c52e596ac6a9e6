"""The compiled kernel: the hot loops of the path, in C, where a compiler was there to build it.

Every function but `receive_merged` has a twin in Python beside its use, which does the same with
NumPy and which it is tested against; nothing but time depends on which of the two runs. `load`
returns the kernel or None. The environment variable STREP_KERNEL=off leaves it out, and so does a
kernel that was built from other sources than belong to this code: it would fail oddly, or compute
something else.

The functions take `Columns`, which hold arrays, and integers. They keep the interpreter's lock,
those that receive excepted, and trust what they are given: rows and slots are in range, and dtypes
are those that the C source declares.
"""

from __future__ import annotations

import os
import warnings
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["VERSION", "load"]

VERSION = 6
"""Of what the functions take and do; to be raised here and in kernel.h with each change."""


def _find() -> ModuleType | None:
    """Return the compiled kernel, if it belongs to this code; warns of one that does not."""
    if os.environ.get("STREP_KERNEL") == "off":
        return None
    try:
        compiled = import_module("strep_kernel._kernel")
    except ModuleNotFoundError:  # installed without a compiler
        return None
    except ImportError as error:
        fault = f"cannot be loaded ({error})"
    else:
        version = getattr(compiled, "VERSION", 0)
        if version == VERSION:
            return compiled
        fault = f"has version {version}, and this code needs {VERSION}"
    warnings.warn(
        f"the compiled kernel {fault}: NumPy does its work, at half the speed; to build it again,"
        " install strep again (in a checkout: pip install --editable .)",
        RuntimeWarning,
        stacklevel=2,
    )
    return None


_compiled = _find()


def load() -> ModuleType | None:
    """Return the compiled kernel; None where there is none or where it is not wanted."""
    return _compiled
