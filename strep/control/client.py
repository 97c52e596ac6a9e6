"""`CallControl`, the client of the carrier's Call Commands.

    async with CallControl() as carrier:
        call = await carrier.dial(connection_id="...", from_="+18005550101", to="+18005550100")
        await carrier.fork_start(call.call_control_id, target="udp:192.0.2.1:9000")

Each command has a method: first the call_control_id of the call (except `dial`), then the command's
parameters by name. `send` sends a command that was made before. Both raise `CallControlError`.
Parameters that the reference does not name are passed on: `carrier.dial(..., **further)`.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import random
import re
import time
import uuid
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, overload
from urllib.parse import quote, urlsplit

import aiohttp
import structlog
from yarl import URL

from strep import __version__
from strep.control import commands
from strep.control.answers import read_answer
from strep.control.base import BASE_URL
from strep.control.errors import AnswerError, CallControlError, ParameterError, TransportError
from strep.control.key import find_key
from strep.control.retries import Retries
from strep.specs import ConfigError
from strep.unreachable import reason_of
from strep.validation import shown

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping
    from pathlib import Path
    from types import TracebackType

    from pydantic import SecretStr

    from strep.control.base import Action, Call, Command, CommandResult

MAX_ANSWER_BYTES = 1 << 20

logger = structlog.get_logger("strep.control")

P = ParamSpec("P")


def _sends_action(
    command: Callable[P, Action],
) -> Callable[Concatenate[CallControl, str, P], Coroutine[Any, Any, CommandResult]]:
    """Return the method that makes a command on a call of its parameters and sends it."""

    async def method(
        self: CallControl, call: str, /, *args: P.args, **parameters: P.kwargs
    ) -> CommandResult:
        return await self.send(command(*args, **parameters), call)

    _describe(method, command, inspect.signature(method))
    return method


def _sends_dial(
    command: Callable[P, commands.Dial],
) -> Callable[Concatenate[CallControl, P], Coroutine[Any, Any, Call]]:
    """Return the method that dials."""

    async def method(self: CallControl, /, *args: P.args, **parameters: P.kwargs) -> Call:
        return await self.send(command(*args, **parameters))

    _describe(method, command, inspect.signature(method))
    return method


def _describe(method: Any, command: Any, signature: inspect.Signature) -> None:
    """Let `help` show what type checkers see: the command's parameters with their defaults."""
    own = [each for each in signature.parameters.values() if each.kind is each.POSITIONAL_ONLY]
    fields = [
        each.replace(annotation=each.empty)
        for each in inspect.signature(command).parameters.values()
    ]
    method.__name__ = command.name
    method.__qualname__ = f"CallControl.{command.name}"
    method.__doc__ = command.__doc__
    method.__signature__ = signature.replace(parameters=[*own, *fields])


