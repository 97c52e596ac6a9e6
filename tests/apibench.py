"""The HTTP interface on a port of loopback, before a daemon that is all but its workers: a real
control plane, whose carrier is a double, and a real database. It runs in a thread of its own."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
from contextlib import AsyncExitStack, suppress
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from planebench import Bench, CarrierDouble, S
from pydantic import SecretStr

from strep.api import application, refusal
from strep.control.forks import CallOverError
from strep.control.webhooks import WebhookReceiver, aiohttp_handler, sign
from strep.http import start
from strep.specs import Address
from strep.store import Store, UnknownCallError

DEADLINE_S = 10.0
CARRIER_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
HEALTH = {
    "status": "ok",
    "version": "1.2.3",
    "uptime_s": 4.5,
    "tracks_open": 2,
    "datagrams_read": 100,
    "kernel_drops": 0,
    "workers": [{"worker": 0, "pid": 17, "state": "up", "tracks_open": 2, "datagrams_read": 100}],
}
OPEN_CALLS = {
    "calls": [
        {
            "call_leg_id": "428c31b6-7af4-4bcb-b7f5-5013ef9657c1",
            "worker": 0,
            "from": "+35319605860",
            "tracks": [
                {
                    "leg": "A",
                    "direction": "inbound",
                    "source": "192.0.2.7:4000",
                    "destination": "192.0.2.1:9000",
                    "ssrc": "0x0000abcd",
                    "codec": "PCMU",
                    "sample_rate_hz": 8000,
                    "opened_at": "2023-11-14T22:13:20.000Z",
                    "duration_s": 2.0,
                    "packets": 100,
                    "lost": 0,
                    "jitter_mean_ms": 0.125,
                }
            ],
        }
    ],
    "missing_workers": [],
}


class Answer(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def document(self):
        return json.loads(self.body)


class DaemonDouble:
    """Knows what its fields say, and what is in the database; `path` is None without one."""

    def __init__(self, control, webhooks, path):
        self.control = control
        self.webhooks = webhooks
        self.path = path
        self.status = dict(HEALTH)
        self.reasons = []
        self.open = OPEN_CALLS
        self.paused = {}
        """What was asked for, by call_leg_id."""
        self.error = None
        """Raised by everything that is asked, where there is one."""

    async def health(self):
        self._fail()
        return self.status

    async def readiness(self):
        return {"ready": not self.reasons, "reasons": self.reasons}

    async def exposition(self):
        return b"strep_tracks_open 2.0\n"

    async def open_calls(self):
        self._fail()
        return json.dumps(self.open)

    async def search_calls(self, **wanted):
        self._fail()
        if self.path is None:
            return None
        with Store(self.path, read_only=True) as store:
            return store.search(**wanted)

    async def call(self, call_id):
        self._fail()
        if self.path is None:
            return next((c for c in self.open["calls"] if c["call_leg_id"] == call_id), None)
        with Store(self.path, read_only=True) as store, suppress(UnknownCallError):
            return store.details(call_id).as_json()

    async def pause(self, call_id, *, is_paused):
        call = await self.call(call_id)
        if call is None:
            return None
        if call.get("is_open") is False:
            raise CallOverError(f"the call of leg {call['call_leg_id']} is over")
        self.paused[call["call_leg_id"]] = is_paused
        return {"call_leg_id": call["call_leg_id"], "is_paused": is_paused}

    def _fail(self):
        if self.error is not None:
            raise self.error


class ApiBench:
    """Ask it by `get`, `post` and `delete`; `plane` are the control plane's settings."""

    def __init__(self, folder, *, plane=None, database=True, token=None, **options):
        self._folder = folder
        self._plane = plane
        self._database = database
        self._token = None if token is None else SecretStr(token)
        self._options = options
        self._ready = threading.Event()
        self._failure = None
        self._thread = threading.Thread(target=self._run, name="api")

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self):
        self._thread.start()
        assert self._ready.wait(DEADLINE_S)
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._told.set)
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive()

    def do(self, act, *arguments):
        """Do something on the server's thread; return what comes of it."""

        async def on_the_loop():
            found = act(*arguments)
            return await found if asyncio.iscoroutine(found) else found

        return asyncio.run_coroutine_threadsafe(on_the_loop(), self._loop).result(DEADLINE_S)

    def ask(self, method, path, body=None, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_S)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, named)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def get(self, path, **headers):
        return self.ask("GET", path, **headers)

    def delete(self, path, **headers):
        return self.ask("DELETE", path, **headers)

    def post(self, path, document, **headers):
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        return self.ask("POST", path, body, **{"Content_Type": "application/json"} | headers)

    def tell(self, document, key=CARRIER_KEY):
        """Post a webhook, signed now by the clock of the bench."""
        body = json.dumps(document).encode()
        headers = sign(body, key, self.one.now_ns / S)
        return self.post("/webhooks", body, **headers)

    def quiet(self):
        """Wait until the control plane has nothing under way."""
        self.do(self.one.quiet)

    def _run(self):
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # noqa: BLE001 -- raised by whoever waits
            self._failure = error
        finally:
            self._ready.set()

    async def _serve(self):
        self._loop = asyncio.get_running_loop()
        self._told = asyncio.Event()
        async with AsyncExitStack() as stack:
            carrier = CarrierDouble()
            await carrier.start()
            stack.push_async_callback(carrier.stop)
            self.one = Bench(self._folder, carrier)
            plane = webhooks = None
            if self._plane is not None:
                plane = await stack.enter_async_context(self.one.running(**self._plane))
                webhooks = await self._webhooks(plane, stack)
            elif self._database:
                Store(self.one.path).close()
            path = self.one.path if self._database else None
            self.source = DaemonDouble(plane, webhooks, path)
            app = application(self.source, token=self._token, **self._options)
            runner = await start(app, Address("127.0.0.1", 0), refuse=refusal)
            stack.push_async_callback(runner.cleanup)
            stack.callback(carrier.gate.set)
            self.port = runner.addresses[0][1]
            self._ready.set()
            await self._told.wait()

    async def _webhooks(self, plane, stack):
        self.receiver = WebhookReceiver(plane.on_event, public_key=CARRIER_KEY.public_key())
        running = asyncio.create_task(self.receiver.run())

        async def end():
            self.receiver.close()
            await running

        stack.push_async_callback(end)
        return aiohttp_handler(self.receiver, clock=lambda: self.one.now_ns / S)
