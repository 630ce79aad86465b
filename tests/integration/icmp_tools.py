"""Sockets that tell which ICMP errors have come for them, and a traceroute made of them."""

from __future__ import annotations

import errno
import select
import socket
import struct
import time
from typing import NamedTuple

from testbed.namespaces import Namespace

IP_RECVERR, IP_MTU_DISCOVER, IP_PMTUDISC_DO, SO_EE_ORIGIN_ICMP = 11, 10, 2, 2
"""linux/in.h, linux/errqueue.h"""
EXTENDED_ERROR = struct.Struct("=IBBBxII")
REACHED = "reached"


class IcmpError(NamedTuple):
    """Type, code, who sent it, and the MTU that it tells (0: none)."""

    type: int
    code: int
    sender: str
    mtu: int


def plain_socket(space: Namespace, kind: str, ttl: int = 64) -> socket.socket:
    """A TCP or UDP socket from inside `space` that keeps ICMP errors, and never fragments."""
    made = space.call(lambda: socket.socket(type=socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM))
    made.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
    made.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)
    made.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
    return made


def icmp_error(waiting: socket.socket, timeout: float = 3.0) -> IcmpError | None:
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
            if kind == IP_RECVERR:
                _, origin, icmp_type, code, info, _ = EXTENDED_ERROR.unpack_from(data)
                if origin == SO_EE_ORIGIN_ICMP:
                    mtu = info if (icmp_type, code) == (3, 4) else 0
                    return IcmpError(icmp_type, code, socket.inet_ntoa(data[20:24]), mtu)
    return None


def probe(space: Namespace, kind: str, address: str, port: int, ttl: int) -> IcmpError | str:
    """What answers the first packet of a connection that may go through so many routers."""
    with plain_socket(space, kind, ttl) as probing:
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
        assert error is not None, f"nothing answers {kind} to {address}:{port} with TTL {ttl}"
        return error


def trace(space: Namespace, kind: str, address: str, port: int) -> list[str]:
    """traceroute: who sent the time exceeded for each TTL, until something else comes: then "reached"."""
    hops: list[str] = []
    while not hops or hops[-1] != REACHED:
        assert len(hops) < 8, f"no end: {hops}"
        error = probe(space, kind, address, port, len(hops) + 1)
        expired = isinstance(error, IcmpError) and (error.type, error.code) == (11, 0)
        hops.append(error.sender if expired else REACHED)
    return hops
