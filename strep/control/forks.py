"""The life of a fork: its states, why they changed, and which command the carrier is to be sent.

    requested --webhook--> started --packet--> flowing      each of them can stop,
        |                     |                             the first two can fail,
        +------> failed <-----+                             and packets may overtake the webhook

Two things are kept apart: the *state*, which follows from what was seen of the fork, and what is
to be *asked* of the carrier, `fork_start` or `fork_stop`. What is asked stays so until its outcome
is known. Where the outcome of a command remained unknown the fork is in doubt: a webhook or a
packet may tell, and the same command is sent again, ever more rarely, with the same `command_id`,
so that the carrier ignores it where it had obeyed before.

Pure: time is an argument, in nanoseconds since 1970 by a clock that never goes back.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal
from uuid import UUID, uuid5

from pipeline.utc import rfc3339

if TYPE_CHECKING:
    from collections.abc import Mapping

    from strep.control.ports import PortPair

State = Literal["requested", "started", "flowing", "stopped", "failed"]
Way = Literal["target", "ports"]
"""STREP on the port that all forks share, or plain RTP on a pair of ports of its own."""
StreamType = Literal["raw", "decrypted"]
Ask = Literal["fork_start", "fork_stop"]
Why = Literal[
    "asked",  # requested, or stopped, by a user
    "rule",  # requested because the call was answered on a chosen connection
    "again",  # requested because the fork before it failed
    "webhook",  # the carrier said so
    "packet",  # its media arrived
    "hangup",  # its call is over
    "call_ended",  # the carrier answered that its call is over
    "no_media",  # no packet came in time
    "refused",  # the carrier refused to start it
    "no_ports",  # no ports could be opened for it
    "lost",  # nothing was heard of it for longer than a call can last
]
Outcome = Literal[
    "done",
    "call_ended",  # not done, because the call is over
    "not_found",  # not done, because the carrier knows no such call, or no more
    "refused",  # not done, and no use to ask again
    "unauthorized",  # not done: the key is wrong
    "unknown",  # perhaps done, or not yet: to be asked again
]
"""What became of a command."""

NEXT: Mapping[State, frozenset[State]] = {
    "requested": frozenset({"started", "flowing", "stopped", "failed"}),
    "started": frozenset({"flowing", "stopped", "failed"}),
    "flowing": frozenset({"stopped"}),
    "stopped": frozenset(),
    "failed": frozenset(),
}
"""The states that may follow each."""

ASK_AGAIN_NS = 2_000_000_000
ASK_AGAIN_AT_MOST_NS = 60_000_000_000
"""How long after a command of unknown outcome it is sent again: twice as long each time."""
LOST_NS = 5 * 3600 * 1_000_000_000
"""The carrier ends calls after four hours at most; an hour more, and a fork's end was missed."""


class ForkError(Exception):
    """A fork cannot be had as asked for, in one sentence; `kind` names the class for metrics."""

    kind: ClassVar[str] = "fork"


class CallHasForkError(ForkError):
    """The call has a fork that is open or not yet known to be stopped, and can have but one."""

    kind = "call_has_fork"


class CallOverError(ForkError):
    """The call is known to be over."""

    kind = "call_over"


class UnknownForkError(ForkError):
    """There is no such fork."""

    kind = "unknown_fork"


class UnknownLegError(ForkError):
    """The call's call_leg_id is needed, and nobody has told it."""

    kind = "unknown_leg"


class ForkParameterError(ForkError):
    """What the fork is to be like is wrong in itself, or the settings lack what it needs."""

    kind = "parameter"


class NoPortsError(ForkError):
    """No pair of ports is free, or none could be opened."""

    kind = "no_ports"


class DrainingError(ForkError):
    """The daemon has been told to stop."""

    kind = "draining"


class TooManyForksError(ForkError):
    """There are as many forks as there may be."""

    kind = "too_many_forks"


@dataclass(frozen=True, slots=True)
class Change:
    """A state that a fork came into, why and when."""

    state: State
    why: Why
    at_ns: int
    detail: str | None = None
    """What the carrier said, where it did."""


