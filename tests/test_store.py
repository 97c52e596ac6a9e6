"""What the daemon remembers, across restarts, crashes and other people's files."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import storedcalls
from hypothesis import given, settings
from hypothesis import strategies as st
from storedcalls import CALL, CONTROL_ID, LEG, NOON_NS, S_NS
from storedcalls import FORK as STOPPED_FORK

from strep.store import (
    AmbiguousCallError,
    Store,
    StoredCall,
    StoredFork,
    StoredTrack,
    StoreError,
    UnknownCallError,
    schema,
    unix_ns,
)
from strep.store.schema import APPLICATION_ID, MIGRATIONS, migrate

OTHER_LEG = "2dc6fc34-f9e0-11ea-b68e-02420a0f7768"
FORK = replace(
    STOPPED_FORK,
    call_leg_id=LEG,
    state="flowing",
    why="first packet",
    rx_port=20_000,
    tx_port=20_002,
    requested_ns=NOON_NS + 6 * S_NS,
    started_ns=NOON_NS + 7 * S_NS,
    flowing_ns=NOON_NS + 8 * S_NS,
    stopped_ns=None,
    command_id="4c2d1c5a-0000-4000-8000-000000000001",
)
OPENED = storedcalls.OPENED | {"opened_at": "2026-01-31T12:00:08.250Z"}
CLOSED = OPENED | {
    "started_at": "2026-01-31T12:00:08.250Z",
    "ended_at": "2026-01-31T12:01:04.250Z",
    "reason": "closed",
    "duration_s": 56.02,
    "packets": 2790,
    "lost": 11,
    "late": 2,
    "duplicate": 3,
    "jitter_mean_ms": 1.25,
    "codec": "PCMU",
    "reordered": 4,
    "drift_ppm": 48.5,
    "quality": {"mos": 4.25, "mos_concealed": 4.38, "burst": {"runs": 5, "longest_packets": 3}},
    "speech": [[0.5, 1.75], [10.0, 12.0]],
    "recording": "/srv/calls/call.wav",
    "manifest": "/srv/calls/call.json",
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "strep.db"


@pytest.fixture
def store(path):
    with Store(path) as store:
        yield store


def call_of(store, call_id=LEG):
    return store.details(call_id).overview.call


def legs(page):
    return [each.call.call_leg_id for each in page.calls]


def numbered(number: int, **facts: Any) -> StoredCall:
    """A call of a leg id that ends in `number`, started so many seconds after noon."""
    return StoredCall(
        call_leg_id=f"00000000-0000-4000-8000-{number:012d}",
        started_ns=NOON_NS + number * S_NS,
        **facts,
    )


def leg(number: int) -> str:
    return numbered(number).call_leg_id


# calls


def test_a_call_comes_back_as_it_was_put(store):
    store.put_call(CALL)
    assert call_of(store) == CALL


def test_what_is_none_erases_nothing(store):
    store.put_call(CALL)
    store.put_call(StoredCall(call_leg_id=LEG, started_ns=NOON_NS + S_NS, state="ended"))
    assert call_of(store) == replace(CALL, state="ended")


def test_the_earliest_start_stays(store):
    for started_ns in (NOON_NS, NOON_NS - S_NS, NOON_NS + S_NS):
        store.put_call(StoredCall(call_leg_id=LEG, started_ns=started_ns))
    assert call_of(store).started_ns == NOON_NS - S_NS


def test_a_leg_id_in_upper_case_is_the_same_call(store):
    store.put_call(CALL)
    store.put_call(StoredCall(call_leg_id=LEG.upper(), started_ns=NOON_NS, state="ended"))
    assert legs(store.search()) == [LEG]
    assert call_of(store, LEG.upper()).state == "ended"


def test_text_that_has_no_utf_8_form_is_kept_without_it(store):
    store.put_call(StoredCall(call_leg_id=LEG, started_ns=NOON_NS, from_number="+353\udcff1"))
    assert call_of(store).from_number == "+353?1"
    assert legs(store.search(number="\udcff1")) == [LEG]


_FACTS = [field.name for field in fields(StoredCall) if field.name != "call_leg_id"]


def _fact(name):
    return (
        st.integers(-(2**63), 2**63 - 1) if name.endswith("_ns") else st.text("a+:'\0é", max_size=3)
    )


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.builds(
            dict,
            call_leg_id=st.sampled_from([LEG, OTHER_LEG]),
            started_ns=_fact("started_ns"),
            **{name: st.none() | _fact(name) for name in _FACTS if name != "started_ns"},
        ),
        max_size=8,
    )
)
def test_puts_add_up_as_in_a_dictionary(puts):
    model: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder, Store(Path(folder, "strep.db")) as store:
        for put in puts:
            store.put_call(StoredCall(**put))
            known = model.setdefault(put["call_leg_id"], dict(put))
            started_ns = min(known["started_ns"], put["started_ns"])
            known |= {name: value for name, value in put.items() if value is not None}
            known["started_ns"] = started_ns
        found = {each.call.call_leg_id: each.call for each in store.search().calls}
    assert found == {leg_id: StoredCall(**known) for leg_id, known in model.items()}


# forks


def test_a_fork_comes_back_as_it_was_put_with_its_call(store):
    store.put_call(CALL)
    store.put_fork(FORK)
    assert store.details(LEG).forks == [FORK]


def test_a_fork_of_a_leg_that_nobody_told_of_makes_its_call_known(store):
    store.put_fork(FORK)
    assert call_of(store) == StoredCall(
        call_leg_id=LEG, started_ns=NOON_NS + 6 * S_NS, call_control_id=CONTROL_ID
    )


@pytest.mark.parametrize("fork_first", [True, False])
def test_a_fork_requested_by_control_id_alone_finds_its_call(store, fork_first):
    fork = replace(FORK, call_leg_id=None)
    if fork_first:
        store.put_fork(fork)
        assert store.unsettled_forks() == [fork]
        store.put_call(CALL)
    else:
        store.put_call(CALL)
        store.put_fork(fork)
    assert store.details(LEG).forks == [FORK]


def test_a_fork_moves_on_and_keeps_what_was_known(store):
    store.put_fork(FORK)
    store.put_fork(
        StoredFork(
            id=FORK.id,
            call_control_id=CONTROL_ID,
            state="stopped",
            why="call.hangup",
            way="ports",
            requested_ns=FORK.requested_ns,
            stopped_ns=NOON_NS + 60 * S_NS,
        )
    )
    (fork,) = store.details(LEG).forks
    assert fork == replace(FORK, state="stopped", why="call.hangup", stopped_ns=NOON_NS + 60 * S_NS)


def test_unsettled_forks_are_those_that_are_open_or_asked_something_in_order(store, path):
    states = ["flowing", "stopped", "started", "failed", "requested", "failed"]
    for number, state in enumerate(states):
        ask = "fork_stop" if number == 5 else None
        when_ns = NOON_NS - number * S_NS
        store.put_fork(replace(FORK, id=str(number), state=state, requested_ns=when_ns, ask=ask))
    assert [fork.id for fork in store.unsettled_forks()] == ["5", "4", "2", "0"]
    store.put_fork(replace(FORK, id="5", state="failed"))
    assert [fork.id for fork in store.unsettled_forks()] == ["4", "2", "0"]
    queries: list[str] = []
    store._database.set_trace_callback(queries.append)
    store.unsettled_forks()
    store._database.set_trace_callback(None)
    (query,) = [each for each in queries if "SELECT" in each]
    with closing(sqlite3.connect(path)) as database:
        ((_, _, _, step),) = database.execute(f"EXPLAIN QUERY PLAN {query}")
    assert step == "SCAN forks USING INDEX forks_unsettled"


# tracks


def test_a_closed_track_has_its_figures_and_all_of_its_entry(store):
    store.put_track(StoredTrack.of(OPENED, worker=1))
    store.put_track(StoredTrack.of(CLOSED, worker=1))
    (track,) = store.details(LEG).tracks
    assert track == StoredTrack(
        call_leg_id=LEG,
        leg="A",
        direction="inbound",
        opened_ns=1_769_860_808_250_000_000,
        worker=1,
        recording="/srv/calls/call.wav",
        manifest="/srv/calls/call.json",
        reason="closed",
        ended_ns=1_769_860_864_250_000_000,
        duration_s=56.02,
        packets=2790,
        lost=11,
        late=2,
        duplicate=3,
        reordered=4,
        jitter_mean_ms=1.25,
        speech_s=3.25,
        loss_runs=5,
        longest_loss=3,
        mos=4.25,
        mos_concealed=4.38,
        drift_ppm=48.5,
        entry=CLOSED,
    )
    assert track.as_json()["codec"] == "PCMU"
    assert track.as_json()["opened_at"] == "2026-01-31T12:00:08.250Z"
    assert track.as_json()["speech_s"] == 3.25


def test_an_entry_of_a_manifest_tells_its_opening_by_its_start(store):
    manifest_entry = {key: value for key, value in CLOSED.items() if key != "opened_at"}
    store.put_track(StoredTrack.of(OPENED, worker=0))
    store.put_track(StoredTrack.of(manifest_entry, worker=0))
    assert len(store.details(LEG).tracks) == 1


def test_an_opening_that_is_heard_late_opens_nothing_again(store):
    store.put_track(StoredTrack.of(CLOSED, worker=0))
    store.put_track(StoredTrack.of(OPENED, worker=0))
    (track,) = store.details(LEG).tracks
    assert (track.reason, track.packets) == ("closed", 2790)


def test_segments_of_a_track_stand_in_their_order(store):
    later = OPENED | {"opened_at": "2026-01-31T12:01:10.000Z"}
    store.put_track(StoredTrack.of(later, worker=0))
    store.put_track(StoredTrack.of(CLOSED, worker=0))
    assert [track.reason for track in store.details(LEG).tracks] == ["closed", None]


def test_a_track_of_a_leg_that_nobody_told_of_makes_its_call_known(store):
    store.put_track(StoredTrack.of(OPENED, worker=0))
    assert call_of(store) == StoredCall(call_leg_id=LEG, started_ns=1_769_860_808_250_000_000)


def test_tracks_that_a_killed_daemon_left_open_are_found_and_marked_once(path):
    with Store(path) as store:
        store.put_track(StoredTrack.of(OPENED, worker=0))
        store.put_track(StoredTrack.of(OPENED | {"direction": "outbound"}, worker=1))
        store.put_track(StoredTrack.of(CLOSED | {"leg": "B"}, worker=0))
    with Store(path) as store:
        marked = store.interrupt_tracks()
        assert [(t.leg, t.direction, t.reason) for t in marked] == [
            ("A", "inbound", "interrupted"),
            ("A", "outbound", "interrupted"),
        ]
        reasons = [track.reason for track in store.details(LEG).tracks]
        assert sorted(reasons) == ["closed", "interrupted", "interrupted"]
        assert store.interrupt_tracks() == []


def test_tracks_of_one_dead_worker_are_marked(store):
    store.put_track(StoredTrack.of(OPENED, worker=0))
    store.put_track(StoredTrack.of(OPENED | {"direction": "outbound"}, worker=1))
    assert [track.direction for track in store.interrupt_tracks(worker=1)] == ["outbound"]
    assert [track.reason for track in store.details(LEG).tracks] == [None, "interrupted"]


def test_what_is_put_together_is_there_as_a_whole_or_not_at_all(store, path):
    opened = StoredTrack.of(OPENED, worker=0)

    def fail():
        with store.together():
            store.put_track(opened)
            raise LookupError

    with pytest.raises(LookupError):
        fail()
    assert store.tracks(LEG) == []
    assert legs(store.search()) == []
    with Store(path, read_only=True) as reader:
        with store.together():
            store.put_call(StoredCall(call_leg_id=LEG, started_ns=1))
            store.put_track(opened)
            assert store.tracks(LEG) == [opened]
            assert reader.tracks(LEG) == []
        assert reader.tracks(LEG.upper()) == [opened]
    assert store.tracks("ffffffff-0000-4000-8000-000000000000") == []


def test_a_track_that_is_closed_after_all_is_no_longer_interrupted(store):
    store.put_track(StoredTrack.of(OPENED, worker=0))
    store.interrupt_tracks()
    store.put_track(StoredTrack.of(CLOSED, worker=0))
    assert [track.reason for track in store.details(LEG).tracks] == ["closed"]


# overviews


def test_an_overview_sums_up_the_tracks(store):
    store.put_call(CALL)
    store.put_track(StoredTrack.of(CLOSED, worker=0))
    store.put_track(StoredTrack.of(CLOSED | {"direction": "outbound", "lost": 1}, worker=0))
    store.put_track(StoredTrack.of(OPENED | {"leg": "B"}, worker=0))
    (overview,) = store.search().calls
    assert (overview.tracks, overview.open_tracks) == (3, 1)
    assert (overview.packets, overview.lost) == (5580, 12)
    assert overview.media_ended_ns == 1_769_860_864_250_000_000


def test_an_overview_judges_the_media_of_the_call(store):
    store.put_call(CALL)
    store.put_track(StoredTrack.of(CLOSED, worker=0))
    worse = {"mos": 3.5, "mos_concealed": 4.4, "burst": {"runs": 2, "longest_packets": 9}}
    figures = {"lost": 19, "jitter_mean_ms": 2.25, "drift_ppm": -60.0, "quality": worse}
    store.put_track(StoredTrack.of(CLOSED | figures | {"direction": "outbound"}, worker=0))
    store.put_track(StoredTrack.of(OPENED | {"leg": "B"}, worker=0))
    (overview,) = store.search().calls
    # 2 * (2790 - 2 - 3) packets were released, and 30 lost
    assert overview.quality.as_json() == {
        "mos": 3.5,
        "mos_concealed": 4.38,
        "loss_ratio": 0.005357,
        "discard_ratio": 0.000714,
        "reorder_ratio": 0.001429,
        "burst_mean_packets": 4.286,
        "burst_longest_packets": 9,
        "jitter_mean_ms": 1.75,
        "drift_ppm": -60.0,
    }
    assert overview.as_json()["quality"] == overview.quality.as_json()


def test_of_a_call_without_closed_tracks_nothing_is_known(store):
    store.put_track(StoredTrack.of(OPENED, worker=0))
    (overview,) = store.search().calls
    assert set(overview.quality.as_json().values()) == {None}


def test_a_call_is_open_until_the_carrier_has_told_of_its_end(store):
    store.put_call(replace(CALL, ended_ns=None))
    assert store.search().calls[0].is_open
    assert store.search().calls[0].duration_s is None
    store.put_call(CALL)
    assert not store.search().calls[0].is_open
    assert store.search().calls[0].duration_s == 60.0


def test_a_call_of_which_only_media_is_known_is_open_while_a_track_is(store):
    store.put_track(StoredTrack.of(OPENED, worker=0))
    assert store.search().calls[0].is_open
    store.put_track(StoredTrack.of(CLOSED, worker=0))
    assert not store.search().calls[0].is_open
    assert store.search().calls[0].duration_s == 56.0


def test_an_interrupted_call_is_over_but_nobody_knows_when(store):
    store.put_track(StoredTrack.of(OPENED, worker=0))
    store.interrupt_tracks()
    (overview,) = store.search().calls
    assert (overview.is_open, overview.duration_s) == (False, None)


def test_json_has_moments_as_text(store):
    store.put_call(CALL)
    store.put_fork(FORK)
    document = store.details(LEG).as_json()
    assert document["started_at"] == "2026-01-31T12:00:00.000Z"
    assert document["answered_at"] == "2026-01-31T12:00:05.000Z"
    assert document["from"] == "+35319605860"
    assert (document["is_open"], document["duration_s"]) == (False, 60.0)
    assert document["forks"][0]["flowing_at"] == "2026-01-31T12:00:08.000Z"
    assert document["forks"][0]["stopped_at"] is None
    assert document["tracks"] == []


# search


@pytest.fixture
def four(store):
    """Calls 1 to 4, the last two of them open."""
    store.put_call(numbered(1, call_control_id="v3:1", from_number="+35319605860", ended_ns=1))
    store.put_call(numbered(2, call_control_id="v3:2", to_number="+35319605861", ended_ns=1))
    store.put_call(numbered(3, call_control_id="v3:3", from_number="sip:bob@example.org"))
    store.put_track(StoredTrack.of(OPENED | {"call_leg_id": leg(4)}, worker=0))
    return store


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({}, [4, 3, 2, 1]),
        ({"number": "+35319605860"}, [1]),
        ({"number": "5861"}, [2]),
        ({"number": "+3531960586"}, [2, 1]),
        ({"number": "bob"}, [3]),
        ({"number": "%"}, []),
        ({"since_ns": NOON_NS + 2 * S_NS}, [4, 3, 2]),
        ({"until_ns": NOON_NS + 2 * S_NS}, [1]),
        ({"since_ns": NOON_NS + 2 * S_NS, "until_ns": NOON_NS + 3 * S_NS}, [2]),
        ({"call_leg_id": "00000000-0000-4000-8000-000000000003"}, [3]),
        ({"call_leg_id": "00000000-0000-4000"}, [4, 3, 2, 1]),
        ({"call_leg_id": "0000000_"}, []),
        ({"call_leg_id": "1"}, []),
        ({"call_control_id": "v3:2"}, [2]),
        ({"call_control_id": "v3:"}, []),
        ({"is_open": True}, [4, 3]),
        ({"is_open": True, "number": "bob"}, [3]),
        ({"number": "+353", "until_ns": NOON_NS + 2 * S_NS}, [1]),
        ({"limit": 2}, [4, 3]),
        ({"after": "00000000-0000-4000-8000-000000000003"}, [2, 1]),
        ({"limit": None}, [4, 3, 2, 1]),
    ],
)
def test_search_finds_what_fits_newest_first(four, asked, found):
    assert legs(four.search(**asked)) == [leg(number) for number in found]


def test_the_last_page_says_so(four):
    assert four.search(limit=3).next == leg(2)
    assert four.search(limit=4).next is None
    assert four.search(limit=3, after=leg(2)).next is None


def test_a_page_after_an_unknown_call_is_refused(four):
    with pytest.raises(UnknownCallError, match="there is no call nobody to go on after"):
        four.search(after="nobody")


def test_pages_give_each_of_20_000_calls_once(store):
    with store._transaction() as database:
        database.executemany(
            "INSERT INTO calls (call_leg_id, started_ns, from_number) VALUES (?, ?, ?)",
            # three calls to a moment, so that moments alone cannot order them
            ((leg(n), NOON_NS + n // 3, f"+353{n:08d}") for n in range(20_000)),
        )
    seen: list[str] = []
    after = None
    while True:
        page = store.search(after=after, limit=3000)
        seen += legs(page)
        after = page.next
        if after is None:
            break
    assert seen == [leg(n) for n in reversed(range(20_000))]
    assert legs(store.search(number="00012345")) == [leg(12_345)]


@pytest.mark.parametrize(
    ("asked", "step"),
    [
        ({}, "SCAN calls USING INDEX calls_in_time"),
        ({"number": "5860"}, "SCAN calls USING INDEX calls_in_time"),
        ({"since_ns": 1}, "SEARCH calls USING INDEX calls_in_time (started_ns>?)"),
        ({"call_leg_id": "4"}, "(call_leg_id>? AND call_leg_id<?)"),
        ({"call_control_id": "v3:1"}, "calls_by_control_id (call_control_id=?)"),
        ({"is_open": True}, "SCAN calls USING INDEX calls_told_open"),
        ({"is_open": True}, "SCAN tracks USING INDEX tracks_open"),
        ({"after": LEG}, "SEARCH calls USING INDEX calls_in_time (started_ns<?)"),
    ],
)
def test_searches_go_by_an_index(store, path, asked, step):
    store.put_call(CALL)
    queries: list[str] = []
    store._database.set_trace_callback(queries.append)
    store.search(**asked)
    store._database.set_trace_callback(None)
    with closing(sqlite3.connect(path)) as database:
        steps = [
            row[3]
            for query in queries
            if "SELECT" in query
            for row in database.execute(f"EXPLAIN QUERY PLAN {query}")
        ]
    assert any(step in each for each in steps), steps
    assert "SCAN calls" not in steps


def test_one_call_is_found_by_each_of_its_names(store):
    store.put_call(CALL)
    store.put_call(StoredCall(call_leg_id=OTHER_LEG, started_ns=NOON_NS))
    for name in (LEG, LEG.upper(), LEG[:8], "4", CONTROL_ID):
        assert store.details(name).overview.call == CALL


def test_a_call_is_told_as_in_manifests(store):
    assert store.call(LEG) is None
    store.put_track(StoredTrack.of(OPENED, worker=0))
    assert store.call(LEG) is None
    store.put_call(replace(CALL, hangup_cause=None, client_state=None, ended_ns=None))
    store.put_fork(replace(FORK, id="first"))
    store.put_fork(replace(FORK, id="last", requested_ns=NOON_NS + 9 * S_NS))
    assert store.call(LEG.upper()) == {
        "call_leg_id": LEG,
        "call_control_id": CONTROL_ID,
        "call_session_id": "2dc1b3c8-f9e0-11ea-bc5a-02420a0f7768",
        "connection_id": "7267",
        "from": "+35319605860",
        "to": "+18005550100",
        "direction": "incoming",
        "state": "hangup",
        "started_at": "2026-01-31T12:00:00.000Z",
        "answered_at": "2026-01-31T12:00:05.000Z",
        "fork_id": "last",
    }


def test_calls_that_ended_lately_are_found(store):
    for number in range(4):
        store.put_call(numbered(number, ended_ns=NOON_NS + number * S_NS))
    store.put_call(numbered(9))
    ended = store.calls_ended_since(NOON_NS + 2 * S_NS)
    assert [call.call_leg_id for call in ended] == [leg(2), leg(3)]


@pytest.mark.parametrize("name", ["", "5", CONTROL_ID[:10], f"{LEG}0"])
def test_a_name_of_no_call_is_unknown(store, name):
    store.put_call(CALL)
    with pytest.raises(UnknownCallError, match="there is no call"):
        store.details(name)


def test_the_beginning_of_several_ids_is_ambiguous_and_some_are_named(store):
    for number in range(1, 8):
        store.put_call(numbered(number))
    with pytest.raises(AmbiguousCallError) as error:
        store.details("0000")
    named = ", ".join(leg(number) for number in (7, 6, 5, 4, 3))
    assert str(error.value) == f"several calls begin with 0000: {named}, ..."


def test_an_id_that_begins_another_names_its_own_call(store):
    store.put_call(StoredCall(call_leg_id="leg-1", started_ns=NOON_NS))
    store.put_call(StoredCall(call_leg_id="leg-10", started_ns=NOON_NS + 1))
    assert call_of(store, "leg-1").call_leg_id == "leg-1"


# retention


def test_forgetting_takes_old_calls_with_forks_and_tracks_but_no_open_ones(store):
    store.put_call(CALL)
    store.put_fork(FORK)
    store.put_track(StoredTrack.of(CLOSED, worker=0))
    store.put_call(numbered(1, call_control_id="v3:1"))
    store.put_call(numbered(50, call_control_id="v3:50", ended_ns=NOON_NS + 51 * S_NS))
    lost = replace(FORK, id="1", call_control_id="v3:lost", call_leg_id=None)
    store.put_fork(replace(lost, state="failed"))
    store.put_fork(replace(lost, id="2"))

    assert store.forget(before_ns=NOON_NS + 50 * S_NS) == 1

    assert legs(store.search()) == [leg(50), leg(1)]
    assert [fork.id for fork in store.unsettled_forks()] == ["2"]
    with pytest.raises(UnknownCallError):
        store.details(LEG)
    tables = store._database.execute(
        "SELECT (SELECT count(*) FROM forks), (SELECT count(*) FROM tracks)"
    )
    assert tuple(tables.fetchone()) == (1, 0)


# the file


def test_a_new_database_is_made_with_its_folder_and_current(tmp_path):
    path = tmp_path / "a" / "b" / "strep.db"
    with Store(path) as store:
        assert _pragmas(store._database) == {
            "application_id": 0x53545250,
            "user_version": len(MIGRATIONS),
            "journal_mode": "wal",
            "synchronous": 1,
            "foreign_keys": 1,
            "busy_timeout": 5000,
        }
    with Store(path) as store:
        assert store.search().calls == []


def _pragmas(database):
    names = (
        "application_id", "user_version", "journal_mode", "synchronous", "foreign_keys",
        "busy_timeout",
    )  # fmt: skip
    return {name: database.execute(f"PRAGMA {name}").fetchone()[0] for name in names}


def test_columns_are_the_fields_of_the_records(store):
    for table, record in (("calls", StoredCall), ("forks", StoredFork), ("tracks", StoredTrack)):
        columns = [row["name"] for row in store._database.execute(f"PRAGMA table_info({table})")]
        assert columns == [field.name for field in fields(record)]


def test_migrations_that_a_database_has_seen_are_not_applied_again(path):
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        migrate(database, [("CREATE TABLE a (x)", "INSERT INTO a VALUES (1)")])
        migrate(
            database, [("CREATE TABLE a (x)",), ("CREATE TABLE b (x)", "INSERT INTO a VALUES (2)")]
        )
        assert database.execute("SELECT x FROM a").fetchall() == [(1,), (2,)]
        assert database.execute("PRAGMA user_version").fetchone() == (2,)


def test_a_migration_that_fails_leaves_nothing_behind(path):
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        with pytest.raises(sqlite3.OperationalError):
            migrate(database, [("CREATE TABLE a (x)",), ("CREATE TABLE b (x)", "nonsense")])
        assert database.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
        assert database.execute("PRAGMA user_version").fetchone() == (0,)


def test_writers_wait_for_each_other(path):
    def write(numbers):
        with Store(path) as store:
            for number in numbers:
                store.put_call(numbered(number))

    Store(path).close()
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(write, range(start, 200, 2)) for start in (0, 1)]:
            done.result()
    with Store(path, read_only=True) as store:
        assert legs(store.search(limit=None)) == [leg(n) for n in reversed(range(200))]


def _foreign(path, *statements):
    with closing(sqlite3.connect(path)) as database:
        for statement in statements:
            database.execute(statement)
        database.commit()


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize(
    "statements",
    [
        ["CREATE TABLE bookmarks (url TEXT)"],
        ["PRAGMA user_version = 1", "CREATE TABLE calls (x)"],
        ["PRAGMA application_id = 5"],
    ],
)
def test_a_database_of_another_program_is_refused_and_not_touched(path, statements, read_only):
    _foreign(path, *statements)
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"strep\.db: is a database of another program$"):
        Store(path, read_only=read_only)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("read_only", [False, True])
def test_a_database_of_a_newer_version_is_refused(path, read_only):
    _foreign(path, f"PRAGMA application_id = {APPLICATION_ID}", "PRAGMA user_version = 99")
    here = len(MIGRATIONS)
    with pytest.raises(StoreError, match=rf"of a newer strep \(version 99, here {here}\)$"):
        Store(path, read_only=read_only)


def test_a_database_of_an_older_version_is_not_read_but_brought_up_to_date(path, monkeypatch):
    with Store(path) as store:
        store.put_call(CALL)
    newer = (*MIGRATIONS, ("ALTER TABLE calls ADD COLUMN tags TEXT",))
    monkeypatch.setattr(schema, "MIGRATIONS", newer)
    with pytest.raises(StoreError, match=rf"of an older strep \(version {len(MIGRATIONS)}, here"):
        Store(path, read_only=True)
    with Store(path) as store:
        assert call_of(store) == CALL
        assert store._database.execute("SELECT tags FROM calls").fetchone()[0] is None
    Store(path, read_only=True).close()


def test_tracks_of_the_first_version_are_kept(path):
    names = ("reordered", "loss_runs", "longest_loss", "mos", "mos_concealed", "drift_ppm")
    old = [f.name for f in fields(StoredTrack) if f.name not in names]
    track = StoredTrack.of(CLOSED, worker=0)
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        migrate(database, MIGRATIONS[:1])
        database.execute("INSERT INTO calls (call_leg_id, started_ns) VALUES (?, 1)", (LEG,))
        marks = ", ".join("?" for _ in old)
        values = [getattr(track, name) if name != "entry" else "{}" for name in old]
        insert = f"INSERT INTO tracks ({', '.join(old)}) VALUES ({marks})"  # noqa: S608 -- our own
        database.execute(insert, values)
    with Store(path) as store:
        assert store.tracks(LEG) == [replace(track, **dict.fromkeys(names), entry={})]
        store.put_track(track)
        assert store.tracks(LEG) == [track]
        assert store.search().calls[0].quality.mos == 4.25
        # the call takes its tracks with it
        store.forget(2)
        assert store.tracks(LEG) == []


def test_forks_of_older_versions_are_gone_on_with(path):
    names = ("client_state", "attempt", "ask", "carrier_started_ns")
    old = [f.name for f in fields(StoredFork) if f.name not in names]
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        migrate(database, MIGRATIONS[:2])
        database.execute("INSERT INTO calls (call_leg_id, started_ns) VALUES (?, 1)", (LEG,))
        for number, (state, why) in enumerate(
            [("requested", "rule"), ("flowing", "packet"), ("flowing", "stop_asked"),
             ("requested", "stop_asked"), ("failed", "no_media")]
        ):  # fmt: skip
            fork = replace(FORK, id=str(number), state=state, why=why, requested_ns=number)
            marks = ", ".join("?" for _ in old)
            insert = f"INSERT INTO forks ({', '.join(old)}) VALUES ({marks})"  # noqa: S608 -- our own
            database.execute(insert, [getattr(fork, name) for name in old])
    with Store(path) as store:
        assert [(fork.why, fork.ask) for fork in store.unsettled_forks()] == [
            ("rule", "fork_start"), ("packet", None), ("asked", "fork_stop"), ("asked", "fork_stop")
        ]  # fmt: skip


def test_an_empty_file_becomes_a_database_but_is_none_to_read(path):
    path.write_bytes(b"")
    with pytest.raises(StoreError, match=r"strep\.db: the database is empty$"):
        Store(path, read_only=True)
    with Store(path) as store:
        store.put_call(CALL)


def test_a_folder_is_no_database(tmp_path):
    for read_only in (False, True):
        with pytest.raises(StoreError, match=r": unable to open database file$"):
            Store(tmp_path, read_only=read_only)


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize(
    "content", [b"database = none\n", b"GIF89a" * 1000, b"SQLite format 3\0" + b"\xff" * 5000]
)
def test_what_is_no_database_is_refused(path, content, read_only):
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"strep\.db: is not a database$"):
        Store(path, read_only=read_only)
    assert path.read_bytes() == content


def test_a_damaged_database_is_said_to_be_damaged(path):
    with Store(path) as store:
        for number in range(100):
            store.put_call(numbered(number))
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xa5" * (len(content) - 4096)
    path.write_bytes(content)
    with (
        Store(path) as store,
        pytest.raises(StoreError, match=r"strep\.db: the database is damaged"),
    ):
        store.search()


def test_a_reader_needs_a_database(path):
    with pytest.raises(StoreError, match=r"strep\.db: there is no database$"):
        Store(path, read_only=True)
    assert not path.exists()
    with pytest.raises(StoreError, match=r"File name too long$"):
        Store(path.with_name("x" * 300), read_only=True)


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"strep\.db: its folder cannot be made: "):
        Store(tmp_path / "file" / "x" / "strep.db")


def test_a_reader_cannot_write(store, path):
    with (
        Store(path, read_only=True) as reader,
        pytest.raises(StoreError, match="attempt to write a readonly database"),
    ):
        reader.put_call(CALL)
    assert store.search().calls == []


def test_a_path_with_the_signs_of_a_uri_is_read(tmp_path):
    path = tmp_path / "50% of?calls#1.db"
    with Store(path) as store:
        store.put_call(CALL)
        with Store(path, read_only=True) as reader:
            assert legs(reader.search()) == [LEG]


@contextmanager
def _without_privileges():
    """Be nobody where this is root, whom no mode of a folder stops."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_who_may_only_read_reads_a_database_that_nobody_has_open():
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "strep.db")
        with Store(path) as store:
            store.put_call(CALL)
        path.parent.chmod(0o555)
        try:
            with _without_privileges(), Store(path, read_only=True) as store:
                assert legs(store.search()) == [LEG]
        finally:
            path.parent.chmod(0o755)


