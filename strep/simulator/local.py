"""The simulator on a thread of its own: for tests, notebooks and whatever is not asynchronous."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from strep.simulator.faults import CommandFault, WebhookFault
from strep.simulator.settings import Settings, check
from strep.simulator.simulator import Simulator

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from strep.simulator.ledger import TrackLog

_T = TypeVar("_T")

DEADLINE_S = 30.0
"""For everything that is asked of the thread."""


class LocalCarrier:
    """A stand-in carrier on free ports of 127.0.0.1, from `start` to `stop` or within `with`.

    Settings are those of the TOML file of `strep simulate`:

        with LocalCarrier(speed=20, network={"loss": 0.01}) as carrier:
            carrier.webhook_url = "http://127.0.0.1:8080/webhooks"
            call = carrier.place_call("+15550100001", "+15550199999")

    Documents are dictionaries as `strep.simulator.http` shows them. What concerns a call that there
    is not, or does not fit its state, raises `RefusedError`; settings that are wrong `ConfigError`.
    """

    def __init__(
        self,
        *,
        folder: Path = Path(),
        api_key: str | None = None,
        signing_key: bytes | None = None,
        **settings: Any,
    ) -> None:
        """Relative paths in the settings are meant from `folder`."""
        self._make = partial(
            Simulator,
            check(settings, Settings),
            folder=folder,
            api_key=api_key,
            signing_key=signing_key,
        )
        self._thread: threading.Thread | None = None
        self._ready = threading.Event()
        self._failure: BaseException | None = None

    def start(self) -> None:
        """Start it; raises what keeps it from that."""
        self._ready.clear()
        self._thread = threading.Thread(target=self._run, name="strep-carrier", daemon=True)
        self._thread.start()
        if not self._ready.wait(DEADLINE_S):
            raise TimeoutError(f"the simulator did not start within {DEADLINE_S:g} s")
        if self._failure is not None:
            self._thread.join()
            raise self._failure

    def stop(self) -> None:
        """Stop it; raises what went wrong in it meanwhile."""
        if self._thread is None or not self._thread.is_alive():
            return
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(DEADLINE_S)
        if self._failure is not None:
            raise self._failure

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def base_url(self) -> str:
        """Where the carrier's API begins, `http://127.0.0.1:PORT/v2`."""
        return self._simulator.base_url

    @property
    def control_url(self) -> str:
        """Where the simulator's own HTTP interface begins."""
        return self._simulator.control_url

    @property
    def api_key(self) -> str:
        """What commands are authenticated with, as a bearer token."""
        return self._simulator.api_key

    @property
    def public_key(self) -> str:
        """What webhooks are verified with: Ed25519, in Base64."""
        return self._simulator.public_key

    @property
    def webhook_url(self) -> str | None:
        """Where webhooks go of calls that name no other place; can be set."""
        return self._simulator.carrier.webhook_url

    @webhook_url.setter
    def webhook_url(self, url: str | None) -> None:
        def change() -> None:
            self._simulator.carrier.webhook_url = url

        self._ask(change)

    def command(self, name: str, call_control_id: str | None = None, /, **body: Any) -> Any:
        """Carry out a command as if it had come in; returns the answer's `data`."""
        return self._ask(lambda: self._simulator.command(name, call_control_id, body))

    def place_call(
        self, from_: str, to: str, scenario: str | Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Let somebody call in, who waits for `answer`; returns the call.

        `scenario` is a name, or the tables in which it differs from that of the settings.
        """
        simulator = self._simulator
        return self._ask(lambda: simulator.call_as_json(simulator.place_call(from_, to, scenario)))

    def hang_up(self, call_control_id: str) -> None:
        """Let the other side hang up."""
        self._ask(lambda: self._simulator.hang_up(call_control_id))

    def type_digits(self, call_control_id: str, digits: str) -> None:
        """Let the other side type digits, which webhooks tell of."""
        self._ask(lambda: self._simulator.type_digits(call_control_id, digits))

    def calls(self) -> list[dict[str, Any]]:
        """Return all calls, in the order of their beginning."""
        simulator = self._simulator
        return self._ask(
            lambda: [simulator.call_as_json(call) for call in simulator.carrier.calls.values()]
        )

    def commands(self) -> list[dict[str, Any]]:
        """Return the commands that came in over HTTP, and their answers."""
        return self._ask(lambda: [asdict(record) for record in self._simulator.commands])

    def webhooks(self) -> list[dict[str, Any]]:
        """Return the webhooks, in the order of their events, and what became of them."""
        return self._ask(lambda: [each.as_json() for each in self._simulator.webhooks.deliveries])

    def logs(self) -> list[TrackLog]:
        """Return what each track sent and dropped, in the order of their beginning."""
        return self._ask(self._simulator.logs)

    def fail(self, **fault: Any) -> None:
        """Let a command go wrong: `fail(command="dial", status=429, retry_after_s=1)`."""
        made = check(fault, CommandFault)
        self._ask(lambda: self._simulator.command_faults.add(made))

    def spoil(self, **fault: Any) -> None:
        """Let a webhook go wrong: `spoil(event="call.answered", kind="bad_signature")`."""
        made = check(fault, WebhookFault)
        self._ask(lambda: self._simulator.webhook_faults.add(made))

    def drain(self, timeout_s: float = DEADLINE_S) -> None:
        """Wait until all tracks are over and sent, and no webhook is on its way.

        Raises TimeoutError.
        """

        async def drained() -> None:
            await self._simulator.media.drain()
            await self._simulator.webhooks.settle()

        asyncio.run_coroutine_threadsafe(drained(), self._loop).result(timeout_s)

    def wait_for(self, condition: Callable[[], _T], timeout_s: float = 10.0) -> _T:
        """Return what a condition returns as soon as that is true. Raises TimeoutError.

        carrier.wait_for(lambda: [c for c in carrier.calls() if c["state"] == "answered"])
        """
        deadline_s = time.monotonic() + timeout_s
        while not (value := condition()):
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"the condition was not true within {timeout_s:g} s")
            time.sleep(0.01)
        return value

    def _ask(self, question: Callable[[], _T]) -> _T:
        """Ask something on the simulator's thread."""

        async def answer() -> _T:
            return question()

        return asyncio.run_coroutine_threadsafe(answer(), self._loop).result(DEADLINE_S)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # noqa: BLE001 -- handed over to the thread that waits
            self._failure = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        self._simulator = self._make()
        async with self._simulator:
            self._ready.set()
            await self._stopping.wait()
