"""Who has the slices of sliced services, as JSON values, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from typing import Any, NamedTuple

from lbctl.site.documents import endpoint_of
from lbctl.site.model import ServiceName
from lbctl.values.addresses import Address, Endpoint


class SavedSlices(NamedTuple):
    """Of one service. owners: the server of each slice (None: nobody); before: the old servers of those that are
    changing hands. by_client: see Service; router: that of its external IP."""

    owners: tuple[Endpoint | None, ...]
    before: dict[int, Endpoint]
    by_client: bool = False
    router: Address | None = None


def rows_of(slices: Mapping[ServiceName, SavedSlices]) -> list[dict[str, Any]]:
    """One for each service. A slice names its server by its place in the list of servers, -1: nobody."""
    rows = []
    for name, saved in slices.items():
        servers = sorted({*filter(None, saved.owners), *saved.before.values()}, key=str)
        numbers = {server: number for number, server in enumerate(servers)}
        rows.append({
            "external_ip": str(name.external_ip),
            "protocol": name.protocol,
            "port": name.port,
            "servers": [str(server) for server in servers],
            "owners": [numbers[owner] if owner else -1 for owner in saved.owners],
            "before": {str(number): numbers[server] for number, server in saved.before.items()},
            "by_client": saved.by_client,
            "router": str(saved.router) if saved.router else None,
        })
    return rows


def slices_of(rows: Sequence[Mapping[str, Any]]) -> dict[ServiceName, SavedSlices]:
    """Raises KeyError, IndexError, TypeError, ValueError or AttributeError if that is not what rows_of gives."""
    found = {}
    for row in rows:
        servers = [endpoint_of(server) for server in row["servers"]]
        name = ServiceName(ip_address(row["external_ip"]), str(row["protocol"]), int(row["port"]))
        found[name] = SavedSlices(
            tuple(servers[number] if number >= 0 else None for number in row["owners"]),
            {int(number): servers[server] for number, server in row["before"].items()},
            bool(row.get("by_client")),
            ip_address(row["router"]) if row.get("router") else None,
        )
    return found
