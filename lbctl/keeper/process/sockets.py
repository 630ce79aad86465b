"""The TCP connections of this machine as its kernel knows them (seed modification 1, figure 14), asked for by
NETLINK_SOCK_DIAG.

Source: sock_diag(7); linux/inet_diag.h, linux/netlink.h; net/ipv4/inet_diag.c. The messages are parsed with struct:
some 1 us for each socket. It sees the sockets of the network namespace that it is called in; no privilege is needed.
"""

from __future__ import annotations

import itertools
import os
import socket
import struct
from collections.abc import Iterator, Mapping
from ipaddress import ip_address

from lbctl.entries.access_table import FIN_IN, FIN_OUT, NO_HOP
from lbctl.keeper.rows import RowKind, Section, Stream, pack_ports
from lbctl.values.protocols import TCP

NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST, NLM_F_DUMP, NLM_F_DUMP_INTR = 1, 0x300, 0x10
RECEIVE_SIZE = 256 * 1024
"""The kernel fills at most 32 KiB of it at once."""
TIMEOUT = 2.0
"""Seconds that the kernel may take for the next part of its answer."""
ROUNDS = 3
"""The table is read again that often if it changed in a way that the kernel calls an interruption."""

ESTABLISHED, SYN_RECV, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK, CLOSING = 1, 3, 4, 5, 8, 9, 11
FLAGS = {ESTABLISHED: 0, SYN_RECV: 0, FIN_WAIT1: FIN_OUT, FIN_WAIT2: FIN_OUT, CLOSE_WAIT: FIN_IN,
         LAST_ACK: FIN_IN | FIN_OUT, CLOSING: FIN_IN | FIN_OUT}
"""State of a socket (include/net/tcp_states.h) -> who has sent a FIN. The others have no entry: SYN_SENT was not opened
by a client, LISTEN and CLOSE are no connection, and TIME_WAIT has ended."""
_STATE_MASK = sum(1 << state for state in FLAGS)
_CHANGING = {state: bytes([flags]) + NO_HOP for state, flags in FLAGS.items()}

_HEADER = struct.Struct("=IHHII")
_REQUEST = struct.Struct("=BBBxI2s46x")
"""inet_diag_req_v2: family, protocol, extensions, states, and of the socket's id its port."""
_MESSAGE = struct.Struct("!xB2x2s2s16s16s")
"""inet_diag_msg, its beginning: the state, and of the id both ports, source and destination."""
_MAPPED = bytes(10) + b"\xff\xff"
"""Before an IPv4 address that an IPv6 socket has (RFC 4291, 2.5.5.2)."""
_TCP = bytes([TCP])


class SocketsError(Exception):
    """The kernel does not tell; the message says why."""


def connections(server: bytes, external: bytes, ports: Mapping[int, int]) -> Section:
    """The connections from and to those ports of the address `server` (packed), as rows of an external IP; with no next
    hop. A server that has the external IP itself, and answers as that, has connections of both addresses.

    ports: port of the server -> external port. Raises SocketsError.
    """
    _must_be_here(server)
    rows: dict[bytes, bytes] = {}  # a connection that is being accepted may show up twice
    families = (socket.AF_INET, socket.AF_INET6) if len(server) == 4 else (socket.AF_INET6,)
    with _open() as netlink:
        for port, family, local in itertools.product(ports, families, (server, external)):
            rows.update(_of_port(netlink, family, local, port))
    derived = pack_ports({_TCP + port.to_bytes(2): external_port.to_bytes(2) for port, external_port in ports.items()})
    packed = b"".join([part for row in rows.items() for part in row])
    return Section(RowKind.DESTINATION, Stream(server, external), derived, packed)


def _must_be_here(server: bytes) -> None:
    """An address of another machine has no sockets here, which must not pass for no connections."""
    try:
        with socket.socket(socket.AF_INET if len(server) == 4 else socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind((str(ip_address(server)), 0))
    except OSError as error:
        raise SocketsError(f"{ip_address(server)} is no address of the keeper's machine ({error.strerror}): only the "
                           "server's own tells its sockets") from error


def _open() -> socket.socket:
    try:
        netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_SOCK_DIAG)
        netlink.settimeout(TIMEOUT)
        return netlink
    except OSError as error:
        raise SocketsError(f"this kernel tells no sockets ({error.strerror}): it needs the modules inet_diag and "
                           "tcp_diag") from error


def _of_port(netlink: socket.socket, family: int, server: bytes, port: int) -> dict[bytes, bytes]:
    for _ in range(ROUNDS):
        rows, complete = _dump(netlink, family, server, port.to_bytes(2))
        if complete:
            return rows
    raise SocketsError(f"the kernel's table of sockets changed while it was read, {ROUNDS} times; ask again")


def _dump(netlink: socket.socket, family: int, server: bytes, port: bytes) -> tuple[dict[bytes, bytes], bool]:
    """The rows of the sockets of that family with that port; False if the kernel was interrupted."""
    local = server if family == socket.AF_INET or len(server) == 16 else _MAPPED + server
    size, skip = len(server), len(local) - len(server)
    rows, complete, mapped, unpack = {}, True, local[:skip], _MESSAGE.unpack_from
    for data, offset, flags in _messages(netlink, _REQUEST.pack(family, TCP, 0, _STATE_MASK, port)):
        state, source_port, peer_port, source, peer = unpack(data, offset)
        complete = complete and not flags & NLM_F_DUMP_INTR
        if source_port == port and source[:skip + size] == local and peer[:skip] == mapped and state in _CHANGING:
            rows[_TCP + peer[skip:skip + size] + peer_port + port] = _CHANGING[state]
    return rows, complete


def _messages(netlink: socket.socket, request: bytes) -> Iterator[tuple[bytes, int, int]]:
    """The answers to a dump: the bytes, where the message's content begins, and its flags. Raises SocketsError."""
    sequence = int.from_bytes(os.urandom(4))
    try:
        length, flags = _HEADER.size + len(request), NLM_F_REQUEST | NLM_F_DUMP
        netlink.send(_HEADER.pack(length, SOCK_DIAG_BY_FAMILY, flags, sequence, 0) + request)
        while True:
            data = netlink.recv(RECEIVE_SIZE)
            offset = 0
            while offset + _HEADER.size <= len(data):
                length, kind, flags, answered, _ = _HEADER.unpack_from(data, offset)
                if answered == sequence:
                    if kind == NLMSG_DONE:
                        return
                    if kind == NLMSG_ERROR:
                        _raise(data, offset)
                    if kind == SOCK_DIAG_BY_FAMILY:
                        yield data, offset + _HEADER.size, flags
                offset += max(length + 3 & ~3, _HEADER.size)
    except OSError as error:
        raise SocketsError(f"the kernel does not tell its sockets: {error.strerror or error}") from error


def _raise(data: bytes, offset: int) -> None:
    number = -struct.unpack_from("=i", data, offset + _HEADER.size)[0]
    raise SocketsError(f"the kernel does not tell its sockets: {os.strerror(number)}")
