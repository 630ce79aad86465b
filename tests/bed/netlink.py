"""What the kernel knows of the network namespace that the caller is in, by rtnetlink(7), without a process for each."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

NLMSG_ERROR, NLMSG_DONE = 2, 3
RTM_GETLINK, RTM_GETADDR, RTM_GETROUTE, RTM_GETNEIGH, RTM_GETQDISC = 18, 22, 26, 30, 38
NLM_F_REQUEST, NLM_F_DUMP = 1, 0x300
IFF_UP = 1
NUD_PERMANENT = 0x80
RTM_F_CLONED = 0x200
ROUTE_STATE = 0x1F
"""Bits of a route that follow the carrier of its device."""


def everything() -> frozenset[tuple[object, ...]]:
    """Links, addresses, routes, permanent neighbours, and queueing disciplines.

    What changes by itself is left out: counters, times, carriers.
    """
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel:
        kernel.bind((0, 0))
        return frozenset(told for ask in (_links, _addresses, _routes, _neighbours, _qdiscs) for told in ask(kernel))


def _links(kernel: socket.socket) -> Iterator[tuple[object, ...]]:
    for body in _dump(kernel, RTM_GETLINK):
        flags = struct.unpack_from("=BxHiII", body)[3]
        told = dict(_attributes(body, 16))
        name = told.get(3, b"").rstrip(b"\0").decode()
        address, mtu, master = (told.get(kind, b"").hex() for kind in (1, 4, 10))
        yield "link", name, bool(flags & IFF_UP), address, mtu, master


def _addresses(kernel: socket.socket) -> Iterator[tuple[object, ...]]:
    for body in _dump(kernel, RTM_GETADDR):
        family, length, _, scope, index = struct.unpack_from("=BBBBI", body)
        told = dict(_attributes(body, 8))
        yield "address", family, index, told.get(2, told.get(1, b"")).hex(), length, scope


def _routes(kernel: socket.socket) -> Iterator[tuple[object, ...]]:
    for body in _dump(kernel, RTM_GETROUTE):
        *header, flags = struct.unpack_from("=8BI", body)
        if not flags & RTM_F_CLONED:
            told = {kind: value.hex() for kind, value in _attributes(body, 12) if kind != 12}
            yield "route", *header, flags & ~ROUTE_STATE, *sorted(told.items())


def _neighbours(kernel: socket.socket) -> Iterator[tuple[object, ...]]:
    for body in _dump(kernel, RTM_GETNEIGH):
        _, index, state, _, _ = struct.unpack_from("=BxxxiHBB", body)
        if state & NUD_PERMANENT:
            told = dict(_attributes(body, 12))
            yield "neighbour", index, told.get(1, b"").hex(), told.get(2, b"").hex()


def _qdiscs(kernel: socket.socket) -> Iterator[tuple[object, ...]]:
    for body in _dump(kernel, RTM_GETQDISC):
        _, index, _, parent, _ = struct.unpack_from("=BxxxiIII", body)
        told = dict(_attributes(body, 20))
        yield "qdisc", index, parent, told.get(1, b"").rstrip(b"\0").decode(), told.get(2, b"").hex()


def _dump(kernel: socket.socket, kind: int) -> Iterator[bytes]:
    """The body of each message of the answer."""
    kernel.send(struct.pack("=IHHII4x12x", 32, kind, NLM_F_REQUEST | NLM_F_DUMP, kind, 0))
    while True:
        part = kernel.recv(1 << 20)
        while part:
            length, what, _, number, _ = struct.unpack_from("=IHHII", part)
            if number == kind and what == NLMSG_DONE:
                return
            if number == kind and what == NLMSG_ERROR:
                code = struct.unpack_from("=i", part, 16)[0]
                raise OSError(-code, os.strerror(-code))
            if number == kind:
                yield part[16:length]
            part = part[length + 3 & ~3:]


def _attributes(body: bytes, offset: int) -> Iterator[tuple[int, bytes]]:
    while offset + 4 <= len(body):
        length, kind = struct.unpack_from("=HH", body, offset)
        yield kind & 0x3FFF, body[offset + 4:offset + length]
        offset += max(length + 3 & ~3, 4)
