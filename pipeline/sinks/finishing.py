"""Files of recordings are completed, encoded and brought to disk in a thread of their own.

All of that waits for disks, so that the sink's thread must not: a full disk cache would let blocks
pile up behind it. The order is that of a file which is whole under its name or not there: complete
the `.part`, fsync, rename, fsync of the folder. A file to be encoded stays a `.part` beside the one
that it becomes, and is removed when that one is on disk under its name.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
from collections import deque
from concurrent.futures import Future
from enum import Enum, auto
from queue import SimpleQueue
from typing import TYPE_CHECKING, NamedTuple

from pipeline.sinks.encoding import encode
from pipeline.sinks.wavfile import CAN_SYNC_FILE_SYSTEMS

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from pipeline.sinks.encoding import FileFormat
    from pipeline.sinks.wavfile import WavFile

_logger = logging.getLogger("pipeline.wav")

MAX_WAITING_BYTES = 2**30
"""Samples that wait to be encoded, and the tracks that they are of to be told of; what comes beyond
stays WAV. Opus takes some minutes for so much, FLAC seconds."""
ENCODE_AT_STOP_S = 30.0
"""How long files are still encoded at the end; those that are left then stay WAV."""
PROGRESS_S = 5.0
"""How often it is said at the end how many files are left."""
_FOLDER_BATCH = 64
"""Files that share one fsync of their folder."""
_SYNC_BATCH = 16
"""Files that are synced before one that is complete has its turn."""
MANY_FILES = 64
"""Files that, when they are due together, are synced with their whole file system: one commit of
its journal instead of one for each."""
_NICE = 10


class Outcome(NamedTuple):
    """What became of a file."""

    path: Path | None
    """Where it is; None where it is lost."""
    error: str | None = None
    """Why it is lost, or perhaps not whole."""
    not_encoded: str | None = None
    """Why it stayed WAV, where it should not."""


class _Job(NamedTuple):
    file: WavFile
    outcome: Future[Outcome]
    is_encoded: bool


class _Look(Enum):
    """What else the thread is told."""

    SYNC = auto()
    """There are files to be synced."""
    STOP = auto()


class Finisher:
    """Finishes the files of one sink, in the order in which they come.

    `file_format` is what they are encoded to, None for WAV. With `sync` they are on disk, folders
    included, before it is said that they are finished. Where neither is asked for there is no
    thread, and files are finished at once.
    """

    def __init__(self, file_format: FileFormat | None = None, *, sync: bool = False) -> None:
        self.sync_errors = 0
        """How often a file could not be brought to disk while it was written."""
        self.unencoded = 0
        """Files that stayed WAV, because of an error or because too many waited."""
        self._format = file_format
        self._sync = sync
        self._jobs: SimpleQueue[_Job | _Look] = SimpleQueue()
        self._given = [0, 0]
        """Files and their bytes that were given..."""
        self._taken = [0, 0]
        """...and that are finished: each side writes its own numbers."""
        self._unsynced: deque[WavFile] = deque()
        self._stop_by_s: float | None = None
        self._thread: threading.Thread | None = None
        if file_format is not None or sync:
            self._thread = threading.Thread(target=self._run, name="finish-wav", daemon=True)

    @property
    def waiting(self) -> int:
        """How many files wait to be finished."""
        return self._given[0] - self._taken[0]

    def start(self) -> None:
        """Start the thread, where there is one."""
        if self._thread is not None:
            self._thread.start()

    def final_path(self, file: WavFile) -> Path:
        """Return the name that a file is to have when it is finished."""
        return file.path if self._format is None else file.path.with_suffix(self._format.suffix)

    def finish(self, file: WavFile) -> Future[Outcome]:
        """Have a file finished, which is the finisher's from now on."""
        outcome: Future[Outcome] = Future()
        if self._thread is None or not self._thread.is_alive():
            outcome.set_result(self._finish(file, is_encoded=self._format is not None))
            return outcome
        waiting_bytes = self._given[1] - self._taken[1]
        has_room = not self.waiting or waiting_bytes + file.data_bytes <= MAX_WAITING_BYTES
        is_encoded = self._format is not None and has_room
        self._given[0] += 1
        self._given[1] += file.data_bytes
        self._jobs.put(_Job(file, outcome, is_encoded))
        return outcome

    def sync(self, files: Iterable[WavFile]) -> bool:
        """Have what was written to files brought to disk; False while others are still at it."""
        if self._unsynced or self._thread is None or not self._thread.is_alive():
            return False
        self._unsynced.extend(files)
        if self._unsynced:
            self._jobs.put(_Look.SYNC)
        return True

    def hurry(self, within_s: float) -> None:
        """Encode for so long from now on; what is left then stays WAV."""
        self._stop_by_s = time.monotonic() + within_s

    def stop(self) -> None:
        """Finish all files and end the thread; says how many are left while it takes long."""
        if self._thread is None or not self._thread.is_alive():
            return
        self.hurry(ENCODE_AT_STOP_S)
        self._jobs.put(_Look.STOP)
        self._thread.join(PROGRESS_S)
        while self._thread.is_alive():
            _logger.info("recordings are being finished: %d are left", self.waiting)
            self._thread.join(PROGRESS_S)

    # -- in the thread

    def _run(self) -> None:
        let_others_go_first()
        while self._finish_some():
            pass

    def _finish_some(self) -> bool:
        """Wait for files and finish them, at most as many as share a sync of their folders.

        False at the end. By itself, so that nothing of them is kept while the thread waits.
        """
        at_once = 1 if self._format is not None else _FOLDER_BATCH
        jobs: list[_Job | _Look] = []
        if not self._unsynced:
            jobs.append(self._jobs.get())
        while len(jobs) < at_once and not self._jobs.empty():
            jobs.append(self._jobs.get())
        self._sync_some()
        finished = [
            (job, self._finish(job.file, is_encoded=job.is_encoded))
            for job in jobs
            if isinstance(job, _Job)
        ]
        if self._sync:
            self.sync_folders({done.path.parent for _, done in finished if done.path})
        for job, done in finished:
            self._taken[0] += 1
            self._taken[1] += job.file.data_bytes
            job.outcome.set_result(done)
        return _Look.STOP not in jobs

    def _finish(self, file: WavFile, *, is_encoded: bool) -> Outcome:
        """Complete a file and give it its name; raises nothing."""
        try:
            return self._finish_open(file, is_encoded=is_encoded)
        except Exception as raised:
            # a defect: the thread goes on, for all other files
            _logger.exception("recording %s could not be finished", file.path)
            return Outcome(None, repr(raised))
        finally:
            with contextlib.suppress(OSError):
                file.close()  # only now: until then it is locked

    def _finish_open(self, file: WavFile, *, is_encoded: bool) -> Outcome:
        error: str | None = None
        not_encoded: str | None = None
        try:
            file.complete(sync=self._sync)
        except OSError as raised:  # what was written may still be there
            error = _reason(file, raised)
        if self._format is not None:
            not_encoded = "too many recordings waited to be encoded"
            if is_encoded:
                try:
                    return Outcome(self._encode(file, self._format), error)
                except OSError as raised:
                    not_encoded = raised.strerror or str(raised)
                except Exception as raised:
                    # a defect, of ours or the coder's: the thread goes on, for all other files
                    _logger.exception("recording %s could not be encoded", file.path)
                    not_encoded = repr(raised)
            self.unencoded += 1
            _logger.error("recording %s stays WAV: %s", file.path, not_encoded)
        try:
            try:
                file.part.rename(file.path)
            except FileNotFoundError:  # the folder, or the part, was removed: the open file is left
                file.path.parent.mkdir(parents=True, exist_ok=True)
                file.copy(file.part)
                file.part.rename(file.path)
        except OSError as raised:
            return Outcome(None, _reason(file, raised), not_encoded)
        return Outcome(file.path, error, not_encoded)

    def _encode(self, file: WavFile, file_format: FileFormat) -> Path:
        """Return the path of the encoded file. Raises OSError; the WAV file is as it was then."""
        path = self.final_path(file)
        part = path.with_name(path.name + ".part")
        try:
            for _ in encode(file.part, part, file_format):
                self._sync_some()
                self._check_time()
            part.rename(path)
        except BaseException:
            with contextlib.suppress(OSError):
                part.unlink()
            raise
        if self._sync:
            self.sync_folders({path.parent})
        with contextlib.suppress(OSError):
            file.part.unlink()
        return path

    def _check_time(self) -> None:
        """Raise OSError where the end does not wait for this file any more."""
        if self._stop_by_s is not None and time.monotonic() > self._stop_by_s:
            raise OSError("the end came first")

    def _sync_some(self) -> None:
        """Bring to disk some of what was asked for; a file that is closed will be there anyway."""
        if CAN_SYNC_FILE_SYSTEMS and len(self._unsynced) >= MANY_FILES:
            self._sync_file_systems()
        for _ in range(min(_SYNC_BATCH, len(self._unsynced))):
            file = self._unsynced[0]
            try:
                file.sync()
            except OSError as error:
                self.sync_errors += 1
                _reason(file, error)
            self._unsynced.popleft()

    def _sync_file_systems(self) -> None:
        """Bring to disk the file systems that all the files are on; in vain, leave them be."""
        try:
            one_of = {file.device: file for file in self._unsynced if not file.is_closed}
            for file in one_of.values():
                file.sync_file_system()
        except OSError as error:
            _logger.debug("file systems cannot be synced, files are instead: %s", error)
        else:
            self._unsynced.clear()

    def sync_folders(self, folders: Iterable[Path]) -> None:
        """Bring to disk what was renamed in folders."""
        for folder in folders:
            with contextlib.suppress(OSError):  # some file systems sync no folders
                fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)


def let_others_go_first() -> None:
    """Lower the priority of this thread, where a thread has one of its own."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)


def _reason(file: WavFile, error: OSError) -> str:
    """Log an error and return it in words."""
    _logger.error("recording %s: %s", file.path, error)
    return error.strerror or str(error)
