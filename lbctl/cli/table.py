"""lbctl table: the access table of a load balancer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from lbctl.cli import output
from lbctl.cli.client import Client
from lbctl.site.model import Protocol
from lbctl.values.entry_states import EntryState

PAGE = 1000
COLUMNS = (
    "slice",
    "proto",
    "client",
    "external IP",
    "server",
    "internal IP",
    "state",
    "packets",
    "bytes",
    "created",
    "last seen",
)
WIDE_COLUMNS = ("delta", "next hop")


def table(
    load_balancer: Annotated[str, typer.Argument(metavar="LB", help="Name of the load balancer.")],
    external_ip: Annotated[str | None, typer.Option(help="Only entries of this external IP.")] = None,
    client: Annotated[str | None, typer.Option(help="Only entries of this client address, and of slices.")] = None,
    client_port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Only entries of this client port, and of slices that it is in."),
    ] = None,
    server: Annotated[str | None, typer.Option(help="Only entries of this server (of this inside host).")] = None,
    state: Annotated[EntryState | None, typer.Option(help="Only entries in this state.")] = None,
    protocol: Annotated[Protocol | None, typer.Option(help="Only entries of this protocol.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Print so many entries at most.")] = 100,
    all: Annotated[bool, typer.Option("--all", help="Print all entries, however many.")] = False,
    wide: Annotated[bool, typer.Option("--wide", help="Print all columns.")] = False,
    json: output.Json = False,
) -> None:
    """Show the access table: an entry for each connection, and for each slice of sliced services."""
    wanted = None if all else limit
    entries: list[dict[str, Any]] = []
    total, more = 0, False
    query = {"external_ip": external_ip, "client": client, "client_port": client_port, "server": server,
             "state": state, "protocol": protocol}
    for answer in _pages(Client.from_environment(), load_balancer, wanted, **query):
        entries += answer["entries"]
        total, more = answer["total"], answer["next"] is not None
    if json:
        output.print_json({"entries": entries, "total": total, "complete": not more})
        return
    columns = COLUMNS + (WIDE_COLUMNS if wide else ())
    rows = ([cells[column] for column in columns] for cells in map(_row, entries))
    output.print_table("", columns, rows, f"{load_balancer} has no such entries.", optional=("slice", "internal IP"))
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


def _row(entry: dict[str, Any]) -> dict[str, object]:
    """By column."""
    return {
        "slice": None if entry["slice"] is None else str(entry["slice"]),
        "proto": entry["protocol"],
        "state": entry["state"],
        "packets": entry["packets"],
        "bytes": entry["bytes"],
        "client": _client(entry),
        "external IP": _endpoint(entry, "external_ip", "external_port"),
        "server": _endpoint(entry, "server", "server_port"),
        "internal IP": _endpoint(entry, "internal_ip", "internal_port"),
        "created": output.local_time(entry["created"]),
        "last seen": output.local_time(entry["last_seen"]),
        "delta": entry["delta"],
        "next hop": entry["next_hop"],
    }


def _client(entry: dict[str, Any]) -> str | None:
    return f"{entry['client']}:{entry['client_ports']}" if entry["client_ports"] else _endpoint(
        entry, "client", "client_port")


def _endpoint(entry: dict[str, Any], address: str, port: str) -> str | None:
    return output.endpoint(entry[address], entry[port]) if entry[address] else None
