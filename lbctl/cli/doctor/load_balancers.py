"""What the controller says of the load balancers: are they ready, and does their data path work?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lbctl.cli.doctor.finding import Finding, fail, ok, warn
from lbctl.values.drops import DROPS


def check_load_balancer(lb: dict[str, Any]) -> Iterator[Finding]:
    """What the controller says of one load balancer."""
    name, state = lb["name"], lb["state"]
    if state == "disconnected":
        yield fail(f"{name} is not connected to the controller: {lb['reason']}.",
                   f"on its host: lbctl doctor (its bridge must have the dpid {lb['dpid']})")
    elif state == "unfit":
        refusal, _, mend = lb["reason"].partition("; ")
        yield fail(f"{name} is unfit, so it gets no external IP: {refusal}. It is asked again and again.", mend)
    elif state != "ready":
        yield fail(f"{name} is {state}: {lb['reason']}.", "lbctl status; then the controller's log")
    elif lb["reason"]:
        yield fail(f"{name} is ready, but: {lb['reason']}.", "on its host: lbctl doctor")
    else:
        yield ok(f"{name} is ready.")
    yield from check_drops(name, lb["counters"]["dropped"])
    if refused := lb["counters"]["other"].get("ports_exhausted", 0):
        yield warn(
            f"{name} has refused {refused} connections because no translated port was left.",
            "the controller's log names the external IPs: give them more internal_ips, a larger port_range, or more "
            "servers",
        )
    if changed := lb["counters"]["other"].get("flows_put_right", 0):
        yield warn(
            f"{changed} flows of {name} were not as lbctl had ordered them, and have been put right since the "
            "controller started.",
            "somebody or something else changes the flows of its bridge: ovs-vsctl get-controller BRIDGE; the "
            "controller's log tells when, and in which tables",
        )
    if foreign := lb["foreign_flows"]:
        yield warn(
            f"{name} has {foreign} flows that are none of lbctl's: it leaves them alone, but they may come before its "
            "own.",
            "ovs-ofctl -O OpenFlow14 dump-flows BRIDGE | grep -v cookie=0x1b; then ovs-ofctl del-flows those",
        )
    if outward := lb["counters"]["other"].get("no_way_outside", 0):
        yield warn(
            f"Hosts inside have sent {outward} packets to the outside by {name}, and no NAT gateway has them among its "
            "inside hosts: they were refused.",
            "lbctl where HOST:PORT ADDRESS:PORT tells whose; an external IP with kind: nat-gateway and their addresses "
            "in inside lets them out (docs/nat.md)",
        )


def check_drops(whose: str, dropped: Mapping[str, int]) -> Iterator[Finding]:
    """Those about which something can be done. dropped: reason -> how many."""
    for reason, count in dropped.items():
        drop = DROPS.get(reason)
        if count and (drop is None or drop.mend):
            why = f"each {drop.subject}" if drop else "for a reason that this release of the command does not know"
            yield warn(f"{whose}: {count} dropped since the controller started ({reason}), {why}.",
                       (drop and drop.mend) or "docs/drops.md of the controller's release")


def check_health(lb: dict[str, Any]) -> Iterator[Finding]:
    """What other load balancers' probes say of its data path. One that is not connected has been told of already."""
    name, why = lb["name"], lb["health_reason"]
    if lb["health"] == "failed":
        yield fail(
            f"{name} has failed: {why}.", "mend that; it gets external IPs again by lbctl move, or if another one fails"
        )
    elif lb["health"] in ("unmanaged", "silent"):
        yield fail(
            f"{name}: {why}.", "lbctl status shows whether it is relieved; docs/failover.md tells what is waited for"
        )
    elif lb["health"] == "unwatched" and lb["state"] == "ready":
        yield warn(f"{name} is not watched: {why}.",
                   "load balancers need to reach each other's ports on both networks, see docs/failover.md")
