"""The daemon's database, used from a thread of its own so that no disk holds up the event loop."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Self, TypeVar

from strep.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

T = TypeVar("T")


class Storage:
    """A store that is open until `close`; everything is done in one thread, in order."""

    def __init__(self, store: Store, executor: ThreadPoolExecutor) -> None:
        """Take over what `open` made."""
        self.store = store
        """To be used in `execute` only."""
        self._executor = executor

    @classmethod
    async def open(cls, path: Path) -> Self:
        """Open the database, and make it where there is none. Raises `StoreError`.

        Not before all processes were forked that will be: a connection does not outlive a fork.
        """
        executor = ThreadPoolExecutor(1, thread_name_prefix="store")
        try:
            store = await asyncio.get_running_loop().run_in_executor(executor, Store, path)
        except BaseException:
            executor.shutdown()
            raise
        return cls(store, executor)

    async def execute(self, work: Callable[[], T]) -> T:
        """Return what the work returns, when it is done in the store's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    async def close(self) -> None:
        """Close the database, when all that was asked for is done."""
        await self.execute(self.store.close)
        self._executor.shutdown()
