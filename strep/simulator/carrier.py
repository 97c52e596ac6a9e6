"""The carrier: what commands do to calls, and what the other side does by itself.

Pure; see `calls`. `Carrier.command` takes a command as it came in, and returns the answer's `data`
or raises `RefusedError`; everything else that follows is an effect, or comes with `tick`.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Literal, cast

from strep.control.commands import COMMANDS
from strep.control.errors import ParameterError
from strep.control.parameters import parse_target
from strep.simulator.calls import Call, Effect, Fork, State, Switchboard
from strep.simulator.dialogue import Dialogue
from strep.simulator.problems import RefusedError, wrong_parameter, wrong_state
from strep.simulator.progress import Progress, numbers
from strep.simulator.queues import Queues

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from strep.control.commands import (
        Answer,
        Bridge,
        Command,
        Dial,
        ForkStart,
        ForkStop,
    )
    from strep.simulator.scenario import Scenario
    from strep.specs import Address

MOST_CALLS = 20_000
"""Beyond it the oldest of those that are over are forgotten."""
MOST_ANSWERS = 20_000
"""Of `dial`, and of the commands on one call, that a repeated command_id is given again."""
OK = {"result": "ok"}


class Carrier:
    """All calls."""

    def __init__(
        self,
        *,
        seed: int,
        wall: Callable[[float], datetime],
        connection_id: str,
        webhook_url: str | None,
        scenario_for: Callable[[str], Scenario],
    ) -> None:
        """`scenario_for` returns the scenario of calls to a number."""
        self.webhook_url = webhook_url
        """Where webhooks of calls go that name no other place."""
        self.calls: dict[str, Call] = {}
        """By call_control_id, ended ones too, in the order of their beginning."""
        self._seed = seed
        self._connection_id = connection_id
        self._scenario_for = scenario_for
        self._board = Switchboard(seed=seed, wall=wall)
        self._dialogue = Dialogue(self._board)
        self._queues = Queues(self._board)
        self._progress = Progress(self._board, self._dialogue, self._queues)
        self._begun = 0
        self._dialled: dict[str, dict[str, Any]] = {}
        self._actions: dict[str, Callable[[Call, Any, float], None]] = {
            "answer": self._answer,
            "bridge": self._bridge,
            "client_state_update": lambda _call, _command, _now_s: None,
            "enqueue": self._queues.enter,
            "fork_start": self._fork_start,
            "fork_stop": self._fork_stop,
            "gather": self._dialogue.gather,
            "gather_stop": lambda call, _, now_s: self._dialogue.gather_stop(call, now_s),
            "gather_using_audio": self._dialogue.gather_with_prompt,
            "gather_using_speak": self._dialogue.gather_with_prompt,
            "hangup": lambda call, _, now_s: self._progress.hang_up_here(call, now_s),
            "leave_queue": lambda call, _, now_s: self._queues.leave(call, "leave", now_s),
            "playback_start": self._dialogue.playback_start,
            "playback_stop": self._dialogue.playback_stop,
            "record_pause": lambda call, _command, _now_s: self._pause(call, paused=True),
            "record_resume": lambda call, _command, _now_s: self._pause(call, paused=False),
        }

    def take_effects(self) -> list[Effect]:
        """Return what is to be done in the world, in order, and forget it."""
        effects, self._board.effects = self._board.effects, []
        return effects

    @property
    def next_s(self) -> float | None:
        """When `tick` has something to do."""
        return self._board.next_s

    def tick(self, now_s: float) -> None:
        """Let happen what is due."""
        self._board.tick(now_s)

    def command(
        self, name: str, control_id: str | None, document: object, now_s: float
    ) -> dict[str, Any]:
        """Carry out a command; the same command_id a second time changes nothing.

        It is answered as it was the first time, but for a call that has ended since. `control_id`
        is None for `dial`. Returns the answer's `data`. Raises `RefusedError`.
        """
        call = None if control_id is None else self.call(control_id)
        if call is not None and call.ended:
            raise RefusedError(
                422, "90018", "This call is no longer active and can't receive commands."
            )
        answers = self._dialled if call is None else call.answers
        command_id = document.get("command_id") if isinstance(document, dict) else None
        if isinstance(command_id, str) and command_id in answers:
            return answers[command_id]
        try:
            command = COMMANDS[name].parse(document)
        except ParameterError as error:
            raise wrong_parameter(error) from None
        answer = self._dial(cast("Dial", command), now_s) if call is None else OK
        if call is not None:
            self._act(call, command, now_s)
        if isinstance(command_id, str):
            answers[command_id] = answer
            if len(answers) > MOST_ANSWERS:
                del answers[next(iter(answers))]
        return answer

    def call(self, control_id: str, *, pointer: str | None = None) -> Call:
        """Return a call. Raises `RefusedError`, of status 404 unless a parameter named the call."""
        if control_id in self.calls:
            return self.calls[control_id]
        if pointer is None:
            raise RefusedError(404, "10005", "There is no call with this call_control_id.")
        raise RefusedError(
            422, "90015", "The call_control_id provided was not valid.", pointer=pointer
        )

    def place(
        self, from_: str, to: str, scenario: Scenario, now_s: float, webhook_url: str | None = None
    ) -> Call:
        """Let somebody call in, who waits for `answer`."""
        call = self._new_call("incoming", from_, to, scenario, now_s)
        call.webhook_url = webhook_url or self.webhook_url
        self._progress.ring_in(call, now_s)
        return call

    def hang_up_there(self, call: Call, now_s: float) -> None:
        """Let the other side hang up; nothing happens to a call that is over."""
        self._progress.hang_up_there(call, now_s)

    def type_there(self, call: Call, digits: str, now_s: float) -> None:
        """Let the other side type digits; webhooks tell of them, no packets do."""
        if not call.is_up:
            raise _not_answered()
        self._dialogue.type_digits(call, digits, now_s)

    # commands

    def _dial(self, command: Dial, now_s: float) -> dict[str, Any]:
        session = None if command.link_to is None else self.call(
            command.link_to, pointer="/link_to").session_id  # fmt: skip
        destinations = [command.to] if isinstance(command.to, str) else command.to
        calls: list[Call] = []
        for to in destinations:
            call = self._new_call("outgoing", command.from_, to, self._scenario_for(to), now_s)
            session = session or call.session_id
            call.session_id = session
            call.connection_id = command.connection_id
            call.client_state = _text_or_none(command.client_state)
            call.webhook_url = command.webhook_url or self.webhook_url
            call.webhook_method = command.webhook_url_method
            call.stream_url = command.stream_url
            calls.append(call)
        self._progress.ring_out(calls, command, now_s)
        return {
            "call_control_id": calls[0].control_id,
            "call_leg_id": str(calls[0].leg_id),
            "call_session_id": str(calls[0].session_id),
            "is_alive": False,
            "record_type": "call",
            **({"client_state": calls[0].client_state} if calls[0].client_state else {}),
        }

    def _act(self, call: Call, command: Command, now_s: float) -> None:
        """Carry out a command on a call, whose webhooks have its client_state from then on."""
        if not call.is_up and command.name not in _BEFORE_THE_ANSWER:
            raise _not_answered()
        state_before = call.client_state
        call.client_state = _text_or_none(getattr(command, "client_state", None)) or state_before
        try:
            self._actions[command.name](call, command, now_s)
        except RefusedError:
            call.client_state = state_before
            raise

    def _answer(self, call: Call, command: Answer, now_s: float) -> None:
        if call.direction == "outgoing" or call.is_up:
            raise wrong_state("Only an incoming call that was not answered can be answered.")
        if command.webhook_url is not None:
            call.webhook_url = command.webhook_url
            call.webhook_method = command.webhook_url_method
        call.stream_url = command.stream_url
        self._progress.answered(call, now_s)

    def _bridge(self, call: Call, command: Bridge, now_s: float) -> None:
        if command.queue is not None:
            other = self._queues.first(command.queue)
            self._queues.leave(other, "bridged", now_s)
        else:
            other = self.call(command.call_control_id or "", pointer="/call_control_id")
        if other is call:
            raise wrong_state("A call cannot be bridged with itself.")
        if not other.is_up:
            raise wrong_state("The call to bridge with is not up.")
        if call.partner is not None or other.partner is not None:
            raise wrong_state("One of the two calls is bridged already.")
        call.partner, other.partner = other, call
        call.parks = command.park_after_unbridge == "self"
        for leg in (call, other):
            leg.state = State.BRIDGED
            if leg.queue is not None:
                self._queues.leave(leg, "bridged", now_s)
            self._board.notify(leg, "call.bridged", now_s, **numbers(leg), state="bridged")
            self._progress.send_forks(leg)

    def _fork_start(self, call: Call, command: ForkStart, now_s: float) -> None:
        if command.stream_type in call.forks:
            raise wrong_state(f"The call has a fork of type {command.stream_type} already.")
        fork = Fork(
            stream_type=command.stream_type,
            target=_address(command.target),
            rx=_address(command.rx),
            tx=_address(command.tx),
        )
        call.forks[fork.stream_type] = fork
        self._board.notify(call, "call.fork.started", now_s, stream_type=fork.stream_type)
        self._progress.send_forks(call)

    def _fork_stop(self, call: Call, command: ForkStop, now_s: float) -> None:
        if command.stream_type not in call.forks:
            raise wrong_state(f"The call has no fork of type {command.stream_type}.")
        self._progress.stop_fork(call, call.forks[command.stream_type], now_s)

    def _pause(self, call: Call, *, paused: bool) -> None:
        if call.recording is None:
            raise wrong_state("The call is not being recorded.")
        call.recording.paused = paused

    def _new_call(
        self,
        direction: Literal["incoming", "outgoing"],
        from_: str,
        to: str,
        scenario: Scenario,
        now_s: float,
    ) -> Call:
        self._begun += 1
        call = Call(
            control_id=self._board.new_control_id(),
            leg_id=self._board.new_id(),
            session_id=self._board.new_id(),
            connection_id=self._connection_id,
            direction=direction,
            from_=from_,
            to=to,
            scenario=scenario,
            seed=self._seed * 1_000_003 + self._begun,
            webhook_url=self.webhook_url,
            webhook_method="POST",
            begun_s=now_s,
            prompts=deque(),
        )
        self.calls[call.control_id] = call
        if len(self.calls) > MOST_CALLS:
            oldest = next((each for each in self.calls.values() if each.ended), None)
            if oldest is not None:
                del self.calls[oldest.control_id]
        return call


_BEFORE_THE_ANSWER = {"answer", "hangup", "client_state_update"}


def _text_or_none(value: object) -> str | None:
    return None if value is None else str(value)


def _address(target: str | None) -> Address | None:
    return None if target is None else parse_target(target)


def _not_answered() -> RefusedError:
    return RefusedError(
        422, "90034", "This call can't receive this command because it was not answered yet."
    )
