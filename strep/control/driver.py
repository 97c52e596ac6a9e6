"""Drives forks: sends the commands that they ask for, opens their ports, and has them written.

A fork says what is to be asked of the carrier, and when; this does it, whatever led to it: a
request, a rule, a doubt, a restart. There is at most one command under way for each fork, and
`max_commands` for all of them together. A fork is written to disk, if that can be written, before
the carrier hears of it, so that a daemon that is started again knows all forks that there may be.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID, uuid4

import structlog

from strep.control.commands import ForkStart, ForkStop
from strep.control.errors import (
    AuthenticationError,
    CallControlError,
    CallEndedError,
    NotFoundError,
    ValidationError,
)
from strep.control.forks import (
    CallHasForkError,
    Change,
    DrainingError,
    Fork,
    ForkError,
    ForkParameterError,
    NoPortsError,
    TooManyForksError,
    UnknownLegError,
)
from strep.control.opener import ForkPorts
from strep.control.parameters import Base64
from strep.control.ports import PortPool

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from strep.control.base import Action, CommandResult
    from strep.control.forks import Ask, Outcome, State, StreamType, Way, Why
    from strep.control.memory import Memory
    from strep.control.opener import PortOpener
    from strep.control.settings import ControlSettings

logger = structlog.get_logger("strep.control")

FORKS_REMEMBERED = 10_000
"""Settled forks that are still listed, and known as their calls' last ones."""
MAX_ID_CHARACTERS = 512


class Carrier(Protocol):
    """Who takes commands: `CallControl`."""

    async def send(self, command: Action, call_control_id: str, /) -> CommandResult:
        """Send a command until its outcome is known or its time is over.

        Raises `CallControlError`.
        """
        ...


@dataclass(slots=True, eq=False)
class _Held:
    """A fork that is not settled."""

    fork: Fork
    followed: int = 0
    """How many of its changes were followed."""
    is_call_over: bool = False
    """Whether it was followed that its call is over."""
    task: asyncio.Task[None] | None = None
    """What is done for it now."""
    error: Exception | None = None
    """Why its last command failed."""
    wake_ns: int | None = None
    """When it is to be looked at, as it stands in the heap."""


