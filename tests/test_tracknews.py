from __future__ import annotations

import asyncio
import json
import threading
from uuid import UUID

import pytest
from recorder import Recorder
from structlog.testing import capture_logs

from strep import tracknews
from strep.store import StoredTrack
from strep.tracknews import TrackNews, closed_entry, opened_entry

CALL = UUID("428c31b6-7af4-4bcb-b7f5-5013ef9657c1")


@pytest.fixture
def closed(tmp_path):
    """A track that was closed, its summary, and the results of its sinks."""
    recorder = Recorder(tmp_path)
    recorder.receive(CALL, "inbound", at_ms=1250, packets=20)
    recorder.receiver.stop()
    return recorder.closed[0]


def test_entry_of_a_new_track_says_whose_it_is_and_where_it_comes_from(closed):
    track, _, _ = closed
    assert json.loads(opened_entry(track)) == {
        "call_leg_id": str(CALL),
        "leg": "A",
        "direction": "inbound",
        "opened_at": "2026-01-01T00:00:01.250Z",
        "source": "[::]:0",
        "destination": "[::]:0",
        "ssrc": "0x00000001",
    }


def test_entry_of_a_closed_track_is_what_the_store_takes(closed, tmp_path):
    opened = StoredTrack.of(json.loads(opened_entry(closed[0])), 0)
    track = StoredTrack.of(json.loads(closed_entry(*closed)), 0)
    assert track.opened_ns == opened.opened_ns
    assert (track.reason, track.packets, track.duration_s) == ("end", 20, 0.4)
    assert track.recording == str(tmp_path / f"20260101T000001Z-{CALL}-a.wav")
    assert track.manifest == str(tmp_path / f"20260101T000001Z-{CALL}-a.json")


@pytest.mark.parametrize("result", [{"tones": {1, 2}}, {"tones": "x" * 2**20}])
def test_result_that_is_no_json_or_endless_is_left_out(closed, result, tmp_path):
    track, summary, results = closed
    entry = json.loads(closed_entry(track, summary, {**results, "tones": result}))
    assert "tones" not in entry
    assert entry["packets"] == 20
    assert entry["recording"] == str(tmp_path / f"20260101T000001Z-{CALL}-a.wav")
    assert entry["speech"] == []
    StoredTrack.of(entry, 0)


def test_news_reach_the_loop_in_order_from_all_threads():
    told = []

    async def main():
        here = threading.get_ident()
        news = TrackNews(lambda what, entry: told.append((what, entry, threading.get_ident())))
        news.start()
        news.put("opened", "1")
        thread = threading.Thread(target=lambda: [news.put("closed", str(i)) for i in range(100)])
        thread.start()
        thread.join()
        assert told == []
        await asyncio.sleep(0)
        assert told == [("opened", "1", here)] + [("closed", str(i), here) for i in range(100)]
        # and again, after the loop has looked
        news.put("opened", "2")
        await asyncio.sleep(0)
        assert told[-1] == ("opened", "2", here)

    asyncio.run(main())


def test_what_waits_can_be_delivered_before_the_loop_looks():
    told = []

    async def main():
        news = TrackNews(lambda what, entry: told.append((what, entry)))
        news.start()
        news.put("closed", "1")
        news.deliver()
        assert told == [("closed", "1")]
        await asyncio.sleep(0)

    asyncio.run(main())
    assert told == [("closed", "1")]


def test_news_that_wait_are_bounded_and_those_beyond_counted(monkeypatch):
    monkeypatch.setattr(tracknews, "MAX_WAITING", 3)
    told = []

    async def main():
        news = TrackNews(lambda _, entry: told.append(entry))
        news.start()
        for number in range(5):
            news.put("opened", str(number))
        assert news.dropped == 2
        await asyncio.sleep(0)

    asyncio.run(main())
    assert told == ["0", "1", "2"]


def test_news_that_cannot_be_taken_in_are_logged_and_the_next_ones_told():
    told = []

    def tell(_, entry):
        if entry == "0":
            raise LookupError(entry)
        told.append(entry)

    async def main():
        news = TrackNews(tell)
        news.start()
        news.put("opened", "0")
        news.put("opened", "1")
        await asyncio.sleep(0)

    with capture_logs() as lines:
        asyncio.run(main())
    assert told == ["1"]
    assert [line["event"] for line in lines] == ["news of a track could not be taken in"]
