"""The bed of the demonstration: the lab of figure 3 under load, and one order tried out in it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, cast

from evaluation.demonstration.orders import NAIVE_ORDER, Order
from evaluation.demonstration.results import MoveResult, OrderResult, ProbeResult, Step
from evaluation.lab_traffic.started import Program
from topologies.controller import APPS
from topologies.fig3 import PLAN
from topologies.lab import Lab
from topologies.nodes import LoadBalancerSwitch
from topologies.rundir import LabError

EXTERNAL_IP = "198.51.100.1"
SERVER = "s1"
HOME, AWAY = "lb-a", "lb-b"
PROBE_PORT, TRANSFER_PORT = 7001, 7002
NAIVE_APP = "evaluation/demonstration/naive_app.py"

RATE = 400_000
"""Bytes/s of each transfer: 12 of them are a twentieth of what a userspace Open vSwitch carries."""
REQUEST_RATE = 60
"""New connections/s of each of the two clients that make requests."""
QUIET = 1000
SETTLE = 2.0
"""Seconds of traffic before and after each move."""

PATIENCE = 15.0
"""Seconds until an LB must know the server."""

END = 40.0
"""Seconds within which a program must give its result at the end."""

PROGRAMS = "evaluation.demonstration.loads"
SERVERS = {"probe_server": PROBE_PORT, "transfer_server": TRANSFER_PORT}
LOADS: tuple[tuple[str, str, tuple[object, ...]], ...] = (
    ("c4", "quiet", (EXTERNAL_IP, TRANSFER_PORT, QUIET)),
    ("c2", "transfers", (EXTERNAL_IP, TRANSFER_PORT, 4, 2, RATE)),
    ("c4", "transfers", (EXTERNAL_IP, TRANSFER_PORT, 4, 2, RATE)),
    ("c2", "requests", (EXTERNAL_IP, 80, REQUEST_RATE)),
    ("c3", "requests", (EXTERNAL_IP, 80, REQUEST_RATE)),
    ("c1", "probe", (EXTERNAL_IP, PROBE_PORT)),
)
"""(client, program, arguments): clients c1 and c2 are near, c3 and c4 behind the router."""

Say = Callable[[str], None]


class Bed:
    """`with Bed(say) as bed: bed.try_order(order)`. `say` is told how it goes on. Raises LabError."""

    def __init__(self, say: Say) -> None:
        self.say = say
        self.lab = Lab(PLAN.with_service(PROBE_PORT).with_service(TRANSFER_PORT), controller=False)
        self._started: tuple[tuple[str, ...], bool] | None = None
        """With which apps the control function was started last, and for sliced services?"""
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Bed:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.lab)
            for program, port in SERVERS.items():
                stack.enter_context(Program(self.lab, SERVER, f"{PROGRAMS}.{program}", (port,)))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def try_order(self, order: Order) -> OrderResult:
        """Move the external IP there and back by `order`, under load."""
        self._start_control_function(order)
        with contextlib.ExitStack() as stack:
            self.say("  starting traffic")
            began = time.monotonic()
            loads = [
                stack.enter_context(Program(self.lab, client, f"{PROGRAMS}.{program}", arguments))
                for client, program, arguments in LOADS
            ]
            time.sleep(SETTLE)
            retransmitted, dropped = self._retransmitted(), self._dropped()
            moves = []
            for target in (AWAY, HOME):
                moves.append(self._move(target, order))
                time.sleep(SETTLE)
                for load in loads:
                    load.check()
            retransmitted, dropped = self._retransmitted() - retransmitted, self._dropped() - dropped
            self.say("  asking the quiet connections whether they live")
            # The probe ends first: it is not to measure the crowd that answers now.
            results = [(load.name, _ended(load)) for load in reversed(loads)]
        return _summed(order, began, tuple(moves), results, retransmitted, dropped)

    def _start_control_function(self, order: Order) -> None:
        """The product's apps, with another in front for a naive order; one that runs already goes on. Sliced services
        are the site file's."""
        apps = (NAIVE_APP, *APPS) if order.naive else APPS
        environment = {NAIVE_ORDER: order.name} if order.naive else {}
        wanted = apps, order.sliced
        if wanted != self._started or order.naive:
            how = " with the naive order" if order.naive else " with sliced services" if order.sliced else ""
            self.say(f"  starting the control function{how}")
            if order.sliced != (self._started is not None and self._started[1]):
                self.lab.write_site(self.lab.plan.sliced() if order.sliced else self.lab.plan)
            self.lab.start_control_function(apps, environment)
            self._started = wanted

    def _move(self, target: str, order: Order) -> MoveResult:
        self.say(f"  moving {EXTERNAL_IP} to {target}: {order.explanation}")
        started = time.monotonic()
        body = {"to": target, "strategy": order.strategy}
        deadline = started + PATIENCE
        path = f"/v1/external-ips/{EXTERNAL_IP}/move?wait=true"
        while "steps" not in (record := self.lab.rest("POST", path, body, timeout=60.0)):
            # The target may still be waiting for the server's ARP answer.
            if time.monotonic() > deadline:
                raise LabError(f"the move to {target} was refused: {record.get('detail', record)}")
            time.sleep(0.2)
            started = time.monotonic()
        return _move_result(record, started)

    def _retransmitted(self) -> int:
        """Segments that TCP has sent again, in all machines with traffic."""
        machines = {SERVER, *(client for client, *_ in LOADS)}
        return sum(_tcp_counter(self.lab[machine].pid, "RetransSegs") for machine in machines)

    def _dropped(self) -> int:
        """Packets that the LBs' receive queues had no room for."""
        return sum(cast(LoadBalancerSwitch, self.lab[lb]).dropped() for lb in (HOME, AWAY))


