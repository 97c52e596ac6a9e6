from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading

import pytest

from strep.storage import Storage
from strep.store import StoreError


def test_everything_is_done_in_one_thread_in_order_and_not_on_the_loop(tmp_path):
    done = []

    def work(number):
        done.append((number, threading.get_ident()))
        return number

    async def main():
        storage = await Storage.open(tmp_path / "strep.db")
        results = await asyncio.gather(*(storage.execute(lambda n=n: work(n)) for n in range(5)))
        assert results == [0, 1, 2, 3, 4]
        # what was asked for before is done before the database is closed
        last = asyncio.ensure_future(storage.execute(storage.store.unsettled_forks))
        await asyncio.sleep(0)
        await storage.close()
        assert await last == []

    asyncio.run(main())
    assert [number for number, _ in done] == [0, 1, 2, 3, 4]
    (thread,) = {thread for _, thread in done}
    assert thread != threading.get_ident()
    assert not [each for each in threading.enumerate() if each.name.startswith("store")]


def test_what_goes_wrong_reaches_who_asked_and_the_next_is_done(tmp_path):
    def fail():
        raise StoreError("the disk is full")

    async def main():
        storage = await Storage.open(tmp_path / "strep.db")
        with pytest.raises(StoreError, match="the disk is full"):
            await storage.execute(fail)
        assert await storage.execute(lambda: 3) == 3
        await storage.close()

    asyncio.run(main())


def test_database_that_cannot_be_opened_leaves_no_thread(tmp_path):
    (tmp_path / "strep.db").mkdir()
    threads = threading.active_count()

    async def main():
        with pytest.raises(StoreError, match="unable to open database file"):
            await Storage.open(tmp_path / "strep.db")

    asyncio.run(main())
    assert threading.active_count() == threads


def test_database_is_one_daemons(tmp_path):
    async def main():
        storage = await Storage.open(tmp_path / "strep.db")
        (tmp_path / "link.db").symlink_to(tmp_path / "strep.db")
        for name in ("strep.db", "link.db"):
            with pytest.raises(StoreError) as error:
                await Storage.open(tmp_path / name)
            assert str(error.value) == (
                f"{tmp_path / name}: is in use by another daemon, process {os.getpid()}: each needs"
                " a database of its own"
            )
        await storage.close()
        await (await Storage.open(tmp_path / "strep.db")).close()

    asyncio.run(main())


def test_killed_daemon_leaves_no_lock(tmp_path):
    killed = """
import asyncio, os, pathlib, sys
from strep.storage import Storage
async def main():
    await Storage.open(pathlib.Path(sys.argv[1]))
    os.kill(os.getpid(), 9)
asyncio.run(main())
"""
    path = tmp_path / "strep.db"
    assert subprocess.run([sys.executable, "-c", killed, path], check=False).returncode == -9
    assert (tmp_path / "strep.db.lock").read_text().strip().isdecimal()

    async def main():
        await (await Storage.open(path)).close()

    asyncio.run(main())


def test_database_that_failed_to_open_is_not_locked(tmp_path):
    path = tmp_path / "strep.db"
    path.write_bytes(b"no database at all, but a text of some length" * 20)

    async def main():
        for _ in range(2):
            with pytest.raises(StoreError, match="is not a database"):
                await Storage.open(path)

    asyncio.run(main())
