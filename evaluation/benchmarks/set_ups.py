"""The load of capacity, a process of its own: simulated switches show the controller SYNs of distinct clients.

The time is taken until the flow-mods and the packet-out of that connection are here.

It takes orders from its standard input, one JSON object a line, and answers each with one:

    {"connect": 200, "host": "127.0.0.1", "port": 6653}
    {"rate": 4000, "seconds": 10}          so many in a second, at random (Poisson) times, whatever the controller does
    {"outstanding": 400, "seconds": 10}    the next one when one is done, so many at once: saturation
    {"kill": 1, "seconds": 10}             that switch (by its number) is gone; which external IPs are announced

A time counts from when the SYN was due, not from when it was sent, so that a late load makes no latency look better.
`late` says how late it was.
"""

from __future__ import annotations

import gc
import json
import os
import random
import select
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Any

from evaluation.benchmarks.switches import EXTERNAL, INTERNAL, SimulatedSwitch, packet_in
from lbctl.frames.packets import SYN, tcp_segment
from lbctl.openflow.cookies import Kind
from lbctl.values.protocols import ETH_TYPE_ARP

FIRST_EXTERNAL, FIRST_CLIENT = IPv4Address("198.18.0.1"), IPv4Address("198.19.0.1")
CLIENTS, FIRST_PORT = 60_000, 1024
ROUTER_MAC = bytes.fromhex("020100000001")
WARM_UP = 1.0
"""Seconds of each order whose set-ups do not count."""
UNANSWERED = 2.0
"""Seconds after the end in which an answer still counts; then it is lost."""
ARP = ETH_TYPE_ARP.to_bytes(2)
KEY = slice(26, 38)
"""Addresses and ports in a frame."""


def percentile(values: list[float], share: float) -> float:
    """Of sorted values; 0 if there are none."""
    return values[min(len(values) - 1, int(share * len(values)))] if values else 0.0


@dataclass
class Tally:
    """Of one order.

    times: seconds from due to done, of set-ups that were due after the warm-up. done_at: when each was done.
    """

    begun: float
    times: list[float] = field(default_factory=list)
    done_at: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)