@dataclass(slots=True, kw_only=True)
class Fork:
    """One attempt to have a call's media forked."""

    id: UUID
    call_control_id: str
    way: Way
    stream_type: StreamType = "raw"
    call_leg_id: UUID | None = None
    """None until somebody told it."""
    pair: PortPair | None = None
    client_state: str | None = None
    """Base64, sent with the commands; None leaves the call's own as it is."""
    attempt: int = 1
    first_media_timeout_ns: int = 10_000_000_000
    changes: list[Change]
    """From the request to now."""
    ask: Ask | None = "fork_start"
    """The command whose outcome is to be known yet."""
    ask_at_ns: int = 0
    """When it is to be sent, for the first time or again."""
    owes_stopped: bool = False
    """Whether the call's fork before this one was closed without `call.fork.stopped`, which may
    come yet and is not this one's."""
    carrier_started_ns: int | None = None
    """When it started, by the carrier's clock: what stopped before was another one."""
    asked: int = field(default=0, init=False)
    """How often the outcome of the command has remained unknown."""
    error: str | None = field(default=None, init=False)
    """What kept it from being known."""
    media_by_ns: int | None = field(default=None, init=False)
    """When silence is waited out no longer. Without a call_leg_id it is not, since what arrives
    cannot be known as this fork's."""
    is_call_over: bool = field(default=False, init=False)
    """Whether its call is known to be over."""
    heard_ns: int = field(default=0, init=False)
    """When there was the last sign of it: a webhook, a packet, an answer."""
    _has_carrier_stopped: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.heard_ns = self.changes[-1].at_ns

    # -- what it is

    @property
    def state(self) -> State:
        """The state it is in."""
        return self.changes[-1].state

    @property
    def why(self) -> Why:
        """What brought it there."""
        return self.changes[-1].why

    @property
    def is_open(self) -> bool:
        """Whether media flows or may begin to."""
        return bool(NEXT[self.state])

    @property
    def is_settled(self) -> bool:
        """Whether it is closed and nothing remains to be asked."""
        return not self.is_open and self.ask is None

    @property
    def is_stopping(self) -> bool:
        """Whether it is open, and to be stopped."""
        return self.is_open and self.ask == "fork_stop"

    @property
    def in_doubt(self) -> bool:
        """Whether the outcome of a command remained unknown."""
        return self.ask is not None and self.asked > 0

    @property
    def awaits_stopped(self) -> bool:
        """Whether the carrier, once it is closed, may have yet to say that it stopped."""
        never_began = self.why in {"refused", "no_ports"}
        return not (never_began or self._has_carrier_stopped or self.is_call_over)

    def command_id(self, ask: Ask) -> str:
        """Return the `command_id` of a command: always the same, also after a restart."""
        return str(uuid5(self.id, ask))

    def at_ns(self, state: State) -> int | None:
        """Return when it came into the state; None where it did not."""
        return next((each.at_ns for each in self.changes if each.state == state), None)

    def document(self) -> dict[str, Any]:
        """Return all about it that is of use to others, ready for JSON."""
        return {
            "id": str(self.id),
            "call_control_id": self.call_control_id,
            "call_leg_id": None if self.call_leg_id is None else str(self.call_leg_id),
            "state": self.state,
            "why": self.why,
            "is_stopping": self.is_stopping,
            "in_doubt": self.in_doubt,
            "error": self.error,
            "way": self.way,
            "rx_port": None if self.pair is None else self.pair.rx,
            "tx_port": None if self.pair is None else self.pair.tx,
            "stream_type": self.stream_type,
            "attempt": self.attempt,
            "changes": [
                {"state": c.state, "why": c.why, "at": rfc3339(c.at_ns), "detail": c.detail}
                for c in self.changes
            ],
        }

    # -- what happens by time

    def due(self, now_ns: int) -> Ask | None:
        """Return the command that is to be sent now."""
        return self.ask if self.ask_at_ns <= now_ns else None

    @property
    def wake_ns(self) -> int:
        """When `tick` or `due` will have something to say if nothing else happens before."""
        times = [self.heard_ns + LOST_NS]
        if self.ask is not None:
            times.append(self.ask_at_ns)
        if self.media_by_ns is not None:
            times.append(self.media_by_ns)
        return min(times)

    def tick(self, now_ns: int) -> None:
        """Bring the passing of time."""
        if now_ns >= self.heard_ns + LOST_NS:
            self._close("failed" if self.state == "requested" else "stopped", "lost", now_ns)
        elif self.media_by_ns is not None and now_ns >= self.media_by_ns:
            self.media_by_ns = None
            if self.state == "flowing":
                # on hold, or over: to start it again changes nothing, but the answer tells
                self._ask("fork_start", now_ns)
            else:
                self._move("failed", "no_media", now_ns)
                self._ask("fork_stop", now_ns)

    def resume(self, now_ns: int) -> None:
        """Go on after a restart, which may have missed anything: what is open is to prove it."""
        self.heard_ns = now_ns
        if self.is_open and self.ask is None and self.call_leg_id is not None:
            self.media_by_ns = now_ns + self.first_media_timeout_ns

    # -- what users want

    def stop(self, now_ns: int) -> None:
        """Have it stopped, unless it is closed; where that was asked already, ask again now."""
        if self.is_stopping:
            self.ask_at_ns = min(self.ask_at_ns, now_ns)
        elif self.is_open:
            self.media_by_ns = None
            self._ask("fork_stop", now_ns)

    # -- what the carrier says

    def answered(self, ask: Ask, outcome: Outcome, now_ns: int, detail: str | None = None) -> None:
        """Take in what became of a command."""
        if outcome == "unknown":
            self._remains_unknown(ask, now_ns, detail)
            return
        self.heard_ns = now_ns
        is_first = ask == "fork_start" and self.state == "requested"
        if outcome == "call_ended" or (outcome == "not_found" and not is_first):
            self.is_call_over = True
            self._close("failed" if is_first else "stopped", "call_ended", now_ns, detail)
        elif ask == "fork_stop":
            if outcome == "unauthorized":
                self._remains_unknown(ask, now_ns, detail)
            else:
                # done; or refused, because there is nothing to stop
                self._close("stopped", "asked", now_ns, detail)
        elif is_first and outcome != "done":
            self._close("failed", "refused", now_ns, detail)
        elif self.ask == "fork_start":
            # what has begun goes on, whatever the answer to one more start
            self._answer()
            self._expect_media(now_ns)

    def carrier_started(self, now_ns: int, occurred_ns: int) -> None:
        """Take in that the carrier began to fork, at `occurred_ns` by its own clock."""
        if self.is_open:
            self.heard_ns = now_ns
            self.carrier_started_ns = occurred_ns
            self._has_begun()
            if self.state == "requested":
                self._move("started", "webhook", now_ns)
                self._expect_media(now_ns)

    def carrier_stopped(self, now_ns: int, occurred_ns: int) -> None:
        """Take in that the carrier forks no more since `occurred_ns` by its own clock."""
        if self.carrier_started_ns is None and self.owes_stopped:
            self.owes_stopped = False
        elif self.carrier_started_ns is None or occurred_ns >= self.carrier_started_ns:
            self._has_carrier_stopped = True
            self._close("stopped", "asked" if self.is_stopping else "webhook", now_ns)

    def call_over(self, now_ns: int) -> None:
        """Take in that the call is over."""
        self.is_call_over = True
        self._close("stopped", "hangup", now_ns)

    def named(self, call_leg_id: UUID, now_ns: int) -> None:
        """Take in the id of its call's leg; the first one stays."""
        if self.call_leg_id is None:
            self.call_leg_id = call_leg_id
            if self.ask is None:
                self._expect_media(now_ns)

    # -- what arrives

    def no_ports(self, now_ns: int, detail: str) -> None:
        """Take in that no ports could be opened, so that the carrier was asked nothing."""
        self._close("failed", "no_ports", now_ns, detail)

    def packet(self, now_ns: int) -> None:
        """Take in that media arrives."""
        if self.is_open:
            self.heard_ns = now_ns
            self.media_by_ns = None
            self._has_begun()
            self._move("flowing", "packet", now_ns)

    def silent(self, now_ns: int) -> None:
        """Take in that no media has come for so long that its tracks were closed."""
        if self.state == "flowing" and self.ask is None:
            self.media_by_ns = now_ns

    # -- helpers

    def _expect_media(self, now_ns: int) -> None:
        """Wait from now on for the first packet, where one can be waited for."""
        if self.state in {"requested", "started"} and not self.is_stopping and self.call_leg_id:
            self.media_by_ns = now_ns + self.first_media_timeout_ns

    def _has_begun(self) -> None:
        """Take it that it was started, whatever became of the command."""
        if self.ask == "fork_start":
            self._answer()

    def _ask(self, ask: Ask, at_ns: int) -> None:
        self.ask, self.ask_at_ns, self.asked, self.error = ask, at_ns, 0, None

    def _answer(self) -> None:
        self.ask, self.asked, self.error = None, 0, None

    def _remains_unknown(self, ask: Ask, now_ns: int, detail: str | None) -> None:
        if self.ask == ask:
            self.ask_at_ns = now_ns + min(ASK_AGAIN_NS << self.asked, ASK_AGAIN_AT_MOST_NS)
            self.asked = min(self.asked + 1, 32)
            self.error = detail

    def _close(self, state: State, why: Why, now_ns: int, detail: str | None = None) -> None:
        """End it with nothing left to ask."""
        self._answer()
        self.media_by_ns = None
        self._move(state, why, now_ns, detail)

    def _move(self, state: State, why: Why, now_ns: int, detail: str | None = None) -> None:
        if state in NEXT[self.state]:
            self.changes.append(Change(state, why, now_ns, detail))
