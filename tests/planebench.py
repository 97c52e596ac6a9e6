"""A control plane with a carrier over HTTP, a store on disk, workers that note what they are told,
and a clock that stands still until it is moved."""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from uuid import UUID

from aiohttp import web

from strep.control import CallControl
from strep.control.events import event_of
from strep.control.memory import Memory
from strep.control.plane import ControlPlane
from strep.control.settings import ControlSettings
from strep.store import Store, StoreError

S = 1_000_000_000
T0 = 1_700_000_000 * S
OK = (200, {"data": {"result": "ok"}})
LEG = UUID("428c31b6-7af4-4bcb-b7f5-5013ef9657c1")
CALL = "v3:call-1"


def refusal(status, code, title="refused"):
    return status, {"errors": [{"code": code, "title": title}]}


ENDED = refusal(422, "90018", "Call has already ended")


class CarrierDouble:
    """Answers commands with what stands in `replies`, then with success, and notes them."""

    def __init__(self):
        self.commands = []
        self.replies = deque()
        self.gate = asyncio.Event()
        self.gate.set()
        self.arrived = asyncio.Semaphore(0)
        """Released by each command that has come."""
        self.at_once = 0
        self.most_at_once = 0
        self.port = 0
        self._runner = None

    async def start(self):
        app = web.Application()
        app.router.add_post("/v2/calls/{call}/actions/{name}", self._answer)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]

    async def stop(self):
        await self._runner.cleanup()

    async def _answer(self, request):
        self.commands.append(
            (request.match_info["name"], request.match_info["call"], await request.json())
        )
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.arrived.release()
        await self.gate.wait()
        self.at_once -= 1
        status, document = self.replies.popleft() if self.replies else OK
        if isinstance(document, dict):
            return web.json_response(document, status=status)
        return web.Response(status=status, body=document)

    @property
    def names(self):
        return [name for name, _, _ in self.commands]


class NotedWorkers:
    """Note what they are told; `taken` are the ports that others have."""

    def __init__(self):
        self.told = []
        self.facts = {}
        self.open = {}
        self.taken = set()

    def announce(self, call_leg_id, facts):
        self.facts[call_leg_id] = dict(facts)

    def forget(self, call_leg_id):
        self.told.append(("forget", call_leg_id))
        del self.facts[call_leg_id]

    def close_call(self, call_leg_id):
        self.told.append(("close_call", call_leg_id))

    async def pause(self, call_leg_id, *, is_paused):
        self.told.append(("pause" if is_paused else "resume", call_leg_id))

    async def open_ports(self, pair, call_leg_id):
        if {pair.rx, pair.tx} & self.taken:
            raise OSError(98, "Address already in use")
        self.told.append(("open_ports", pair))
        self.open[pair] = call_leg_id

    async def close_ports(self, pair):
        self.told.append(("close_ports", pair))
        del self.open[pair]


class FailingStore:
    """A store that cannot be written while `fails`."""

    def __init__(self, store):
        self.store = store
        self.fails = False

    def __getattr__(self, name):
        if self.fails:
            raise StoreError("the disk is full")
        return getattr(self.store, name)


class Bench:
    def __init__(self, folder, carrier):
        self.now_ns = T0
        self.carrier = carrier
        self.workers = NotedWorkers()
        self.path = folder / "calls.db"
        self.plane = None
        self.memory = None

    @asynccontextmanager
    async def running(self, **settings):
        """Give out a plane that goes on where the last one ended."""
        loop = asyncio.get_running_loop()
        given = {"allow_unsigned_webhooks": True, "media_target": "udp:192.0.2.1:9000"}
        client = CallControl(
            key="KEY",
            base_url=f"http://127.0.0.1:{self.carrier.port}/v2",
            attempts=1,
            attempt_timeout_s=5,
        )
        with ThreadPoolExecutor(1) as executor, Store(self.path) as store:
            self.memory = Memory(store, lambda work: loop.run_in_executor(executor, work))
            async with client:
                self.plane = ControlPlane(
                    ControlSettings(**given | settings),
                    carrier=client,
                    workers=self.workers,
                    memory=self.memory,
                    clock=lambda: self.now_ns,
                )
                await self.plane.start()
                try:
                    yield self.plane
                finally:
                    await self.plane.stop()

    async def quiet(self):
        """Wait until nothing is under way any more."""
        driver = self.plane._driver
        while driver._tasks:
            await asyncio.gather(*driver._tasks)
        await self.memory.written()

    async def wait(self, seconds):
        """Let time pass, in one step, and all be done that is due then."""
        self.now_ns += round(seconds * S)
        self.plane.tick(self.now_ns)
        await self.quiet()

    def tell(self, kind, *, call=CALL, leg=LEG, at_ns=None, **payload):
        """Hand in a webhook's event; by its own clock the carrier is a second ahead."""
        at_ns = self.now_ns + S if at_ns is None else at_ns
        self.plane.on_event(
            event_of(
                {
                    "data": {
                        "event_type": kind,
                        "id": "0ccc7b54-4df3-4bca-a65a-3da1ecc777f0",
                        "occurred_at": at_ns // 1000 / 1e6,
                        "payload": {"call_control_id": call, "call_leg_id": str(leg)} | payload,
                    }
                }
            )
        )

    def hear(self, direction="inbound", leg=LEG):
        """Open a track, as a worker says it."""
        self.plane.track_opened(
            {
                "call_leg_id": str(leg),
                "leg": "A",
                "direction": direction,
                "opened_at": "2023-11-14T22:13:20.000Z",
            }
        )

    def fall_silent(self, direction, leg=LEG):
        """Close a track because nothing has come for long, as a worker says it."""
        entry = {
            "call_leg_id": str(leg),
            "leg": "A",
            "direction": direction,
            "opened_at": "2023-11-14T22:13:20.000Z",
            "ended_at": "2023-11-14T22:15:20.000Z",
            "reason": "idle",
            "speech": [],
            "recording": None,
        }
        numbers = ("duration_s", "packets", "lost", "late", "duplicate", "jitter_mean_ms")
        self.plane.track_closed(entry | dict.fromkeys(numbers, 0))

    def stored(self):
        with Store(self.path, read_only=True) as store:
            return store.details(str(LEG))


def bench(folder, scenario, **settings):
    """Run a scenario, a coroutine function of a `Bench` whose plane is running."""

    async def main():
        carrier = CarrierDouble()
        await carrier.start()
        one = Bench(folder, carrier)
        try:
            async with one.running(**settings):
                await scenario(one)
        finally:
            carrier.gate.set()
            await carrier.stop()

    asyncio.run(main())