def _ended(load: Program) -> Mapping[str, Any]:
    """Its result, after its end."""
    load.end()
    return load.result(END)


def _move_result(record: Mapping[str, Any], started: float) -> MoveResult:
    offset = started - _epoch(record["started"])
    steps = tuple(
        Step(step["name"], _epoch(step["started"]) + offset, step["seconds"] or 0.0) for step in record["steps"]
    )
    return MoveResult(
        source=record["from"],
        target=record["to"],
        state=record["state"],
        reason=record["reason"],
        started=started,
        steps=steps,
        entries_copied=record["entries_copied"],
        packets_held=record["packets_held"],
        packets_lost=record["packets_lost"],
    )


def _summed(
    order: Order,
    began: float,
    moves: tuple[MoveResult, ...],
    loads: list[tuple[str, Mapping[str, Any]]],
    retransmitted: int,
    dropped: int,
) -> OrderResult:
    probe_result = next(result for program, result in loads if program.startswith("probe"))
    probe = ProbeResult(
        tuple(tuple(arrival) for arrival in probe_result["arrivals"]),
        probe_result["sent"],
        probe_result["retransmitted"],
        probe_result["lost"],
    )
    breaks = sorted((when, why) for _, result in loads for when, why in result["breaks"])
    # A connection of a request that breaks is a failed request; of all else, it is a broken connection.
    lasting = [why for program, result in loads if not program.startswith("requests") for _, why in result["breaks"]]
    return OrderResult(
        order=order,
        began=began,
        moves=moves,
        probe=probe,
        connections=sum(result["opened"] for _, result in loads),
        resets=sum(why != "stalled" for why in lasting),
        stalls=sum(why == "stalled" for why in lasting),
        requests=sum(result.get("answered", 0) + result.get("failed", 0) for _, result in loads),
        failed_requests=sum(result.get("failed", 0) for _, result in loads),
        retransmitted=max(0, retransmitted - probe.retransmitted),
        dropped=dropped,
        transferred=sum(result.get("bytes", 0) for _, result in loads),
        wrong_bytes=sum(result.get("wrong_bytes", 0) for _, result in loads),
        breaks=tuple(breaks),
    )


def _epoch(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _tcp_counter(pid: int, name: str) -> int:
    """A counter of the TCP of the network namespace of process `pid`."""
    names, values = _tcp_lines(pid)
    return int(values[names.index(name)])


def _tcp_lines(pid: int) -> Iterator[list[str]]:
    lines = Path(f"/proc/{pid}/net/snmp").read_text().splitlines()
    return (line.split() for line in lines if line.startswith("Tcp:"))
