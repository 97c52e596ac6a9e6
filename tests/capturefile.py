"""Writes capture files byte by byte, as the documents of pcap, pcapng and the protocols say.

The usual way: `pcap([(arrival_ns, ethernet(datagram(payload)))])`. Everything else is for captures
out of the ordinary.
"""

from __future__ import annotations

import struct

from strep.wire.endpoint import Endpoint

SOURCE = Endpoint.of("192.0.2.1", 4000)
DESTINATION = Endpoint.of("192.0.2.2", 5000)
SOURCE_V6 = Endpoint.of("2001:db8::1", 4000)
DESTINATION_V6 = Endpoint.of("2001:db8::2", 5000)

ETHERNET = 1


def datagram(payload, source=SOURCE, destination=DESTINATION):
    """Return an IP packet (IPv4 or IPv6, as the addresses are) with one UDP datagram."""
    ip = ipv4 if source.address.version == 4 else ipv6
    return ip(udp(payload, source, destination), source, destination)


def udp(payload, source=SOURCE, destination=DESTINATION, *, length=None):
    length = 8 + len(payload) if length is None else length
    return struct.pack("!4H", source.port, destination.port, length, 0) + payload


def ipv4(
    body,
    source=SOURCE,
    destination=DESTINATION,
    *,
    protocol=17,
    options=b"",
    flags_and_offset=0x4000,
    total_length=None,
):
    first = 0x45 + len(options) // 4
    if total_length is None:
        total_length = 20 + len(options) + len(body)
    header = struct.pack("!BBHHHBBH", first, 0, total_length, 0, flags_and_offset, 64, protocol, 0)
    return header + source.address.packed + destination.address.packed + options + body


def ipv6(
    body, source=SOURCE_V6, destination=DESTINATION_V6, *, next_header=17, payload_length=None
):
    payload_length = len(body) if payload_length is None else payload_length
    header = struct.pack("!IHBB", 0x60000000, payload_length, next_header, 64)
    return header + source.address.packed + destination.address.packed + body


def ethertype(packet):
    return b"\x08\x00" if packet[0] >> 4 == 4 else b"\x86\xdd"


def ethernet(packet, *, tags=(), padding=b""):
    """Return a frame; `tags` are the EtherTypes of VLAN tags, the outermost first."""
    vlan = b"".join(struct.pack("!HH", tag, 100 + i) for i, tag in enumerate(tags))
    addresses = bytes.fromhex("02 00 00 00 00 02  02 00 00 00 00 01")
    return addresses + vlan + ethertype(packet) + packet + padding


def pcap(frames, *, order="<", unit_ns=1000, link_type=ETHERNET, snaplen=262144):
    """Return a pcap file; `frames` are (arrival_ns, frame), `unit_ns` is 1000 or 1."""
    magic = {1000: 0xA1B2C3D4, 1: 0xA1B23C4D}[unit_ns]
    parts = [struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, snaplen, link_type)]
    for arrival_ns, frame in frames:
        seconds, rest_ns = divmod(arrival_ns, 1_000_000_000)
        kept = frame[:snaplen]
        parts.append(
            struct.pack(order + "4I", seconds, rest_ns // unit_ns, len(kept), len(frame)) + kept
        )
    return b"".join(parts)


def pcapng(frames, *, order="<", link_type=ETHERNET):
    """Return a pcapng file of one section and one interface; `frames` are (arrival_ns, frame)."""
    packets = [
        enhanced_packet(arrival_ns // 1000, frame, order=order) for arrival_ns, frame in frames
    ]
    return section(order=order) + interface(link_type, order=order) + b"".join(packets)


def block(kind, body, *, order="<"):
    body += bytes(-len(body) % 4)
    size = 12 + len(body)
    return struct.pack(order + "II", kind, size) + body + struct.pack(order + "I", size)


def section(*, order="<"):
    return block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1), order=order)


def interface(link_type=ETHERNET, *, snaplen=0, options=(), order="<"):
    """Return an interface block; `options` are (code, value)."""
    body = struct.pack(order + "HHI", link_type, 0, snaplen)
    for code, value in options:
        body += struct.pack(order + "HH", code, len(value)) + value + bytes(-len(value) % 4)
    return block(1, body, order=order)


def enhanced_packet(ticks, frame, *, number=0, on_wire=None, options=b"", order="<"):
    on_wire = len(frame) if on_wire is None else on_wire
    words = (number, ticks >> 32, ticks & 0xFFFFFFFF, len(frame), on_wire)
    padding = bytes(-len(frame) % 4)
    return block(6, struct.pack(order + "5I", *words) + frame + padding + options, order=order)


def obsolete_packet(ticks, frame, *, number=0, order="<"):
    words = (number, 0, ticks >> 32, ticks & 0xFFFFFFFF, len(frame), len(frame))
    return block(2, struct.pack(order + "HH4I", *words) + frame, order=order)


def simple_packet(frame, *, on_wire=None, order="<"):
    on_wire = len(frame) if on_wire is None else on_wire
    return block(3, struct.pack(order + "I", on_wire) + frame, order=order)
