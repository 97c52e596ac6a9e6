"""Webhooks: verified, told apart from replays, answered at once and processed afterwards.

The carrier signs `timestamp|body` with Ed25519 (RFC 8032) and sends two headers, the signature in
base64 and the timestamp in seconds since 1970. `verify` checks them and serves any framework;
`WebhookReceiver` does everything that is to be done with a webhook, without HTTP;
`aiohttp_handler` puts it behind aiohttp; `sign` is the carrier's side.

An answer of 200 means that the event was verified and waits in the receiver's queue. The queue is
not kept on disk: what waits in it when the process dies is lost. The carrier sends again whatever
was not answered with 200, so a full queue loses nothing.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import inspect
import json
import time
from collections import Counter, OrderedDict, deque
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from types import MappingProxyType
from typing import TYPE_CHECKING

import structlog
from aiohttp import web
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from strep.control.events import EventError, parse_event

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from strep.control.events import Event

logger = structlog.get_logger("strep.webhooks")

SIGNATURE_HEADER = "telnyx-signature-ed25519"
TIMESTAMP_HEADER = "telnyx-timestamp"

TOLERANCE_S = 300.0
REMEMBER_S = 3600.0
MAX_BODY_BYTES = 256 * 1024
_KEY_BYTES = 32


class Outcome(StrEnum):
    """What became of a webhook."""

    ACCEPTED = "accepted"
    REPLAYED = "replayed"
    """Accepted before: said to be well received, since an answer can be lost, and not used."""
    MISSING_HEADER = "missing_header"
    BAD_SIGNATURE = "bad_signature"
    STALE = "stale"
    """Signed by the carrier, longer ago than the tolerance."""
    FUTURE = "future"
    """Signed by the carrier, further ahead of this clock than the tolerance."""
    MALFORMED = "malformed"
    TOO_LARGE = "too_large"
    INCOMPLETE = "incomplete"
    """The body did not come whole, or not in time."""
    QUEUE_FULL = "queue_full"
    CLOSED = "closed"

    @property
    def status(self) -> HTTPStatus:
        """The HTTP status that it is answered with."""
        match self:
            case Outcome.ACCEPTED | Outcome.REPLAYED:
                return HTTPStatus.OK
            case Outcome.MISSING_HEADER | Outcome.BAD_SIGNATURE | Outcome.STALE | Outcome.FUTURE:
                return HTTPStatus.UNAUTHORIZED
            case Outcome.MALFORMED:
                return HTTPStatus.BAD_REQUEST
            case Outcome.TOO_LARGE:
                return HTTPStatus.REQUEST_ENTITY_TOO_LARGE
            case Outcome.INCOMPLETE:
                return HTTPStatus.REQUEST_TIMEOUT
            case Outcome.QUEUE_FULL | Outcome.CLOSED:
                return HTTPStatus.SERVICE_UNAVAILABLE


class WebhookError(Exception):
    """A webhook that is refused: `outcome` says why, the text says it to its sender."""

    def __init__(self, outcome: Outcome, detail: str) -> None:
        super().__init__(detail)
        self.outcome = outcome


class WebhookKeyError(ValueError):
    """No key to verify webhooks with, or one that is none, in words for the operator."""


def load_public_key(text: str) -> Ed25519PublicKey:
    """Return the carrier's public key, given in base64. Raises `WebhookKeyError`."""
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != _KEY_BYTES:
        # Not quoted: what was put here by mistake may be another key, a secret one.
        raise WebhookKeyError("the webhook public key is not 32 bytes in base64 (44 characters)")
    return Ed25519PublicKey.from_public_bytes(key)


def verify(
    body: bytes,
    signature: str | None,
    timestamp: str | None,
    public_key: Ed25519PublicKey,
    *,
    now_s: float,
    tolerance_s: float = TOLERANCE_S,
) -> None:
    """Return if the carrier signed this body at about this time.

    `body` is the raw one, `signature` and `timestamp` are the headers' values, None where there is
    none; `now_s` is the wall clock's. Raises `WebhookError`.
    """
    if signature is None or timestamp is None:
        absent = SIGNATURE_HEADER if signature is None else TIMESTAMP_HEADER
        raise WebhookError(Outcome.MISSING_HEADER, f"there is no header {absent}")
    # Twelve digits last for 30,000 years, and bound the work on what anybody can send.
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12):
        raise WebhookError(
            Outcome.BAD_SIGNATURE, f"{TIMESTAMP_HEADER} is not a whole number of seconds"
        )
    try:
        public_key.verify(_decoded(signature), _signed_message(timestamp, body))
    except InvalidSignature:
        raise WebhookError(
            Outcome.BAD_SIGNATURE, "the signature is not the carrier's for this timestamp and body"
        ) from None
    # Only now, so that "stale" and "future" are said of the carrier's own webhooks alone.
    age_s = now_s - int(timestamp)
    if age_s > tolerance_s:
        raise WebhookError(Outcome.STALE, f"signed more than {tolerance_s:g} s ago")
    if age_s < -tolerance_s:
        raise WebhookError(Outcome.FUTURE, f"signed more than {tolerance_s:g} s ahead of our clock")


