"""The database file: its tables, how it is opened and brought up to date.

Every change of the tables is one more migration; what is there is never edited, because databases
out there were made by it. `PRAGMA user_version` counts the migrations that a database has seen.
"""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

APPLICATION_ID = 0x53545250
"""`STRP`: marks the file as ours among all SQLite databases."""
BUSY_TIMEOUT_S = 5.0
"""How long a statement waits for another process that holds the database."""

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """
        CREATE TABLE calls (
            call_leg_id TEXT NOT NULL PRIMARY KEY,
            started_ns INTEGER NOT NULL,
            call_control_id TEXT,
            call_session_id TEXT,
            connection_id TEXT,
            from_number TEXT,
            to_number TEXT,
            direction TEXT,
            client_state TEXT,
            state TEXT,
            answered_ns INTEGER,
            ended_ns INTEGER,
            hangup_cause TEXT
        )
        """,
        # The list in its order; with the numbers in it, a search for a part of one reads nothing
        # else, which takes some 25 ms for 100,000 calls.
        """
        CREATE INDEX calls_in_time ON calls (started_ns, call_leg_id, from_number, to_number)
        """,
        "CREATE INDEX calls_by_control_id ON calls (call_control_id)",
        """
        CREATE INDEX calls_told_open ON calls (call_leg_id)
        WHERE call_control_id IS NOT NULL AND ended_ns IS NULL
        """,
        """
        CREATE TABLE forks (
            id TEXT NOT NULL PRIMARY KEY,
            call_control_id TEXT NOT NULL,
            call_leg_id TEXT REFERENCES calls ON DELETE CASCADE,
            state TEXT NOT NULL,
            why TEXT NOT NULL,
            way TEXT NOT NULL,
            stream_type TEXT,
            rx_port INTEGER,
            tx_port INTEGER,
            requested_ns INTEGER NOT NULL,
            started_ns INTEGER,
            flowing_ns INTEGER,
            stopped_ns INTEGER,
            command_id TEXT
        )
        """,
        "CREATE INDEX forks_by_leg ON forks (call_leg_id)",
        "CREATE INDEX forks_by_control_id ON forks (call_control_id)",
        """
        CREATE INDEX forks_open ON forks (requested_ns)
        WHERE state IN ('requested', 'started', 'flowing')
        """,
        # `entry` comes last: it is long, and what stands before it is read without it.
        """
        CREATE TABLE tracks (
            call_leg_id TEXT NOT NULL REFERENCES calls ON DELETE CASCADE,
            leg TEXT NOT NULL,
            direction TEXT NOT NULL,
            opened_ns INTEGER NOT NULL,
            worker INTEGER NOT NULL,
            recording TEXT,
            manifest TEXT,
            reason TEXT,
            ended_ns INTEGER,
            duration_s REAL,
            packets INTEGER,
            lost INTEGER,
            late INTEGER,
            duplicate INTEGER,
            jitter_mean_ms REAL,
            speech_s REAL,
            entry TEXT,
            PRIMARY KEY (call_leg_id, leg, direction, opened_ns)
        )
        """,
        "CREATE INDEX tracks_open ON tracks (call_leg_id) WHERE reason IS NULL",
    ),
    # Quality of the tracks. The table is made anew, because `entry` has to stay the last column.
    (
        """
        CREATE TABLE new_tracks (
            call_leg_id TEXT NOT NULL REFERENCES calls ON DELETE CASCADE,
            leg TEXT NOT NULL,
            direction TEXT NOT NULL,
            opened_ns INTEGER NOT NULL,
            worker INTEGER NOT NULL,
            recording TEXT,
            manifest TEXT,
            reason TEXT,
            ended_ns INTEGER,
            duration_s REAL,
            packets INTEGER,
            lost INTEGER,
            late INTEGER,
            duplicate INTEGER,
            reordered INTEGER,
            jitter_mean_ms REAL,
            speech_s REAL,
            loss_runs INTEGER,
            longest_loss INTEGER,
            mos REAL,
            mos_concealed REAL,
            drift_ppm REAL,
            entry TEXT,
            PRIMARY KEY (call_leg_id, leg, direction, opened_ns)
        )
        """,
        """
        INSERT INTO new_tracks (
            call_leg_id, leg, direction, opened_ns, worker, recording, manifest, reason, ended_ns,
            duration_s, packets, lost, late, duplicate, jitter_mean_ms, speech_s, entry
        )
        SELECT call_leg_id, leg, direction, opened_ns, worker, recording, manifest, reason,
            ended_ns, duration_s, packets, lost, late, duplicate, jitter_mean_ms, speech_s, entry
        FROM tracks
        """,
        "DROP TABLE tracks",
        "ALTER TABLE new_tracks RENAME TO tracks",
        "CREATE INDEX tracks_open ON tracks (call_leg_id) WHERE reason IS NULL",
    ),
    # All that a daemon needs to go on with the calls and forks of another one.
    (
        "ALTER TABLE calls ADD COLUMN codecs TEXT",
        "ALTER TABLE calls ADD COLUMN told_ns INTEGER",
        "ALTER TABLE forks ADD COLUMN client_state TEXT",
        "ALTER TABLE forks ADD COLUMN attempt INTEGER",
        "ALTER TABLE forks ADD COLUMN ask TEXT",
        "ALTER TABLE forks ADD COLUMN carrier_started_ns INTEGER",
        "UPDATE forks SET ask = 'fork_start' WHERE state = 'requested'",
        "UPDATE forks SET ask = 'fork_stop', why = 'asked' WHERE why = 'stop_asked'",
        "DROP INDEX forks_open",
        """
        CREATE INDEX forks_unsettled ON forks (requested_ns)
        WHERE state IN ('requested', 'started', 'flowing') OR ask IS NOT NULL
        """,
    ),
)


