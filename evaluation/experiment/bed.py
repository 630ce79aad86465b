"""The bed of the experiment: three LBs with narrow links, 12 external IPs, clients behind a router; and a run in it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, cast

from evaluation.experiment.results import Move, Request, Run, Sample
from evaluation.experiment.shape import EXTERNAL_IPS, LINK, Shape
from evaluation.lab_traffic.started import Program
from lbctl.site.model import Rebalance
from tests.bed.processes import end, read_pid
from topologies.lab import Lab
from topologies.nodes import LoadBalancerSwitch, NameServer, checked
from topologies.plan import Plan, machine, web_site
from topologies.rundir import LabError

CLIENTS = 3
LETTERS = "abc"
QUEUE = LINK // 4
"""Bytes that wait for an LB's link at most: a quarter of a second's."""
SETTINGS = {"load_period": 0.5, "grace": 1.0, "automatic_failover": False}
"""No failover: on a busy machine an LB that gets no processor time looks dead, and would lose its external IPs."""
MODES = {
    "static": Rebalance(),
    "automatic": Rebalance("automatic", threshold=0.25, cooldown=2.0, at_once=4),
}
PERIOD = 0.25
"""Seconds between two looks at the assignment and the links."""
LEAD = 5.0
"""Seconds from the first look-up to the first request, and some."""
TAIL = 35.0
"""Seconds that the last requests may take at the end."""

SERVERS = tuple(machine(f"s{number}", f"10.0.0.{20 + number}") for number in range(1, EXTERNAL_IPS + 1))
PLAN = Plan(
    name="rebalancing",
    title="three load balancers, twelve external IPs, a server for each, three clients behind a router",
    site=web_site(
        [
            (
                f"198.51.100.{number}",
                f"lb-{LETTERS[(number - 1) % len(LETTERS)]}",
                f"10.0.0.{number}",
                (SERVERS[number - 1],),
            )
            for number in range(1, EXTERNAL_IPS + 1)
        ],
        letters=LETTERS,
    ),
    servers=SERVERS,
    clients=tuple(machine(f"c{number}", f"203.0.113.{100 + number}") for number in range(1, CLIENTS + 1)),
    settings=SETTINGS,
)

NARROW = """\
tc qdisc add dev {port} root handle 1: htb default 1
tc class add dev {port} parent 1: classid 1:1 htb rate 1gbit
tc class add dev {port} parent 1: classid 1:2 htb rate {rate}bps ceil {rate}bps burst 15k cburst 15k
tc qdisc add dev {port} parent 1:2 bfifo limit {queue}
tc filter add dev {port} parent 1: protocol ip u32 match u32 0 0 flowid 1:2
"""
"""What an LB sends to clients waits for its turn; ARP does not."""

Say = Callable[[str], None]


class Bed:
    """`with Bed(shape, say) as bed: bed.run("static")`. `say` is told how it goes on. Raises LabError."""

    def __init__(self, shape: Shape, say: Say) -> None:
        self.shape, self.say = shape, say
        self.lab = Lab(PLAN, controller=False)

    def __enter__(self) -> Bed:
        self.lab.__enter__()
        try:
            for lb in self._balancers():
                checked(lb, *NARROW.format(port=lb.ports_of_bridge[0], rate=LINK, queue=QUEUE).splitlines())
        except BaseException:
            self.lab.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.lab.__exit__(None, None, None)

    def run(self, mode: str) -> Run:
        """The whole load once; mode: one of MODES."""
        self._start_control_function(mode)
        self._start_name_server()
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(self._client(number)) for number in range(CLIENTS)]
            begin = time.monotonic() + LEAD
            for client in clients:
                client.tell(str(begin))
            self.say(f"  {mode}: {self.shape.seconds:.0f} s of load")
            watch = Watch(self.lab, list(self._balancers()), begin, self.shape.seconds)
            watch.start()
            deadline = begin + self.shape.seconds + TAIL
            results = [client.result(deadline - time.monotonic()) for client in clients]
            watch.join()
        return self._summed(mode, results, watch, begin)

    def _client(self, number: int) -> Program:
        """The users on a client, who begin when they are told the time of the beginning."""
        arguments = (number, CLIENTS, self.shape.seed, self.shape.phase, self.shape.lbs)
        return Program(self.lab, PLAN.clients[number].name, "evaluation.experiment.clients", arguments)

    def _balancers(self) -> Iterator[LoadBalancerSwitch]:
        return (cast(LoadBalancerSwitch, self.lab[lb.name]) for lb in PLAN.site.load_balancers)

    def _start_control_function(self, mode: str) -> None:
        """One that knows of no earlier assignment."""
        if self.lab.control_function is not None:
            self.lab.control_function.stop()
        for file in self.lab.directory.subdirectory("controller").glob("lbctl-state.json*"):
            file.unlink()
        self.lab.plan = replace(PLAN, site=replace(PLAN.site, rebalance=MODES[mode]))
        self.lab.control_function = None
        self.lab.start_control_function()

    def _start_name_server(self) -> None:
        """Anew, so that its turns begin with the same address in every run."""
        dns = cast(NameServer, self.lab["dns"])
        pid_file = dns.directory() / "daemon.pid"
        pid = read_pid(pid_file)
        if pid is None:
            raise LabError(f"the name server is not running: there is no process id in {pid_file}")
        end(pid)
        dns.serve()

    def _ended_moves(self) -> list[dict[str, Any]]:
        """All records, the oldest first; those under way may end first."""
        deadline = time.monotonic() + 20.0
        while True:
            moves = cast(list[dict[str, Any]], self.lab.rest("GET", "/v1/moves")["moves"])
            if all(move["ended"] for move in moves):
                return moves[::-1]
            if time.monotonic() > deadline:
                raise LabError("a move does not end: " + next(move["id"] for move in moves if not move["ended"]))
            time.sleep(0.2)

    def _summed(self, mode: str, results: list[Mapping[str, Any]], watch: Watch, begin: float) -> Run:
        epoch = time.time() - time.monotonic() + begin
        moves = tuple(
            Move(
                each["external_ip"],
                each["from"],
                each["to"],
                each["state"],
                each["reason"],
                _epoch(each["started"]) - epoch,
                each["packets_lost"],
            )
            for each in self._ended_moves()
        )
        return Run(
            mode=mode,
            look_ups=tuple(
                sorted((group, which, address) for result in results for group, which, address in result["look_ups"])
            ),
            requests=tuple(
                sorted(Request(at, took, address) for result in results for address, at, took in result["requests"])
            ),
            failures=tuple((at, address, why) for result in results for address, at, why in result["failures"]),
            connections=sum(result["connections"] for result in results),
            moves=moves,
            samples=tuple(watch.samples),
            dropped=sum(lb.dropped() for lb in self._balancers()),
        )


class Watch(threading.Thread):
    """Notes again and again which LB has which external IP, and what the links have carried."""

    def __init__(self, lab: Lab, balancers: list[LoadBalancerSwitch], begin: float, seconds: float) -> None:
        super().__init__(daemon=True)
        self.samples: list[Sample] = []
        self._lab, self._balancers, self._begin, self._seconds = lab, balancers, begin, seconds

    def run(self) -> None:
        at = 0.0
        while at <= self._seconds + PERIOD:
            time.sleep(max(0.0, self._begin + at - time.monotonic()))
            with contextlib.suppress(OSError):
                ips = cast(list[dict[str, str]], self._lab.rest("GET", "/v1/external-ips")["external_ips"])
                self.samples.append(
                    Sample(
                        time.monotonic() - self._begin,
                        {ip["address"]: ip["load_balancer"] for ip in ips},
                        {lb.name: _sent(lb.pid, lb.ports_of_bridge[0]) for lb in self._balancers},
                    )
                )
            at += PERIOD


def _epoch(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _sent(pid: int, device: str) -> int:
    """Bytes that the device has sent, in the network namespace of process `pid`."""
    lines = Path(f"/proc/{pid}/net/dev").read_text().splitlines()
    return next(int(line.split(":")[1].split()[8]) for line in lines if line.strip().startswith(f"{device}:"))