def sign(body: bytes, private_key: Ed25519PrivateKey, now_s: float) -> dict[str, str]:
    """Return the two headers that a carrier which signs at `now_s` sends with this body."""
    timestamp = str(int(now_s))
    signature = private_key.sign(_signed_message(timestamp, body))
    return {
        SIGNATURE_HEADER: base64.b64encode(signature).decode(),
        TIMESTAMP_HEADER: timestamp,
    }


class SeenIds:
    """The ids of events seen in the last `keep_s` seconds, at most `capacity` of them.

    When it is full the oldest is forgotten early, which `evicted` counts.
    """

    def __init__(self, capacity: int, keep_s: float) -> None:
        self._capacity = capacity
        self._keep_s = keep_s
        self._seen_s: OrderedDict[str, float] = OrderedDict()
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._seen_s)

    def has(self, event_id: str, now_s: float) -> bool:
        """Return whether the id was added at most `keep_s` ago."""
        self._expire(now_s)
        return event_id in self._seen_s

    def add(self, event_id: str, now_s: float) -> None:
        """Remember the id from now on."""
        self._expire(now_s)
        self._seen_s[event_id] = now_s
        self._seen_s.move_to_end(event_id)
        if len(self._seen_s) > self._capacity:
            self._seen_s.popitem(last=False)
            self.evicted += 1

    def _expire(self, now_s: float) -> None:
        while self._seen_s:
            event_id, seen_s = next(iter(self._seen_s.items()))
            if now_s - seen_s <= self._keep_s:
                return
            del self._seen_s[event_id]


@dataclass(frozen=True)
class Answer:
    """What a webhook is answered with."""

    outcome: Outcome
    detail: str = ""

    @property
    def status(self) -> int:
        """The HTTP status."""
        return int(self.outcome.status)

    @property
    def headers(self) -> dict[str, str]:
        """The headers that the answer needs."""
        headers = {}
        if self.body:
            headers["Content-Type"] = "application/problem+json"
        if self.outcome.status is HTTPStatus.UNAUTHORIZED:
            # RFC 9110 section 11.6.1 asks for a challenge; no registered scheme fits.
            headers["WWW-Authenticate"] = "Ed25519"
        return headers

    @property
    def body(self) -> bytes:
        """Problem details (RFC 9457) with the outcome as `reason`; nothing where all is well."""
        if self.outcome.status is HTTPStatus.OK:
            return b""
        problem = {
            "type": "about:blank",
            "title": self.outcome.status.phrase,
            "status": self.status,
            "detail": self.detail,
            "reason": self.outcome.value,
        }
        return json.dumps(problem).encode()


