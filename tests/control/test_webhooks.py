from __future__ import annotations

import asyncio
import base64
import json
import logging
from contextlib import asynccontextmanager

import aiohttp
import pytest
import structlog
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import example, given
from hypothesis import strategies as st

from strep.control.events import CallHangup, Event
from strep.control.webhooks import (
    SIGNATURE_HEADER,
    TIMESTAMP_HEADER,
    Answer,
    Outcome,
    SeenIds,
    WebhookError,
    WebhookKeyError,
    WebhookReceiver,
    aiohttp_handler,
    load_public_key,
    sign,
    verify,
)

# The first key pair of RFC 8032 section 7.1. OpenSSL made the signature:
# printf '1517610327|{"data":{}}' >m && openssl pkeyutl -sign -inkey key.pem -rawin -in m | base64
SEED = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
PRIVATE_KEY = Ed25519PrivateKey.from_private_bytes(SEED)
PUBLIC_KEY_TEXT = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
PUBLIC_KEY = load_public_key(PUBLIC_KEY_TEXT)
SIGNED_BODY = b'{"data":{}}'
SIGNED_AT_S = 1517610327
SIGNATURE = (
    "fC1K0KfgPQaL3dZkoycm53pd6AhzZhNGYJyPyckIigATj7E4sUuC+wK2GesbDL+zkKsv8Zi7SLkV/RHxAGySAg=="
)
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
NOW_S = 1_700_000_000.0


@pytest.fixture(autouse=True)
def _quiet():
    with structlog.testing.capture_logs():
        yield


def event_body(event_id: str = "e1", event_type: str = "call.hangup") -> bytes:
    payload = {
        "call_control_id": "v3:MdI91X4lWFEs7IgbBEOT9M4AigoY08M0WWZFISt1Yw2axZ_IiE4pqg",
        "call_leg_id": "428c31b6-7af4-4bcb-b7f5-5013ef9657c1",
        "hangup_cause": "normal_clearing",
    }
    data = {
        "event_type": event_type,
        "id": event_id,
        "occurred_at": "2018-02-02T22:25:27.521992Z",
        "payload": payload,
    }
    return json.dumps({"data": data}).encode()


def verdict(body: bytes, signature: str | None, timestamp: str | None, now_s: float) -> str:
    try:
        verify(body, signature, timestamp, PUBLIC_KEY, now_s=now_s)
    except WebhookError as error:
        return error.outcome
    return "verified"


def receiver_of(events: list[Event], **options: object) -> WebhookReceiver:
    return WebhookReceiver(events.append, **{"public_key": PUBLIC_KEY_TEXT, **options})


def deliver(
    receiver: WebhookReceiver,
    body: bytes,
    *,
    key: Ed25519PrivateKey = PRIVATE_KEY,
    signed_s: float = NOW_S,
    now_s: float = NOW_S,
) -> Answer:
    headers = sign(body, key, signed_s)
    return receiver.receive(body, headers[SIGNATURE_HEADER], headers[TIMESTAMP_HEADER], now_s)


def nonzero(receiver: WebhookReceiver) -> dict[str, int]:
    return {outcome.value: count for outcome, count in receiver.counts.items() if count}


def drain(receiver: WebhookReceiver) -> None:
    receiver.close()
    asyncio.run(receiver.run())


# Signatures


def test_signature_made_by_openssl_verifies():
    assert verdict(SIGNED_BODY, SIGNATURE, "1517610327", SIGNED_AT_S) == "verified"


def test_sign_makes_the_signature_that_openssl_makes():
    assert sign(SIGNED_BODY, PRIVATE_KEY, SIGNED_AT_S + 0.9) == {
        "telnyx-signature-ed25519": SIGNATURE,
        "telnyx-timestamp": "1517610327",
    }


def test_signature_of_another_key_is_bad():
    headers = sign(SIGNED_BODY, OTHER_KEY, SIGNED_AT_S)
    signature = headers[SIGNATURE_HEADER]
    assert verdict(SIGNED_BODY, signature, "1517610327", SIGNED_AT_S) == "bad_signature"


