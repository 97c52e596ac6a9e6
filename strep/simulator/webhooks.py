"""Webhooks on their way out: signed, in order, tried again, and wrong where that is asked for.

The webhooks of a call leg leave one after the other, each when the one before has arrived or has
been given up. One is tried again after a connection that fails, a timeout, 408, 429 and 5xx; any
other status settles it.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import aiohttp
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from strep.control.webhooks import sign

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from strep.simulator.calls import Notice
    from strep.simulator.faults import Faults, WebhookFault, WebhookFaultKind

MOST_RECORDS = 20_000
FIRST_BACKOFF_S = 0.5
"""Before the second attempt; each further wait is twice as long."""
STALE_S = 600
"""How old a stale copy is: twice what receivers tolerate."""
RETRIED = frozenset({408, 429})

DeliveryFate = Literal["pending", "delivered", "failed", "lost", "logged"]
"""`logged`: there was nowhere to send it."""


class Signer:
    """Signs webhooks with Ed25519 over `timestamp|body`."""

    def __init__(self, seed: bytes) -> None:
        """`seed` is the private key, 32 bytes."""
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        public = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.public_key = base64.b64encode(public).decode()
        """In Base64, as the carrier's portal shows it."""

    def headers(self, body: bytes, unix_s: float) -> dict[str, str]:
        """Return the headers of a body that is signed at this time."""
        return sign(body, self._key, unix_s)


@dataclass(slots=True, eq=False)
class Delivery:
    """A webhook, and what became of it."""

    url: str | None
    method: str
    event: dict[str, Any]
    fate: DeliveryFate = "pending"
    fault: str | None = None
    attempts: list[dict[str, Any]] = field(default_factory=list)
    """For each the time (`at_unix_s`) and the `status` or the `error`."""

    def as_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(slots=True, eq=False)
class _Line:
    """The webhooks of one call leg that have not left."""

    waiting: deque[Delivery] = field(default_factory=deque)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when something was put into the line."""


class WebhookSender:
    """Sends webhooks until closed."""

    def __init__(
        self,
        signer: Signer,
        faults: Faults[WebhookFault],
        *,
        attempts: int,
        timeout_s: float,
        speed: float,
    ) -> None:
        self.deliveries: deque[Delivery] = deque(maxlen=MOST_RECORDS)
        """In the order of their events; the oldest are forgotten."""
        self._signer = signer
        self._faults = faults
        self._attempts = attempts
        self._speed = speed
        self._lines: dict[str, _Line] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._session = aiohttp.ClientSession(timeout=timeout, headers={"User-Agent": "strep"})

    def send(self, notice: Notice) -> None:
        """Put a webhook into the line of its call leg."""
        delivery = Delivery(notice.url, notice.method, notice.event)
        self.deliveries.append(delivery)
        if delivery.url is None:
            delivery.fate = "logged"
            return
        control_id = notice.call.control_id
        line = self._lines.get(control_id)
        if line is None:
            line = self._lines[control_id] = _Line()
            self._spawn(self._work(control_id, line))
        line.waiting.append(delivery)
        line.arrived.set()

    async def settle(self) -> None:
        """Wait until nothing is on its way."""
        while self._tasks:
            await asyncio.gather(*self._tasks)

    async def close(self) -> None:
        """Give up what has not left."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._session.close()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _work(self, control_id: str, line: _Line) -> None:
        await asyncio.sleep(0)
        while line.waiting:
            delivery = line.waiting.popleft()
            fault = self._faults.pick(delivery.event["event_type"])
            delivery.fault = None if fault is None else fault.kind
            if fault is None:
                await self._deliver(delivery)
            elif fault.kind == "lost":
                delivery.fate = "lost"
            elif fault.kind == "late":
                self._spawn(self._deliver_later(delivery, fault.delay_s))
            elif fault.kind == "swapped":
                await self._swap(delivery, line, fault.delay_s)
            else:
                await self._deliver_with_copy(delivery, fault.kind)
        del self._lines[control_id]

    async def _deliver_later(self, delivery: Delivery, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        await self._deliver(delivery)

    async def _swap(self, delivery: Delivery, line: _Line, delay_s: float) -> None:
        """Deliver the next one first, if one comes in time."""
        if not line.waiting:
            line.arrived.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(line.arrived.wait(), delay_s)
        if line.waiting:
            await self._deliver(line.waiting.popleft())
        await self._deliver(delivery)

    async def _deliver_with_copy(self, delivery: Delivery, kind: WebhookFaultKind) -> None:
        """Deliver it twice, or behind a copy that is to be refused."""
        if kind == "twice":
            await self._deliver(delivery)
        await self._attempt(delivery, 1, kind)
        if kind != "twice":
            await self._deliver(delivery)

    async def _deliver(self, delivery: Delivery) -> None:
        """Try until it is settled or there were attempts enough."""
        for number in range(1, self._attempts + 1):
            status = await self._attempt(delivery, number)
            if status is not None and status // 100 == 2:
                delivery.fate = "delivered"
                return
            if status is not None and status < 500 and status not in RETRIED:
                break
            if number < self._attempts:
                await asyncio.sleep(FIRST_BACKOFF_S * 2 ** (number - 1) / self._speed)
        delivery.fate = "failed"

    async def _attempt(
        self, delivery: Delivery, number: int, kind: WebhookFaultKind | None = None
    ) -> int | None:
        """Send it once; return the answer's status, None where there was none."""
        meta = {"attempt": number, "delivered_to": delivery.url}
        body = json.dumps({"data": delivery.event, "meta": meta}).encode()
        now_unix_s = time.time()
        age_s = STALE_S if kind == "stale" else 0
        headers = self._signer.headers(body, now_unix_s - age_s)
        if kind == "bad_signature":
            body = body.replace(b'"attempt": 1', b'"attempt": 7')
        attempt: dict[str, Any] = {"at_unix_s": round(now_unix_s, 6)}
        if kind is not None:
            attempt["copy"] = kind
        delivery.attempts.append(attempt)
        try:
            async with self._session.request(
                delivery.method,
                delivery.url or "",
                data=body,
                headers={**headers, "Content-Type": "application/json"},
                max_redirects=3,
            ) as answer:
                attempt["status"] = answer.status
                return answer.status
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            attempt["error"] = str(error) or type(error).__name__
            return None
