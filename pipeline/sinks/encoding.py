"""The file formats of recordings, and how a finished WAV file becomes one of the others.

Recordings are written as WAV, which can be written at any position and opened at any time, and
encoded when they are complete. libsndfile does it, by soundfile.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal, NamedTuple

from pipeline.sinks.base import SinkError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

PIECE_FRAMES = 1 << 14
"""So many frames are encoded in one go: up to a tenth of a second of work."""


class FileFormat(NamedTuple):
    """A format under libsndfile's names."""

    suffix: str
    container: str
    subtype: str
    samples: Literal["int16", "float32"]
    """How samples are handed to libsndfile. Lossy coders take floats; of integers, libsndfile 1.2
    makes an MP3 whose channels leak into each other. FLAC keeps integers to the last bit."""


FORMATS: Mapping[str, FileFormat] = {
    "wav": FileFormat(".wav", "WAV", "PCM_16", "int16"),
    "flac": FileFormat(".flac", "FLAC", "PCM_16", "int16"),
    "ogg": FileFormat(".ogg", "OGG", "OPUS", "float32"),
    "mp3": FileFormat(".mp3", "MP3", "MPEG_LAYER_III", "float32"),
}


def check_format(name: str) -> None:
    """Raise `SinkError` where the installed libsndfile does not write the format."""
    import soundfile  # noqa: PLC0415 -- nobody loads libsndfile for WAV

    wanted = FORMATS[name]
    if not soundfile.check_format(wanted.container, wanted.subtype):
        can = [
            each for each, f in FORMATS.items() if soundfile.check_format(f.container, f.subtype)
        ]
        raise SinkError(
            f"format={name} needs a libsndfile that writes {wanted.container} with"
            f" {wanted.subtype}; version {soundfile.__libsndfile_version__}, which is installed,"
            f" writes {', '.join(can)}"
        )


def encode(source: Path, target: Path, file_format: FileFormat) -> Iterator[None]:
    """Encode a WAV file piece by piece, yielding between them; `target` is on disk at the end.

    A file that is there is replaced. Raises OSError, also where libsndfile fails.
    """
    import soundfile  # noqa: PLC0415 -- as above

    try:
        with (
            soundfile.SoundFile(source) as wav,
            soundfile.SoundFile(
                target,
                "w",
                samplerate=wav.samplerate,
                channels=wav.channels,
                format=file_format.container,
                subtype=file_format.subtype,
            ) as encoded,
        ):
            frames = wav.frames
            while len(piece := wav.read(PIECE_FRAMES, dtype=file_format.samples, always_2d=True)):
                encoded.write(piece)
                yield
        # libsndfile says nothing of what fails when it closes a file
        if (written := soundfile.info(target).frames) != frames:
            raise OSError(f"{written} of {frames} frames were encoded")
    except (soundfile.SoundFileError, AssertionError, TypeError, ValueError) as error:
        raise OSError(f"libsndfile: {error}") from error
    fd = os.open(target, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