@pytest.mark.parametrize(
    ("signature", "timestamp", "named"),
    [
        (None, "1517610327", "telnyx-signature-ed25519"),
        (SIGNATURE, None, "telnyx-timestamp"),
        (None, None, "telnyx-signature-ed25519"),
    ],
)
def test_missing_header_is_named(signature, timestamp, named):
    with pytest.raises(WebhookError, match=f"^there is no header {named}$") as caught:
        verify(SIGNED_BODY, signature, timestamp, PUBLIC_KEY, now_s=SIGNED_AT_S)
    assert caught.value.outcome is Outcome.MISSING_HEADER


@pytest.mark.parametrize(
    "signature",
    [
        "",
        "?",
        "Ж",
        SIGNATURE[:-4],  # truncated
        SIGNATURE[:-2],  # without padding
        SIGNATURE.replace("Ag==", "Ah=="),  # decodes to the same bytes
        SIGNATURE + "=",
        SIGNATURE + "\n",
        " " + SIGNATURE,
        SIGNATURE.replace("+", "-").replace("/", "_"),
        SIGNATURE + SIGNATURE,
        base64.b64decode(SIGNATURE).hex(),
    ],
)
def test_signature_in_any_other_form_is_bad(signature):
    assert verdict(SIGNED_BODY, signature, "1517610327", SIGNED_AT_S) == "bad_signature"


@pytest.mark.parametrize(
    "timestamp",
    [
        "",
        "now",
        "-1517610327",
        "+1517610327",
        "1517610327.0",
        " 1517610327",
        "1_517_610_327",
        "01517610327",
        "1517610328",
        "\u0661\u0665\u0661\u0667\u0666\u0661\u0660\u0663\u0662\u0667",
        "\udcff",
        "9" * 13,
        "9" * 100_000,
    ],
)
def test_timestamp_in_any_other_form_is_bad(timestamp):
    assert verdict(SIGNED_BODY, SIGNATURE, timestamp, SIGNED_AT_S) == "bad_signature"


@pytest.mark.parametrize("timestamp", ["9" * 5000, "\u00b2", "\u0661", "-1", "1e9", ""])
def test_timestamp_in_another_form_is_bad_even_if_it_was_signed(timestamp):
    signature = PRIVATE_KEY.sign(timestamp.encode() + b"|{}")
    assert verdict(b"{}", base64.b64encode(signature).decode(), timestamp, 1) == "bad_signature"


@pytest.mark.parametrize(
    ("age_s", "expected"),
    [
        (0, "verified"),
        (300, "verified"),
        (300.5, "stale"),
        (86_400, "stale"),
        (-300, "verified"),
        (-300.5, "future"),
        (-86_400, "future"),
    ],
)
def test_webhook_is_fresh_for_300_s_either_way(age_s, expected):
    assert verdict(SIGNED_BODY, SIGNATURE, "1517610327", SIGNED_AT_S + age_s) == expected


def test_the_tolerance_is_an_argument():
    options = {"now_s": SIGNED_AT_S + 10.5, "tolerance_s": 10.0}
    with pytest.raises(WebhookError, match=r"^signed more than 10 s ago$"):
        verify(SIGNED_BODY, SIGNATURE, "1517610327", PUBLIC_KEY, **options)


def test_what_the_carrier_did_not_sign_is_never_called_stale():
    assert verdict(b"{}", SIGNATURE, "1517610327", SIGNED_AT_S + 86_400) == "bad_signature"


@given(st.binary())
@example(SIGNED_BODY[:-1])
@example(SIGNED_BODY + b"\n")
@example(b"")
def test_any_other_body_is_refused(body):
    if body != SIGNED_BODY:
        assert verdict(body, SIGNATURE, "1517610327", SIGNED_AT_S) == "bad_signature"


