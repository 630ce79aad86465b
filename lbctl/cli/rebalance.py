"""lbctl rebalance and drain: see what an assignment by the measured loads would be, and carry it out."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from lbctl.cli import output
from lbctl.cli.client import Client
from lbctl.cli.move import INTERVAL
from lbctl.site.model import ALGORITHMS, PACKETS_PER_CONNECTION

Wait = Annotated[bool, typer.Option("--wait", help="Wait for the end of the moves; fail if they were stopped.")]


def rebalance(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show the plan.")] = False,
    algorithm: Annotated[str | None, typer.Option(help=f"One of: {', '.join(ALGORITHMS)}.")] = None,
    wait: Wait = False,
    json: output.Json = False,
) -> None:
    """Assign the external IPs anew, by the loads of now."""
    body: dict[str, Any] = {"dry_run": dry_run}
    if algorithm:
        body["algorithm"] = algorithm
    client = Client.from_environment()
    _show(client, client.post("rebalance", body=body), wait, json)


def drain(
    load_balancer: Annotated[str, typer.Argument(metavar="LB", help="The load balancer that is to be empty.")],
    undo: Annotated[bool, typer.Option("--undo", help="Allow its use again; nothing moves by that.")] = False,
    wait: Wait = False,
    json: output.Json = False,
) -> None:
    """Move all external IPs away from a load balancer, and keep it empty."""
    client = Client.from_environment()
    plan = client.post("load-balancers", load_balancer, "drain", body={"undo": undo})
    if undo and not json:
        output.print_line(f"{load_balancer} may be used again. `lbctl rebalance` would do this:\n")
    _show(client, plan, wait, json)


def _show(client: Client, plan: dict[str, Any], wait: bool, json: bool) -> None:
    while wait and plan["state"] == "running":
        time.sleep(INTERVAL)
        plan = client.get("rebalance")
    if json:
        output.print_json(plan)
    else:
        output.print_table(
            "Load for capacity",
            ("load balancer", "before", "after"),
            [(name, f"{plan['before'][name]:.1f}", f"{plan['after'].get(name, 0.0):.1f}") for name in plan["before"]],
            "",
        )
        output.print_line()
        output.print_table(
            "Moves",
            ("external IP", "from", "to", "entries"),
            [(move["external_ip"], move["from"], move["to"], move["entries"]) for move in plan["moves"]],
            "Nothing to move.",
        )
        best = "optimal" if plan["optimal"] else "not proved to be optimal"
        reason = f": {plan['reason']}" if plan["reason"] else ""
        output.print_line(
            f"\nLoads are in packets/s, of which a new connection counts as {PACKETS_PER_CONNECTION:.0f}."
        )
        output.print_line(f"{plan['algorithm']}, {best}; {plan['state']}{reason}.")
    if plan["state"] == "stopped":
        raise typer.Exit(1)
