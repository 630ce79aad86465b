"""Sockets that tell which ICMP errors have come for them, and a traceroute made of them."""

from __future__ import annotations

import errno
import select
import socket
import struct
import time
from typing import NamedTuple

from tests.bed.namespaces import Namespace
from tests.bed.patience import limit

IPPROTO, TTL = {4: socket.IPPROTO_IP, 6: socket.IPPROTO_IPV6}, {4: socket.IP_TTL, 6: socket.IPV6_UNICAST_HOPS}
RECVERR, MTU_DISCOVER, PMTUDISC_DO = {4: 11, 6: 25}, {4: 10, 6: 23}, 2
"""linux/in.h, linux/in6.h"""
ORIGIN = {2: (socket.AF_INET, 20, 24), 3: (socket.AF_INET6, 24, 40)}
"""linux/errqueue.h: SO_EE_ORIGIN_ICMP and ICMP6; where the offender's address is."""
EXTENDED_ERROR = struct.Struct("=IBBBxII")
REACHED = "reached"


class IcmpError(NamedTuple):
    """What it says, in the words of IPv4 or IPv6, who sent it, and the MTU that it tells (0: none)."""

    what: str
    sender: str
    mtu: int = 0


PORT_UNREACHABLE, TIME_EXCEEDED, TOO_BIG = "port unreachable", "time exceeded", "too big"
WORDS = {2: {(3, 3): PORT_UNREACHABLE, (11, 0): TIME_EXCEEDED, (3, 4): TOO_BIG},
         3: {(1, 4): PORT_UNREACHABLE, (3, 0): TIME_EXCEEDED, (2, 0): TOO_BIG}}


def version_of(address: str) -> int:
    return 6 if ":" in address else 4


def plain_socket(space: Namespace, kind: str, version: int = 4, ttl: int = 64) -> socket.socket:
    """A TCP or UDP socket from inside `space` that keeps ICMP errors, and never fragments."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    made = space.call(lambda: socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM))
    for option, value in ((RECVERR, 1), (MTU_DISCOVER, PMTUDISC_DO), (TTL, ttl)):
        made.setsockopt(IPPROTO[version], option[version], value)
    return made


def icmp_error(waiting: socket.socket, timeout: float = limit(3.0)) -> IcmpError | None:
    """The next ICMP error for that socket; None if none comes in time."""
    patience = waiting.gettimeout()
    waiting.setblocking(False)
    try:
        return _icmp_error(waiting, timeout)
    finally:
        waiting.settimeout(patience)


def _icmp_error(waiting: socket.socket, timeout: float) -> IcmpError | None:
    poll = select.poll()
    poll.register(waiting, select.POLLERR)
    deadline = time.monotonic() + timeout
    while (left := deadline - time.monotonic()) > 0:
        poll.poll(left * 1000)
        try:
            _, ancillary, _, _ = waiting.recvmsg(1, 512, socket.MSG_ERRQUEUE)
        except BlockingIOError:
            time.sleep(0.005)  # a socket that failed otherwise is ready, too
            continue
        for _, kind, data in ancillary:
            _, origin, icmp_type, code, info, _ = EXTENDED_ERROR.unpack_from(data)
            if kind in RECVERR.values() and origin in ORIGIN:
                family, start, end = ORIGIN[origin]
                what = WORDS[origin].get((icmp_type, code), f"{icmp_type}/{code}")
                return IcmpError(what, socket.inet_ntop(family, data[start:end]), info if what == TOO_BIG else 0)
    return None


def probe(space: Namespace, kind: str, address: str, port: int, ttl: int) -> IcmpError | str:
    """What answers the first packet of a connection that may go through so many routers."""
    with plain_socket(space, kind, version_of(address), ttl) as probing:
        probing.setblocking(False)
        if kind == "udp":
            probing.connect((address, port))
            probing.send(b"who is there?")
        else:
            assert probing.connect_ex((address, port)) == errno.EINPROGRESS
            if select.select([], [probing], [], 3.0)[1]:
                if probing.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) in (0, errno.ECONNREFUSED):
                    return REACHED
        error = icmp_error(probing)
        assert error is not None, f"nothing answers {kind} to {address} port {port} with TTL {ttl}"
        return error


def trace(space: Namespace, kind: str, address: str, port: int) -> list[str]:
    """traceroute: who sent the time exceeded for each TTL, until something else comes: then "reached"."""
    hops: list[str] = []
    while not hops or hops[-1] != REACHED:
        assert len(hops) < 8, f"no end: {hops}"
        error = probe(space, kind, address, port, len(hops) + 1)
        hops.append(error.sender if isinstance(error, IcmpError) and error.what == TIME_EXCEEDED else REACHED)
    return hops
