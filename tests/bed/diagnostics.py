"""What one wants to see of a bed when a test fails."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from pathlib import Path

from tests.bed.balancer import BalancerNode
from tests.bed.controller import Controller
from tests.bed.namespaces import wake
from tests.bed.ovs import OvsError
from tests.bed.patience import limit
from tests.bed.processes import CommandFailed

DUMP_LINES = 150


def diagnostics(controller: Controller, nodes: Collection[BalancerNode]) -> str:
    """The state of a bed's controller and LBs, as text.

    It has the end of the controller's log, all moves, and what was dropped; and for each LB its flows and the end of
    ovs-vswitchd's log.
    """
    wake(node.space for node in nodes)  # an LB that a test has stopped tells nothing
    parts = [
        ("controller's log", controller.log_tail()),
        ("moves", _told(lambda: controller.rest("GET", "/v1/moves", timeout=limit(2.0)).text)),
        ("dropped", _told(lambda: _dropped(controller, nodes))),
    ]
    for node in nodes:
        name = node.lb.name
        parts += [(f"flows of {name}", _flows(node)), (f"ovs-vswitchd of {name}", _tail(node.ovs.log_file, 15))]
    return "\n".join(f"=== {title}\n{text}" for title, text in parts)


def receive_queue_drops(nodes: Collection[BalancerNode]) -> dict[str, int]:
    """LB -> packets that the receive queues of its ports had no room for since they were opened.

    It counts with the userspace datapath only.
    """
    sockets = {node.lb.name: node.space.run("ss", "--packet", "--memory") for node in nodes}
    return {name: sum(map(int, re.findall(r",d(\d+)\)", said))) for name, said in sockets.items()}


def _dropped(controller: Controller, nodes: Collection[BalancerNode]) -> str:
    balancers = controller.rest("GET", "/v1/load-balancers", timeout=limit(2.0)).json["load_balancers"]
    by_controller = {
        lb["name"]: {key: value for key, value in lb["counters"]["dropped"].items() if value} for lb in balancers
    }
    return (f"by the controller: {by_controller}\n"
            f"by receive queues that were full: {receive_queue_drops(nodes)}")


def _told(ask: Callable[[], str]) -> str:
    try:
        return ask()
    except Exception as error:
        return f"(no answer: {error!r})"


def _flows(node: BalancerNode) -> str:
    try:
        lines = node.ovs.ofctl("dump-flows", node.bridge, timeout=limit(2.0)).splitlines()
    except (OvsError, CommandFailed) as error:
        return str(error)
    more = [f"... and {len(lines) - DUMP_LINES} more"] if len(lines) > DUMP_LINES else []
    return "\n".join(lines[:DUMP_LINES] + more)


def _tail(path: Path, lines: int) -> str:
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    except OSError as error:
        return str(error)
