"""All experiments and benchmarks: what `python -m evaluation` lists and runs."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

from evaluation.measuring.findings import Findings

PACKAGE = "evaluation"


@dataclass(frozen=True)
class Entry:
    """Something that can be run by its name.

    `shows`: one line that says what it shows; `takes`: how long it runs on two cores; `module`: where it is, below
    evaluation/; `root`: it builds network namespaces, so it needs root and Open vSwitch.
    """

    name: str
    shows: str
    takes: str
    module: str
    root: bool = True

    @property
    def command(self) -> str:
        return f"python -m evaluation {self.name}"

    @property
    def path(self) -> str:
        """The whole name of its module."""
        return f"{PACKAGE}.{self.module}"


@dataclass(frozen=True)
class Benchmark(Entry):
    """Its module has `main() -> Findings`: figures beside a yardstick and a target, without options of its own."""

    def load(self) -> Callable[[], Findings]:
        return cast(Callable[[], Findings], importlib.import_module(self.path).main)


@dataclass(frozen=True)
class Experiment(Entry):
    """Its module has `main(arguments) -> int`, which reads the options and returns the exit status."""

    def load(self) -> Callable[[Sequence[str]], int]:
        return cast(Callable[[Sequence[str]], int], importlib.import_module(self.path).main)


EXPERIMENTS = (
    Experiment(
        "demonstration",
        "An external IP moves under load in four orders, and with slices; what each one broke.",
        "95 s",
        "demonstration.command",
    ),
    Experiment(
        "experiment",
        "Automatic rebalancing beside a static assignment, under the same shifting load in a lab.",
        "3 min",
        "experiment.command",
    ),
    Experiment(
        "simulator",
        "The same for a simulated day of 10 000 external IPs on 1 000 LBs.",
        "6 min",
        "simulator.command",
        root=False,
    ),
    Experiment(
        "thresholds",
        "The simulator with other thresholds and cooldowns: six hours of 200 LBs.",
        "3 min",
        "simulator.thresholds",
        root=False,
    ),
)
BENCHMARKS = (
    Benchmark(
        "move",
        "The longest gap that a client notices while its external IP moves.",
        "11 min",
        "benchmarks.move",
    ),
    Benchmark("bulk_copy", "Copying 100 000 flows to another LB, beside ovs-ofctl.", "1 min", "benchmarks.bulk_copy"),
    Benchmark(
        "read_back",
        "Reading 100 000 entries back after a restart of the controller, beside ovs-ofctl.",
        "1 min",
        "benchmarks.read_back",
    ),
    Benchmark(
        "new_connections",
        "New connections/s and requests/s through an LB, beside HAProxy; where the time goes.",
        "7 min",
        "benchmarks.new_connections",
    ),
    Benchmark(
        "slice_changes",
        "A thousand slices change hands under load, and a server comes to ten: what breaks.",
        "4 min",
        "benchmarks.slice_changes",
    ),
    Benchmark(
        "conntrack",
        "A minute of new connections through an LB with slices, and through nftables' DNAT.",
        "3 min",
        "benchmarks.conntrack",
    ),
    Benchmark(
        "cached_flows",
        "Flows in the datapath's cache for a sliced service, by TTLs and clients.",
        "3 min",
        "benchmarks.cached_flows",
    ),
    Benchmark(
        "full_nat",
        "The same with full NAT, beside destination NAT; and a move of its entries.",
        "5 min",
        "benchmarks.full_nat",
    ),
    Benchmark(
        "failover",
        "What clients notice of an LB's death and of ten other faults, beside keepalived.",
        "40 min",
        "benchmarks.failover",
    ),
    Benchmark(
        "outages",
        "The management network is away, or the controller hangs: what moves, or breaks.",
        "15 min",
        "benchmarks.outages",
    ),
    Benchmark(
        "stalls",
        "The longest time that packets wait for the controller, while it does what is large.",
        "5 min",
        "benchmarks.stalls",
    ),
    Benchmark(
        "flood",
        "A flood of SYNs at one external IP: what its clients notice, and another's, beside HAProxy.",
        "7 min",
        "benchmarks.flood",
    ),
    Benchmark(
        "health_checks",
        "What checking 1 000 servers costs the controller and Open vSwitch.",
        "2 min",
        "benchmarks.health_checks",
    ),
    Benchmark(
        "server_orders",
        "How long packets wait while servers come, go, are drained or changed by order.",
        "3 min",
        "benchmarks.server_orders",
    ),
    Benchmark("memory", "Memory of the controller for each of 100 000 entries.", "1 min", "benchmarks.memory"),
    Benchmark(
        "pages",
        "A page of an access table with 100 000 entries, made by the REST API.",
        "20 s",
        "benchmarks.pages",
        root=False,
    ),
    Benchmark(
        "assignment",
        "How long an assignment takes to compute, and how far it is from the lower bound.",
        "1 min",
        "benchmarks.assignment",
        root=False,
    ),
    Benchmark(
        "capacity",
        "Connection set-ups/s and their latency with 200 simulated LBs at one controller.",
        "4 min",
        "benchmarks.capacity",
    ),
    Benchmark(
        "solving",
        "The latency of set-ups while the controller has assignments computed.",
        "4 min",
        "benchmarks.solving",
    ),
    Benchmark(
        "schedulers",
        "What the choice of a server costs, by scheduler and number of servers.",
        "10 s",
        "benchmarks.schedulers",
        root=False,
    ),
    Benchmark(
        "maglev",
        "How many places of a hash table change their server when one leaves or joins.",
        "10 s",
        "benchmarks.maglev",
        root=False,
    ),
)
BY_NAME: dict[str, Benchmark | Experiment] = {entry.name: entry for entry in (*EXPERIMENTS, *BENCHMARKS)}
