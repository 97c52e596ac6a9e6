from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strep.wire.fields import RTP_FIELDS, STREP_FIELDS

# The header in which nothing but this field is set, and set to all ones.
STREP_ONES = {
    "magic": "c0000000",
    "version": "3c000000",
    "leg": "02000000",
    "direction": "01000000",
    "header_length": "00ff0000",
}
RTP_ONES = {
    "version": "c0000000 00000000 00000000",
    "padding": "20000000 00000000 00000000",
    "extension": "10000000 00000000 00000000",
    "csrc_count": "0f000000 00000000 00000000",
    "marker": "00800000 00000000 00000000",
    "payload_type": "007f0000 00000000 00000000",
    "sequence": "0000ffff 00000000 00000000",
    "timestamp": "00000000 ffffffff 00000000",
    "ssrc": "00000000 00000000 ffffffff",
}
HEADERS = ((STREP_FIELDS, STREP_ONES), (RTP_FIELDS, RTP_ONES))
each_field = pytest.mark.parametrize(
    ("field", "ones"),
    [
        pytest.param(field, bytes.fromhex(ones[field.name]), id=f"{table}-{field.name}")
        for table, (fields, ones) in zip(("strep", "rtp"), HEADERS, strict=True)
        for field in fields
    ],
)


def as_words(*headers):
    return np.array([np.frombuffer(h, ">u4") for h in headers]).T.astype(np.uint32)


@pytest.mark.parametrize(("fields", "ones"), HEADERS, ids=["strep", "rtp"])
def test_the_tables_hold_each_field_once(fields, ones):
    assert [field.name for field in fields] == list(ones)


def test_the_rtp_fields_cover_every_bit_of_the_fixed_header_once():
    covered = [int.from_bytes(bytes.fromhex(ones), "big") for ones in RTP_ONES.values()]
    assert sum(covered) == 2**96 - 1
    assert sum(bits.bit_count() for bits in covered) == 96


@each_field
def test_field_is_read_from_its_bits_alone(field, ones):
    assert field.read(ones) == 2**field.bits - 1
    assert field.read(bytes(byte ^ 0xFF for byte in ones)) == 0


@each_field
def test_field_is_written_to_its_bits_alone(field, ones):
    header = bytearray(len(ones))
    field.write(header, 2**field.bits - 1)
    assert header == ones
    header = bytearray(b"\xff" * len(ones))
    field.write(header, 0)
    assert header == bytes(byte ^ 0xFF for byte in ones)


@each_field
def test_field_is_the_same_as_a_column(field, ones):
    column = field.column(as_words(ones, bytes(len(ones)), b"\xff" * len(ones)))
    assert column.dtype == np.uint32
    assert column.tolist() == [2**field.bits - 1, 0, 2**field.bits - 1]


@each_field
def test_value_that_does_not_fit_is_refused_and_changes_nothing(field, ones):
    largest = 2**field.bits - 1
    for value in (-1, largest + 1):
        header = bytearray(ones)
        with pytest.raises(ValueError, match=f"^{field.name} is {value}, expected 0 to {largest}$"):
            field.write(header, value)
        assert header == ones


@pytest.mark.parametrize(("fields", "size"), [(STREP_FIELDS, 4), (RTP_FIELDS, 12)])
@given(data=st.data())
def test_what_is_written_is_read_back_beside_all_else(fields, size, data):
    header = bytearray(data.draw(st.binary(min_size=size, max_size=size)))
    values = {field.name: field.read(header) for field in fields}
    changed = data.draw(st.sampled_from(fields))
    values[changed.name] = data.draw(st.integers(0, 2**changed.bits - 1))
    changed.write(header, values[changed.name])
    assert {field.name: field.read(header) for field in fields} == values


@given(st.lists(st.binary(min_size=12, max_size=12), min_size=1, max_size=5))
def test_columns_equal_what_is_read_one_by_one(headers):
    words = as_words(*headers)
    for field in (*STREP_FIELDS, *RTP_FIELDS):
        assert field.column(words).tolist() == [field.read(header) for header in headers]
