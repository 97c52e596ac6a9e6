"""The daemon's database, used from a thread of its own so that no disk holds up the event loop."""

from __future__ import annotations

import asyncio
import fcntl
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Self, TypeVar

from strep.store import Store, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable
    from io import FileIO
    from pathlib import Path

T = TypeVar("T")


class Storage:
    """A store that is open until `close`; everything is done in one thread, in order."""

    def __init__(self, store: Store, executor: ThreadPoolExecutor, lock: FileIO) -> None:
        """Take over what `open` made."""
        self._lock = lock
        self.store = store
        """To be used in `execute` only."""
        self._executor = executor

    @classmethod
    async def open(cls, path: Path) -> Self:
        """Open the database, and make it where there is none. Raises `StoreError`.

        So it does where another daemon has it open. Not before all processes were forked that will
        be: neither a connection nor a lock outlives a fork.
        """
        executor = ThreadPoolExecutor(1, thread_name_prefix="store")
        run = asyncio.get_running_loop().run_in_executor
        try:
            lock = await run(executor, _lock, path)
            try:
                store = await run(executor, Store, path)
            except BaseException:
                lock.close()
                raise
        except BaseException:
            executor.shutdown()
            raise
        return cls(store, executor, lock)

    async def execute(self, work: Callable[[], T]) -> T:
        """Return what the work returns, when it is done in the store's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    async def close(self) -> None:
        """Close the database, when all that was asked for is done."""
        await self.execute(self.store.close)
        self._executor.shutdown()
        self._lock.close()


def _lock(path: Path) -> FileIO:
    """Return a file that is locked while it is open, so that the database is this daemon's alone.

    It stands beside the database, stays there, and holds the number of the process that has, or
    last had, the lock, which ends with that process however it ends. Raises `StoreError`.
    """
    real = path.resolve()
    try:
        real.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{path}: its folder cannot be made: {error.strerror}") from None
    try:
        file = real.with_name(f"{real.name}.lock").open("ab+", buffering=0)
    except OSError as error:
        raise StoreError(f"{path}: cannot be locked: {error.strerror}") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        owner = file.read(20).decode(errors="replace").strip()
        file.close()
        raise StoreError(
            f"{path}: is in use by another daemon"
            + (f", process {owner}" if owner.isdecimal() else "")
            + ": each needs a database of its own"
        ) from None
    except OSError as error:
        file.close()
        raise StoreError(f"{path}: cannot be locked: {error.strerror}") from None
    file.truncate(0)
    file.write(f"{os.getpid()}\n".encode())
    return file
