"""The store: what is put into the database and how it is found again."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from strep.store.records import (
    INTERRUPTED,
    CallDetails,
    CallOverview,
    CallQuality,
    Page,
    StoredCall,
    StoredFork,
    StoredTrack,
)
from strep.store.schema import StoreError, connect, connect_to_read, faults

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Mapping
    from pathlib import Path

Record = TypeVar("Record", StoredCall, StoredFork, StoredTrack)

NAMED_WHEN_AMBIGUOUS = 5
"""How many calls an error names of those that were meant perhaps."""


class UnknownCallError(StoreError):
    """There is no such call."""


class AmbiguousCallError(StoreError):
    """Several calls begin with what was given."""


def _upsert(table: str, record: type, *key: str, **rules: str) -> str:
    """Return the statement that puts a record: new, or over what is known of the same `key`.

    What is None erases nothing; `rules` say what else becomes of a column.
    """
    names = [field.name for field in fields(record)]
    news = {name: f"coalesce(excluded.{name}, {name})" for name in names} | rules
    return f"""
        INSERT INTO {table} ({", ".join(names)}) VALUES ({", ".join(f":{name}" for name in names)})
        ON CONFLICT ({", ".join(key)})
        DO UPDATE SET {", ".join(f"{name} = {news[name]}" for name in names if name not in key)}
    """  # noqa: S608 -- names of our own columns


_PUT_CALL = _upsert(
    "calls", StoredCall, "call_leg_id", started_ns="min(excluded.started_ns, started_ns)"
)
_PUT_FORK = _upsert("forks", StoredFork, "id", ask="excluded.ask")
_PUT_TRACK = _upsert("tracks", StoredTrack, "call_leg_id", "leg", "direction", "opened_ns")

_CONDITIONS = {
    "number": "(instr(from_number, :number) OR instr(to_number, :number))",
    "since_ns": "started_ns >= :since_ns",
    "until_ns": "started_ns < :until_ns",
    # the last code point there is comes after all that may follow the prefix
    "call_leg_id": "call_leg_id BETWEEN :call_leg_id AND :call_leg_id || char(0x10ffff)",
    "call_control_id": "call_control_id = :call_control_id",
    "after": """(started_ns, call_leg_id) < (
        SELECT started_ns, call_leg_id FROM calls WHERE call_leg_id = :after
    )""",
}
# Left to itself SQLite takes the index of control ids, which holds all calls instead of the open.
_IS_OPEN = """call_leg_id IN (
    SELECT call_leg_id FROM calls INDEXED BY calls_told_open
    WHERE call_control_id IS NOT NULL AND ended_ns IS NULL
    UNION SELECT call_leg_id FROM tracks WHERE reason IS NULL
)"""

_IS_UNSETTLED = "(state IN ('requested', 'started', 'flowing') OR ask IS NOT NULL)"


class Store:
    """The database, open until `close`: that of one daemon, which others may read meanwhile.

    Used from one thread at a time, and never across a fork of the process. What a method writes is
    there as a whole or not at all, whenever the process dies. All methods raise `StoreError` where
    the database cannot be read or written. Call leg ids are kept in lower case, and text that has
    no UTF-8 form with `?` in its place.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        """Open the database at `path`, see `connect`, or only to read; see `connect_to_read`."""
        self._path = path
        self._database = connect_to_read(path) if read_only else connect(path)

    def close(self) -> None:
        """Close the database; nothing may be called afterwards."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Write all that is put within as a whole or not at all, and in less time."""
        with self._transaction():
            yield

    def put_call(self, call: StoredCall) -> None:
        """Add to what is known of a call: what is None erases nothing, the earliest start stays.

        Forks that were requested before the call's leg id was known become its own.
        """
        with self._transaction() as database:
            _put_call(database, call)

    def put_fork(self, fork: StoredFork) -> None:
        """Add to what is known of a fork, and that there is a call of its leg."""
        with self._transaction() as database:
            if fork.call_leg_id is None:
                fork = replace(fork, call_leg_id=_leg_of(database, fork.call_control_id))
            if fork.call_leg_id is not None:
                call = StoredCall(
                    call_leg_id=fork.call_leg_id,
                    call_control_id=fork.call_control_id,
                    started_ns=fork.requested_ns,
                )
                _put_call(database, call)
            database.execute(_PUT_FORK, _values(fork))

    def put_track(self, track: StoredTrack) -> None:
        """Keep a track that was opened or closed, and that there is a call of its leg.

        A closed track is not opened again by hearing of its opening late.
        """
        with self._transaction() as database:
            call = StoredCall(call_leg_id=track.call_leg_id, started_ns=track.opened_ns)
            _put_call(database, call)
            database.execute(_PUT_TRACK, _values(track))

    def interrupt_tracks(self, worker: int | None = None) -> list[StoredTrack]:
        """Mark all open tracks, or those of one worker, as `INTERRUPTED`; return them.

        To be called where the receiver has gone without closing its tracks: when a worker has
        died, and at the start for those of a daemon that was killed.
        """
        which = "reason IS NULL AND (:worker IS NULL OR worker = :worker)"
        values = {"worker": worker, "reason": INTERRUPTED}
        with self._transaction() as database:
            rows = database.execute(
                f"SELECT * FROM tracks WHERE {which} ORDER BY opened_ns",  # noqa: S608 -- our own
                values,
            ).fetchall()
            database.execute(f"UPDATE tracks SET reason = :reason WHERE {which}", values)  # noqa: S608
        return [replace(_record(StoredTrack, row), reason=INTERRUPTED) for row in rows]

    def unsettled_forks(self) -> list[StoredFork]:
        """Return the forks that are open, or of which a command's outcome is to be known yet.

        In the order of their requests.
        """
        with self._transaction("DEFERRED") as database:
            rows = database.execute(
                f"SELECT * FROM forks WHERE {_IS_UNSETTLED} ORDER BY requested_ns"  # noqa: S608 -- our own
            ).fetchall()
        return [_record(StoredFork, row) for row in rows]

    def search(
        self,
        *,
        number: str | None = None,
        since_ns: int | None = None,
        until_ns: int | None = None,
        call_leg_id: str | None = None,
        call_control_id: str | None = None,
        is_open: bool = False,
        after: str | None = None,
        limit: int | None = 100,
    ) -> Page:
        """Return the calls for which all holds that is given, the newest first.

        - `number`: stands anywhere in the caller's number or in the called one
        - `since_ns`, `until_ns`: the call started at or after the one and before the other
        - `call_leg_id`: the call leg's id or the beginning of it
        - `is_open`: see `CallOverview.is_open`
        - `after`: the `next` of the page before
        - `limit`: calls on the page, 1 or more; None for all

        Raises `UnknownCallError` where there is no call `after`.
        """
        values = {
            "number": number,
            "since_ns": since_ns,
            "until_ns": until_ns,
            "call_leg_id": None if call_leg_id is None else call_leg_id.lower(),
            "call_control_id": call_control_id,
            "after": None if after is None else after.lower(),
        }
        conditions = [_CONDITIONS[name] for name, value in values.items() if value is not None]
        if is_open:
            conditions.append(_IS_OPEN)
        with self._transaction("DEFERRED") as database:
            if after is not None and not _overviews(database, "call_leg_id = :after", values):
                raise UnknownCallError(f"there is no call {after} to go on after")
            more = None if limit is None else limit + 1
            calls = _overviews(database, " AND ".join(conditions) or "TRUE", values, more)
        page = calls[:limit]
        is_last = len(page) == len(calls)
        return Page(calls=page, next=None if is_last else page[-1].call.call_leg_id)

    def details(self, call_id: str) -> CallDetails:
        """Return the call of this call_leg_id, beginning of one, or call_control_id.

        Raises `UnknownCallError`, and `AmbiguousCallError` where several begin so.
        """
        values = {"id": call_id, "call_leg_id": call_id.lower()}
        exactly = "call_leg_id = :call_leg_id OR call_control_id = :id"
        with self._transaction("DEFERRED") as database:
            found = _overviews(database, exactly, values, 1) or (
                _overviews(database, _CONDITIONS["call_leg_id"], values, NAMED_WHEN_AMBIGUOUS + 1)
                if call_id
                else []
            )
            if not found:
                raise UnknownCallError(f"there is no call {call_id or '(an empty id)'}")
            if len(found) > 1:
                names = [each.call.call_leg_id for each in found[:NAMED_WHEN_AMBIGUOUS]]
                more = ["..."] if len(found) > NAMED_WHEN_AMBIGUOUS else []
                raise AmbiguousCallError(
                    f"several calls begin with {call_id}: {', '.join(names + more)}"
                )
            of_the_call = (found[0].call.call_leg_id,)
            forks = database.execute(
                "SELECT * FROM forks WHERE call_leg_id = ? ORDER BY requested_ns", of_the_call
            ).fetchall()
            tracks = database.execute(
                "SELECT * FROM tracks WHERE call_leg_id = ? ORDER BY opened_ns", of_the_call
            ).fetchall()
        return CallDetails(
            overview=found[0],
            forks=[_record(StoredFork, row) for row in forks],
            tracks=[_record(StoredTrack, row) for row in tracks],
        )

    def call(self, call_leg_id: str) -> dict[str, Any] | None:
        """Return a call as manifests tell of it; None where the carrier has told nothing of it."""
        values = {"call_leg_id": call_leg_id.lower()}
        with self._transaction("DEFERRED") as database:
            row = database.execute(
                "SELECT * FROM calls WHERE call_leg_id = :call_leg_id AND call_control_id NOT NULL",
                values,
            ).fetchone()
            fork = database.execute(
                "SELECT id FROM forks WHERE call_leg_id = :call_leg_id ORDER BY requested_ns DESC",
                values,
            ).fetchone()
        if row is None:
            return None
        told = _record(StoredCall, row).as_json()
        del told["told_at"]
        if fork is not None:
            told["fork_id"] = fork["id"]
        return {key: value for key, value in told.items() if value is not None}

    def calls_ended_since(self, moment_ns: int) -> list[StoredCall]:
        """Return the calls that ended at this moment or later, in the order of their ends."""
        with self._transaction("DEFERRED") as database:
            rows = database.execute(
                "SELECT * FROM calls WHERE ended_ns >= ? ORDER BY ended_ns", (moment_ns,)
            ).fetchall()
        return [_record(StoredCall, row) for row in rows]

    def tracks(self, call_leg_id: str) -> list[StoredTrack]:
        """Return the tracks of a call in the order in which they began; none of an unknown one."""
        with self._transaction("DEFERRED") as database:
            rows = database.execute(
                "SELECT * FROM tracks WHERE call_leg_id = ? ORDER BY opened_ns",
                (call_leg_id.lower(),),
            ).fetchall()
        return [_record(StoredTrack, row) for row in rows]

    def forget(self, before_ns: int) -> int:
        """Delete the calls that started before this moment and are not open; return how many.

        Their forks and tracks go with them, their files stay.
        """
        with self._transaction() as database:
            deleted = database.execute(
                f"DELETE FROM calls WHERE started_ns < ? AND NOT {_IS_OPEN}",  # noqa: S608 -- our own
                (before_ns,),
            ).rowcount
            database.execute(
                f"""
                DELETE FROM forks WHERE call_leg_id IS NULL AND requested_ns < ?
                AND NOT {_IS_UNSETTLED}
                """,  # noqa: S608 -- our own
                (before_ns,),
            )
        return deleted

    @contextmanager
    def _transaction(
        self, kind: Literal["IMMEDIATE", "DEFERRED"] = "IMMEDIATE"
    ) -> Iterator[sqlite3.Connection]:
        if self._database.in_transaction:  # of `together`
            with faults(self._path):
                yield self._database
            return
        with faults(self._path), self._database as database:
            database.execute(f"BEGIN {kind}")
            yield database


