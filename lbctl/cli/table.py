"""lbctl table: the access table of a load balancer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from lbctl.cli import output
from lbctl.cli.client import Client

PAGE = 1000
COLUMNS = ("proto", "client", "external IP", "server", "state", "delta", "created", "last seen", "next hop")


def table(
    load_balancer: Annotated[str, typer.Argument(metavar="LB", help="Name of the load balancer.")],
    external_ip: Annotated[str | None, typer.Option(help="Only entries of this external IP.")] = None,
    client: Annotated[str | None, typer.Option(help="Only entries of this client address.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Print so many entries at most.")] = 100,
    all: Annotated[bool, typer.Option("--all", help="Print all entries, however many.")] = False,
    json: output.Json = False,
) -> None:
    """Show the access table: one entry for each connection."""
    wanted = None if all else limit
    entries: list[dict[str, Any]] = []
    total, more = 0, False
    for answer in _pages(Client.from_environment(), load_balancer, wanted, external_ip=external_ip, client=client):
        entries += answer["entries"]
        total, more = answer["total"], answer["next"] is not None
    if json:
        output.print_json({"entries": entries, "total": total, "complete": not more})
        return
    output.print_table("", COLUMNS, map(_row, entries), f"{load_balancer} has no such entries.")
    if more:
        output.remark(f"{len(entries)} entries of {total} shown; --all shows all, --limit another number.")


def _pages(api: Client, load_balancer: str, wanted: int | None, **query: Any) -> Iterator[dict[str, Any]]:
    """Pages until `wanted` entries (None: all) have come."""
    after, got = None, 0
    while True:
        limit = PAGE if wanted is None else min(PAGE, wanted - got)
        answer = api.get("load-balancers", load_balancer, "access-table", limit=limit, after=after, **query)
        yield answer
        after, got = answer["next"], got + len(answer["entries"])
        if after is None or got == wanted:
            return


def _row(entry: dict[str, Any]) -> tuple[object, ...]:
    return (entry["protocol"], f"{entry['client']}:{entry['client_port']}",
            f"{entry['external_ip']}:{entry['external_port']}", f"{entry['server']}:{entry['server_port']}",
            entry["state"], entry["delta"], output.local_time(entry["created"]), output.local_time(entry["last_seen"]),
            entry["next_hop"])
