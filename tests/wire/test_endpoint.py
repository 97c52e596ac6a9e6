from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strep.wire.endpoint import ENDPOINT_BYTES, Endpoint

MAPPED = "00000000000000000000ffff"
PORTS = st.integers(0, 65535)


@pytest.mark.parametrize(
    ("host", "port", "packed", "text"),
    [
        ("192.0.2.1", 9000, f"{MAPPED}c0000201 2328 000000000000", "192.0.2.1:9000"),
        ("0.0.0.1", 0, f"{MAPPED}00000001 0000 000000000000", "0.0.0.1:0"),
        (
            "2001:db8::1", 65535,
            "20010db8000000000000000000000001 ffff 000000000000", "[2001:db8::1]:65535",
        ),
        ("::1", 1, "00000000000000000000000000000001 0001 000000000000", "[::1]:1"),
    ],
)  # fmt: skip
def test_endpoint_has_24_bytes_and_a_text(host, port, packed, text):
    endpoint = Endpoint.of(host, port)
    assert endpoint.pack() == bytes.fromhex(packed)
    assert len(endpoint.pack()) == ENDPOINT_BYTES
    assert str(endpoint) == text
    assert Endpoint.unpack(bytes.fromhex(packed)) == endpoint


@given(st.ip_addresses(v=4) | st.ip_addresses(v=6).filter(lambda a: a.ipv4_mapped is None), PORTS)
def test_what_is_packed_is_read_back(address, port):
    assert Endpoint.unpack(Endpoint(address, port).pack()) == Endpoint(address, port)


@given(st.ip_addresses(v=4), PORTS)
def test_mapped_address_is_the_ipv4_one(address, port):
    assert Endpoint.of(f"::ffff:{address}", port).pack() == Endpoint(address, port).pack()


def test_zone_is_left_out():
    assert Endpoint.of("fe80::1%eth0", 5) == Endpoint.of("fe80::1", 5)


@pytest.mark.parametrize("host", ["localhost", "", "192.0.2.256", "2001:db8::1::2"])
def test_host_must_be_a_numeric_address(host):
    with pytest.raises(ValueError, match="does not appear to be an IPv4 or IPv6 address"):
        Endpoint.of(host, 9000)
