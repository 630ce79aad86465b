"""Receive queues of the ports of a userspace datapath: what they hold while ovs-vswitchd is off the processor.

Such a port is a socket, and its queue is the socket's buffer, as long as net.core.rmem_default was when the port was
opened. That setting is one for all network namespaces of a machine. The queues themselves are measured; what they would
be after a restart is told.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from lbctl.cli.doctor.finding import Finding, keep_sysctl, ok, warn
from lbctl.cli.namespace import NetworkNamespace

ENOUGH = 8 * 1024 * 1024
"""Bytes. With it, four moves under load showed no retransmission; with the kernel's 212 992 there were 33, and a stall
of 425 ms."""
WHY = (
    f"{ENOUGH} are recommended, because the userspace datapath loses what comes while ovs-vswitchd is off the "
    "processor, as it is for some 20 ms on a busy machine"
)
SET = f"sysctl -w net.core.rmem_default={ENOUGH}"
KEEP = keep_sysctl(net__core__rmem_default=ENOUGH)
FRAME = 2304
"""Bytes that a full Ethernet frame takes in a queue, by the kernel's own count: 212 992 bytes hold some 90."""

_SOCKET = re.compile(r'^\S+\s+\d+\s+\d+\s+\S*?:(\S+)\s.*"ovs-vswitchd".*skmem:\(r\d+,rb(\d+),.*?,d(\d+)\)')


class Queue(NamedTuple):
    """Of a port: bytes that it holds, and packets that it had no room for since the port was opened."""

    length: int
    lost: int


def check_receive_queues(lb: str, ports: Sequence[str], namespace: NetworkNamespace) -> Iterator[Finding]:
    """ports: those of the load balancer's bridge, whose datapath is in user space. Raises Failure."""
    default = namespace.call(length_of_new_queues)
    queues = queues_in(namespace)
    measured = {port: queues[port] for port in ports if port in queues}
    for port, queue in measured.items():
        if queue.lost:
            yield warn(
                f"{lb}: the receive queue of {port} ran over: {queue.lost} packets are lost since the port was opened.",
                "give ovs-vswitchd more of the processor (renice -n -10 -p $(pidof ovs-vswitchd)); see the length of "
                "the queues",
            )
    short = [port for port, queue in measured.items() if queue.length < ENOUGH]
    if short:
        length = min(measured[port].length for port in short)
        restart = (f"lbctl drain {lb} --wait; systemctl restart openvswitch-switch; lbctl drain {lb} --undo "
                   "(a port gets its queue when it is opened)")
        yield warn(f"{lb}: the receive queues of {' and '.join(short)} hold {length} bytes, {_frames(length)}; {WHY}.",
                   restart if default >= ENOUGH else f"{SET}; then: {restart}", KEEP)
    elif measured:
        later = (
            ""
            if default >= ENOUGH
            else f" (net.core.rmem_default is {default} now, so a restart of ovs-vswitchd would shorten them)"
        )
        yield ok(
            f"{lb}: the receive queues of {' and '.join(measured)} hold {min(measured.values()).length} bytes{later}."
        )
    elif default < ENOUGH:
        yield warn(
            f"{lb}: net.core.rmem_default is {default}, so the receive queues of ports hold {_frames(default)}; {WHY}.",
            f"{SET}, before ovs-vswitchd starts",
            KEEP,
        )
    else:
        yield ok(f"{lb}: net.core.rmem_default is {default}, which makes long receive queues.")


def length_of_new_queues() -> int:
    """net.core.rmem_default: asked of a socket, because a network namespace may not show the setting itself."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as new:
        return new.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)


def queues_in(namespace: NetworkNamespace) -> dict[str, Queue]:
    """Of the ports that an ovs-vswitchd has opened there, by device. A port with several has the worst of each."""
    found: dict[str, Queue] = {}
    said = namespace.run("ss", "--packet", "--memory", "--processes", "--numeric", "--oneline", "--no-header") or ""
    for match in filter(None, map(_SOCKET.match, said.splitlines())):
        device, length, lost = match[1], int(match[2]), int(match[3])
        before = found.get(device, Queue(length, 0))
        found[device] = Queue(min(before.length, length), before.lost + lost)
    return found


def _frames(length: int) -> str:
    return f"some {length // FRAME} full frames"
