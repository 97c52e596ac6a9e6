"""One WAV file, written at any position while it grows.

The header has one fixed layout of 94 bytes, whatever the samples are:

    RIFF size WAVE | JUNK 28 ... | fmt 18 ... | fact 4 frames | data size | samples

A file that passes RIFF's 4 GiB becomes RF64 (EBU Tech 3306) in place: `RIFF` turns into `RF64`
and `JUNK` into `ds64`, which holds the 64-bit sizes. So a recording is one file however long the
call, and a file below the limit is plain RIFF for every reader.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import resource
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_HEADER = struct.Struct("<4sI4s 4sIQQQI 4sIHHIIHHH 4sII 4sI")

RESERVED_FILES = 32
"""Files that recordings do not open of those that the process may: manifests, the database and HTTP
go on when there are too many recordings."""
HEADER_BYTES = _HEADER.size
"""Length of the header, 94; the samples start here."""

_LARGEST = 0xFFFF_FFFF
_FILL_BYTES = 1 << 16
_COPY_BYTES = 1 << 20
_MOST_CHANNELS = 64
_O_TMPFILE: int | None = getattr(os, "O_TMPFILE", None)
_NO_UNNAMED_FILES = {
    *(errno.ENOSYS, errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL),  # system or file system
    *(errno.ENOENT, errno.EXDEV, errno.EPERM),  # no /proc, or not what it is on Linux
}
"""What is said where a file cannot be made without a name, or cannot get one."""
_syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
CAN_SYNC_FILE_SYSTEMS = _syncfs is not None
"""Whether the system can bring a whole file system to disk; Linux can."""


@dataclass(frozen=True)
class SampleFormat:
    """How one sample is stored."""

    tag: int
    """WAVE format tag."""
    dtype: np.dtype[Any]
    silence: int
    """The stored value of a silent sample."""


PCM16 = SampleFormat(tag=1, dtype=np.dtype("<i2"), silence=0)
ALAW = SampleFormat(tag=6, dtype=np.dtype(np.uint8), silence=0xD5)
MULAW = SampleFormat(tag=7, dtype=np.dtype(np.uint8), silence=0xFF)
_FORMATS = {each.tag: each for each in (PCM16, ALAW, MULAW)}


class NotOursError(ValueError):
    """A file is none that this module has written, or its header never reached the disk."""


def header(sample_format: SampleFormat, channels: int, rate_hz: int, frames: int) -> bytes:
    """Return the header of a file of so many frames (one sample of each channel)."""
    sample_bytes = sample_format.dtype.itemsize
    frame_bytes = sample_bytes * channels
    data_bytes = frames * frame_bytes
    riff_bytes = HEADER_BYTES - 8 + data_bytes + data_bytes % 2  # chunks are padded to even length
    is_large = riff_bytes > _LARGEST
    return _HEADER.pack(
        *(b"RF64" if is_large else b"RIFF", min(riff_bytes, _LARGEST), b"WAVE"),
        *(b"ds64" if is_large else b"JUNK", 28, riff_bytes, data_bytes, frames, 0),
        *(b"fmt ", 18, sample_format.tag, channels, rate_hz, rate_hz * frame_bytes),
        *(frame_bytes, 8 * sample_bytes, 0),
        *(b"fact", 4, min(frames, _LARGEST)),
        *(b"data", min(data_bytes, _LARGEST)),
    )


class _Known(NamedTuple):
    """What a header says."""

    sample_format: SampleFormat
    layout: tuple[int, int]
    """Channels and samples per second."""
    frames: int


def _read_header(content: bytes) -> _Known:
    """Return what is in a header that `header` made; raises `NotOursError`."""
    if len(content) == HEADER_BYTES:
        fields = _HEADER.unpack(content)
        frames, tag, channels, rate_hz = fields[7], *fields[11:14]
        sample_format = _FORMATS.get(tag)
        if (
            sample_format is not None
            and 0 < channels <= _MOST_CHANNELS
            and rate_hz > 0
            and _HEADER.unpack(header(sample_format, channels, rate_hz, frames)) == fields
        ):
            return _Known(sample_format, (channels, rate_hz), frames)
    raise NotOursError("it has no header of a recording")


def _lock(fd: int) -> None:
    """Take a file for this process, while it is open; raises BlockingIOError, OSError."""
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _make(path: Path, content: bytes) -> bool:
    """Make a file that has its content by the time it has its name; False where that cannot be.

    So a process that is killed meanwhile leaves no file behind that does not open. Raises OSError,
    FileExistsError where the name is taken.
    """
    if _O_TMPFILE is None:
        return False
    try:
        fd = os.open(path.parent, os.O_WRONLY | _O_TMPFILE, 0o666)
        try:
            if os.write(fd, content) < len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            # only with a descriptor, whichever, does Python have the system follow this link
            os.link(f"/proc/self/fd/{fd}", path, src_dir_fd=fd)
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno in _NO_UNNAMED_FILES:
            return False
        raise
    return True


def _leave_some(fd: int) -> None:
    """Raise OSError where so many files are open that others need what is left."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit != resource.RLIM_INFINITY and fd >= limit - min(RESERVED_FILES, limit // 4):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


