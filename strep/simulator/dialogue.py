"""What is played and spoken on a call, and the digits that are gathered on it.

Every file and every text lasts as long as the scenario says; none is fetched or heard.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Literal

from strep.control.commands import GatherUsingSpeak
from strep.simulator.problems import wrong_state

if TYPE_CHECKING:
    from strep.control.commands import Dial, Gather, GatherUsingAudio, PlaybackStart, PlaybackStop
    from strep.simulator.calls import Call, Switchboard

TYPING_S = 0.5
"""Between two digits of a scenario's other side that types at every gathering."""


@dataclass(slots=True, eq=False)
class Prompt:
    """A file that is played or a text that is spoken."""

    kind: Literal["playback", "speak"]
    loops: float = 1
    media_name: str | None = None
    media_url: str | None = None
    overlay: bool = False


@dataclass(slots=True, eq=False)
class Gathering:
    """Digits that are being gathered."""

    minimum: int
    maximum: int
    terminator: str
    valid: str
    inter_digit_s: float
    wait_s: float
    """For the first digit: from the beginning, or from the end of the prompt."""
    most_s: float = math.inf
    """For all digits together."""
    prompt: Prompt | None = None
    invalid_prompt: Prompt | None = None
    tries: int = 1
    """How often the prompt may still be played."""
    digits: str = ""
    playing: Prompt | None = None
    to_play: list[Prompt] = field(default_factory=list)
    """What follows it."""
    waits: int = 0
    """Counts the waiting for digits, so that a timer knows whether it is still meant."""


