"""One worker's place in the daemon: its processes come and go, its number and figures stay."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from strep.figures import Figures, State, WorkerView
from strep.nursery import NurseryLost
from strep.pauses import PauseError
from strep.workerprocess import LINE_BYTES, line

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from uuid import UUID

    from strep.nursery import Child, Nursery
    from strep.worker import Live

logger = structlog.get_logger("strep")

FIGURES_WITHIN_S = 0.5
CALLS_WITHIN_S = 5.0
PORTS_WITHIN_S = 5.0
PAUSE_WITHIN_S = 3.0
EARLY_S = 2.0
"""A worker that ends within this time of its start ended early."""
FIRST_DELAY_S = 0.25
LONGEST_DELAY_S = 30.0
MAX_UNREAD_BYTES = 2**24
"""What a worker was told and has not read; more is not told before it answers again."""


class WorkerError(RuntimeError):
    """A worker could not begin, in words for the operator."""


class Hearer(Protocol):
    """Who hears of workers, on the event loop; entries are those of `TrackNews`."""

    def track_opened(self, entry: Mapping[str, Any], worker: int) -> None:
        """Take in that a worker opened a track."""
        ...

    def track_closed(self, entry: Mapping[str, Any], worker: int) -> None:
        """Take in that a worker closed a track."""
        ...

    def worker_begun(self, worker: int) -> None:
        """Take in that a worker receives, and knows nothing of what others were told before."""
        ...

    def worker_died(self, worker: int) -> None:
        """Take in that a worker is no more, and all that it said was heard."""
        ...


class Workplace:
    """Keeps a worker running, tells it what it has to know, and knows what it last said.

    `strep.workerprocess` has what is said. `hearer` is to be set before `keep`.
    """

    def __init__(self, number: int, nursery: Nursery) -> None:
        self.number = number
        self.restarts = 0
        self.hearer: Hearer | None = None
        self._nursery = nursery
        self._state: State = "down"
        self._child: Child | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._has_begun = asyncio.Event()
        self._is_stopping = asyncio.Event()
        self._is_up = asyncio.Event()
        """Whether a worker receives, be it silent or not."""
        self._has_missed = False
        """Whether the worker was not told all that it has to know."""
        self._live: Live | None = None
        """Settings that are not those that a new worker begins with."""
        self._fault: str | None = None
        """Why the first worker could not begin."""
        self._before = Figures()
        """What is left of the figures of earlier processes."""
        self._now = Figures()
        self._asked: asyncio.Future[None] | None = None
        """The question for figures that is not answered yet."""
        self._listed: asyncio.Future[list[str] | None] | None = None
        """The question for calls that is not answered yet."""
        self._calls: list[str] = []
        self._ports: dict[tuple[int, int], asyncio.Future[str | None]] = {}
        """The pairs of ports that are being opened or closed."""
        self._pauses: dict[tuple[str, bool], asyncio.Future[None]] = {}
        """The call legs that are being paused or resumed."""

    async def began(self) -> None:
        """Wait until the first worker receives; raises `WorkerError` where it cannot."""
        await self._has_begun.wait()
        if self._fault is not None:
            raise WorkerError(self._fault)

    async def keep(self) -> None:
        """Start a worker, and another whenever it ends, until `stop`.

        The first that ends early is replaced at once, others in a row after a growing time.
        """
        loop = asyncio.get_running_loop()
        in_a_row = 0
        while True:
            started_s = loop.time()
            try:
                child = await self._nursery.start(self.number)
            except NurseryLost:
                break
            await self._listen(child)
            exit_code = await child.ended
            self._bury()
            self._report("worker_died", self.number)
            if self._is_stopping.is_set():
                break
            if not self._has_begun.is_set():
                self._fault = (
                    self._fault or f"worker {self.number} {_ended(exit_code)} at its start"
                )
                break
            in_a_row = in_a_row + 1 if loop.time() - started_s < EARLY_S else 0
            delay_s = FIRST_DELAY_S * 2 ** min(in_a_row - 2, 10) if in_a_row > 1 else 0.0
            delay_s = min(delay_s, LONGEST_DELAY_S)
            logger.warning(
                "a worker has ended and is replaced",
                why=_ended(exit_code),
                worker=self.number,
                pid=child.pid,
                delay_s=delay_s,
            )
            with suppress(TimeoutError):
                await asyncio.wait_for(self._is_stopping.wait(), delay_s)
                break
            self.restarts += 1
        self._has_begun.set()

    def stop(self) -> None:
        """Tell the worker to finish its recordings and end; `keep` returns when it has."""
        self._is_stopping.set()
        if self._writer is not None:
            with suppress(OSError):
                self._writer.write_eof()

    def kill(self) -> None:
        """End a worker that does not."""
        if self._child is not None and not self._child.ended.done():
            logger.error(
                "a worker did not finish its recordings in time and is killed",
                worker=self.number,
                pid=self._child.pid,
            )
            with suppress(ProcessLookupError):
                os.kill(self._child.pid, signal.SIGKILL)

    def view(self) -> WorkerView:
        """Return what is known of the worker."""
        pid = None if self._child is None or self._state == "down" else self._child.pid
        return WorkerView(self.number, pid, self._state, self._before + self._now)

    async def ask_figures(self) -> None:
        """Bring the figures up to date, unless the worker does not answer in time."""
        if self._state == "down" or self._is_stopping.is_set():
            return
        if self._asked is None:
            self._asked = asyncio.get_running_loop().create_future()
            self._send({"ask": "figures"})
        if self._state == "silent":
            return  # nobody waits for it again; when it answers, it is heard
        try:
            async with asyncio.timeout(FIGURES_WITHIN_S):
                await asyncio.shield(self._asked)
        except TimeoutError:
            if self._state == "up":
                self._state = "silent"
                logger.warning(
                    "a worker does not answer", worker=self.number, waited_s=FIGURES_WITHIN_S
                )

    async def ask_calls(self) -> list[str] | None:
        """Return the worker's open calls, see `open_calls`; None where it does not answer."""
        if self._state != "up" or self._is_stopping.is_set():
            return None
        if self._listed is None:
            self._listed = asyncio.get_running_loop().create_future()
            self._calls = []
            self._send({"ask": "calls"})
        try:
            async with asyncio.timeout(CALLS_WITHIN_S):
                return await asyncio.shield(self._listed)
        except TimeoutError:
            return None

    def tell(self, **what: Any) -> None:
        """Tell the worker something that its successor would have to be told again.

        One that has not read anything for long is told it all again when it answers: see
        `Hearer.worker_begun`.
        """
        if self._writer is None or not self._is_up.is_set():
            return  # whoever comes next is told all
        if self._writer.transport.get_write_buffer_size() > MAX_UNREAD_BYTES:
            self._has_missed = True
        else:
            self._send(what)

    def reload(self, live: Live) -> None:
        """Let the worker, and all that come after it, take in settings that changed."""
        self._live = live
        self.tell(reload=live)

    async def open_ports(self, pair: tuple[int, int], call_leg_id: UUID) -> None:
        """Have the worker receive plain RTP; raises OSError where it cannot, or does not answer."""
        try:
            error = await self._move_ports(pair, open_ports=pair, call_leg_id=str(call_leg_id))
        except TimeoutError:
            self.tell(close_ports=pair)  # should it open them after all
            error = f"worker {self.number} does not answer"
        if error is not None:
            raise OSError(error)

    async def close_ports(self, pair: tuple[int, int]) -> None:
        """Have the worker close ports; returns when it has, or does not answer."""
        with suppress(TimeoutError):
            await self._move_ports(pair, close_ports=pair)

    async def pause(self, call_leg_id: UUID, *, is_paused: bool) -> None:
        """Have a leg paused or resumed; raises `PauseError` where the worker does not answer.

        A worker that dies before it answers has a successor that reads what is paused.
        """
        key = str(call_leg_id), is_paused
        try:
            async with asyncio.timeout(PAUSE_WITHIN_S):
                await self._is_up.wait()
                answer = self._pauses.get(key)
                if answer is None:
                    answer = self._pauses[key] = asyncio.get_running_loop().create_future()
                    self._send({"pause": key[0], "is_paused": is_paused})
                await asyncio.shield(answer)
        except TimeoutError:
            raise PauseError(f"worker {self.number}, which receives it, does not answer") from None

    async def _move_ports(self, pair: tuple[int, int], **what: Any) -> str | None:
        """Return what the worker answers: an error, or None. Raises TimeoutError."""
        async with asyncio.timeout(PORTS_WITHIN_S):
            await self._is_up.wait()
            answer: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
            self._ports[pair] = answer
            self.tell(**what)
            return await answer

    def _send(self, message: dict[str, Any]) -> None:
        if self._writer is not None and not self._is_stopping.is_set():
            self._writer.write(line(message))

    async def _listen(self, child: Child) -> None:
        """Hear what a worker says until its end."""
        self._child = child
        reader, self._writer = await asyncio.open_unix_connection(
            sock=child.channel, limit=LINE_BYTES
        )
        if self._is_stopping.is_set():
            self.stop()
        with suppress(OSError):
            while (text := await reader.readline()).endswith(b"\n"):
                self._hear(json.loads(text))
        self._writer.close()
        self._writer = None

    def _hear(self, message: dict[str, Any]) -> None:
        match message:
            case {"ready": True}:
                self._state = "up"
                self._has_begun.set()
                self._is_up.set()
                self._brief()
            case {"opened": entry}:
                self._report("track_opened", entry, self.number)
            case {"closed": entry}:
                self._report("track_closed", entry, self.number)
            case {"figures": figures}:
                self._hear_figures(Figures(**figures))
            case {"calls": None}:
                _settle(self._listed, self._calls)
                self._listed = None
            case {"calls": some}:
                self._calls.append(some)
            case {"paused": _} | {"ports": _}:
                self._hear_done(message)
            case {"error": error}:
                if self._has_begun.is_set():
                    logger.error(error, worker=self.number)
                else:
                    self._fault = error

    def _hear_done(self, message: dict[str, Any]) -> None:
        match message:
            case {"paused": call_leg_id, "is_paused": is_paused}:
                _settle(self._pauses.pop((call_leg_id, is_paused), None), None)
            case {"ports": [rx, tx], "error": error}:
                _settle(self._ports.pop((rx, tx), None), error)

    def _hear_figures(self, figures: Figures) -> None:
        self._now = figures
        if self._state == "silent":
            self._state = "up"
            logger.info("a worker answers again", worker=self.number)
        if self._has_missed:
            self._has_missed = False
            self._brief()
        _settle(self._asked, None)
        self._asked = None

    def _brief(self) -> None:
        """Tell the worker all that it has to know."""
        if self._live is not None:
            self.tell(reload=self._live)
        self._report("worker_begun", self.number)

    def _report(self, what: str, *of: Any) -> None:
        """Call a method of the hearer."""
        hear: Callable[..., None] = getattr(self.hearer, what)
        try:
            hear(*of)
        except Exception:
            # a defect of ours: said with its traceback, and the worker is listened to
            logger.exception("what a worker said could not be taken in", worker=self.number)

    def _bury(self) -> None:
        """Keep what a dead worker had counted, and let nobody wait for its answers."""
        self._state = "down"
        self._is_up.clear()
        self._has_missed = False
        self._before += self._now.of_the_dead()
        self._now = Figures()
        _settle(self._asked, None)
        _settle(self._listed, None)
        self._asked = self._listed = None
        while self._pauses:
            _settle(self._pauses.popitem()[1], None)
        while self._ports:
            _settle(self._ports.popitem()[1], f"worker {self.number} has ended")


def _settle(question: asyncio.Future[Any] | None, answer: object) -> None:
    if question is not None and not question.done():
        question.set_result(answer)


def _ended(exit_code: int | None) -> str:
    match exit_code:
        case None:
            return "the process that starts workers has died"
        case code if code < 0:
            return f"killed by {signal.Signals(-code).name}"
        case code:
            return f"exit code {code}"
