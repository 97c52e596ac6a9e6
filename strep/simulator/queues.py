"""Queues of waiting calls."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import TYPE_CHECKING

from strep.simulator.problems import wrong_state

if TYPE_CHECKING:
    from strep.control.commands import Enqueue
    from strep.simulator.calls import Call, Switchboard

DEFAULT_QUEUE = "default"
"""The reference requires no name."""


@dataclass(slots=True)
class _Queue:
    max_size: int
    calls: list[Call] = field(default_factory=list)


class Queues:
    """All queues, by name; one that is empty goes on being there."""

    def __init__(self, board: Switchboard) -> None:
        self._board = board
        self._queues: dict[str, _Queue] = {}
        self._turns: dict[str, int] = {}
        self._numbers = count()

    def enter(self, call: Call, command: Enqueue, now_s: float) -> None:
        """Put a call at the end of a queue. Raises `RefusedError`."""
        if call.queue is not None:
            raise wrong_state(f"The call is in the queue {call.queue} already.")
        name = command.queue_name or DEFAULT_QUEUE
        queue = self._queues.setdefault(name, _Queue(command.max_size))
        if len(queue.calls) >= queue.max_size:
            raise wrong_state(f"The queue {name} is full.")
        queue.calls.append(call)
        call.queue = name
        self._board.notify(
            call, "call.enqueued", now_s, queue=name, current_position=len(queue.calls)
        )
        if command.max_wait_time_secs is not None:
            self._turns[call.control_id] = turn = next(self._numbers)
            tired_s = now_s + command.max_wait_time_secs
            self._board.later(call, tired_s, partial(self._time_out, call, turn))

    def leave(self, call: Call, reason: str, now_s: float) -> None:
        """Take a call out of its queue. Raises `RefusedError`."""
        if call.queue is None:
            raise wrong_state("The call is in no queue.")
        queue, call.queue = call.queue, None
        self._turns.pop(call.control_id, None)
        calls = self._queues[queue].calls
        position = calls.index(call) + 1
        calls.remove(call)
        self._board.notify(
            call, "call.dequeued", now_s, queue=queue, queue_position=position, reason=reason
        )

    def first(self, name: str) -> Call:
        """Return the call that waits longest. Raises `RefusedError`."""
        queue = self._queues.get(name)
        if queue is None or not queue.calls:
            raise wrong_state(f"The queue {name} is empty.")
        return queue.calls[0]

    def _time_out(self, call: Call, turn: int, now_s: float) -> None:
        # it may have left, and entered a queue again
        if self._turns.get(call.control_id) == turn:
            self.leave(call, "timeout", now_s)
