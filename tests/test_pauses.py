"""Paused call legs on disk, and on their way from whoever asks to the worker."""

from __future__ import annotations

import asyncio
import os
import time
from uuid import UUID

import pytest
import structlog

from strep import pauses
from strep.pauses import KEPT_S, PauseError, PauseFiles
from strep.workplace import Workplace

LEG, OTHER = UUID(int=1), UUID(int=2)


def test_what_is_paused_is_there_for_who_comes_next(tmp_path):
    assert PauseFiles(tmp_path / "none").legs() == set()
    PauseFiles(tmp_path / "a").put(LEG)
    PauseFiles(tmp_path / "a").put(LEG)
    PauseFiles(tmp_path / "a").put(OTHER)
    assert PauseFiles(tmp_path / "a").legs() == {LEG, OTHER}
    PauseFiles(tmp_path / "a").remove(LEG)
    PauseFiles(tmp_path / "a").remove(LEG)
    assert PauseFiles(tmp_path / "a").legs() == {OTHER}


def test_pause_that_nobody_ends_is_over_after_a_day(tmp_path):
    files = PauseFiles(tmp_path)
    files.put(LEG)
    files.put(OTHER)
    long_ago = time.time() - KEPT_S - 10
    os.utime(tmp_path / ".paused" / str(LEG), (long_ago, long_ago))
    assert files.legs() == {OTHER}
    assert [path.name for path in (tmp_path / ".paused").iterdir()] == [str(OTHER)]


def test_file_of_another_name_is_left_alone(tmp_path):
    (tmp_path / ".paused").mkdir()
    (tmp_path / ".paused" / "notes").touch()
    assert PauseFiles(tmp_path).legs() == set()
    assert (tmp_path / ".paused" / "notes").exists()


def test_no_more_are_paused_than_can_be(tmp_path, monkeypatch):
    monkeypatch.setattr(pauses, "MAX_PAUSED", 1)
    files = PauseFiles(tmp_path)
    files.put(LEG)
    files.put(LEG)
    with pytest.raises(PauseError, match="1 call legs are paused already"):
        files.put(OTHER)


def test_worker_that_does_not_answer_in_time_is_told_of(monkeypatch):
    monkeypatch.setattr("strep.workplace.PAUSE_WITHIN_S", 0.01)

    async def main():
        place = Workplace(3, nursery=None)
        with pytest.raises(PauseError, match="worker 3, which receives it, does not answer"):
            await place.pause(LEG, is_paused=True)
        place._is_up.set()
        with pytest.raises(PauseError):
            await place.pause(LEG, is_paused=True)

    asyncio.run(main())


def test_all_who_ask_for_the_same_are_answered_at_once():
    async def main():
        place = Workplace(3, nursery=None)
        place._is_up.set()
        asked = [asyncio.create_task(place.pause(LEG, is_paused=True)) for _ in range(2)]
        await asyncio.sleep(0)
        assert len(place._pauses) == 1
        place._hear({"paused": str(LEG), "is_paused": True})
        await asyncio.gather(*asked)
        # who comes after a worker that died reads what is paused
        again = asyncio.create_task(place.pause(LEG, is_paused=False))
        await asyncio.sleep(0)
        place._bury()
        await again
        assert place._pauses == {}

    with structlog.testing.capture_logs():
        asyncio.run(main())
