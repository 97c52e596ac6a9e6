"""One worker's place in the daemon: its processes come and go, its number and figures stay."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import structlog

from strep.figures import Figures, State, WorkerView
from strep.nursery import NurseryLost

if TYPE_CHECKING:
    from strep.nursery import Child, Nursery

logger = structlog.get_logger("strep")

FIGURES_WITHIN_S = 0.5
CALLS_WITHIN_S = 5.0
EARLY_S = 10.0
"""A worker that ends within this time of its start ended early."""
FIRST_DELAY_S = 0.25
LONGEST_DELAY_S = 30.0
LINE_BYTES = 2**22
"""More than any line of a worker has."""


class WorkerError(RuntimeError):
    """A worker could not begin, in words for the operator."""


class Workplace:
    """Keeps a worker running and knows what it last said; see `strep.worker` for what is said."""

    def __init__(self, number: int, nursery: Nursery) -> None:
        self.number = number
        self.restarts = 0
        self._nursery = nursery
        self._state: State = "down"
        self._child: Child | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._has_begun = asyncio.Event()
        self._is_stopping = asyncio.Event()
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
            self._ask("figures")
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
            self._ask("calls")
        try:
            async with asyncio.timeout(CALLS_WITHIN_S):
                return await asyncio.shield(self._listed)
        except TimeoutError:
            return None

    def _ask(self, what: str) -> None:
        if self._writer is not None:
            self._writer.write(json.dumps({"ask": what}).encode() + b"\n")

    async def _listen(self, child: Child) -> None:
        """Hear what a worker says until its end."""
        self._child = child
        reader, self._writer = await asyncio.open_unix_connection(
            sock=child.channel, limit=LINE_BYTES
        )
        if self._is_stopping.is_set():
            self.stop()
        with suppress(OSError):
            while (line := await reader.readline()).endswith(b"\n"):
                self._hear(json.loads(line))
        self._writer.close()
        self._writer = None

    def _hear(self, message: dict[str, Any]) -> None:
        match message:
            case {"ready": True}:
                self._state = "up"
                self._has_begun.set()
            case {"error": error}:
                if self._has_begun.is_set():
                    logger.error(error, worker=self.number)
                else:
                    self._fault = error
            case {"figures": figures}:
                self._now = Figures(**figures)
                if self._state == "silent":
                    self._state = "up"
                    logger.info("a worker answers again", worker=self.number)
                _settle(self._asked, None)
                self._asked = None
            case {"calls": None}:
                _settle(self._listed, self._calls)
                self._listed = None
            case {"calls": some}:
                self._calls.append(some)

    def _bury(self) -> None:
        """Keep what a dead worker had counted, and let nobody wait for its answers."""
        self._state = "down"
        self._before += self._now.of_the_dead()
        self._now = Figures()
        _settle(self._asked, None)
        _settle(self._listed, None)
        self._asked = self._listed = None


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
