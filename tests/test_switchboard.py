"""Workers, database and control plane joined: what goes where, in which order."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import asynccontextmanager
from uuid import UUID

import pytest
import structlog
from planebench import CALL, LEG, CarrierDouble, NotedWorkers
from pydantic import SecretStr

from pipeline.utc import rfc3339
from strep.config import Settings
from strep.control.forks import CallOverError, DrainingError
from strep.control.ports import PortPair
from strep.front import Front
from strep.pauses import PauseFiles
from strep.store import AmbiguousCallError, Store, StoreError
from strep.switchboard import Switchboard

OTHER = UUID("2dc6fc34-f9e0-11ea-b68e-02420a0f7768")
OPENED = {
    "call_leg_id": str(LEG),
    "leg": "A",
    "direction": "inbound",
    "opened_at": "2026-01-31T12:00:00.000Z",
}
FIGURES = ("duration_s", "packets", "lost", "late", "duplicate", "jitter_mean_ms")
CLOSED = OPENED | dict.fromkeys(FIGURES, 0) | {
    "ended_at": "2026-01-31T12:01:00.000Z", "reason": "idle", "speech": [], "recording": "a.wav",
}  # fmt: skip
LATER = OPENED | {"opened_at": "2026-01-31T12:02:00.000Z"}


class Team(NotedWorkers):
    """Workers that note what they are told; that of a leg is the last bit of its id."""

    def __init__(self):
        super().__init__()
        self.earlier = {}
        self.open_calls = []

    def place_of(self, call_leg_id):
        return call_leg_id.int & 1

    def remind(self, call_leg_id, earlier):
        self.earlier[call_leg_id] = earlier

    async def calls(self):
        return self.open_calls, []


class Rig:
    def __init__(self, folder, **settings):
        self.team = Team()
        self.settings = Settings(recordings=folder, **settings)
        self.board = Switchboard(self.settings, self.team, SecretStr("KEY"))
        self.front = Front(self.team, self.board, [])

    @asynccontextmanager
    async def running(self):
        try:
            await self.board.open()
            await self.board.start()
            yield self
            await self.board.drain()
            await self.board.stop()
        finally:
            await self.board.close()

    def stored(self):
        with Store(self.settings.database_file, read_only=True) as store:
            return [(track.worker, track.reason) for track in store.tracks(str(LEG))]


def run(scenario, folder, **settings):
    async def main():
        async with Rig(folder, **settings).running() as rig:
            await scenario(rig)

    asyncio.run(main())


def control(port=1, **settings):
    return {
        "allow_unsigned_webhooks": True,
        "base_url": f"http://127.0.0.1:{port}/v2",
        "media_target": "udp:192.0.2.1:9000",
        **settings,
    }


def event(kind, call=CALL, leg=LEG):
    payload = {"call_control_id": call, "call_leg_id": str(leg)}
    data = {"event_type": kind, "id": f"{kind} {leg}", "payload": payload}
    return json.dumps({"data": data | {"occurred_at": rfc3339(time.time_ns())}}).encode()


def test_without_a_database_nothing_is_kept_and_nothing_told(tmp_path):
    async def scenario(rig):
        rig.board.worker_begun(0)
        rig.board.track_opened(OPENED, 0)
        rig.board.track_closed(CLOSED, 0)
        rig.board.worker_died(0)
        assert (rig.board.storage, rig.board.plane, rig.front.webhooks) == (None, None, None)
        assert (rig.team.told, rig.team.earlier) == ([], {})

    run(scenario, tmp_path, database=None)
    assert list(tmp_path.iterdir()) == []


def test_without_a_control_plane_tracks_are_kept(tmp_path):
    async def scenario(rig):
        rig.board.track_opened(OPENED, 0)
        rig.board.track_closed(CLOSED, 0)
        rig.board.track_opened(LATER, 1)
        rig.board.track_opened(LATER | {"direction": "outbound"}, 0)
        rig.board.worker_died(1)
        await rig.board.memory.written()
        assert rig.stored() == [(0, "idle"), (1, "interrupted"), (0, None)]
        assert rig.board.plane is None
        assert rig.front.control is None

    run(scenario, tmp_path)


def test_what_the_last_daemon_left_open_is_interrupted_before_anything_new(tmp_path):
    async def first(rig):
        rig.board.track_opened(OPENED, 0)

    async def second(rig):
        rig.board.track_opened(LATER, 0)
        await rig.board.memory.written()
        assert rig.stored() == [(0, "interrupted"), (0, None)]

    run(first, tmp_path)
    run(second, tmp_path, control=control())


def test_earlier_recordings_are_told_when_a_track_opens_or_closed_too_late(tmp_path):
    async def scenario(rig):
        rig.board.track_opened(OPENED, 0)
        await rig.board._history.settled()
        assert rig.team.earlier == {}
        rig.board.track_opened(LATER, 0)
        await rig.board._history.settled()
        assert rig.team.earlier == {}
        rig.board.track_closed(CLOSED, 0)
        await rig.board._history.settled()
        assert [each["recording"] for each in rig.team.earlier.pop(LEG)["A"]] == ["a.wav"]
        rig.board.track_closed(CLOSED | {"reason": "end"}, 0)
        await rig.board._history.settled()
        assert rig.team.earlier == {}

    run(scenario, tmp_path)


def test_manifest_that_was_written_at_the_end_names_earlier_recordings_all_the_same(tmp_path):
    def manifest(name, **more):
        path = tmp_path / f"{name}.json"
        path.write_text(
            json.dumps({"recordings": [f"{name}.wav"], "tracks": [{"reason": "end"}], **more})
        )
        return {"recording": str(tmp_path / f"{name}.wav"), "manifest": str(path)}

    async def first(rig):
        rig.board.track_opened(OPENED, 0)
        rig.board.track_closed(CLOSED | manifest("a"), 0)

    async def second(rig):
        unfinished = {"recording": "a.wav.part", "started_at": "2026-01-31T12:00:00.000Z"}
        for direction, more in (("inbound", {"earlier": [unfinished]}), ("outbound", {})):
            opened = LATER | {"direction": direction}
            rig.board.track_opened(opened, 0)
            ended = {"ended_at": "2026-01-31T12:03:00.000Z", "reason": "end"}
            rig.board.track_closed(CLOSED | opened | ended | manifest(direction, **more), 0)

    run(first, tmp_path)
    run(second, tmp_path)
    earlier = {
        "recording": "a.wav",
        "started_at": "2026-01-31T12:00:00.000Z",
        "ended_at": "2026-01-31T12:01:00.000Z",
    }
    for name in ("inbound", "outbound"):
        assert json.loads((tmp_path / f"{name}.json").read_text())["earlier"] == [earlier]
    assert "earlier" not in json.loads((tmp_path / "a.json").read_text())


def test_old_calls_are_forgotten_and_open_ones_kept(tmp_path):
    day_ns = 86_400 * 1_000_000_000
    now_ns = 1_769_860_800 * 1_000_000_000  # 2026-01-31T12:00:00Z

    async def scenario(rig):
        rig.board.track_opened(OPENED, 0)
        rig.board.track_opened(OPENED | {"call_leg_id": str(OTHER)}, 0)
        rig.board.track_closed(CLOSED, 0)
        await rig.board.memory.written()
        await rig.board.forget_old_calls(now_ns + 30 * day_ns)
        assert rig.stored() == [(0, "idle")]
        await rig.board.forget_old_calls(now_ns + 31 * day_ns)
        assert rig.stored() == []
        with Store(rig.settings.database_file, read_only=True) as store:
            assert len(store.tracks(str(OTHER))) == 1

    run(scenario, tmp_path, keep_calls_days=30)


def test_all_calls_are_kept_where_nothing_else_is_said(tmp_path):
    async def scenario(rig):
        rig.board.track_opened(OPENED, 0)
        rig.board.track_closed(CLOSED, 0)
        await rig.board.memory.written()
        await rig.board.forget_old_calls(2**62)
        assert rig.stored() == [(0, "idle")]

    run(scenario, tmp_path)


def test_while_it_drains_no_forks_are_taken(tmp_path):
    async def scenario(rig):
        for leg, call in ((LEG, "v3:1"), (OTHER, "v3:2")):
            rig.board.webhooks.receive(event("call.answered", call, leg), None, None, 0)
        await asyncio.sleep(0.01)
        await rig.front.control.start_fork("v3:1")
        assert rig.board.awaits_media
        assert rig.board.take_no_new() == [LEG]
        with pytest.raises(DrainingError, match="the daemon is about to stop"):
            await rig.front.control.start_fork("v3:2")
        assert rig.board.plane.figures().refused == {"draining": 1}
        rig.board.track_opened(OPENED | {"opened_at": rfc3339(time.time_ns())}, 0)
        assert not rig.board.awaits_media

    async def main():
        carrier = CarrierDouble()
        await carrier.start()
        try:
            async with Rig(tmp_path, control=control(carrier.port)).running() as rig:
                await scenario(rig)
        finally:
            await carrier.stop()

    asyncio.run(main())


def test_admission_that_begins_is_told_all_known_legs(tmp_path):
    async def scenario(rig):
        rig.board.webhooks.receive(event("call.answered"), None, None, 0)
        await asyncio.sleep(0.01)
        rig.team.facts.clear()
        same = Settings(recordings=tmp_path, control=control(max_forks=3))
        rig.board.reload(same)
        assert (rig.team.facts, rig.board.plane._driver.settings.max_forks) == ({}, 3)
        rig.board.reload(Settings(recordings=tmp_path, control=control(admission="known")))
        assert set(rig.team.facts) == {LEG}

    run(scenario, tmp_path, control=control())


def test_new_worker_is_told_the_legs_and_ports_that_are_its_own(tmp_path):
    async def scenario(rig):
        board, team = rig.board, rig.team
        for leg, call in ((LEG, "v3:1"), (OTHER, "v3:2")):
            assert board.webhooks.receive(event("call.answered", call, leg), None, None, 0).status
        await asyncio.sleep(0.01)
        assert set(team.facts) == {LEG, OTHER}
        board.plane._driver.ports.open[PortPair(20_000, 20_001)] = LEG
        board.plane._driver.ports.open[PortPair(20_002, 20_003)] = OTHER
        team.facts.clear()
        board.worker_begun(LEG.int & 1)
        assert set(team.facts) == {LEG}
        await asyncio.gather(*board._tasks)
        assert team.told == [("open_ports", (20_000, 20_001))]
        assert team.facts[LEG]["call_control_id"] == "v3:1"
        # ports that somebody took meanwhile are tried until they are free...
        team.taken = {20_002}
        team.told.clear()
        board.worker_begun(OTHER.int & 1)
        await asyncio.sleep(0)
        assert set(team.facts) == {LEG, OTHER}
        assert len(board._tasks) == 1
        team.taken.clear()
        await asyncio.gather(*board._tasks)
        assert team.told[-1] == ("open_ports", (20_002, 20_003))
        # ...unless the fork is over before
        team.taken = {20_002}
        board.worker_begun(OTHER.int & 1)
        await asyncio.sleep(0)
        del board.plane._driver.ports.open[PortPair(20_002, 20_003)]
        await asyncio.gather(*board._tasks)

    assert LEG.int & 1 != OTHER.int & 1
    run(scenario, tmp_path, control=control())


def test_webhooks_that_were_taken_in_are_processed_at_the_end(tmp_path):
    async def scenario(rig):
        answer = rig.board.webhooks.receive(event("call.answered"), None, None, 0)
        assert answer.status == 200
        await rig.board.drain()
        assert set(rig.team.facts) == {LEG}
        assert rig.board.webhooks.receive(event("call.hangup"), None, None, 0).status == 503

    run(scenario, tmp_path, control=control())


def test_database_that_cannot_be_opened_leaves_nothing_running(tmp_path):
    (tmp_path / "strep.db").mkdir()

    async def main():
        rig = Rig(tmp_path, control=control())
        with pytest.raises(StoreError, match="unable to open"):
            async with rig.running():
                pass
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())


def test_forks_go_on_after_a_restart(tmp_path):
    async def main():
        carrier = CarrierDouble()
        await carrier.start()
        settings = {"control": control(carrier.port)}
        try:
            await before_and_after(carrier, settings)
        finally:
            await carrier.stop()

    async def before_and_after(carrier, settings):
        async with Rig(tmp_path, **settings).running() as rig:
            rig.board.webhooks.receive(event("call.answered"), None, None, 0)
            await asyncio.sleep(0.01)
            fork = await rig.front.control.start_fork(CALL)
            rig.board.track_opened(OPENED | {"opened_at": rfc3339(time.time_ns())}, 0)
            assert fork.state == "flowing"
        async with Rig(tmp_path, **settings).running() as rig:
            (again,) = rig.front.control.forks()
            assert (again.id, again.state) == (fork.id, "flowing")
            assert rig.team.facts[LEG]["fork_id"] == str(fork.id)
        assert carrier.names == ["fork_start"]

    asyncio.run(main())


def test_calls_are_searched_and_shown_from_the_database(tmp_path):
    search = dict.fromkeys(("number", "since_ns", "until_ns", "call_leg_id", "after"))

    async def scenario(rig):
        rig.board.track_opened(OPENED, 0)
        page = await rig.front.search_calls(**search, is_open=True, limit=10)
        assert [each.call.call_leg_id for each in page.calls] == [str(LEG)]
        rig.board.track_closed(CLOSED, 0)
        page = await rig.front.search_calls(**search, is_open=True, limit=10)
        assert page.calls == []
        call = await rig.front.call("428c31b6")
        assert call["tracks"][0]["recording"] == "a.wav"
        assert await rig.front.call("ffff") is None

    run(scenario, tmp_path)


def test_without_a_database_open_calls_are_shown(tmp_path):
    search = dict.fromkeys(("number", "since_ns", "until_ns", "call_leg_id", "after"))
    two = [
        {"call_leg_id": str(LEG), "call_control_id": CALL, "worker": 0, "tracks": []},
        {"call_leg_id": "428d0000-0000-4000-8000-000000000000", "worker": 0, "tracks": []},
    ]

    async def scenario(rig):
        rig.team.open_calls = [json.dumps(call) for call in two]
        assert await rig.front.search_calls(**search, is_open=True, limit=10) is None
        assert await rig.front.call("428C31B6") == two[0]
        assert await rig.front.call(CALL) == two[0]
        assert await rig.front.call("ffff") is None
        assert await rig.front.call("") is None
        with pytest.raises(AmbiguousCallError, match="several calls begin with 428"):
            await rig.front.call("428")

    run(scenario, tmp_path, database=None)


def test_pause_is_in_force_and_noted_when_it_is_answered(tmp_path):
    async def scenario(rig):
        rig.board.track_opened(OPENED, 0)
        assert await rig.front.pause("428c31b6", is_paused=True) == {
            "call_leg_id": str(LEG),
            "is_paused": True,
        }
        assert PauseFiles(tmp_path).legs() == {LEG}
        await rig.front.pause(str(LEG), is_paused=False)
        assert PauseFiles(tmp_path).legs() == set()
        assert rig.team.told == [("pause", LEG), ("resume", LEG)]
        assert await rig.front.pause("ffff", is_paused=True) is None
        rig.board.track_closed(CLOSED, 0)
        with pytest.raises(CallOverError, match="is over"):
            await rig.front.pause(str(LEG), is_paused=True)

    run(scenario, tmp_path)


def test_pause_that_cannot_be_noted_is_in_force_and_said(tmp_path):
    async def scenario(rig):
        (tmp_path / ".paused").write_text("no folder")
        rig.board.track_opened(OPENED, 0)
        with structlog.testing.capture_logs() as lines:
            await rig.front.pause(str(LEG), is_paused=True)
        assert rig.team.told == [("pause", LEG)]
        assert [line["log_level"] for line in lines] == ["warning"]

    run(scenario, tmp_path)
