"""Who may open tracks, and whose packets a track takes.

A track is *pinned* to the IP address that its first packet came from. Packets of another one are
strangers' and dropped, unless nothing has come from the track's own for `source_timeout_s`: then
the stream may have moved, and the track is pinned to the first stranger. So nobody can talk into a
call whose media flows without sending from its own address; against that, and only that, there is
the network (see the documentation on security).

A new track needs a source in one of the `allowed_sources`, where these are given, and a token of
its host's *bucket*: `burst_tracks` at once and `new_tracks_per_s` from then on. Of more than
`MAX_BUCKETS` hosts those that opened most lately have one each, and all others one together.

Ports count nowhere: a host may change them as it likes.

Pure: time is an argument, in nanoseconds on the readers' clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address, IPv6Network
from typing import TYPE_CHECKING

import numpy as np

from strep_kernel import load

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

ADDRESS_BYTES = 16
WORDS = ADDRESS_BYTES // 8
"""Of 64 bits, in an address."""
MAX_BUCKETS = 4096
MAX_CACHED_ADDRESSES = 4096
PURGE_NS = 1_000_000_000
_ANYBODY = b""
"""The bucket of all who have none of their own."""

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True, kw_only=True)
class GateSettings:
    """What the gate goes by; see the module."""

    allowed_sources: tuple[Network, ...] = ()
    """Networks that tracks may be opened from; any where there are none."""
    new_tracks_per_s: float = 1000.0
    burst_tracks: int = 8192
    source_timeout_s: float = 1.0


class Gate:
    """Pins and buckets of one receiver with at most `max_tracks` rows."""

    def __init__(self, max_tracks: int, settings: GateSettings) -> None:
        self._pins = np.zeros((max_tracks, WORDS), np.uint64)
        self._is_allowed: dict[bytes, bool] = {}
        self._buckets = _Buckets()
        self.set(settings)
        self._kernel = kernel = load()
        if kernel is not None:
            self._columns = kernel.Columns(self._pins)

    def set(self, settings: GateSettings) -> None:
        """Go by these settings from now on; open tracks stay."""
        self.source_timeout_ns = round(settings.source_timeout_s * 1e9)
        self._networks = tuple(map(_mapped, settings.allowed_sources))
        self._is_allowed.clear()
        self._buckets.set(settings.new_tracks_per_s, settings.burst_tracks)

    def pin(self, rows: NDArray[np.intp], source: NDArray[np.uint8]) -> None:
        """Pin tracks to sources, (n, 24) uint8 as in `Endpoint`."""
        self._pins[rows] = source.view(np.uint64)[:, :WORDS]

    def strangers(
        self, rows: NDArray[np.intp], source: NDArray[np.uint8], slots: NDArray[np.intp]
    ) -> NDArray[np.intp]:
        """Return the indices of packets that do not come from where their track is pinned to.

        `source` is a batch's column, (slots, 24) uint8 and C-contiguous; packet i is in `slots[i]`
        and of the track on `rows[i]`.
        """
        if self._kernel is None:
            words = source.view(np.uint64)[:, :WORDS]
            same = (self._pins.take(rows, axis=0) == words.take(slots, axis=0)).all(axis=1)
            return np.flatnonzero(~same)
        found = np.empty(len(rows), np.intp)
        count = self._kernel.strangers(
            self._columns, self._kernel.Columns(rows, slots, source, found), len(rows)
        )
        return found[:count]

    def allows(self, source: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Tell from which sources, (n, 24) uint8, tracks may be opened: (n,) bool."""
        if not self._networks:
            return np.ones(len(source), np.bool_)
        return np.array([self._allows(address) for address in _addresses(source)], np.bool_)

    def has_token(self, source: NDArray[np.uint8], now_ns: int) -> NDArray[np.bool_]:
        """Tell whose buckets have a token: (n,) bool; none is taken."""
        buckets = self._buckets
        return np.array(
            [buckets.tokens(address, now_ns) >= 1 for address in _addresses(source)], np.bool_
        )

    def take_token(self, source: NDArray[np.uint8], now_ns: int) -> bool:
        """Take a token for a track of a source, (24,) uint8; False where there is none."""
        return self._buckets.take(source[:ADDRESS_BYTES].tobytes(), now_ns)

    def _allows(self, address: bytes) -> bool:
        known = self._is_allowed.get(address)
        if known is None:
            if len(self._is_allowed) >= MAX_CACHED_ADDRESSES:
                self._is_allowed.clear()
            host = IPv6Address(address)
            known = self._is_allowed[address] = any(host in each for each in self._networks)
        return known


class _Buckets:
    """A bucket of tokens for each address that has opened tracks lately."""

    def __init__(self) -> None:
        self._per_ns = 0.0
        self._burst = 0.0
        self._levels: dict[bytes, tuple[float, int]] = {}
        """Tokens, and when there were so many; a full bucket need not be here."""
        self._next_purge_ns = 0

    def set(self, per_s: float, burst: int) -> None:
        """Fill buckets at this rate, up to `burst`."""
        self._per_ns = per_s / 1e9
        self._burst = float(burst)

    def tokens(self, address: bytes, now_ns: int) -> float:
        """Return how many tokens an address has."""
        return self._tokens(self._name(address, now_ns), now_ns)

    def take(self, address: bytes, now_ns: int) -> bool:
        """Take a token; False where there is none."""
        name = self._name(address, now_ns)
        tokens = self._tokens(name, now_ns)
        if tokens < 1:
            return False
        self._levels[name] = tokens - 1, now_ns
        return True

    def _tokens(self, name: bytes, now_ns: int) -> float:
        tokens, since_ns = self._levels.get(name, (self._burst, now_ns))
        return min(self._burst, tokens + max(0, now_ns - since_ns) * self._per_ns)

    def _name(self, address: bytes, now_ns: int) -> bytes:
        """Return whose bucket an address takes from."""
        levels = self._levels
        if address in levels:
            return address
        if len(levels) >= MAX_BUCKETS and now_ns >= self._next_purge_ns:
            self._next_purge_ns = now_ns + PURGE_NS
            for name in [n for n in levels if self._tokens(n, now_ns) >= self._burst]:
                del levels[name]
        return address if len(levels) < MAX_BUCKETS else _ANYBODY


def _addresses(source: NDArray[np.uint8]) -> Sequence[bytes]:
    packed = np.ascontiguousarray(source[:, :ADDRESS_BYTES]).tobytes()
    return [packed[i : i + ADDRESS_BYTES] for i in range(0, len(packed), ADDRESS_BYTES)]


def _mapped(network: Network) -> IPv6Network:
    """Return a network as the batch's addresses have it: IPv4 mapped into IPv6."""
    if isinstance(network, IPv6Network):
        return network
    return IPv6Network(f"::ffff:{network.network_address}/{96 + network.prefixlen}")