class CallControl:
    """A client, to be entered with `async with`; its methods may run at the same time.

    - `key` or `key_file`: the API key; without one, the variables `STREP_API_KEY`,
      `STREP_API_KEY_FILE` (a file that holds it) and `TELNYX_API_KEY`, in this order. It is in no
      repr, log or error.
    - `attempts`, `attempt_timeout_s`, `total_timeout_s`: a command is tried again after a timeout,
      a broken connection, 429 and 5xx, always with the same `command_id`, which is made where none
      is given. It is not tried again where the wait would pass the total time.
    - `clock` (monotonic, s), `now` (UNIX time, s), `sleep` and `chance` (0 to 1) are for tests.

    Raises ConfigError where one of these is wrong.
    """

    def __init__(
        self,
        *,
        key: str | SecretStr | None = None,
        key_file: Path | None = None,
        base_url: str = BASE_URL,
        attempts: int = Retries.attempts,
        attempt_timeout_s: float = Retries.attempt_timeout_s,
        total_timeout_s: float = Retries.total_timeout_s,
        environment: Mapping[str, str] = os.environ,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.base_url = _checked_url(base_url)
        self._key = find_key(key, key_file, environment)
        self._retries = Retries(attempts, attempt_timeout_s, total_timeout_s)
        self._clock = clock
        self._now = now
        self._sleep = sleep
        self._chance = chance
        self._session: aiohttp.ClientSession | None = None

    def __repr__(self) -> str:
        return f"CallControl(base_url={self.base_url!r})"

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            # Attempts have their own time limit.
            timeout=aiohttp.ClientTimeout(total=None),
            cookie_jar=aiohttp.DummyCookieJar(),
            # What is not compressed cannot be longer than it looks.
            auto_decompress=False,
            headers={
                "Accept": "application/json",
                "Accept-Encoding": "identity",
                "Content-Type": "application/json",
                "User-Agent": f"strep/{__version__}",
            },
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    dial = _sends_dial(commands.Dial)
    answer = _sends_action(commands.Answer)
    bridge = _sends_action(commands.Bridge)
    client_state_update = _sends_action(commands.ClientStateUpdate)
    enqueue = _sends_action(commands.Enqueue)
    fork_start = _sends_action(commands.ForkStart)
    fork_stop = _sends_action(commands.ForkStop)
    gather = _sends_action(commands.Gather)
    gather_stop = _sends_action(commands.GatherStop)
    gather_using_audio = _sends_action(commands.GatherUsingAudio)
    gather_using_speak = _sends_action(commands.GatherUsingSpeak)
    hangup = _sends_action(commands.Hangup)
    leave_queue = _sends_action(commands.LeaveQueue)
    playback_start = _sends_action(commands.PlaybackStart)
    playback_stop = _sends_action(commands.PlaybackStop)
    record_pause = _sends_action(commands.RecordPause)
    record_resume = _sends_action(commands.RecordResume)

    @overload
    async def send(self, command: commands.Dial, call_control_id: None = None) -> Call: ...

    @overload
    async def send(self, command: Action, call_control_id: str) -> CommandResult: ...

    @overload
    async def send(
        self, command: Command, call_control_id: str | None = None
    ) -> Call | CommandResult: ...

    async def send(
        self, command: Command, call_control_id: str | None = None
    ) -> Call | CommandResult:
        """Send a command, on the call that it is for, and return the result.

        A command that ends something (`ends`) and finds the call ended already has succeeded.
        """
        url = self._url(command, call_control_id)
        body = command.body()
        for name in command.always_sent:
            body.setdefault(name, getattr(command, name))
        if "command_id" in type(command).model_fields:
            body.setdefault("command_id", str(uuid.uuid4()))
        return await self._persist(command, url, json.dumps(body).encode())

    def _url(self, command: Command, call_control_id: str | None) -> URL:
        if "{call_control_id}" not in command.path:
            return URL(self.base_url + command.path)
        if not re.fullmatch(r"[!-~]+", call_control_id or "") or call_control_id in {".", ".."}:
            raise ParameterError(
                command.name,
                "call_control_id",
                f"call_control_id: {shown(call_control_id)} does not name a call",
            )
        segment = quote(str(call_control_id), safe=":=")
        return URL(self.base_url + command.path.format(call_control_id=segment), encoded=True)

    async def _persist(self, command: Command, url: URL, body: bytes) -> Call | CommandResult:
        """Try until there is a result, an error that stays one, or no time left."""
        retries = self._retries
        until_s = self._clock() + retries.total_timeout_s
        failures = 0
        while True:
            timeout_s = min(retries.attempt_timeout_s, until_s - self._clock())
            try:
                return await self._attempt(command, url, body, timeout_s)
            except CallControlError as error:
                failures += 1
                wait_s = retries.wait_s(failures, error, self._chance())
                if wait_s is None or self._clock() + wait_s >= until_s:
                    raise
                logger.warning(
                    "command is tried again",
                    command=command.name,
                    failures=failures,
                    error=str(error),
                    wait_s=round(wait_s, 3),
                )
            await self._sleep(wait_s)

    async def _attempt(
        self, command: Command, url: URL, body: bytes, timeout_s: float
    ) -> Call | CommandResult:
        answer = await self._exchange(command, url, body, timeout_s)
        # Raised out here, where no exception of aiohttp is underway: its context would hold the
        # request's headers, and with them the key.
        if isinstance(answer, CallControlError):
            raise answer
        status, headers, content = answer
        return read_answer(command, status, headers, content, now_s=self._now())

    async def _exchange(
        self, command: Command, url: URL, body: bytes, timeout_s: float
    ) -> tuple[int, Mapping[str, str], bytes] | CallControlError:
        """Send once and return status, headers and body of the answer, or why there is none."""
        if self._session is None:
            raise RuntimeError("CallControl is used outside of its `async with`")
        try:
            async with (
                asyncio.timeout(timeout_s),
                self._session.request(
                    command.method,
                    url,
                    data=body,
                    headers={"Authorization": f"Bearer {self._key.get_secret_value()}"},
                    # A redirect would take the key elsewhere.
                    allow_redirects=False,
                ) as response,
            ):
                content = bytearray()
                async for piece in response.content.iter_any():
                    content += piece
                    if len(content) > MAX_ANSWER_BYTES:
                        response.close()
                        return AnswerError(
                            f"{command.name}: the answer is longer than {MAX_ANSWER_BYTES} bytes",
                            status=response.status,
                        )
                status = response.status
                return status, response.headers, self._cleared(status, bytes(content))
        except TimeoutError:
            return TransportError(
                f"{command.name}: no answer from {url.host} within {timeout_s:.3g} s"
            )
        except aiohttp.ClientResponseError:
            return AnswerError(f"{command.name}: the answer from {url.host} is not HTTP")
        except (aiohttp.ClientError, OSError) as error:
            return TransportError(f"{command.name}: no answer from {url.host}: {reason_of(error)}")

    def _cleared(self, status: int, content: bytes) -> bytes:
        """Take the key out of an error that quotes it; results are left as they are."""
        if status < 300:
            return content
        return content.replace(self._key.get_secret_value().encode(), b"***")


def _checked_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        valid = (
            parts.scheme in {"http", "https"}
            and bool(parts.hostname)
            and (parts.port or 1) > 0
            and not (parts.username or parts.query or parts.fragment)
        )
    except ValueError:
        valid = False
    if not valid:
        raise ConfigError(f"{shown(text)} is not the URL of an API, such as {BASE_URL}")
    return text.rstrip("/")
