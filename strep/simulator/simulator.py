"""The simulator: carrier, webhooks, media and HTTP put together on one event loop."""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from strep.http import HttpError
from strep.http import start as serve
from strep.simulator.calls import Notice, rfc3339
from strep.simulator.carrier import Carrier
from strep.simulator.faults import Faults
from strep.simulator.http import application, refuse
from strep.simulator.ledger import Ledger
from strep.simulator.media import Media, TrackPlan
from strep.simulator.settings import Scenarios, Settings
from strep.simulator.webhooks import Signer, WebhookSender
from strep.specs import Address
from strep.wire import Direction, Leg

if TYPE_CHECKING:
    from collections.abc import Mapping

    from strep.http import Site
    from strep.simulator.calls import Call, Fork, MediaChange, StreamType
    from strep.simulator.http import CommandRecord
    from strep.simulator.ledger import TrackLog

LOOPBACK = Address("127.0.0.1", 0)
MOST_COMMANDS = 20_000


class Clock:
    """The time of the simulation: seconds since its start, `speed` times as fast as ours."""

    def __init__(self, speed: float) -> None:
        self.speed = speed
        self._start_s = time.monotonic()
        self._start = datetime.now(UTC)

    def now_s(self) -> float:
        """Return the time of the simulation."""
        return (time.monotonic() - self._start_s) * self.speed

    def wall(self, now_s: float) -> datetime:
        """Return what our clocks show at a time of the simulation."""
        return self._start + timedelta(seconds=now_s / self.speed)