class WavFile:
    """A WAV file under the name `path` + `.part`; whoever finishes it renames it to `path`.

    Holds one file descriptor, which `close` or `discard` closes, and with it a lock, by which other
    processes know that the part is not left over from one that died. Every method may raise
    OSError; after one from `write`, the file holds what was written before and can still be
    finished.
    """

    def __init__(
        self, path: Path, sample_format: SampleFormat, channels: int, rate_hz: int
    ) -> None:
        """Create the file; raises FileExistsError where one of that name is or is being made."""
        self.path = path
        self.sample_format = sample_format
        self.channels = channels
        self.rate_hz = rate_hz
        self.frames = 0
        """Length so far: one past the last frame written."""
        self._frame_bytes = sample_format.dtype.itemsize * channels
        # With the part's name taken first, nobody can finish a file of this name after the check.
        part = self.part
        is_made = _make(part, header(sample_format, channels, rate_hz, 0))
        try:
            self._fd = os.open(part, os.O_RDWR | (0 if is_made else os.O_CREAT | os.O_EXCL), 0o666)
        except FileNotFoundError:
            if not is_made:
                raise
            raise FileExistsError(f"{part} was taken for one that was left over") from None
        try:
            _lock(self._fd)
        except BlockingIOError:  # likewise
            self.close()
            raise FileExistsError(f"{part} is locked") from None
        except OSError:
            pass  # a file system without locks: nobody else takes the file there either
        try:
            _leave_some(self._fd)
            if os.fstat(self._fd).st_nlink == 0 or path.exists():
                raise FileExistsError(f"{path} exists, or its part was removed")
            if not is_made:
                self.write_header()
        except OSError:
            self.discard()
            raise

    @classmethod
    def adopt(cls, part: Path) -> Self:
        """Take over a part that a process left behind when it died; an empty one is removed.

        Raises BlockingIOError where a process has it open, FileNotFoundError where it has another
        name by now or was empty, and `NotOursError` where it cannot be told what is in it.
        """
        self = cls.__new__(cls)
        self.path = part.with_name(part.name.removesuffix(".part"))
        self._fd = os.open(part, os.O_RDWR)
        try:
            _lock(self._fd)
            self._check_name()
            on_disk = os.fstat(self._fd).st_size - HEADER_BYTES
            if on_disk == -HEADER_BYTES:
                self.part.unlink()
            self._check_name()
            known = _read_header(os.pread(self._fd, HEADER_BYTES, 0))
            self.sample_format, self.channels, self.rate_hz = known.sample_format, *known.layout
            self._frame_bytes = self.sample_format.dtype.itemsize * self.channels
            told = known.frames * self._frame_bytes
            # a file of an odd length is padded when it is completed
            is_padded = told % 2 == 1 and on_disk == told + 1
            self.frames = (told if is_padded else on_disk) // self._frame_bytes
        except BaseException:
            self.close()
            raise
        return self

    @property
    def part(self) -> Path:
        """Its name until it is finished."""
        return self.path.with_name(self.path.name + ".part")

    @property
    def data_bytes(self) -> int:
        """Bytes of its samples so far."""
        return self.frames * self._frame_bytes

    @property
    def is_closed(self) -> bool:
        """Whether nothing more can be written."""
        return self._fd < 0

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Return the frames from `start` to `stop`, both within `frames`, as (n, channels)."""
        wanted = (stop - start) * self._frame_bytes
        offset = HEADER_BYTES + start * self._frame_bytes
        content = os.pread(self._fd, wanted, offset)
        if len(content) < wanted:
            raise OSError(f"{self.part} was cut to less than what was written to it")
        return np.frombuffer(content, self.sample_format.dtype).reshape(-1, self.channels)

    def write(self, start: int, samples: NDArray[Any]) -> None:
        """Put `samples` (n, channels) at frame `start`.

        What lies between the end of the file so far and `start` becomes silence.
        """
        self.extend(start)
        content = np.ascontiguousarray(samples, self.sample_format.dtype)
        try:
            self._pwrite(content.data.cast("B"), HEADER_BYTES + start * self._frame_bytes)
        except OSError:
            with contextlib.suppress(OSError):  # half a sample may have been written
                os.ftruncate(self._fd, HEADER_BYTES + self.data_bytes)
            raise
        self.frames = max(self.frames, start + len(samples))

    def write_header(self) -> None:
        """Make the header right for `frames`."""
        content = header(self.sample_format, self.channels, self.rate_hz, self.frames)
        self._pwrite(memoryview(content), 0)

    def sync(self) -> None:
        """Have what was written reach the disk; nothing where the file is closed."""
        if self._fd >= 0:
            os.fsync(self._fd)

    def sync_file_system(self) -> None:
        """Have all that was written to its file system reach the disk; an error is of any file."""
        if _syncfs is None:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        if _syncfs(self._fd) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    @property
    def device(self) -> int:
        """The file system that it is on, as `os.stat` numbers them."""
        return os.fstat(self._fd).st_dev

    def complete(self, *, sync: bool = False) -> None:
        """Make header and length right; the file keeps the name of a part, and its lock.

        With `sync`, it is on disk then.
        """
        self.write_header()
        os.ftruncate(self._fd, HEADER_BYTES + self.data_bytes + self.data_bytes % 2)
        if sync:
            self.sync()

    def copy(self, target: Path) -> None:
        """Copy what is in the file, whether or not it has a name still, to another one on disk."""
        fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            offset = 0
            while content := os.pread(self._fd, _COPY_BYTES, offset):
                offset += os.pwrite(fd, content, offset)
            os.fsync(fd)
        except OSError:
            target.unlink(missing_ok=True)
            raise
        finally:
            os.close(fd)

    def discard(self) -> None:
        """Close and remove the file."""
        self.close()
        with contextlib.suppress(FileNotFoundError):
            self.part.unlink()

    def extend(self, frames: int) -> None:
        """Let the file be so many frames long; those that it has not yet are silence."""
        if frames <= self.frames:
            return
        if self.sample_format.silence != 0:  # what is never written reads as zeros
            silence = memoryview(bytes([self.sample_format.silence]) * _FILL_BYTES)
            start = HEADER_BYTES + self.frames * self._frame_bytes
            stop = HEADER_BYTES + frames * self._frame_bytes
            for offset in range(start, stop, _FILL_BYTES):
                self._pwrite(silence[: stop - offset], offset)
        self.frames = frames

    def close(self) -> None:
        """Close the file, which leaves it as it is and lets others have it."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _check_name(self) -> None:
        """Raise FileNotFoundError where the part has another name by now."""
        own, named = os.fstat(self._fd), self.part.stat()
        if (own.st_dev, own.st_ino) != (named.st_dev, named.st_ino):
            raise FileNotFoundError(f"{self.part} was replaced")

    def _pwrite(self, content: memoryview, offset: int) -> None:
        while content:
            count = os.pwrite(self._fd, content, offset)
            content = content[count:]
            offset += count