# several processes, and the end of one

WRITER = """
import sys
from itertools import count
from pathlib import Path
from strep.store import Store, StoredCall, StoredTrack, unix_ns

start_ns = unix_ns("2026-01-31T12:00:00Z")
with Store(Path(sys.argv[1])) as store:
    for number in count(1):
        leg = f"00000000-0000-4000-8000-{number:012d}"
        moment_ns = start_ns + number * 1_000_000_000
        store.put_call(StoredCall(call_leg_id=leg, started_ns=moment_ns))
        store.put_track(StoredTrack(
            call_leg_id=leg, leg="A", direction="inbound", opened_ns=moment_ns, worker=0,
        ))
        print(number, flush=True)
"""


@pytest.fixture
def writer(path):
    """A process that puts an open call after another into the database and says their numbers."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, text=True
    )
    with process:
        yield process
        with suppress(ProcessLookupError):
            process.kill()


def test_a_writer_that_is_killed_leaves_all_that_it_put(path, writer):
    said = 0
    while said < 300:
        said = int(writer.stdout.readline())
    writer.send_signal(signal.SIGKILL)
    said = int((writer.stdout.read().splitlines() or [said])[-1])
    assert writer.wait() == -signal.SIGKILL

    with Store(path, read_only=True) as store:
        assert len(store.search(limit=None).calls) >= said
    with Store(path) as store:
        assert store._database.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        put = len(store.search(limit=None).calls)
        assert said <= put <= said + 1
        assert store.search(limit=1).calls[0].call == numbered(put)
        assert said <= len(store.interrupt_tracks()) <= put
        store.put_call(CALL)
        assert call_of(store) == CALL


def test_a_reader_sees_whole_calls_while_another_process_writes(path, writer):
    first = int(writer.stdout.readline())
    with Store(path, read_only=True) as store:
        seen = [len(store.search(limit=None).calls)]
        while seen[-1] < 200:
            seen.append(len(store.search(limit=None).calls))
        assert seen == sorted(seen)
        assert seen[0] >= first
        newest = store.search(limit=1).calls[0].call
        assert newest == numbered(int(newest.call_leg_id[-12:]))
    assert writer.poll() is None


# moments


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2026-01-31T12:00:00.000Z", NOON_NS),
        ("2018-02-02T22:25:27.521992Z", 1_517_610_327_521_992_000),
        ("2026-01-31T13:00:00+01:00", NOON_NS),
        ("2026-01-31 12:00", NOON_NS),
        ("2026-01-31", NOON_NS - 12 * 3600 * S_NS),
        ("1969-12-31T23:59:59.999999Z", -1000),
    ],
)
def test_moments_are_read_to_the_microsecond(text, ns):
    assert unix_ns(text) == ns


@pytest.mark.parametrize("text", ["", "noon", "2026-13-01", "9999-12-31T23:59:59Z", "0001-01-01"])
def test_what_is_no_moment_that_can_be_kept_is_refused(text):
    with pytest.raises(ValueError, match=r"isoformat|month|between 1677 and 2262"):
        unix_ns(text)
