"""What the HTTP interface asks of the daemon."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, Unpack

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from uuid import UUID

    from aiohttp import web

    from strep.control.forks import Fork, StreamType, Way
    from strep.store import CallSearch, Page

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Forks(Protocol):
    """Who starts and stops forks: `strep.control.plane.ControlPlane`."""

    def forks(self) -> Sequence[Fork]:
        """Return the open forks and those that were closed lately, in the order of requests."""
        ...

    def fork(self, fork_id: UUID, /) -> Fork:
        """Return a fork; raises `UnknownForkError`."""
        ...

    async def start_fork(
        self,
        call_control_id: str,
        /,
        *,
        call_leg_id: UUID | None,
        way: Way | None,
        stream_type: StreamType | None,
        client_state: str | None,
        codecs: str | None,
    ) -> Fork:
        """Start a fork; return it when the carrier has answered, or as in doubt if it has not.

        `client_state` is Base64. Raises `ForkError` or `CallControlError`.
        """
        ...

    async def stop_fork(self, fork_id: UUID, /) -> Fork:
        """Stop a fork; return it when the carrier has answered, or as in doubt if it has not.

        Raises `UnknownForkError` or `CallControlError`.
        """
        ...


class Source(Protocol):
    """Who knows the answers and does what is asked.

    All methods run on the event loop and keep it from nothing else.
    """

    @property
    def control(self) -> Forks | None:
        """The control plane; None where none is configured."""
        ...

    @property
    def webhooks(self) -> Handler | None:
        """The handler of `POST /webhooks`; None where no control plane is configured.

        Read once, when the application is made.
        """
        ...

    async def health(self) -> Mapping[str, Any]:
        """Return the document of `/healthz`.

        Its `status` is `ok`, `degraded`, or `down` where nothing receives.
        """
        ...

    async def readiness(self) -> Mapping[str, Any]:
        """Return the document of `/readyz`: `ready`, and a list of texts, `reasons` why not."""
        ...

    async def exposition(self) -> bytes:
        """Return the metrics in Prometheus' text format."""
        ...

    async def open_calls(self) -> str:
        """Return the calls whose media is received now, a text of JSON.

        An object with `calls`, each with `call_leg_id`, `worker`, `tracks` and what is known of it
        under the names of `Call.facts`; and `missing_workers`, the numbers of those that did not
        answer. See `strep.api.documents.OpenCalls`.
        """
        ...

    async def search_calls(self, **wanted: Unpack[CallSearch]) -> Page | None:
        """Search the database, as `Store.search` does; None where no database is kept.

        Raises `StoreError`, and `UnknownCallError` where there is no call `after`.
        """
        ...

    async def call(self, call_id: str, /) -> Mapping[str, Any] | None:
        """Return what is known of a call, as `CallDetails.as_json` does; None where it is unknown.

        `call_id` is a call_leg_id, the beginning of one, or a call_control_id. Where no database is
        kept, open calls are known with their `call_leg_id`, `worker` and `tracks`. Raises
        `StoreError`, and `AmbiguousCallError` where several begin so.
        """
        ...

    async def pause(self, call_id: str, /, *, is_paused: bool) -> Mapping[str, Any] | None:
        """Pause or resume the recordings of a call, which is in force when this returns.

        Return `call_leg_id` and `is_paused`; None where the call is unknown. Raises as `call` does,
        `CallOverError`, and `PauseError` where it is not sure that it is in force.
        """
        ...