def _put_call(database: sqlite3.Connection, call: StoredCall) -> None:
    values = _values(call)
    database.execute(_PUT_CALL, values)
    database.execute(
        """
        UPDATE forks SET call_leg_id = :call_leg_id
        WHERE call_control_id = :call_control_id AND call_leg_id IS NULL
        """,
        values,
    )


def _leg_of(database: sqlite3.Connection, call_control_id: str) -> str | None:
    row = database.execute(
        "SELECT call_leg_id FROM calls WHERE call_control_id = ?", (call_control_id,)
    ).fetchone()
    return None if row is None else str(row["call_leg_id"])


def _overviews(
    database: sqlite3.Connection,
    condition: str,
    values: Mapping[str, Any],
    limit: int | None = None,
) -> list[CallOverview]:
    """Return the calls for which the condition holds, the newest first."""
    rows = database.execute(
        f"""
        SELECT found.*, count(tracks.opened_ns) AS tracks,
            count(tracks.opened_ns) - count(tracks.reason) AS open_tracks,
            total(tracks.packets) AS packets, total(tracks.lost) AS lost,
            total(tracks.late) AS late, total(tracks.duplicate) AS duplicate,
            sum(tracks.reordered) AS reordered, sum(tracks.loss_runs) AS loss_runs,
            max(tracks.longest_loss) AS longest_loss,
            total(tracks.jitter_mean_ms * tracks.packets) AS jitter_ms_packets,
            min(tracks.mos) AS mos, min(tracks.mos_concealed) AS mos_concealed,
            CASE WHEN max(tracks.drift_ppm) > -min(tracks.drift_ppm)
                THEN max(tracks.drift_ppm) ELSE min(tracks.drift_ppm) END AS drift_ppm,
            max(tracks.ended_ns) AS media_ended_ns
        FROM (
            SELECT * FROM calls WHERE {condition}
            ORDER BY started_ns DESC, call_leg_id DESC LIMIT :limit
        ) AS found LEFT JOIN tracks USING (call_leg_id)
        GROUP BY found.started_ns, found.call_leg_id
        ORDER BY found.started_ns DESC, found.call_leg_id DESC
        """,  # noqa: S608 -- conditions are our own, what was asked for is bound
        {name: _storable(value) for name, value in values.items()}
        | {"limit": -1 if limit is None else limit},
    )
    return [
        CallOverview(
            call=_record(StoredCall, row),
            tracks=row["tracks"],
            open_tracks=row["open_tracks"],
            packets=int(row["packets"]),
            lost=int(row["lost"]),
            media_ended_ns=row["media_ended_ns"],
            quality=CallQuality.of(dict(row)),
        )
        for row in rows
    ]


def _values(record: StoredCall | StoredFork | StoredTrack) -> dict[str, Any]:
    """Return what is stored of a record, by column."""
    values = {field.name: _storable(getattr(record, field.name)) for field in fields(record)}
    if record.call_leg_id is not None:
        values["call_leg_id"] = values["call_leg_id"].lower()
    return values


def _storable(value: Any) -> Any:
    match value:
        case str():
            return value.encode(errors="replace").decode()
        case int() | float() | None:
            return value
        case _:
            return json.dumps(value)


def _record(kind: type[Record], row: sqlite3.Row) -> Record:
    values = {field.name: row[field.name] for field in fields(kind)}
    if values.get("entry") is not None:
        values["entry"] = json.loads(values["entry"])
    return kind(**values)