class Simulator:
    """The stand-in carrier, from `start` to `stop` or within `async with`.

    All methods belong to the event loop that it was started on; `strep.simulator.local` has one
    for everybody else. Raises `ConfigError` where the scenarios cannot be made.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        folder: Path = Path(),
        http: Address = LOOPBACK,
        api_key: str | None = None,
        signing_key: bytes | None = None,
    ) -> None:
        """Relative paths in the settings are meant from `folder`.

        `http` is where commands are taken, port 0 for any. A key that is not given is drawn at
        random; `signing_key` is an Ed25519 private key, 32 bytes.
        """
        self.settings = settings or Settings()
        self.scenarios = Scenarios(self.settings, folder)
        self.api_key = api_key or f"KEY{os.urandom(16).hex()}"
        self.signer = Signer(signing_key or os.urandom(32))
        self.http = http
        """Where commands are taken; the port is known after `start`."""
        self.clock = Clock(self.settings.speed)
        self.carrier = Carrier(
            seed=self.settings.seed,
            wall=self.clock.wall,
            connection_id=self.settings.connection_id,
            webhook_url=self.settings.webhook_url,
            scenario_for=self.scenarios.for_number,
        )
        self.media = Media(self.clock.now_s, speed=self.settings.speed, ledger=Ledger())
        self.command_faults = Faults(self.settings.fault, seed=self.settings.seed)
        self.webhook_faults = Faults(self.settings.webhook_fault, seed=self.settings.seed)
        self.commands: deque[CommandRecord] = deque(maxlen=MOST_COMMANDS)
        """The commands that came in, the oldest of many forgotten."""
        self.traffic_is_over = asyncio.Event()
        """Set when all calls of the settings' traffic have ended and all is sent; never without."""
        self.stopping = asyncio.Event()
        """Set when `stop` has begun: nothing is worth waiting for any more."""
        self._forks: dict[tuple[str, StreamType], dict[tuple[Leg, Direction], int]] = {}
        self._awaited_s: float | None = None
        self._kick = asyncio.Event()
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._site: Site | None = None
        self._webhooks: WebhookSender | None = None

    @property
    def base_url(self) -> str:
        """Where the carrier's API begins."""
        return f"http://{self.http}/v2"

    @property
    def control_url(self) -> str:
        """Where the simulator's own interface begins."""
        return f"http://{self.http}/simulator"

    @property
    def public_key(self) -> str:
        """What webhooks are verified with, in Base64."""
        return self.signer.public_key

    @property
    def webhooks(self) -> WebhookSender:
        """What sends the webhooks."""
        if self._webhooks is None:
            raise RuntimeError("the simulator was not started")
        return self._webhooks

    async def start(self) -> None:
        """Serve HTTP and let calls happen. Raises `HttpError`."""
        self._webhooks = WebhookSender(
            self.signer,
            self.webhook_faults,
            attempts=self.settings.webhook_attempts,
            timeout_s=self.settings.webhook_timeout_s,
            speed=self.settings.speed,
        )
        try:
            self._site = await serve(application(self), self.http, refuse=refuse)
        except HttpError:
            await self._webhooks.close()
            raise
        self.http = Address(self.http.host, self._site.addresses[0][1])
        self._tasks = [
            asyncio.create_task(self._drive()),
            asyncio.create_task(self.media.run()),
            asyncio.create_task(self._run_traffic()),
        ]

    async def stop(self) -> None:
        """Stop everything where it is; raises what went wrong in the meantime."""
        self.stopping.set()
        if self._site is not None:
            await self._site.cleanup()
        for task in self._tasks:
            task.cancel()
        outcomes = await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._webhooks is not None:
            await self._webhooks.close()
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def run(self) -> None:
        """Run until cancelled, or until something goes wrong, which is raised."""
        await asyncio.gather(*self._tasks)

    def command(self, name: str, control_id: str | None, document: object) -> dict[str, Any]:
        """Carry out a command, of whomever; returns the answer's `data`.

        Raises `RefusedError`.
        """
        try:
            return self.carrier.command(name, control_id, document, self.clock.now_s())
        finally:
            self._apply()

    def place_call(
        self,
        from_: str,
        to: str,
        scenario: str | Mapping[str, Any] | None = None,
        *,
        webhook_url: str | None = None,
    ) -> Call:
        """Let somebody call in; `scenario` is a name, or what differs from the default one.

        Raises `ConfigError`.
        """
        if isinstance(scenario, str):
            made = self.scenarios.named(scenario)
        else:
            made = self.scenarios.make(scenario) if scenario else self.scenarios.default
        call = self.carrier.place(from_, to, made, self.clock.now_s(), webhook_url)
        self._apply()
        return call

    def hang_up(self, control_id: str) -> None:
        """Let the other side hang up. Raises `RefusedError`."""
        self.carrier.hang_up_there(self.carrier.call(control_id), self.clock.now_s())
        self._apply()

    def type_digits(self, control_id: str, digits: str) -> None:
        """Let the other side type digits, which webhooks tell of. Raises `RefusedError`."""
        self.carrier.type_there(self.carrier.call(control_id), digits, self.clock.now_s())
        self._apply()

    def logs(self, *, summary: bool = False) -> list[TrackLog]:
        """Return what each track sent and dropped, in the order of their beginning."""
        return [self.media.log(number, summary=summary) for number in self.media.numbers()]

    def call_as_json(self, call: Call) -> dict[str, Any]:
        """Return what is known of a call."""
        wall = self.clock.wall
        times = {"begun_at": call.begun_s, "answered_at": call.answered_s, "ended_at": call.ended_s}
        return {
            "call_control_id": call.control_id,
            "call_leg_id": str(call.leg_id),
            "call_session_id": str(call.session_id),
            "connection_id": call.connection_id,
            "direction": call.direction,
            "from": call.from_,
            "to": call.to,
            "state": call.state.value,
            "hangup_cause": call.hangup_cause,
            "client_state": call.client_state,
            "bridged_with": None if call.partner is None else call.partner.control_id,
            "queue": call.queue,
            "forks": sorted(call.forks),
            **{key: None if at is None else rfc3339(wall(at)) for key, at in times.items()},
        }

    def status(self) -> dict[str, Any]:
        """Return figures for the operator."""
        calls = list(self.carrier.calls.values())
        deliveries = self.webhooks.deliveries
        return {
            "calls": len(calls),
            "calls_up": sum(call.is_up for call in calls),
            "commands": len(self.commands),
            "webhooks": len(deliveries),
            "webhooks_failed": sum(delivery.fate == "failed" for delivery in deliveries),
            "tracks": self.media.running,
            "datagrams": self.media.datagrams,
            "datagrams_failed": self.media.failed,
            "worst_lateness_ms": round(self.media.worst_lateness_s * 1000, 1),
        }

    def _apply(self) -> None:
        """Do in the world what the carrier wants done, and heed a timer before the awaited one."""
        for effect in self.carrier.take_effects():
            if isinstance(effect, Notice):
                self.webhooks.send(effect)
            else:
                self._set_media(effect)
        self._changed.set()
        if self.carrier.next_s != self._awaited_s:
            self._kick.set()

    def _set_media(self, change: MediaChange) -> None:
        """Begin and end tracks so that a fork sends what it is to send."""
        call, fork = change.call, change.fork
        tracks = self._forks.setdefault((call.control_id, fork.stream_type), {})
        wanted = _destinations(fork, change.legs)
        for side in tracks.keys() - wanted.keys():
            self.media.stop(tracks.pop(side))
        for side, to in wanted.items():
            if side not in tracks:
                tracks[side] = self.media.start(self._plan(call, fork, side, to))
        if not tracks:
            del self._forks[call.control_id, fork.stream_type]

    def _plan(self, call: Call, fork: Fork, side: tuple[Leg, Direction], to: Address) -> TrackPlan:
        leg, direction = side
        audio = call.scenario.audio
        # what one leg says the other one hears
        is_spoken_there = (direction == Direction.INBOUND) == (leg == Leg.A)
        return TrackPlan(
            call_control_id=call.control_id,
            call_leg_id=call.leg_id,
            leg=leg,
            direction=direction,
            is_strep=fork.target is not None,
            to=to,
            scenario=call.scenario,
            audio=self.scenarios.audio(audio.inbound if is_spoken_there else audio.outbound),
            trace=self.scenarios.trace(call.scenario),
            seed=(call.seed, leg, direction),
            answered_s=call.answered_s or 0.0,
        )

    async def _drive(self) -> None:
        """Let the carrier's timers go off."""
        while True:
            self._awaited_s = next_s = self.carrier.next_s
            wait_s = None
            if next_s is not None:
                wait_s = max(0.0, next_s - self.clock.now_s()) / self.clock.speed
            self._kick.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._kick.wait(), wait_s)
            self.carrier.tick(self.clock.now_s())
            self._apply()

    async def _run_traffic(self) -> None:
        """Place the calls of the settings, and wait for their end."""
        traffic = self.settings.traffic
        scenario = traffic.scenario
        placed: list[Call] = []
        start_s = self.clock.now_s()
        while len(placed) < traffic.calls:
            due_s = start_s + len(placed) / traffic.rate_per_s
            await asyncio.sleep(max(0.0, due_s - self.clock.now_s()) / self.clock.speed)
            call = self.place_call(_number(traffic.from_, len(placed)), traffic.to, scenario)
            placed.append(call)
            if traffic.fork is not None:
                self.command("answer", call.control_id, {})
                self.command("fork_start", call.control_id, {"target": f"udp:{traffic.fork}"})
        while not all(call.ended for call in placed):
            self._changed.clear()
            await self._changed.wait()
        if placed:
            await self.media.drain()
            await self.webhooks.settle()
            self.traffic_is_over.set()


def _destinations(fork: Fork, legs: int) -> dict[tuple[Leg, Direction], Address]:
    """Return where each track of a fork goes; plain RTP is of leg A alone."""
    if legs and fork.rx is not None and fork.tx is not None:
        return {(Leg.A, Direction.INBOUND): fork.rx, (Leg.A, Direction.OUTBOUND): fork.tx}
    if fork.target is None:
        return {}
    return {(leg, direction): fork.target for leg in list(Leg)[:legs] for direction in Direction}


def _number(first: str, n: int) -> str:
    """Return the number that is `n` above the first; of what is no number, the first itself."""
    digits = first.removeprefix("+")
    if not digits.isdecimal():
        return first
    return f"{first[: len(first) - len(digits)]}{int(digits) + n:0{len(digits)}d}"
