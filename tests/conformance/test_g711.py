"""G.711 decoding against tables on which other programs, the ITU's own among them, agree.

They are part of the material that does not ship with the project: `$STREP_MATERIAL`, by default
`../shared/data` beside the project's folder.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from pipeline.codecs import PCMA, PCMU

PROJECT = Path(__file__).parents[2]
MATERIAL = Path(os.environ.get("STREP_MATERIAL") or PROJECT.parent / "shared" / "data")


@pytest.mark.parametrize(
    ("codec", "name"), [(PCMU, "ulaw-decode-s16le.bin"), (PCMA, "alaw-decode-s16le.bin")]
)
def test_all_codes_decode_as_the_reference_says(codec, name):
    reference = MATERIAL / "g711" / name
    if not reference.is_file():
        pytest.skip(f"{reference} is not there: set STREP_MATERIAL to the folder of the material")
    expected = np.frombuffer(reference.read_bytes(), "<i2")
    assert len(expected) == 256
    codes = np.arange(256, dtype=np.uint8)
    for shape in ((1, 256), (256, 1)):
        out = np.empty(shape, np.int16)
        codec.decode(codes.reshape(shape), out)
        assert out.reshape(-1).tolist() == expected.tolist()