class StoreError(Exception):
    """The database cannot be used as asked for, in one sentence for the operator."""


def connect(path: Path) -> sqlite3.Connection:
    """Open the database for reading and writing; make it, and its folder, where there is none.

    Raises `StoreError`.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{path}: its folder cannot be made: {error.strerror}") from None
    with faults(path), _opened(str(path)) as database:
        version = _version(database, path)  # before anything of another program is touched
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        database.execute("PRAGMA foreign_keys = ON")
        if version < len(MIGRATIONS):
            migrate(database, MIGRATIONS)
        return database


def connect_to_read(path: Path) -> sqlite3.Connection:
    """Open a database that is there for reading only, while another process may write it.

    Raises `StoreError`.
    """
    try:
        path.stat()
    except FileNotFoundError:
        raise StoreError(f"{path}: there is no database") from None
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}") from None
    with faults(path):
        try:
            return _opened_to_read(path, "mode=ro")
        except sqlite3.OperationalError:
            # Even a reader needs the write-ahead log, and where there is none the right to make
            # one. But then nobody writes either, and the file alone is the whole database.
            if path.with_name(f"{path.name}-wal").exists():
                raise
            return _opened_to_read(path, "immutable=1")


def migrate(database: sqlite3.Connection, migrations: Sequence[Sequence[str]]) -> None:
    """Apply the migrations that the database has not seen: all of them, or none."""
    with database:
        database.execute("BEGIN IMMEDIATE")
        (version,) = database.execute("PRAGMA user_version").fetchone()
        for statements in migrations[version:]:
            for statement in statements:
                database.execute(statement)
        database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        database.execute(f"PRAGMA user_version = {max(version, len(migrations))}")


@contextmanager
def faults(path: Path) -> Iterator[None]:
    """Turn what SQLite finds wrong into `StoreError`."""
    try:
        yield
    except sqlite3.Error as error:
        match getattr(error, "sqlite_errorcode", 0) & 0xFF:  # without the detail in the higher bits
            case sqlite3.SQLITE_NOTADB:
                what = "is not a database"
            case sqlite3.SQLITE_CORRUPT:
                what = f"the database is damaged ({error})"
            case _:
                what = str(error)
        raise StoreError(f"{path}: {what}") from error


@contextmanager
def _opened(database: str, *, uri: bool = False) -> Iterator[sqlite3.Connection]:
    """Open a database, and close it where what follows goes wrong."""
    connection = sqlite3.connect(
        database,
        uri=uri,
        timeout=BUSY_TIMEOUT_S,
        isolation_level=None,  # transactions are begun where they are needed
        check_same_thread=False,  # one at a time is enough, and that is the user's promise
    )
    connection.row_factory = sqlite3.Row
    try:
        yield connection
    except BaseException:
        connection.close()
        raise


def _opened_to_read(path: Path, how: str) -> sqlite3.Connection:
    with _opened(f"{path.absolute().as_uri()}?{how}", uri=True) as database:
        version = _version(database, path)
        if not version:
            raise StoreError(f"{path}: the database is empty")
        if version < len(MIGRATIONS):
            raise StoreError(
                f"{path}: the database is of an older strep (version {version}, here "
                f"{len(MIGRATIONS)}): `strep serve` brings it up to date"
            )
        return database


def _version(database: sqlite3.Connection, path: Path) -> int:
    """Return how many migrations the database has seen, 0 for an empty one.

    Raises `StoreError` where it is not ours or newer than this code.
    """
    with database:
        database.execute("BEGIN")  # all from one moment: another process may just be making it
        (owner,) = database.execute("PRAGMA application_id").fetchone()
        (version,) = database.execute("PRAGMA user_version").fetchone()
        (tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if owner != APPLICATION_ID and (owner or version or tables):
        raise StoreError(f"{path}: is a database of another program")
    if version > len(MIGRATIONS):
        raise StoreError(
            f"{path}: the database is of a newer strep (version {version}, here {len(MIGRATIONS)})"
        )
    return int(version)