class Dialogue:
    """All prompts and gatherings."""

    def __init__(self, board: Switchboard) -> None:
        self._board = board

    def play_on_answer(self, call: Call, command: Dial, now_s: float) -> None:
        """Play what `dial` asked to be played when the call is answered."""
        if command.audio_url or command.media_name:
            prompt = Prompt("playback", media_name=command.media_name, media_url=command.audio_url)
            self._enqueue(call, prompt, now_s)

    def playback_start(self, call: Call, command: PlaybackStart, now_s: float) -> None:
        """Play a file, behind those that wait."""
        has_file = command.audio_url or command.media_name or command.playback_content
        if not has_file and command.stop is None:
            raise wrong_state("one of audio_url, media_name and playback_content is needed")
        if command.overlay and not call.prompts:
            raise wrong_state("overlay needs a file without overlay that is being played")
        if command.stop is not None:
            self._stop_prompts(call, command.stop, now_s)
        if not has_file:
            return
        prompt = Prompt(
            "playback",
            loops=math.inf if command.loop == "infinity" else int(command.loop or 1),
            media_name=command.media_name,
            media_url=command.audio_url,
            overlay=command.overlay,
        )
        if not command.overlay:
            self._enqueue(call, prompt, now_s)
            return
        if call.overlay is not None:
            self._end(call, call.overlay, "cancelled", now_s)
        call.overlay = prompt
        self._begin(call, prompt, now_s)

    def playback_stop(self, call: Call, command: PlaybackStop, now_s: float) -> None:
        """Stop what is being played or spoken; nothing to stop is no error."""
        if command.overlay:
            if call.overlay is not None:
                self._end(call, call.overlay, "cancelled", now_s)
                call.overlay = None
            return
        self._stop_prompts(call, command.stop, now_s)
        gathering = call.gathering
        if gathering is not None and gathering.playing is not None:
            self._end(call, gathering.playing, "cancelled", now_s)
            self._wait(call, gathering, gathering.wait_s, now_s)

    def gather(self, call: Call, command: Gather, now_s: float) -> None:
        """Gather digits without a prompt."""
        gathering = Gathering(
            minimum=command.minimum_digits,
            maximum=command.maximum_digits,
            terminator=command.terminating_digit,
            valid=command.valid_digits,
            inter_digit_s=command.inter_digit_timeout_millis / 1000,
            wait_s=command.initial_timeout_millis / 1000,
            most_s=command.timeout_millis / 1000,
        )
        self._gather(call, gathering, now_s)

    def gather_with_prompt(
        self, call: Call, command: GatherUsingAudio | GatherUsingSpeak, now_s: float
    ) -> None:
        """Gather digits while a file is played or a text is spoken."""
        prompt, invalid = _prompts(command)
        gathering = Gathering(
            minimum=command.minimum_digits,
            maximum=command.maximum_digits,
            terminator=command.terminating_digit,
            valid=command.valid_digits,
            inter_digit_s=command.inter_digit_timeout_millis / 1000,
            wait_s=command.timeout_millis / 1000,
            prompt=prompt,
            invalid_prompt=invalid,
            tries=command.maximum_tries,
        )
        self._gather(call, gathering, now_s)

    def gather_stop(self, call: Call, now_s: float) -> None:
        """End a gathering; none to end is no error."""
        if call.gathering is not None:
            self._finish(call, call.gathering, "cancelled", now_s)

    def type_digits(self, call: Call, digits: str, now_s: float) -> None:
        """Let the other side type digits, all at once."""
        numbers = {"from": call.from_, "to": call.to}
        for digit in digits:
            self._board.notify(call, "call.dtmf.received", now_s, digit=digit, **numbers)
            if call.gathering is not None:
                self._take(call, call.gathering, digit, now_s)

    def hang_up(self, call: Call, now_s: float) -> None:
        """End everything because the call does."""
        if call.gathering is not None:
            self._finish(call, call.gathering, "call_hangup", now_s)
        playing = [call.overlay] if call.overlay is not None else []
        if call.prompts:
            playing.append(call.prompts[0])
        call.prompts.clear()
        call.overlay = None
        for prompt in playing:
            self._end(call, prompt, "call_hangup", now_s)

    # prompts

    def _enqueue(self, call: Call, prompt: Prompt, now_s: float) -> None:
        call.prompts.append(prompt)
        if len(call.prompts) == 1:
            self._begin(call, prompt, now_s)

    def _begin(self, call: Call, prompt: Prompt, now_s: float) -> None:
        self._tell(call, prompt, "started", now_s)
        if math.isfinite(prompt.loops):
            ends_s = now_s + call.scenario.call.prompt_s * prompt.loops
            self._board.later(call, ends_s, partial(self._played, call, prompt))

    def _played(self, call: Call, prompt: Prompt, now_s: float) -> None:
        gathering = call.gathering
        if gathering is not None and gathering.playing is prompt:
            self._end(call, prompt, "completed", now_s)
            self._ask(call, gathering, gathering.to_play, now_s)
        elif call.overlay is prompt:
            call.overlay = None
            self._end(call, prompt, "completed", now_s)
        elif call.prompts and call.prompts[0] is prompt:
            self._end(call, prompt, "completed", now_s)
            self._next(call, now_s)

    def _next(self, call: Call, now_s: float) -> None:
        call.prompts.popleft()
        if call.prompts:
            self._begin(call, call.prompts[0], now_s)

    def _stop_prompts(self, call: Call, which: str, now_s: float) -> None:
        if not call.prompts:
            return
        self._end(call, call.prompts[0], "cancelled", now_s)
        if which == "all":
            call.prompts.clear()
        else:
            self._next(call, now_s)

    def _end(self, call: Call, prompt: Prompt, status: str, now_s: float) -> None:
        self._tell(call, prompt, "ended", now_s, status)

    def _tell(
        self, call: Call, prompt: Prompt, what: str, now_s: float, status: str | None = None
    ) -> None:
        details = {"overlay": prompt.overlay} if prompt.kind == "playback" else {}
        self._board.notify(
            call,
            f"call.{prompt.kind}.{what}",
            now_s,
            media_name=prompt.media_name,
            media_url=prompt.media_url,
            status=status,
            **details,
        )

    # gatherings

    def _gather(self, call: Call, gathering: Gathering, now_s: float) -> None:
        if call.gathering is not None:
            raise wrong_state("digits are being gathered on this call already")
        call.gathering = gathering
        self._ask(call, gathering, [gathering.prompt] if gathering.prompt else [], now_s)
        if math.isfinite(gathering.most_s):
            ends_s = now_s + gathering.most_s
            self._board.later(call, ends_s, partial(self._out_of_time, call, gathering))
        for i, digit in enumerate(call.scenario.call.types):
            typed_s = now_s + TYPING_S * (i + 1)
            self._board.later(call, typed_s, partial(self._type_for, call, gathering, digit))

    def _type_for(self, call: Call, gathering: Gathering, digit: str, now_s: float) -> None:
        if call.gathering is gathering:
            self.type_digits(call, digit, now_s)

    def _ask(self, call: Call, gathering: Gathering, prompts: list[Prompt], now_s: float) -> None:
        """Play prompts one after the other, then wait for digits."""
        if not prompts:
            self._wait(call, gathering, gathering.wait_s, now_s)
            return
        # one of its own each time: that of an earlier time may have been stopped before its end
        gathering.playing = replace(prompts[0])
        gathering.to_play = prompts[1:]
        gathering.waits += 1
        self._begin(call, gathering.playing, now_s)

    def _wait(self, call: Call, gathering: Gathering, wait_s: float, now_s: float) -> None:
        gathering.playing = None
        gathering.waits += 1
        give_up = partial(self._give_up, call, gathering, gathering.waits)
        self._board.later(call, now_s + wait_s, give_up)

    def _give_up(self, call: Call, gathering: Gathering, waits: int, now_s: float) -> None:
        if gathering.waits == waits:
            self._out_of_time(call, gathering, now_s)

    def _out_of_time(self, call: Call, gathering: Gathering, now_s: float) -> None:
        if call.gathering is not gathering:
            return
        if len(gathering.digits) >= gathering.minimum:
            self._finish(call, gathering, "valid", now_s)
        else:
            self._again(call, gathering, now_s, invalid=bool(gathering.digits))

    def _take(self, call: Call, gathering: Gathering, digit: str, now_s: float) -> None:
        if gathering.playing is not None:
            self._end(call, gathering.playing, "cancelled", now_s)
            gathering.playing = None
        if digit == gathering.terminator:
            if len(gathering.digits) >= gathering.minimum:
                self._finish(call, gathering, "valid", now_s)
            else:
                self._again(call, gathering, now_s, invalid=True)
            return
        if digit not in gathering.valid:
            self._again(call, gathering, now_s, invalid=True)
            return
        gathering.digits += digit
        if len(gathering.digits) == gathering.maximum:
            self._finish(call, gathering, "valid", now_s)
        else:
            self._wait(call, gathering, gathering.inter_digit_s, now_s)

    def _again(self, call: Call, gathering: Gathering, now_s: float, *, invalid: bool) -> None:
        """Ask once more, where that is allowed."""
        gathering.tries -= 1
        if gathering.prompt is None or not gathering.tries:
            self._finish(call, gathering, "invalid", now_s)
            return
        gathering.digits = ""
        first = [gathering.invalid_prompt] if invalid and gathering.invalid_prompt else []
        self._ask(call, gathering, [*first, gathering.prompt], now_s)

    def _finish(self, call: Call, gathering: Gathering, status: str, now_s: float) -> None:
        call.gathering = None
        if gathering.playing is not None:
            interrupted = status if status == "call_hangup" else "cancelled"
            self._end(call, gathering.playing, interrupted, now_s)
        numbers = {"from": call.from_, "to": call.to}
        self._board.notify(
            call, "call.gather.ended", now_s, digits=gathering.digits, status=status, **numbers
        )


def _prompts(command: GatherUsingAudio | GatherUsingSpeak) -> tuple[Prompt, Prompt | None]:
    """Return the prompt of a command and the one for digits that are not valid."""
    if isinstance(command, GatherUsingSpeak):
        return Prompt("speak"), Prompt("speak") if command.invalid_payload else None
    if not (command.audio_url or command.media_name):
        raise wrong_state("one of audio_url and media_name is needed")
    prompt = Prompt("playback", media_name=command.media_name, media_url=command.audio_url)
    invalid = None
    if command.invalid_audio_url or command.invalid_media_name:
        invalid = Prompt(
            "playback",
            media_name=command.invalid_media_name,
            media_url=command.invalid_audio_url,
        )
    return prompt, invalid
