"""Earlier recordings: what is told of them, and what is found after a death."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from uuid import UUID

from packetmaker import MS
from recorder import T0_NS, Recorder
from structlog.testing import capture_logs

from strep import history as module
from strep.control.memory import Memory
from strep.history import History
from strep.storage import Storage
from strep.store import INTERRUPTED, StoredCall, StoredTrack, StoreError

CALL = UUID("428c31b6-7af4-4bcb-b7f5-5013ef9657c1")
OTHER = UUID("2dc6fc34-f9e0-11ea-b68e-02420a0f7768")
TRACK = {"leg": "A", "direction": "inbound", "worker": 0, "reason": INTERRUPTED}
NAME = f"20260101T0000{{:02}}Z-{CALL}-a"


class Rig:
    def __init__(self, folder, storage):
        self.folder = folder
        self.storage = storage
        self.memory = Memory(storage.store, storage.execute)
        self.told = []
        self.history = History(storage, self.memory, [folder], lambda *what: self.told.append(what))

    def track(self, direction="inbound", *, at_s, leg="A", call=CALL, **closed):
        self.memory.add_track(
            StoredTrack(
                call_leg_id=str(call),
                leg=leg,
                direction=direction,
                opened_ns=T0_NS + at_s * 1000 * MS,
                worker=0,
                **closed,
            )
        )

    async def look_up(self, *legs):
        for leg in legs:
            self.history.look_up(leg)
        await self.history.settled()
        return self.told


def run(folder, scenario):
    @asynccontextmanager
    async def opened():
        storage = await Storage.open(folder / "strep.db")
        try:
            yield Rig(folder, storage)
        finally:
            await storage.close()

    async def main():
        async with opened() as rig:
            await scenario(rig)

    asyncio.run(main())


def test_recordings_are_told_by_leg_each_with_all_of_its_tracks(tmp_path):
    async def scenario(rig):
        closed = {"reason": "idle", "recording": "r/one.wav"}
        rig.track(at_s=0, ended_ns=T0_NS + 2_000 * MS, **closed)
        rig.track("outbound", at_s=1, ended_ns=T0_NS + 3_000 * MS, **closed)
        rig.track(at_s=0, leg="B", reason="idle", recording="r/b.wav", ended_ns=T0_NS)
        rig.track(at_s=5, reason=INTERRUPTED, recording="r/two.wav.part")
        rig.track(at_s=7, reason=INTERRUPTED)  # of which nothing is left
        rig.track(at_s=9)
        assert await rig.look_up(CALL) == [
            (
                CALL,
                {
                    "A": [
                        {
                            "recording": "r/one.wav",
                            "started_at": "2026-01-01T00:00:00.000Z",
                            "ended_at": "2026-01-01T00:00:03.000Z",
                        },
                        {
                            "recording": "r/two.wav.part",
                            "started_at": "2026-01-01T00:00:05.000Z",
                            "ended_at": None,
                        },
                    ],
                    "B": [
                        {
                            "recording": "r/b.wav",
                            "started_at": "2026-01-01T00:00:00.000Z",
                            "ended_at": "2026-01-01T00:00:00.000Z",
                        }
                    ],
                },
            )
        ]

    run(tmp_path, scenario)


def test_nothing_is_told_of_a_leg_that_was_not_recorded_before(tmp_path):
    async def scenario(rig):
        rig.track(at_s=0)
        rig.track(at_s=0, call=OTHER, reason="idle", recording="other.wav", ended_ns=T0_NS)
        assert await rig.look_up(CALL) == []
        assert [leg for leg, _ in await rig.look_up(CALL, OTHER)] == [OTHER]

    run(tmp_path, scenario)


def test_only_the_latest_recordings_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST_EARLIER", 2)

    async def scenario(rig):
        for at_s in range(5):
            rig.track(at_s=at_s, reason="idle", recording=f"{at_s}.wav", ended_ns=T0_NS)
        ((_, earlier),) = await rig.look_up(CALL)
        assert [each["recording"] for each in earlier["A"]] == ["3.wav", "4.wav"]

    run(tmp_path, scenario)


def test_recording_of_a_dead_worker_is_found_before_it_is_asked_for(tmp_path):
    async def scenario(rig):
        Recorder(tmp_path).receive(CALL, "inbound", at_ms=1000)
        opened = {
            "call_leg_id": str(CALL),
            "leg": "A",
            "direction": "inbound",
            "opened_at": "2026-01-01T00:00:01.000Z",
        }
        rig.memory.keep_track(opened, 0)
        # as the switchboard hears it: the death, and at once the successor's track
        rig.history.interrupted(rig.memory.interrupt_tracks(0))
        ((_, earlier),) = await rig.look_up(CALL)
        part = str(tmp_path / f"{NAME.format(1)}.wav.part")
        assert [each["recording"] for each in earlier["A"]] == [part]
        (track,) = rig.storage.store.tracks(str(CALL))
        assert (track.recording, track.reason) == (part, "interrupted")

    run(tmp_path, scenario)


def test_manifest_of_a_dead_worker_says_whose_call_it_was(tmp_path):
    manifest, broken, gone = (tmp_path / f"{name}.json" for name in ("told", "broken", "gone"))
    manifest.write_text('{"tracks": [{}]}')
    broken.write_text("no JSON")

    async def scenario(rig):
        rig.memory.add_track(StoredTrack(call_leg_id=str(OTHER), opened_ns=T0_NS, **TRACK))
        call = StoredCall(call_leg_id=str(CALL), started_ns=T0_NS, call_control_id="v3:1")
        await rig.storage.execute(lambda: rig.storage.store.put_call(call))
        tracks = [
            StoredTrack(call_leg_id=str(leg), opened_ns=T0_NS, manifest=str(path), **TRACK)
            for leg, path in ((CALL, broken), (CALL, gone), (OTHER, gone), (CALL, manifest))
        ]
        with capture_logs() as logs:
            await rig.history.tell_calls(tracks)
            await rig.history.tell_calls(tracks[-1:])  # once more changes nothing
        assert [(log["event"], log["path"]) for log in logs] == [
            ("manifest not completed", str(broken))
        ]

    run(tmp_path, scenario)
    assert json.loads(manifest.read_text()) == {
        "tracks": [{}],
        "call": {
            "call_leg_id": str(CALL),
            "call_control_id": "v3:1",
            "started_at": "2026-01-01T00:00:00.000Z",
        },
    }
    assert not gone.exists()


def test_nothing_was_interrupted_nothing_is_done(tmp_path):
    async def scenario(rig):
        rig.history.interrupted([])
        await rig.history.settled()
        assert rig.told == []

    run(tmp_path, scenario)


def test_legs_that_wait_to_be_looked_up_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_WAITING", 1)

    async def scenario(rig):
        for call in (CALL, OTHER):
            rig.track(at_s=0, call=call, reason="idle", recording="x.wav", ended_ns=T0_NS)
        assert [leg for leg, _ in await rig.look_up(CALL, OTHER)] == [CALL]
        assert len(await rig.look_up(OTHER)) == 2

    run(tmp_path, scenario)


def test_what_cannot_be_looked_up_is_said_and_the_next_is(tmp_path):
    async def scenario(rig):
        rig.track(at_s=0, reason="idle", recording="x.wav", ended_ns=T0_NS)
        tracks = rig.storage.store.tracks

        def fail(_):
            raise StoreError("the disk is gone")

        rig.storage.store.tracks = fail
        with capture_logs() as lines:
            assert await rig.look_up(CALL) == []
        assert [(line["event"], line["error"]) for line in lines] == [
            ("earlier recordings cannot be looked up", "the disk is gone")
        ]
        rig.storage.store.tracks = tracks
        assert len(await rig.look_up(CALL)) == 1

    run(tmp_path, scenario)
