from __future__ import annotations

import re
from types import SimpleNamespace
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.sinks import SinkError
from pipeline.sinks.filenames import FileNames

CALL = UUID("428c31b6-7af4-4bcb-b7f5-5013ef9657c1")
TRACK = SimpleNamespace(
    call_leg_id=CALL,
    leg="B",
    direction="inbound",
    opened_unix_ns=1_767_225_605_500_000_000,
    segment=2,
)
FACTS = {"from": "+35319605860", "to": "sip:agent@example.org", "connection_id": "7267"}


def name(template, facts=FACTS, *, is_mono=False):
    return FileNames(template, is_mono=is_mono).stem(TRACK, facts)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{time}-{call_leg_id}-{leg}", f"20260101T000005Z-{CALL}-b"),
        (
            "{date}/{from}-{to}-{call_leg_id}",
            f"2026-01-01/+35319605860-sip_agent_example.org-{CALL}",
        ),
        ("{time:%Y/%m/%d/%H:%M}/{call_leg_id}", f"2026/01/01/00_00/{CALL}"),
        ("c{connection_id}.s{segment}/{call_leg_id}", f"c7267.s2/{CALL}"),
        ("{call_control_id}-{call_leg_id}", f"unknown-{CALL}"),
    ],
)  # fmt: skip
def test_fields_are_filled_in(template, expected):
    assert name(template) == expected


def test_direction_is_there_where_a_file_has_one():
    assert name("{call_leg_id}-{direction}", is_mono=True) == f"{CALL}-inbound"


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        ("../../etc/passwd", "__.._etc_passwd"),
        ("..", "_"),
        (".hidden", "_hidden"),
        ("a\0b\nc", "a_b_c"),
        ("x" * 500, "x" * 64),
        ("", "unknown"),
        ("ünï", "_n_"),
        ("C:\\windows", "C__windows"),
    ],
)
def test_what_the_network_says_makes_no_folder(number, expected):
    assert name("{from}/{call_leg_id}", {"from": number}) == f"{expected}/{CALL}"


@settings(max_examples=100, deadline=None)
@given(facts=st.fixed_dictionaries({k: st.text() for k in ("from", "to", "connection_id")}))
def test_whatever_the_network_says_the_path_is_safe(facts):
    template = "{date}/{from}/{to}-{connection_id}/{call_leg_id}"
    parts = name(template, facts).split("/")
    assert len(parts) == 4
    for part in parts:
        assert re.fullmatch(r"[A-Za-z0-9_+-][A-Za-z0-9._+-]*", part)
        assert len(part) <= 200


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{caller}-{call_leg_id}", "has no field {caller}: there are time, date, call_leg_id, leg"),
        ("{date}-{from}", "could name two calls at the same time alike: it needs {call_leg_id}"),
        ("{call_leg_id}-{direction}", "both directions are in one file, unless layout=mono"),
        ("{call_leg_id", "is no template: expected '}' before end of string"),
        ("{call_leg_id!r}", "{call_leg_id} is written without ! and :"),
        ("{leg:>9}{call_leg_id}", "{leg} is written without ! and :"),
        ("/srv/{call_leg_id}", "the path is to be relative"),
        ("a//{call_leg_id}", "the path is to be relative"),
        ("../{call_leg_id}", "the path is to be relative"),
        (".x/{call_leg_id}", "the path is to be relative"),
        ("{call_leg_id}/", "the path is to be relative"),
        ("{call_leg_id}/{time:/%Y}", "the path is to be relative"),
        ("my calls/{call_leg_id}", "' ' is none of the letters, digits and ._+-/"),
        ("{from}{to}{call_control_id}{call_leg_id}", "makes names of 228 characters"),
        ("{}{call_leg_id}", "has no field {}"),
    ],
)  # fmt: skip
def test_template_that_cannot_be_right_is_refused(template, message):
    with pytest.raises(SinkError, match=re.escape(message)):
        FileNames(template, is_mono=False)
