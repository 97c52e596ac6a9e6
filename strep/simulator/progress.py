"""How calls go on by themselves: ringing, answers, machines, time limits and ends.

Pure; see `calls`.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from strep.simulator.calls import Recording, State, rfc3339
from strep.simulator.scenario import Typing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from strep.control.commands import Dial
    from strep.simulator.calls import Call, Fork, Switchboard
    from strep.simulator.dialogue import Dialogue
    from strep.simulator.queues import Queues

RINGS_AFTER_S = 0.05
DETECTION_S = 0.5
"""How long after the answer it is known who answered."""

Side = Literal["caller", "callee", "unknown"]
_REFUSALS: Mapping[str, tuple[str, str]] = {
    "busy": ("user_busy", "486"),
    "reject": ("call_rejected", "603"),
}
"""Hangup cause and SIP status of the outcomes that end the ringing without an answer."""


class Progress:
    """All calls."""

    def __init__(self, board: Switchboard, dialogue: Dialogue, queues: Queues) -> None:
        self._board = board
        self._dialogue = dialogue
        self._queues = queues

    def ring_out(self, dialled: list[Call], command: Dial, now_s: float) -> None:
        """Begin calls that are dialled together; the first answer ends the others."""
        for call in dialled:
            self._board.notify(
                call, "call.initiated", now_s, **numbers(call), direction="outgoing",
                state="bridging", start_time=rfc3339(self._board.wall(now_s)),
            )  # fmt: skip
            plan = call.scenario.call
            self._board.later(call, now_s + min(RINGS_AFTER_S, plan.ring_s), partial(_ring, call))
            if plan.outcome != "no_answer":
                pick_up = partial(self._pick_up, call, dialled, command)
                self._board.later(call, now_s + plan.ring_s, pick_up)
            timed_out = partial(self._stop_ringing, call, "timeout")
            self._board.later(call, now_s + command.timeout_secs, timed_out)

    def ring_in(self, call: Call, now_s: float) -> None:
        """Begin a call of somebody who waits for the answer."""
        self._board.notify(
            call, "call.initiated", now_s, **numbers(call), direction="incoming", state="parked",
            start_time=rfc3339(self._board.wall(now_s)),
        )  # fmt: skip
        gives_up_s = now_s + call.scenario.call.patience_s
        gives_up = partial(self._stop_ringing, call, "originator_cancel")
        self._board.later(call, gives_up_s, gives_up)

    def answered(self, call: Call, now_s: float) -> None:
        """Let a call be answered."""
        call.state = State.ANSWERED
        call.answered_s = now_s
        self._board.notify(
            call, "call.answered", now_s, **numbers(call), state="answered",
            start_time=rfc3339(self._board.wall(call.begun_s)),
        )  # fmt: skip
        if call.stream_url is not None:
            self._board.notify(call, "streaming.started", now_s, stream_url=call.stream_url)
        plan = call.scenario.call
        if plan.talk_s:
            self._board.later(call, now_s + plan.talk_s, partial(self.hang_up_there, call))
        for event in call.scenario.events(Typing):
            for i, digit in enumerate(event.digits):
                # its webhook comes when its tone is over
                typed_s = event.at_s + i * (event.tone_ms + event.pause_ms) / 1000
                typed_s += now_s + event.tone_ms / 1000
                typed = partial(self._dialogue.type_digits, call, digit)
                self._board.later(call, typed_s, typed)

    def hang_up_here(self, call: Call, now_s: float) -> None:
        """Let the carrier's customer hang up."""
        outgoing = call.direction == "outgoing"
        cause, sip = "normal_clearing", "200"
        if not call.is_up:
            cause, sip = ("originator_cancel", "487") if outgoing else ("call_rejected", "603")
        self.end(call, cause, sip, "caller" if outgoing else "callee", now_s)

    def hang_up_there(self, call: Call, now_s: float) -> None:
        """Let the other side hang up; nothing happens to a call that is over."""
        if call.ended:
            return
        outgoing = call.direction == "outgoing"
        cause, sip = "normal_clearing", "200"
        if not call.is_up:
            cause, sip = ("call_rejected", "603") if outgoing else ("originator_cancel", "487")
        self.end(call, cause, sip, "callee" if outgoing else "caller", now_s)

    def end(self, call: Call, cause: str, sip: str, source: Side, now_s: float) -> None:
        """End a call and everything that goes on in it; `call.hangup` comes behind their ends."""
        was_up = call.is_up
        self._dialogue.hang_up(call, now_s)
        if call.queue is not None:
            self._queues.leave(call, "hangup", now_s)
        for fork in list(call.forks.values()):
            self.stop_fork(call, fork, now_s)
        if call.stream_url is not None and was_up:
            self._board.notify(call, "streaming.stopped", now_s, stream_url=call.stream_url)
        call.state, call.ended_s, call.hangup_cause = State.ENDED, now_s, cause
        self._board.notify(
            call, "call.hangup", now_s, **numbers(call), hangup_cause=cause, hangup_source=source,
            sip_hangup_cause=sip, start_time=rfc3339(self._board.wall(call.begun_s)),
            end_time=rfc3339(self._board.wall(now_s)), state="hangup",
        )  # fmt: skip
        self._save_recording(call, now_s)
        other, call.partner = call.partner, None
        if other is not None:
            other.partner, other.state = None, State.ANSWERED
            self.send_forks(other)
            if not other.parks:
                self.end(other, "normal_clearing", "200", "unknown", now_s)

    def stop_fork(self, call: Call, fork: Fork, now_s: float) -> None:
        """End a fork."""
        del call.forks[fork.stream_type]
        self._board.send_media(call, fork, 0)
        self._board.notify(call, "call.fork.stopped", now_s, stream_type=fork.stream_type)

    def send_forks(self, call: Call) -> None:
        """Let the forks of a call send its media, of both legs while it is bridged."""
        legs = call.scenario.call.legs if call.partner is None else 2
        for fork in call.forks.values():
            self._board.send_media(call, fork, legs)

    def _pick_up(self, call: Call, dialled: list[Call], command: Dial, now_s: float) -> None:
        """End the ringing, one way or the other."""
        outcome = call.scenario.call.outcome
        if outcome in _REFUSALS:
            self.end(call, *_REFUSALS[outcome], "callee", now_s)
            return
        for other in dialled:
            if other is not call and not other.ended:
                self.end(other, "originator_cancel", "487", "caller", now_s)
        self.answered(call, now_s)
        if command.record is not None:
            call.recording = Recording(
                self._board.new_id(), command.record_channels, command.record_format, now_s
            )
            if command.record_max_length:
                full_s = now_s + command.record_max_length
                self._board.later(call, full_s, partial(self._save_recording, call))
        self._dialogue.play_on_answer(call, command, now_s)
        limit_s = now_s + command.time_limit_secs
        self._board.later(call, limit_s, partial(self._over_time, call))
        if command.answering_machine_detection != "disabled":
            detected = partial(self._detect, call, command.answering_machine_detection)
            self._board.later(call, now_s + DETECTION_S, detected)

    def _stop_ringing(self, call: Call, cause: str, now_s: float) -> None:
        if not call.is_up:
            self.end(call, cause, "487", "caller", now_s)

    def _over_time(self, call: Call, now_s: float) -> None:
        self.end(call, "time_limit", "200", "unknown", now_s)

    def _detect(self, call: Call, detection: str, now_s: float) -> None:
        plan = call.scenario.call
        result = "machine" if plan.machine else "human"
        self._board.notify(
            call, "call.machine.detection.ended", now_s, **numbers(call), result=result
        )
        if plan.machine and detection != "detect":
            heard = "beep_detected" if detection == "detect_beep" else "ended"
            ends_s = now_s - DETECTION_S + max(DETECTION_S, plan.greeting_s)
            self._board.later(call, ends_s, partial(self._greeted, call, heard))

    def _greeted(self, call: Call, heard: str, now_s: float) -> None:
        self._board.notify(
            call, "call.machine.greeting.ended", now_s, **numbers(call), result=heard
        )

    def _save_recording(self, call: Call, now_s: float) -> None:
        recording, call.recording = call.recording, None
        if recording is None:
            return
        # a host that can never be: there is no audio behind it
        url = f"https://simulator.invalid/{recording.recording_id}.{recording.format}"
        self._board.notify(
            call, "call.recording.saved", now_s, channels=recording.channels,
            recording_id=str(recording.recording_id), recording_urls={recording.format: url},
            public_recording_urls={},
            recording_started_at=rfc3339(self._board.wall(recording.started_s)),
            recording_ended_at=rfc3339(self._board.wall(now_s)),
        )  # fmt: skip


def numbers(call: Call) -> dict[str, str]:
    """Return who called whom, as webhooks say it."""
    return {"from": call.from_, "to": call.to}


def _ring(call: Call, _: float) -> None:
    if call.state is State.INITIATED:
        call.state = State.RINGING