@given(st.integers(0, len(SIGNED_BODY) * 8 - 1))
def test_any_flipped_bit_of_the_body_is_refused(bit):
    body = bytearray(SIGNED_BODY)
    body[bit // 8] ^= 1 << bit % 8
    assert verdict(bytes(body), SIGNATURE, "1517610327", SIGNED_AT_S) == "bad_signature"


@given(st.integers(0, len(SIGNATURE) - 1), st.characters())
def test_any_other_character_in_the_signature_is_refused(place, character):
    signature = SIGNATURE[:place] + character + SIGNATURE[place + 1 :]
    if signature != SIGNATURE:
        assert verdict(SIGNED_BODY, signature, "1517610327", SIGNED_AT_S) == "bad_signature"


@given(st.text() | st.integers(SIGNED_AT_S - 300, SIGNED_AT_S + 300).map(str))
def test_any_other_timestamp_is_refused(timestamp):
    if timestamp != "1517610327":
        assert verdict(SIGNED_BODY, SIGNATURE, timestamp, SIGNED_AT_S) == "bad_signature"


def test_the_bar_cannot_be_moved_between_timestamp_and_body():
    headers = sign(b"1|{}", PRIVATE_KEY, SIGNED_AT_S)
    signature = headers[SIGNATURE_HEADER]
    assert verdict(b"1|{}", signature, "1517610327", SIGNED_AT_S) == "verified"
    assert verdict(b"{}", signature, "1517610327|1", SIGNED_AT_S) == "bad_signature"


# Keys


def test_public_key_may_have_white_space_around_it():
    assert load_public_key(f"\t{PUBLIC_KEY_TEXT}\n") == PUBLIC_KEY


@pytest.mark.parametrize("text", ["", "KEY0123456789", PUBLIC_KEY_TEXT[:-4], SIGNATURE, "Ж" * 44])
def test_what_is_no_public_key_is_refused_and_not_quoted(text):
    with pytest.raises(WebhookKeyError) as caught:
        load_public_key(text)
    assert str(caught.value) == ("the webhook public key is not 32 bytes in base64 (44 characters)")


def test_receiver_without_a_key_is_refused():
    with pytest.raises(WebhookKeyError, match=r"^no webhook public key is configured: "):
        receiver_of([], public_key=None)


def test_receiver_with_a_key_that_also_allows_unsigned_webhooks_is_refused():
    with pytest.raises(WebhookKeyError, match=r"choose one$"):
        receiver_of([], allow_unsigned=True)


def test_receiver_told_so_takes_unsigned_webhooks_and_says_it_in_the_log():
    events: list[Event] = []
    with structlog.testing.capture_logs() as logs:
        receiver = receiver_of(events, public_key=None, allow_unsigned=True)
    assert [(log["log_level"], log["event"]) for log in logs] == [
        ("warning", "webhooks are not verified: whoever reaches the port can send events")
    ]
    assert receiver.receive(event_body(), None, None, NOW_S).status == 200
    drain(receiver)
    assert [event.id for event in events] == ["e1"]


# Ids that were seen


def test_id_is_remembered_for_its_time_and_no_longer():
    seen = SeenIds(capacity=10, keep_s=600.0)
    seen.add("a", NOW_S)
    assert seen.has("a", NOW_S)
    assert seen.has("a", NOW_S + 600.0)
    assert not seen.has("b", NOW_S)
    assert not seen.has("a", NOW_S + 600.5)
    assert len(seen) == 0
    assert seen.evicted == 0


def test_the_oldest_id_gives_way_when_there_are_too_many():
    seen = SeenIds(capacity=2, keep_s=600.0)
    for event_id in ("a", "b", "c"):
        seen.add(event_id, NOW_S)
    assert [seen.has(event_id, NOW_S) for event_id in ("a", "b", "c")] == [False, True, True]
    assert len(seen) == 2
    assert seen.evicted == 1


def test_id_added_again_becomes_the_youngest():
    seen = SeenIds(capacity=2, keep_s=600.0)
    for event_id in ("a", "b", "a", "c"):
        seen.add(event_id, NOW_S)
    assert [seen.has(event_id, NOW_S) for event_id in ("a", "b", "c")] == [True, False, True]


def test_clock_that_steps_back_forgets_nothing():
    seen = SeenIds(capacity=10, keep_s=600.0)
    seen.add("a", NOW_S)
    seen.add("b", NOW_S - 3600.0)
    assert seen.has("a", NOW_S - 3600.0)
    assert seen.has("b", NOW_S - 3600.0)


@given(st.lists(st.tuples(st.text("abcdef", min_size=1, max_size=1), st.integers(0, 20))))
def test_seen_ids_answer_as_a_list_of_all_would(steps):
    seen, added, now_s = SeenIds(capacity=100, keep_s=10.0), {}, 0
    for event_id, pause_s in steps:
        now_s += pause_s
        assert seen.has(event_id, now_s) == (now_s - added.get(event_id, -11) <= 10)
        seen.add(event_id, now_s)
        added[event_id] = now_s


# Receiving


def test_accepted_event_is_answered_200_and_processed_afterwards():
    events: list[Event] = []
    receiver = receiver_of(events)
    answer = deliver(receiver, event_body())
    assert (answer.status, answer.body, answer.headers) == (200, b"", {})
    assert (events, receiver.waiting) == ([], 1)
    drain(receiver)
    [event] = events
    assert isinstance(event, CallHangup)
    assert (event.id, event.hangup_cause) == ("e1", "normal_clearing")
    assert nonzero(receiver) == {"accepted": 1}


def test_every_outcome_has_a_count_from_the_start():
    assert {outcome.value: count for outcome, count in receiver_of([]).counts.items()} == {
        "accepted": 0,
        "replayed": 0,
        "missing_header": 0,
        "bad_signature": 0,
        "stale": 0,
        "future": 0,
        "malformed": 0,
        "too_large": 0,
        "incomplete": 0,
        "queue_full": 0,
        "closed": 0,
    }


@pytest.mark.parametrize(
    ("delivery", "status", "reason"),
    [
        ({"key": OTHER_KEY}, 401, "bad_signature"),
        ({"signed_s": NOW_S - 301}, 401, "stale"),
        ({"signed_s": NOW_S + 301}, 401, "future"),
        ({"body": b"{"}, 400, "malformed"),
        ({"body": b"\xff\xfe"}, 400, "malformed"),
        ({"body": b"[" * 100_000}, 400, "malformed"),
        ({"body": b'{"data": {"payload": {}}}'}, 400, "malformed"),
        ({"body": b" " * 262_145}, 413, "too_large"),
    ],
)
def test_refused_webhook_changes_nothing_and_is_counted(delivery, status, reason):
    events: list[Event] = []
    receiver = receiver_of(events)
    options = {"body": event_body(), **delivery}
    answer = deliver(receiver, options.pop("body"), **options)
    assert answer.status == status
    assert json.loads(answer.body)["reason"] == reason
    assert nonzero(receiver) == {reason: 1}
    assert (receiver.waiting, len(receiver.seen)) == (0, 0)
    assert deliver(receiver, event_body()).outcome is Outcome.ACCEPTED
    drain(receiver)
    assert [event.id for event in events] == ["e1"]


def test_body_may_have_just_as_many_bytes_as_are_allowed():
    receiver = receiver_of([], max_body_bytes=len(event_body()))
    assert deliver(receiver, event_body()).outcome is Outcome.ACCEPTED
    assert deliver(receiver, event_body() + b" ").outcome is Outcome.TOO_LARGE


def test_altered_webhook_is_refused():
    receiver = receiver_of([])
    headers = sign(event_body(), PRIVATE_KEY, NOW_S)
    altered = event_body().replace(b"normal_clearing", b"normal_clearinG")
    answer = receiver.receive(altered, headers[SIGNATURE_HEADER], headers[TIMESTAMP_HEADER], NOW_S)
    assert answer.outcome is Outcome.BAD_SIGNATURE
    assert receiver.waiting == 0


def test_webhook_without_headers_is_refused():
    receiver = receiver_of([])
    answer = receiver.receive(event_body(), None, None, NOW_S)
    assert (answer.status, receiver.waiting) == (401, 0)
    assert nonzero(receiver) == {"missing_header": 1}


def test_nothing_is_parsed_before_it_is_verified():
    receiver = receiver_of([])
    assert deliver(receiver, b"{", key=OTHER_KEY).outcome is Outcome.BAD_SIGNATURE


def test_refusal_is_a_problem_document():
    answer = deliver(receiver_of([]), event_body(), signed_s=NOW_S - 301)
    assert answer.headers == {
        "Content-Type": "application/problem+json",
        "WWW-Authenticate": "Ed25519",
    }
    assert json.loads(answer.body) == {
        "type": "about:blank",
        "title": "Unauthorized",
        "status": 401,
        "detail": "signed more than 300 s ago",
        "reason": "stale",
    }


def test_replayed_webhook_is_answered_200_and_processed_once():
    events: list[Event] = []
    receiver = receiver_of(events)
    deliver(receiver, event_body())
    replayed = deliver(receiver, event_body(), now_s=NOW_S + 299)
    sent_again = deliver(receiver, event_body(), signed_s=NOW_S + 900, now_s=NOW_S + 900)
    assert (replayed.status, replayed.body) == (200, b"")
    assert (sent_again.status, sent_again.body) == (200, b"")
    drain(receiver)
    assert [event.id for event in events] == ["e1"]
    assert nonzero(receiver) == {"accepted": 1, "replayed": 2}


@given(st.floats(-1000, 1000), st.floats(0, 4000))
def test_no_webhook_is_accepted_twice_however_long_the_tolerance(ahead_s, later_s):
    receiver = receiver_of([], tolerance_s=1000.0)
    first = deliver(receiver, event_body(), signed_s=NOW_S + int(ahead_s))
    second = deliver(receiver, event_body(), signed_s=NOW_S + int(ahead_s), now_s=NOW_S + later_s)
    assert first.outcome is Outcome.ACCEPTED
    assert second.outcome in {Outcome.REPLAYED, Outcome.STALE}


def test_ids_are_remembered_while_a_long_tolerance_keeps_webhooks_fresh():
    receiver = receiver_of([], tolerance_s=7200.0)
    deliver(receiver, event_body(), signed_s=NOW_S + 7200)
    at_the_end = deliver(receiver, event_body(), signed_s=NOW_S + 7200, now_s=NOW_S + 14_400)
    assert at_the_end.outcome is Outcome.REPLAYED


def test_full_queue_is_answered_503_and_the_event_is_accepted_when_it_comes_again():
    events: list[str] = []
    processed = asyncio.Event()

    def handle(event: Event) -> None:
        events.append(event.id)
        processed.set()

    receiver = WebhookReceiver(handle, public_key=PUBLIC_KEY, queue_events=1)
    assert deliver(receiver, event_body("e1")).status == 200
    refused = deliver(receiver, event_body("e2"))
    assert refused.status == 503
    assert json.loads(refused.body)["title"] == "Service Unavailable"
    assert len(receiver.seen) == 1

    async def process_one_and_take_another() -> None:
        running = asyncio.create_task(receiver.run())
        await processed.wait()
        assert deliver(receiver, event_body("e2")).status == 200
        receiver.close()
        await running

    asyncio.run(process_one_and_take_another())
    assert events == ["e1", "e2"]
    assert nonzero(receiver) == {"accepted": 2, "queue_full": 1}


def test_replay_is_told_even_when_the_queue_is_full():
    receiver = receiver_of([], queue_events=1)
    deliver(receiver, event_body())
    assert deliver(receiver, event_body()).outcome is Outcome.REPLAYED


def test_closed_receiver_refuses_and_processes_what_waits():
    events: list[Event] = []
    receiver = receiver_of(events)
    deliver(receiver, event_body("e1"))
    receiver.close()
    refused = deliver(receiver, event_body("e2"))
    assert (refused.status, refused.outcome) == (503, Outcome.CLOSED)
    assert len(receiver.seen) == 1
    drain(receiver)
    assert [event.id for event in events] == ["e1"]


def test_events_are_processed_one_at_a_time_in_the_order_they_came_in():
    steps: list[str] = []

    async def handle(event: Event) -> None:
        steps.append(f"begin {event.id}")
        await asyncio.sleep(0)
        steps.append(f"end {event.id}")

    receiver = WebhookReceiver(handle, public_key=PUBLIC_KEY)
    deliver(receiver, event_body("e1"))
    deliver(receiver, event_body("e2"))
    drain(receiver)
    assert steps == ["begin e1", "end e1", "begin e2", "end e2"]


def test_callback_that_raises_is_counted_and_the_next_event_follows():
    seen: list[str] = []

    def handle(event: Event) -> None:
        seen.append(event.id)
        if event.id == "e1":
            raise RuntimeError("the disk is full")

    receiver = WebhookReceiver(handle, public_key=PUBLIC_KEY)
    deliver(receiver, event_body("e1"))
    deliver(receiver, event_body("e2"))
    with structlog.testing.capture_logs() as logs:
        drain(receiver)
    assert seen == ["e1", "e2"]
    assert receiver.handler_errors == 1
    assert [(log["event"], log["event_id"], log["event_type"]) for log in logs] == [
        ("an event could not be processed", "e1", "call.hangup")
    ]


def test_event_that_comes_while_the_receiver_is_idle_is_processed():
    async def main() -> list[str]:
        processed: asyncio.Queue[str] = asyncio.Queue()
        receiver = WebhookReceiver(
            lambda event: processed.put_nowait(event.id), public_key=PUBLIC_KEY
        )
        running = asyncio.create_task(receiver.run())
        ids = []
        for event_id in ("e1", "e2", "e3"):
            deliver(receiver, event_body(event_id))
            ids.append(await processed.get())
            for _ in range(5):
                await asyncio.sleep(0)
        receiver.close()
        await running
        return ids

    assert asyncio.run(main()) == ["e1", "e2", "e3"]


def test_many_events_leave_the_loop_room_for_others():
    turns: list[str] = []

    async def other() -> None:
        turns.append("other")

    async def main() -> None:
        receiver = WebhookReceiver(lambda event: turns.append(event.id), public_key=PUBLIC_KEY)
        deliver(receiver, event_body("e1"))
        deliver(receiver, event_body("e2"))
        receiver.close()
        running = asyncio.create_task(receiver.run())
        await asyncio.gather(running, other())

    asyncio.run(main())
    assert turns == ["e1", "other", "e2"]


def test_first_refusal_of_a_kind_is_a_warning_and_the_others_are_not():
    receiver = receiver_of([])
    with structlog.testing.capture_logs() as logs:
        deliver(receiver, event_body(), key=OTHER_KEY)
        deliver(receiver, event_body(), key=OTHER_KEY)
        deliver(receiver, event_body(), signed_s=NOW_S - 301)
    assert [(log["log_level"], log["reason"]) for log in logs] == [
        ("warning", "bad_signature"),
        ("debug", "bad_signature"),
        ("warning", "stale"),
    ]


def test_neither_logs_nor_repr_show_keys_signatures_or_bodies():
    with structlog.testing.capture_logs() as logs:
        receiver = receiver_of([])
        headers = sign(event_body(), OTHER_KEY, NOW_S)
        receiver.receive(event_body(), headers[SIGNATURE_HEADER], headers[TIMESTAMP_HEADER], NOW_S)
        deliver(receiver, b'{"data": {"payload": {"client_state": "c2VjcmV0"}}}')
    shown = f"{logs} {receiver!r}"
    assert len(logs) == 2
    for secret in (PUBLIC_KEY_TEXT, headers[SIGNATURE_HEADER], "v3:MdI91X4l", "c2VjcmV0"):
        assert secret not in shown


# Behind aiohttp


@asynccontextmanager
async def served(receiver: WebhookReceiver, now_s: float = NOW_S, body_timeout_s: float = 10.0):
    app = web.Application()
    app.router.add_post(
        "/webhooks", aiohttp_handler(receiver, lambda: now_s, body_timeout_s=body_timeout_s)
    )
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def post(receiver: WebhookReceiver, body: bytes, headers: dict[str, str], **options: float):
    """Post a body; return status, content type and body of the answer."""

    async def exchange() -> tuple[int, str, bytes]:
        async with (
            served(receiver, **options) as port,
            aiohttp.ClientSession() as session,
            session.post(
                f"http://127.0.0.1:{port}/webhooks", data=body, headers=headers
            ) as response,
        ):
            return response.status, response.content_type, await response.read()

    return asyncio.run(exchange())


def test_http_signed_webhook_is_answered_200():
    events: list[Event] = []
    receiver = receiver_of(events)
    status, _, answer = post(receiver, event_body(), sign(event_body(), PRIVATE_KEY, NOW_S))
    assert (status, answer) == (200, b"")
    drain(receiver)
    assert [event.id for event in events] == ["e1"]


@pytest.mark.parametrize(
    ("body", "headers", "status", "reason"),
    [
        (event_body(), {}, 401, "missing_header"),
        (event_body(), sign(event_body(), OTHER_KEY, NOW_S), 401, "bad_signature"),
        (event_body()[:-1], sign(event_body(), PRIVATE_KEY, NOW_S), 401, "bad_signature"),
        (event_body(), sign(event_body(), PRIVATE_KEY, NOW_S - 301), 401, "stale"),
        (event_body(), sign(event_body(), PRIVATE_KEY, NOW_S + 301), 401, "future"),
        (b"{", sign(b"{", PRIVATE_KEY, NOW_S), 400, "malformed"),
        (b"", sign(b"", PRIVATE_KEY, NOW_S), 400, "malformed"),
        (b"x" * 1_000_000, {}, 413, "too_large"),
        (b"not gzip", {"Content-Encoding": "gzip"}, 400, "malformed"),
    ],
)
def test_http_refusal_is_a_problem_document(body, headers, status, reason):
    receiver = receiver_of([])
    got_status, content_type, answer = post(receiver, body, headers)
    assert (got_status, content_type) == (status, "application/problem+json")
    assert json.loads(answer)["status"] == status
    assert json.loads(answer)["reason"] == reason
    assert nonzero(receiver) == {reason: 1}
    assert receiver.waiting == 0


def test_http_answer_does_not_wait_for_the_callback():
    async def main() -> None:
        may_end = asyncio.Event()
        handled: list[str] = []

        async def handle(event: Event) -> None:
            await may_end.wait()
            handled.append(event.id)

        receiver = WebhookReceiver(handle, public_key=PUBLIC_KEY, queue_events=1)
        running = asyncio.create_task(receiver.run())
        statuses = []
        async with served(receiver) as port, aiohttp.ClientSession() as session:
            for event_id in ("e1", "e2", "e3"):
                body = event_body(event_id)
                headers = sign(body, PRIVATE_KEY, NOW_S)
                url = f"http://127.0.0.1:{port}/webhooks"
                async with session.post(url, data=body, headers=headers) as response:
                    statuses.append(response.status)
        # The first is with the callback, the second waits, and there is no room for the third.
        assert statuses == [200, 200, 503]
        assert handled == []
        may_end.set()
        receiver.close()
        await running
        assert handled == ["e1", "e2"]

    asyncio.run(main())


def test_http_body_cut_short_changes_nothing_and_logs_no_error(caplog):
    async def main() -> None:
        async with served(receiver) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"POST /webhooks HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n{")
            writer.write_eof()
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()

    receiver = receiver_of([])
    with caplog.at_level(logging.WARNING):
        asyncio.run(main())
    assert nonzero(receiver) == {"incomplete": 1}
    assert caplog.records == []


def test_http_body_that_is_too_large_is_answered_before_it_has_come():
    async def main() -> bytes:
        async with served(receiver) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"POST /webhooks HTTP/1.1\r\nHost: x\r\nContent-Length: 999999\r\n\r\n")
            writer.write(b"x" * 101)
            answer = await reader.readuntil(b"}")
            writer.close()
            await writer.wait_closed()
            return answer

    receiver = receiver_of([], max_body_bytes=100)
    assert asyncio.run(main()).startswith(b"HTTP/1.1 413 ")
    assert nonzero(receiver) == {"too_large": 1}


def test_http_body_that_does_not_come_is_not_waited_for():
    async def main() -> bytes:
        async with served(receiver, body_timeout_s=0.0) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"POST /webhooks HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n")
            answer = await reader.readuntil(b"}")
            writer.close()
            await writer.wait_closed()
            return answer

    receiver = receiver_of([])
    answer = asyncio.run(main())
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert nonzero(receiver) == {"incomplete": 1}