class Load:
    """All switches and what is under way."""

    def __init__(self) -> None:
        self._switches: list[SimulatedSwitch] = []
        self._silent: set[bytes] = set()
        """MACs of switches that are gone."""
        self._announced: dict[bytes, float] = {}
        """External IP (packed) -> when it was first announced."""
        self._poll = select.epoll()
        self._by_handle: dict[int, SimulatedSwitch] = {}
        self._under_way: dict[bytes, float] = {}
        self._serial = 0
        self._tally = Tally(0.0)
        self._chance = random.Random(1)

    def connect(self, count: int, host: str, port: int) -> None:
        """So many switches more. Raises OSError."""
        for number in range(len(self._switches), len(self._switches) + count):
            switch = SimulatedSwitch(number + 1, self._packet_out, self._silent)
            switch.connect((host, port))
            self._switches.append(switch)
            self._by_handle[switch.socket.fileno()] = switch
            self._poll.register(switch.socket, select.EPOLLIN)

    def serve(self, timeout: float) -> None:
        """What the controller wants within so many seconds: as soon as there is something."""
        if not select.select([self._poll], [], [], timeout)[0]:
            return
        for handle, _ in self._poll.poll(0):
            self._by_handle[handle].receive()

    def at_rate(self, rate: float, seconds: float) -> dict[str, float]:
        due, at = [], 0.0
        while at < seconds + WARM_UP:
            at += self._chance.expovariate(rate)
            due.append(at)
        frames = list(self._frames(len(due)))
        self._begin()
        for offset, (switch, frame) in zip(due, frames, strict=True):
            at = self._tally.begun + offset
            while (now := time.monotonic()) < at:
                self.serve(at - now)
            self._send(switch, frame, at, now)
        return self._end(seconds)

    def saturating(self, outstanding: int, seconds: float) -> dict[str, float]:
        self._begin()
        while (now := time.monotonic()) < self._tally.begun + WARM_UP + seconds:
            for switch, frame in self._frames(outstanding - len(self._under_way)):
                self._send(switch, frame, now, now)
            self.serve(0.1)
        return self._end(seconds)

    def kill(self, number: int, seconds: float) -> dict[str, float]:
        """announced: external IPs that have been within that time, by others; last: after so many seconds."""
        gone = self._switches[number - 1]
        self._silent |= {gone.mac(EXTERNAL), gone.mac(INTERNAL)}
        self._announced.clear()
        self._poll.unregister(gone.socket)
        gone.socket.close()
        begun = time.monotonic()
        while (left := begun + seconds - time.monotonic()) > 0:
            self.serve(left)
        external = [at for address, at in self._announced.items() if IPv4Address(address) >= FIRST_EXTERNAL]
        return {"announced": len(external), "last": max(external, default=begun) - begun}

    def _frames(self, count: int) -> Iterator[tuple[SimulatedSwitch, bytes]]:
        """SYNs of distinct clients, to one switch after the other, each to an external IP that is there."""
        for _ in range(count):
            self._serial += 1
            which = self._serial % len(self._switches)
            port, client = divmod(self._serial, CLIENTS)
            switch = self._switches[which]
            yield (
                switch,
                tcp_segment(
                    switch.mac(EXTERNAL),
                    ROUTER_MAC,
                    (FIRST_CLIENT + client).packed,
                    FIRST_PORT + port,
                    (FIRST_EXTERNAL + which).packed,
                    80,
                    flags=SYN,
                    seq=self._serial,
                ),
            )

    def _send(self, switch: SimulatedSwitch, frame: bytes, due: float, now: float) -> None:
        self._under_way[frame[KEY]] = due
        self._tally.late.append(now - due)
        switch.send(packet_in(Kind.NEW, EXTERNAL, frame))

    def _packet_out(self, _: SimulatedSwitch, frame: bytes) -> None:
        if frame[12:14] == ARP:
            self._announced.setdefault(frame[28:32], time.monotonic())
            return
        due = self._under_way.pop(frame[KEY], None)
        if due is not None and due > self._tally.begun + WARM_UP:
            now = time.monotonic()
            self._tally.times.append(now - due)
            self._tally.done_at.append(now)

    def _begin(self) -> None:
        self._under_way.clear()
        self._mods = sum(switch.entry_mods for switch in self._switches)
        self._first = self._serial
        self._processor = time.process_time()
        self._tally = Tally(time.monotonic())

    def _end(self, seconds: float) -> dict[str, float]:
        """What was measured.

        rate: done in a second; p50 to worst, and late: seconds; lost: without an answer; mods: flow-mods for each
        set-up; busy: share of one core that this process took.
        """
        tally, ended = self._tally, time.monotonic()
        busy = (time.process_time() - self._processor) / (ended - tally.begun)
        while self._under_way and time.monotonic() < ended + UNANSWERED:
            self.serve(0.01)
        times, lost = sorted(tally.times), len(self._under_way)
        within = sum(at < tally.begun + WARM_UP + seconds for at in tally.done_at)
        asked = len(tally.late)
        mods = sum(switch.entry_mods for switch in self._switches) - self._mods
        return {
            "rate": within / seconds,
            "p50": percentile(times, 0.5),
            "p99": percentile(times, 0.99),
            "p999": percentile(times, 0.999),
            "worst": times[-1] if times else 0.0,
            "lost": lost,
            "mods": mods / max(1, asked - lost),
            "asked": asked,
            "late": percentile(sorted(tally.late), 0.99),
            "busy": busy,
        }


def main() -> None:
    """Until the standard input ends. Between orders the switches go on answering."""
    gc.disable()
    load, orders = Load(), sys.stdin.fileno()
    while True:
        load.serve(0.02)
        if not select.select([orders], [], [], 0)[0]:
            continue
        order = os.read(orders, 4096)  # the next order comes when this one has been answered
        if not order:
            return
        print(json.dumps(_carry_out(load, json.loads(order))), flush=True)


def _carry_out(load: Load, order: dict[str, Any]) -> dict[str, float]:
    if "connect" in order:
        load.connect(order["connect"], order["host"], order["port"])
        return {}
    if "kill" in order:
        return load.kill(order["kill"], order["seconds"])
    if "rate" in order:
        return load.at_rate(order["rate"], order["seconds"])
    return load.saturating(order["outstanding"], order["seconds"])


if __name__ == "__main__":
    main()
