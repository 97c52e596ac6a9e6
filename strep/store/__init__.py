"""What the daemon remembers of calls, forks and recordings, in an SQLite database."""

from strep.store.records import (
    INTERRUPTED,
    CallDetails,
    CallOverview,
    CallSearch,
    Page,
    StoredCall,
    StoredFork,
    StoredTrack,
    unix_ns,
)
from strep.store.schema import StoreError
from strep.store.store import AmbiguousCallError, Store, UnknownCallError

__all__ = [
    "INTERRUPTED",
    "AmbiguousCallError",
    "CallDetails",
    "CallOverview",
    "CallSearch",
    "Page",
    "Store",
    "StoreError",
    "StoredCall",
    "StoredFork",
    "StoredTrack",
    "UnknownCallError",
    "unix_ns",
]
