from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest
from planebench import T0, FailingStore, S

from strep.control import memory as module
from strep.control.calls import Call
from strep.control.forks import Change, Fork
from strep.control.memory import Memory
from strep.control.ports import PortPair
from strep.store import Store

LEG = UUID("428c31b6-7af4-4bcb-b7f5-5013ef9657c1")
FORK = UUID("0ccc7b54-4df3-4bca-a65a-3da1ecc777f0")
OPENED = {
    "call_leg_id": str(LEG),
    "leg": "A",
    "direction": "inbound",
    "opened_at": "2023-11-14T22:13:20.000Z",
}


def make_call(**what):
    given = {
        "call_control_id": "v3:1",
        "call_leg_id": LEG,
        "call_session_id": "session",
        "connection_id": "7267",
        "from_": "+35319605860",
        "to": "+18005550100",
        "direction": "incoming",
        "client_state": "YWJj",
        "codecs": "OPUS,PCMU",
        "state": "answered",
        "started_ns": T0,
        "answered_ns": T0 + S,
        "heard_ns": T0 + 9 * S,
    }
    return Call(**given | what)


def make_fork(*changes, **what):
    given = {"id": FORK, "call_control_id": "v3:1", "call_leg_id": LEG, "way": "target"}
    return Fork(**given | {"changes": [Change("requested", "asked", T0), *changes]} | what)


def run(folder, scenario):
    """Run a scenario, a coroutine function of a memory and of its store."""

    async def main():
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1) as executor, Store(folder / "calls.db") as store:
            failing = FailingStore(store)
            memory = Memory(failing, lambda work: loop.run_in_executor(executor, work))
            await scenario(memory, failing)

    asyncio.run(main())


def test_calls_come_back_as_they_were(tmp_path):
    async def scenario(memory, _):
        memory.keep_call(make_call())
        assert await memory.written()
        ((call,), forks) = await memory.load(T0 + 60 * S, 10 * S)
        assert call.heard_ns == T0 + 60 * S
        call.heard_ns = T0 + 9 * S
        assert call.facts() == make_call().facts()
        assert forks == []

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    "fork",
    [
        make_fork(),
        make_fork(changes=[Change("requested", "rule", T0)]),
        make_fork(Change("started", "webhook", T0 + S), ask=None),
        make_fork(Change("flowing", "packet", T0 + S), ask=None),
        make_fork(Change("flowing", "packet", T0 + S), ask="fork_stop"),
        make_fork(way="ports", pair=PortPair(20_000, 20_001), stream_type="decrypted"),
        make_fork(changes=[Change("requested", "again", T0)], attempt=2, client_state="YWJj"),
        make_fork(Change("failed", "no_media", T0 + S), ask="fork_stop"),
    ],
    ids=[
        "requested", "by rule", "started", "flowing", "to be stopped", "with ports", "again",
        "failed, to be stopped",
    ],
)  # fmt: skip
def test_forks_that_are_not_settled_come_back_as_they_were(tmp_path, fork):
    async def scenario(memory, _):
        memory.keep_fork(fork)
        assert await memory.written()
        _, (again,) = await memory.load(T0 + 60 * S, fork.first_media_timeout_ns)
        assert again == fork

    run(tmp_path, scenario)


def test_settled_forks_do_not_come_back(tmp_path):
    async def scenario(memory, _):
        memory.keep_fork(make_fork(Change("failed", "no_media", T0 + S), ask="fork_stop"))
        memory.keep_fork(make_fork(Change("failed", "no_media", T0 + S), ask=None))
        assert await memory.written()
        _, forks = await memory.load(T0 + S, 10 * S)
        assert forks == []

    run(tmp_path, scenario)


def test_calls_that_cannot_last_any_longer_are_lost(tmp_path):
    async def scenario(memory, store):
        memory.keep_call(make_call())
        await memory.written()
        calls, _ = await memory.load(T0 + 5 * 3600 * S, 10 * S)
        assert calls == []
        await memory.written()
        call = store.details(str(LEG)).overview.call
        assert (call.state, call.ended_ns) == ("lost", T0 + 5 * 3600 * S)

    run(tmp_path, scenario)


def test_open_tracks_of_a_worker_that_died_are_interrupted(tmp_path):
    outbound = OPENED | {"direction": "outbound"}
    closed = OPENED | {
        "opened_at": "2023-11-14T22:10:00.000Z",
        "ended_at": "2023-11-14T22:12:00.000Z",
        "reason": "idle",
        "speech": [],
    }
    figures = ("duration_s", "packets", "lost", "late", "duplicate", "jitter_mean_ms")
    closed |= dict.fromkeys(figures, 0)

    async def scenario(memory, store):
        memory.keep_track(OPENED | {"opened_at": closed["opened_at"]}, 0)
        memory.keep_track(closed, 0)
        memory.keep_track(OPENED, 0)
        memory.keep_track(outbound, 1)
        (track,) = memory.interrupt_tracks(0)
        assert (track.direction, track.reason) == ("inbound", "interrupted")
        assert memory.interrupt_tracks(0) == []
        # the successor's track of the same call is another one
        memory.keep_track(OPENED | {"opened_at": "2023-11-14T22:13:21.000Z"}, 0)
        await memory.written()
        assert [track.reason for track in store.details(str(LEG)).tracks] == [
            "idle", "interrupted", None, None,
        ]  # fmt: skip
        assert len(memory.interrupt_tracks(0)) == 1
        assert len(memory.interrupt_tracks(1)) == 1

    run(tmp_path, scenario)


def test_call_without_a_leg_is_not_kept(tmp_path):
    async def scenario(memory, _):
        memory.keep_call(make_call(call_leg_id=None))
        assert memory.waiting == 0

    run(tmp_path, scenario)


def test_only_the_newest_state_is_written(tmp_path):
    async def scenario(memory, store):
        for number in range(100):
            memory.keep_call(make_call(client_state=str(number)))
        assert memory.waiting == 1
        assert await memory.written()
        assert store.details(str(LEG)).overview.call.client_state == "99"

    run(tmp_path, scenario)


def test_nothing_is_written_on_the_loop(tmp_path):
    async def scenario(memory, store):
        threads = set()
        put = store.store.put_call
        store.store.put_call = lambda call: (threads.add(threading.current_thread()), put(call))
        memory.keep_call(make_call())
        await memory.written()
        assert threads
        assert threading.main_thread() not in threads

    run(tmp_path, scenario)


def test_what_could_not_be_written_is_written_later(tmp_path):
    async def scenario(memory, store):
        store.fails = True
        memory.keep_call(make_call(state="initiated"))
        memory.keep_track(OPENED, 0)
        assert not await memory.written()
        memory.keep_call(make_call(state="answered"))
        assert not await memory.written()
        assert (memory.errors, memory.waiting) == (2, 2)
        store.fails = False
        memory.write()
        assert await memory.written()
        assert memory.waiting == 0
        details = store.details(str(LEG))
        assert details.overview.call.state == "answered"
        assert len(details.tracks) == 1

    run(tmp_path, scenario)


def test_tracks_that_wait_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_TRACKS_WAITING", 3)

    async def scenario(memory, store):
        store.fails = True
        for second in range(5):
            memory.keep_track(OPENED | {"opened_at": f"2023-11-14T22:13:2{second}Z"}, 0)
        assert (memory.waiting, memory.dropped_tracks) == (3, 2)
        await memory.written()

    run(tmp_path, scenario)