class Driver:
    """All forks; asyncio, one thread. `clock` gives nanoseconds since 1970 and never goes back.

    `on_change` is told of every new state of a fork, `on_call_over` of one whose call is over.
    """

    def __init__(
        self,
        settings: ControlSettings,
        *,
        carrier: Carrier,
        opener: PortOpener,
        memory: Memory,
        clock: Callable[[], int],
        on_change: Callable[[Fork, Change], None],
        on_call_over: Callable[[Fork], None],
    ) -> None:
        self.changes: Counter[tuple[State, Why]] = Counter()
        """How often forks came into a state, and why."""
        self.commands: Counter[tuple[Ask, Outcome]] = Counter()
        """What became of commands."""
        self.settings = settings
        """May be replaced by others that differ in what can change; see `strep.reload`."""
        self.is_draining = False
        """Whether no new forks are taken."""
        low, high = settings.port_range or (0, 0)
        self.ports = ForkPorts(
            PortPool(low, high, cooldown_ns=_ns(settings.port_cooldown_s)),
            opener,
            clock,
            grace_ns=_ns(settings.stop_grace_s),
        )
        self._carrier = carrier
        self._memory = memory
        self._clock = clock
        self._on_change = on_change
        self._on_call_over = on_call_over
        self._held: dict[UUID, _Held] = {}
        self._settled: OrderedDict[UUID, Fork] = OrderedDict()
        self._latest: dict[str, Fork] = {}
        """The last fork of each call, by call_control_id."""
        self._wakes: list[tuple[int, int, _Held]] = []
        """A heap of when a fork is to be looked at, and a number against ties."""
        self._wakes_made = 0
        self._slots = asyncio.Semaphore(settings.max_commands)
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_stopped = False

    def __iter__(self) -> Iterator[Fork]:
        """Go through the settled forks that are remembered, and then those that are not settled."""
        yield from self._settled.values()
        yield from (held.fork for held in self._held.values())

    @property
    def unsettled(self) -> list[Fork]:
        """Those that are open, or not yet known to be stopped."""
        return [held.fork for held in self._held.values()]

    def get(self, fork_id: UUID) -> Fork | None:
        """Return a fork that is not forgotten."""
        held = self._held.get(fork_id)
        return held.fork if held is not None else self._settled.get(fork_id)

    def latest(self, call_control_id: str | None) -> Fork | None:
        """Return the last fork of a call."""
        return None if call_control_id is None else self._latest.get(call_control_id)

    def request(
        self,
        call_control_id: str,
        call_leg_id: UUID | None,
        why: Why,
        *,
        way: Way | None = None,
        stream_type: StreamType | None = None,
        client_state: str | None = None,
        attempt: int = 1,
    ) -> Fork:
        """Begin a fork and return it; its start will be asked of the carrier.

        Raises `ForkError`; then there is none.
        """
        if self.is_draining:
            raise DrainingError("the daemon is about to stop and takes no new calls")
        previous = self._latest.get(call_control_id)
        if previous is not None and not previous.is_settled:
            raise CallHasForkError(
                f"the call has a fork already, {previous.id}, which is {previous.state}"
                + ("" if previous.is_open else ", and its end was not yet confirmed")
            )
        if len(self._held) >= self.settings.max_forks:
            raise TooManyForksError(f"there are {len(self._held)} forks already, the most allowed")
        if not 1 <= len(call_control_id) <= MAX_ID_CHARACTERS:
            raise ForkParameterError(
                f"a call_control_id has 1 to {MAX_ID_CHARACTERS} characters, not"
                f" {len(call_control_id)}"
            )
        if client_state is not None:
            try:
                Base64(client_state).data  # noqa: B018 -- read for its check
            except ValueError as error:
                raise ForkParameterError(f"client_state: {error}") from None
        way, stream_type = self.settings.choose(way, stream_type)
        if way == "ports" and call_leg_id is None:
            raise UnknownLegError(
                "the call's call_leg_id is not known, and packets on ports of their own do not"
                " tell it: give it, or wait for the call's first webhook"
            )
        now_ns = self._clock()
        fork = Fork(
            id=uuid4(),
            call_control_id=call_control_id,
            call_leg_id=call_leg_id,
            way=way,
            stream_type=stream_type,
            pair=self.ports.pool.take(now_ns) if way == "ports" else None,
            client_state=client_state,
            attempt=attempt,
            first_media_timeout_ns=_ns(self.settings.first_media_timeout_s),
            changes=[Change("requested", why, now_ns)],
            owes_stopped=previous is not None and previous.awaits_stopped,
        )
        self._hold(fork)
        self.follow(fork)
        return fork

    async def restore(self, forks: list[Fork]) -> None:
        """Go on with forks that an earlier daemon had."""
        for fork in forks:
            self._hold(fork, followed=len(fork.changes))
            fork.resume(self._clock())
            if fork.pair is not None:
                self.ports.pool.hold(fork.pair)
            if not await self.ports.open_again(fork):
                fork.stop(self._clock())
            self.follow(fork)

    def follow(self, fork: Fork) -> None:
        """Do what follows from whatever happened to a fork."""
        held = self._held.get(fork.id)
        if held is None or self._is_stopped:
            return
        for change in fork.changes[held.followed :]:
            self.changes[change.state, change.why] += 1
            _log(fork, change)
            self._on_change(fork, change)
        held.followed = len(fork.changes)
        if fork.is_call_over and not held.is_call_over:
            held.is_call_over = True
            self._on_call_over(fork)
        self._memory.keep_fork(fork)
        if held.task is None:
            now_ns = self._clock()
            if fork.due(now_ns) is not None:
                held.task = self._spawn(self._work(held))
            elif fork.is_settled:
                self._settle(held)
            else:
                self._wake_at(held, fork.wake_ns)

    async def tried(self, fork: Fork) -> Exception | None:
        """Wait until all that is to be asked now was; return why the last command failed."""
        held = self._held.get(fork.id)
        if held is None:
            return None
        while held.task is not None:
            # not with the task, which ends with the daemon
            await asyncio.wait([held.task])
        return held.error

    def tick(self, now_ns: int) -> None:
        """Bring the passing of time."""
        while self._wakes and self._wakes[0][0] <= now_ns:
            at_ns, _, held = heapq.heappop(self._wakes)
            if at_ns == held.wake_ns:
                held.wake_ns = None
                held.fork.tick(now_ns)
                self.follow(held.fork)
        self.ports.pool.wake(now_ns)
        for pair in self.ports.due(now_ns):
            self._spawn(self.ports.close(pair))

    async def stop(self) -> None:
        """Leave all as it is: forks go on at the carrier, and here when there is a driver again."""
        self._is_stopped = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # -- helpers

    def _hold(self, fork: Fork, followed: int = 0) -> None:
        self._held[fork.id] = _Held(fork, followed)
        self._latest[fork.call_control_id] = fork

    def _settle(self, held: _Held) -> None:
        """Let go of a fork of which nothing is to be expected any more."""
        fork = held.fork
        del self._held[fork.id]
        self._settled[fork.id] = fork
        if len(self._settled) > FORKS_REMEMBERED:
            _, oldest = self._settled.popitem(last=False)
            if self._latest[oldest.call_control_id] is oldest:
                del self._latest[oldest.call_control_id]
        if fork.pair is not None:
            self.ports.leave(fork.pair)
        if (
            fork.why == "no_media"
            and fork.attempt <= self.settings.retry_forks
            and not fork.is_call_over
        ):
            try:
                self.request(
                    fork.call_control_id,
                    fork.call_leg_id,
                    "again",
                    way=fork.way,
                    stream_type=fork.stream_type,
                    client_state=fork.client_state,
                    attempt=fork.attempt + 1,
                )
            except ForkError as error:
                logger.warning("fork not tried again", fork_id=str(fork.id), error=str(error))

    async def _work(self, held: _Held) -> None:
        """Do for a fork what is to be done now."""
        fork = held.fork
        try:
            async with self._slots:
                ask = fork.due(self._clock())
                if ask is not None:
                    await self._ask(held, ask)
        finally:
            held.task = None
            self.follow(fork)

    async def _ask(self, held: _Held, ask: Ask) -> None:
        """Send a command, with all that has to come before it, and take in the answer."""
        fork = held.fork
        held.error = None
        outcome: Outcome = "done"
        try:
            if ask == "fork_start":
                await self.ports.open_for(fork)
            await self._memory.written()
            if fork.ask != ask:
                return
            result = await self._carrier.send(self._command(fork, ask), fork.call_control_id)
            if result.already_ended:
                outcome = "call_ended"
        except NoPortsError as error:
            held.error = error
            fork.no_ports(self._clock(), str(error))
            return
        except CallControlError as error:
            held.error, outcome = error, outcome_of(error)
        except Exception as error:
            # a defect of ours: said with its traceback, and the fork is in doubt
            logger.exception("a command could not be sent", command=ask, fork_id=str(fork.id))
            held.error, outcome = error, "unknown"
        self.commands[ask, outcome] += 1
        was_in_doubt = fork.in_doubt
        fork.answered(ask, outcome, self._clock(), None if held.error is None else str(held.error))
        if fork.in_doubt and not was_in_doubt:
            logger.warning(
                "fork in doubt: the command will be sent again",
                command=ask,
                fork_id=str(fork.id),
                error=fork.error,
            )

    def _command(self, fork: Fork, ask: Ask) -> Action:
        further: dict[str, Any] = {"command_id": fork.command_id(ask)}
        if fork.client_state is not None:
            further["client_state"] = Base64(fork.client_state)
        if ask == "fork_stop":
            return ForkStop(stream_type=fork.stream_type, **further)
        return ForkStart(
            stream_type=fork.stream_type, **self.settings.targets(fork.pair), **further
        )

    def _wake_at(self, held: _Held, at_ns: int) -> None:
        """Have a fork looked at, unless it is looked at before anyway."""
        if held.wake_ns is None or at_ns < held.wake_ns:
            held.wake_ns = at_ns
            self._wakes_made += 1
            heapq.heappush(self._wakes, (at_ns, self._wakes_made, held))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def outcome_of(error: CallControlError) -> Outcome:
    """Return what a command's error says of its outcome.

    Where the carrier takes no more commands for now (429), an earlier try may have been obeyed.
    """
    match error:
        case CallEndedError():
            return "call_ended"
        case NotFoundError():
            return "not_found"
        case AuthenticationError():
            return "unauthorized"
        case ValidationError():
            return "refused"
        case _:
            return "unknown"


def _log(fork: Fork, change: Change) -> None:
    log = logger.warning if change.state == "failed" else logger.info
    log(
        f"fork {change.state}",
        fork_id=str(fork.id),
        call_control_id=fork.call_control_id,
        call_leg_id=None if fork.call_leg_id is None else str(fork.call_leg_id),
        why=change.why,
        detail=change.detail,
    )


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)
