"""A call, its fork and a track of it, as a database keeps them."""

from __future__ import annotations

from strep.store import StoredCall, StoredFork

LEG = "428c31b6-7af4-4bcb-b7f5-5013ef9657c1"
CONTROL_ID = "v3:MdI91X4lWFEs7IgbBEOT9M4AigoY08M0WWZFISt1Yw2axZ_IiE4pqg"
NOON_NS = 1_769_860_800_000_000_000
"""2026-01-31T12:00:00Z"""
S_NS = 1_000_000_000

CALL = StoredCall(
    call_leg_id=LEG,
    started_ns=NOON_NS,
    call_control_id=CONTROL_ID,
    call_session_id="2dc1b3c8-f9e0-11ea-bc5a-02420a0f7768",
    connection_id="7267",
    from_number="+35319605860",
    to_number="+18005550100",
    direction="incoming",
    client_state="aGF2ZSBhIG5pY2UgZGF5ID1d",
    state="hangup",
    answered_ns=NOON_NS + 5 * S_NS,
    ended_ns=NOON_NS + 65 * S_NS,
    hangup_cause="normal_clearing",
)
FORK = StoredFork(
    id="891510ac-f3e4-11e8-af5b-de00688a4901",
    call_control_id=CONTROL_ID,
    state="stopped",
    why="call.hangup",
    way="ports",
    stream_type="decrypted",
    rx_port=20_000,
    tx_port=20_001,
    requested_ns=NOON_NS + 5 * S_NS,
    stopped_ns=NOON_NS + 65 * S_NS,
)
OPENED = {
    "call_leg_id": LEG,
    "leg": "A",
    "direction": "inbound",
    "opened_at": "2026-01-31T12:00:06.000Z",
}
"""What a worker tells of a track that it opens..."""
CLOSED = OPENED | {
    "ended_at": "2026-01-31T12:00:16.000Z",
    "reason": "closed",
    "duration_s": 10.0,
    "packets": 500,
    "lost": 3,
    "late": 1,
    "duplicate": 2,
    "jitter_mean_ms": 1.25,
    "codec": "PCMU",
    "speech": [[0.5, 1.0]],
    "recording": "/srv/calls/x.wav",
    "manifest": "/srv/calls/x.json",
}
"""...and when it has closed it."""
