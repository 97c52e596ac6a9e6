from __future__ import annotations

import asyncio
import base64
import json
import time
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from aiohttp import web
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from strep.control.events import CallAnswered, parse_event
from strep.simulator.calls import Notice
from strep.simulator.carrier import Carrier
from strep.simulator.faults import Faults, WebhookFault
from strep.simulator.scenario import Scenario
from strep.simulator.webhooks import Signer, WebhookSender

SIGNER = Signer(bytes(range(32)))


class Hooks:
    """A receiver: what came to it, and what it answers."""

    def __init__(self):
        self.came = []
        self.answers = []
        self.url = None

    async def take(self, request):
        body = await request.read()
        self.came.append((request.method, body, request.headers))
        answer = self.answers.pop(0) if self.answers else 200
        return web.Response(status=answer)

    @property
    def types(self):
        return [json.loads(body)["data"]["event_type"] for _, body, _ in self.came]

    def is_genuine(self, index):
        """Tell whether a webhook was signed as it came, and when."""
        _, body, headers = self.came[index]
        key = Ed25519PublicKey.from_public_bytes(base64.b64decode(SIGNER.public_key))
        signed = headers["telnyx-timestamp"].encode() + b"|" + body
        try:
            key.verify(base64.b64decode(headers["telnyx-signature-ed25519"]), signed)
        except InvalidSignature:
            return False
        return True


