"""A stand-in carrier on loopback, for tests and demonstrations.

`LocalCarrier` is the way in for most; `Simulator` is the same for code on an event loop, and
`strep simulate` for everything else. `expected_audio` says what a right recording of a track must
hold, and `difference` where one is not right.

Importing this package imports nothing else: names are looked up when they are used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from strep.simulator.expected import ExpectedAudio, Piece, difference, expected_audio
    from strep.simulator.ledger import Fate, TrackLog
    from strep.simulator.local import LocalCarrier
    from strep.simulator.problems import RefusedError
    from strep.simulator.settings import Settings, load
    from strep.simulator.simulator import Simulator

__all__ = [
    "ExpectedAudio",
    "Fate",
    "LocalCarrier",
    "Piece",
    "RefusedError",
    "Settings",
    "Simulator",
    "TrackLog",
    "difference",
    "expected_audio",
    "load",
]

_HOMES = {
    "ExpectedAudio": "expected",
    "Fate": "ledger",
    "LocalCarrier": "local",
    "Piece": "expected",
    "RefusedError": "problems",
    "Settings": "settings",
    "Simulator": "simulator",
    "TrackLog": "ledger",
    "difference": "expected",
    "expected_audio": "expected",
    "load": "settings",
}
"""The module of each name."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