class WebhookReceiver:
    """Takes webhooks in and hands their events, one after the other, to a callback.

    `handle` is a function or a coroutine function. While it works, events wait, at most
    `queue_events` of them; what it raises is logged and counted, and the next event follows.
    `public_key` is the carrier's, in base64 or loaded; None is refused with `WebhookKeyError`
    unless `allow_unsigned` says that anybody may send webhooks. The ids of the last
    `remember_events` are remembered for an hour. Not thread-safe: all calls come from the event
    loop's thread.
    """

    def __init__(
        self,
        handle: Callable[[Event], Awaitable[object] | object],
        *,
        public_key: Ed25519PublicKey | str | None,
        allow_unsigned: bool = False,
        tolerance_s: float = TOLERANCE_S,
        queue_events: int = 1000,
        max_body_bytes: int = MAX_BODY_BYTES,
        remember_events: int = 100_000,
    ) -> None:
        self._public_key = _required_key(public_key, allow_unsigned=allow_unsigned)
        # A webhook is fresh from the tolerance before its timestamp to the tolerance after it.
        self.seen = SeenIds(remember_events, keep_s=max(REMEMBER_S, 2 * tolerance_s))
        self.max_body_bytes = max_body_bytes
        self.handler_errors = 0
        self._handle = handle
        self._tolerance_s = tolerance_s
        self._queue_events = queue_events
        self._queue: deque[Event] = deque()
        self._counts = Counter(dict.fromkeys(Outcome, 0))
        self._wake = asyncio.Event()
        self._is_closed = False

    @property
    def counts(self) -> Mapping[Outcome, int]:
        """How many webhooks had which outcome; every outcome has a count."""
        return MappingProxyType(self._counts)

    @property
    def waiting(self) -> int:
        """How many events wait for the callback."""
        return len(self._queue)

    def receive(
        self, body: bytes, signature: str | None, timestamp: str | None, now_s: float
    ) -> Answer:
        """Take a webhook in and say what to answer; arguments as for `verify`.

        A body of more than `max_body_bytes` may be given as far as it was read.
        """
        try:
            outcome = self._admit(body, signature, timestamp, now_s)
        except WebhookError as error:
            return self.refuse(error.outcome, str(error))
        self._counts[outcome] += 1
        return Answer(outcome)

    def refuse(self, outcome: Outcome, detail: str) -> Answer:
        """Count a webhook that could not be read, and say what to answer."""
        self._counts[outcome] += 1
        # Anybody can send what is refused: the first of a kind is news, all others are a count.
        log = logger.warning if self._counts[outcome] == 1 else logger.debug
        log("webhook refused", reason=outcome.value, detail=detail)
        return Answer(outcome, detail)

    async def run(self) -> None:
        """Hand events to the callback until `close` was called and none waits any more."""
        while True:
            while self._queue:
                await self._process(self._queue.popleft())
                # A callback that never waits would keep the loop from all else meanwhile.
                await asyncio.sleep(0)
            if self._is_closed:
                return
            self._wake.clear()
            await self._wake.wait()

    def close(self) -> None:
        """Refuse webhooks from now on, so that `run` ends."""
        self._is_closed = True
        self._wake.set()

    def _admit(
        self, body: bytes, signature: str | None, timestamp: str | None, now_s: float
    ) -> Outcome:
        if len(body) > self.max_body_bytes:
            raise WebhookError(
                Outcome.TOO_LARGE, f"the body has more than {self.max_body_bytes} bytes"
            )
        if self._public_key is not None:
            tolerance_s = self._tolerance_s
            verify(
                body, signature, timestamp, self._public_key, now_s=now_s, tolerance_s=tolerance_s
            )
        try:
            event = parse_event(body)
        except EventError as error:
            raise WebhookError(Outcome.MALFORMED, str(error)) from None
        if self.seen.has(event.id, now_s):
            return Outcome.REPLAYED
        # Remembered only when it is sure to be processed: the carrier sends a refused one again.
        if self._is_closed:
            raise WebhookError(Outcome.CLOSED, "no more webhooks are taken in: try again later")
        if len(self._queue) >= self._queue_events:
            raise WebhookError(Outcome.QUEUE_FULL, "too many events wait: try again later")
        self.seen.add(event.id, now_s)
        self._queue.append(event)
        self._wake.set()
        return Outcome.ACCEPTED

    async def _process(self, event: Event) -> None:
        try:
            result = self._handle(event)
            if inspect.isawaitable(result):
                await result
        except Exception:
            self.handler_errors += 1
            logger.exception(
                "an event could not be processed", event_id=event.id, event_type=event.event_type
            )


def aiohttp_handler(
    receiver: WebhookReceiver,
    clock: Callable[[], float] = time.time,
    body_timeout_s: float = 10.0,
) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Return aiohttp's handler for the route that the carrier posts webhooks to."""

    async def handle(request: web.Request) -> web.Response:
        try:
            async with asyncio.timeout(body_timeout_s):
                body = await _read_beyond(request, receiver.max_body_bytes)
        except (TimeoutError, ConnectionError):
            answer = receiver.refuse(
                Outcome.INCOMPLETE, f"the body did not come whole within {body_timeout_s:g} s"
            )
        except web.RequestPayloadError:
            answer = receiver.refuse(Outcome.MALFORMED, "the body's encoding is broken")
        else:
            headers = request.headers
            answer = receiver.receive(
                body, headers.get(SIGNATURE_HEADER), headers.get(TIMESTAMP_HEADER), clock()
            )
        return web.Response(status=answer.status, headers=answer.headers, body=answer.body)

    return handle


async def _read_beyond(request: web.Request, limit_bytes: int) -> bytes:
    """Return the whole body, or its beginning as soon as that has more than `limit_bytes`."""
    body = bytearray()
    while len(body) <= limit_bytes:
        chunk = await request.content.readany()
        if not chunk:
            break
        body += chunk
    return bytes(body)


def _required_key(
    public_key: Ed25519PublicKey | str | None, *, allow_unsigned: bool
) -> Ed25519PublicKey | None:
    if public_key is None:
        if not allow_unsigned:
            raise WebhookKeyError(
                "no webhook public key is configured: give the carrier's, or allow unsigned"
                " webhooks in so many words"
            )
        logger.warning("webhooks are not verified: whoever reaches the port can send events")
        return None
    if allow_unsigned:
        raise WebhookKeyError(
            "a webhook public key is configured and unsigned webhooks are allowed: choose one"
        )
    return load_public_key(public_key) if isinstance(public_key, str) else public_key


def _signed_message(timestamp: str, body: bytes) -> bytes:
    return timestamp.encode() + b"|" + body


def _decoded(signature: str) -> bytes:
    """Return the bytes of base64, or none where it is not in its one canonical form."""
    try:
        decoded = base64.b64decode(signature, validate=True)
    except (binascii.Error, ValueError):
        return b""
    # The last character has bits that decoding drops: without this, several texts would do.
    return decoded if base64.b64encode(decoded).decode() == signature else b""