@asynccontextmanager
async def receiving():
    hooks = Hooks()
    app = web.Application()
    app.router.add_route("*", "/hooks", hooks.take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    hooks.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hooks"
    try:
        yield hooks
    finally:
        await runner.cleanup()


@asynccontextmanager
async def sending(*faults, attempts=3, timeout_s=2.0):
    sender = WebhookSender(
        SIGNER, Faults(faults, seed=1), attempts=attempts, timeout_s=timeout_s, speed=100.0
    )
    try:
        yield sender
    finally:
        await sender.close()


def notices(url, calls=1, method="POST"):
    """Return the notices of calls that come in and are answered and hung up, in turns."""
    carrier = Carrier(
        seed=1, wall=lambda _: datetime(2026, 1, 1, tzinfo=UTC), connection_id="c",
        webhook_url=url, scenario_for=lambda _: Scenario(),
    )  # fmt: skip
    placed = [carrier.place("+1", "+2", Scenario(), 0.0) for _ in range(calls)]
    for name in ("answer", "hangup"):
        for call in placed:
            call.webhook_method = method
            carrier.command(name, call.control_id, {}, 0.0)
    return [effect for effect in carrier.take_effects() if isinstance(effect, Notice)]


THREE = ["call.initiated", "call.answered", "call.hangup"]


def deliver(*faults, answers=(), calls=1, **options):
    """Deliver the webhooks of some calls; return what came and what the sender says."""

    async def run():
        async with receiving() as hooks, sending(*faults, **options) as sender:
            hooks.answers = list(answers)
            for notice in notices(hooks.url, calls):
                sender.send(notice)
            await sender.settle()
            return hooks, list(sender.deliveries)

    return asyncio.run(run())


def test_webhooks_of_a_call_come_in_order_and_signed():
    hooks, deliveries = deliver()
    assert hooks.types == THREE
    assert all(hooks.is_genuine(i) for i in range(3))
    now_s = time.time()
    assert all(abs(now_s - int(h["telnyx-timestamp"])) < 10 for _, _, h in hooks.came)
    assert [d.fate for d in deliveries] == ["delivered"] * 3
    assert [len(d.attempts) for d in deliveries] == [1, 1, 1]
    assert deliveries[0].attempts[0]["status"] == 200


def test_body_is_an_event_that_the_control_plane_reads():
    hooks, deliveries = deliver()
    _, body, headers = hooks.came[1]
    assert headers["Content-Type"] == "application/json"
    event = parse_event(body)
    assert isinstance(event, CallAnswered)
    assert event.id == deliveries[1].event["id"]
    assert json.loads(body)["meta"] == {"attempt": 1, "delivered_to": hooks.url}


def test_each_call_has_its_own_order():
    hooks, _ = deliver(calls=5)
    orders = {}
    for _, body, _ in hooks.came:
        data = json.loads(body)["data"]
        orders.setdefault(data["payload"]["call_leg_id"], []).append(data["event_type"])
    assert list(orders.values()) == [THREE] * 5


@pytest.mark.parametrize("status", [500, 503, 408, 429])
def test_webhook_is_tried_again_before_the_next_one_leaves(status):
    hooks, deliveries = deliver(answers=[status, status, 200])
    assert hooks.types == ["call.initiated"] * 3 + THREE[1:]
    bodies = [json.loads(body) for _, body, _ in hooks.came[:3]]
    assert [body["meta"]["attempt"] for body in bodies] == [1, 2, 3]
    assert len({body["data"]["id"] for body in bodies}) == 1
    assert deliveries[0].fate == "delivered"


def test_attempts_are_bounded_and_wait_longer_each_time():
    hooks, deliveries = deliver(answers=[500] * 3)
    assert hooks.types == ["call.initiated"] * 3 + THREE[1:]
    assert [d.fate for d in deliveries] == ["failed", "delivered", "delivered"]
    times = [attempt["at_unix_s"] for attempt in deliveries[0].attempts]
    first, second = (later - earlier for earlier, later in pairwise(times))
    assert first >= 0.005  # 0.5 s and 1 s, a hundred times as fast
    assert second >= 0.01


@pytest.mark.parametrize("status", [400, 401, 404])
def test_other_refusals_are_final(status):
    hooks, deliveries = deliver(answers=[status])
    assert hooks.types == THREE
    assert deliveries[0].fate == "failed"
    assert deliveries[0].attempts[0]["status"] == status


def test_method_is_the_call_s():
    async def run():
        async with receiving() as hooks, sending() as sender:
            for notice in notices(hooks.url, method="GET"):
                sender.send(notice)
            await sender.settle()
            return [method for method, _, _ in hooks.came]

    assert asyncio.run(run())[1:] == ["GET", "GET"]


def test_nobody_there_is_an_error_of_each_attempt():
    async def run():
        async with sending(attempts=2) as sender:
            for notice in notices("http://127.0.0.1:9/hooks"):
                sender.send(notice)
            await sender.settle()
            return list(sender.deliveries)

    deliveries = asyncio.run(run())
    assert [d.fate for d in deliveries] == ["failed"] * 3
    assert ["error" in attempt for attempt in deliveries[0].attempts] == [True, True]


def test_without_a_place_webhooks_are_only_logged():
    async def run():
        async with sending() as sender:
            for notice in notices(None):
                sender.send(notice)
            await sender.settle()
            return [(d.event["event_type"], d.fate) for d in sender.deliveries]

    assert asyncio.run(run()) == [(event_type, "logged") for event_type in THREE]


def test_slow_receiver_is_a_timeout():
    async def run():
        released = asyncio.Event()

        async def hang(_):
            await released.wait()
            return web.Response()

        app = web.Application()
        app.router.add_post("/", hang)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
        async with sending(attempts=1, timeout_s=0.1) as sender:
            sender.send(notices(url)[0])
            await sender.settle()
            released.set()
            fate = sender.deliveries[0].fate, sender.deliveries[0].attempts[0]["error"]
        await runner.cleanup()
        return fate

    assert asyncio.run(run()) == ("failed", "TimeoutError")


# what goes wrong on command


def test_lost_webhook_never_comes():
    hooks, deliveries = deliver(WebhookFault(event="call.answered", kind="lost"))
    assert hooks.types == ["call.initiated", "call.hangup"]
    assert [(d.fate, d.fault) for d in deliveries][1] == ("lost", "lost")


def test_late_webhook_comes_behind_the_others():
    hooks, deliveries = deliver(WebhookFault(event="call.initiated", kind="late", delay_s=0.2))
    assert hooks.types == ["call.answered", "call.hangup", "call.initiated"]
    assert hooks.is_genuine(2)
    assert deliveries[0].fate == "delivered"


def test_webhook_comes_twice_with_the_same_id():
    hooks, _ = deliver(WebhookFault(event="call.answered", kind="twice"))
    assert hooks.types == ["call.initiated", "call.answered", "call.answered", "call.hangup"]
    ids = [json.loads(body)["data"]["id"] for _, body, _ in hooks.came]
    assert ids[1] == ids[2]
    assert hooks.is_genuine(1)
    assert hooks.is_genuine(2)


def test_webhook_is_swapped_with_the_next():
    hooks, _ = deliver(WebhookFault(event="call.initiated", kind="swapped"))
    assert hooks.types == ["call.answered", "call.initiated", "call.hangup"]


def test_webhook_without_a_next_one_is_swapped_with_nothing():
    hooks, _ = deliver(WebhookFault(event="call.hangup", kind="swapped", delay_s=0.05))
    assert hooks.types == THREE


@pytest.mark.parametrize(("kind", "genuine"), [("bad_signature", False), ("stale", True)])
def test_copy_that_is_to_be_refused_comes_before_the_webhook(kind, genuine):
    hooks, deliveries = deliver(WebhookFault(event="call.answered", kind=kind), answers=[200, 401])
    assert hooks.types == ["call.initiated", "call.answered", "call.answered", "call.hangup"]
    assert [hooks.is_genuine(i) for i in range(4)] == [True, genuine, True, True]
    stamps = [int(headers["telnyx-timestamp"]) for _, _, headers in hooks.came]
    assert stamps[2] - stamps[1] == pytest.approx(600 if kind == "stale" else 0, abs=2)
    assert deliveries[1].fate == "delivered"
    assert deliveries[1].attempts[0]["copy"] == kind


def test_closing_gives_up_what_has_not_left():
    async def run():
        async with sending(attempts=9) as sender:
            for notice in notices("http://127.0.0.1:9/hooks"):
                sender.send(notice)
            await sender.close()
            return [d.fate for d in sender.deliveries]

    assert asyncio.run(run()) == ["pending"] * 3
