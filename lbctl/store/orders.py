"""Orders for services as JSON values, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_address
from typing import Any, TypeVar

from lbctl.site.documents import document_of, endpoint_of, server_of
from lbctl.site.keys import keys_of
from lbctl.site.model import EntryKind, Instead, SchedulerName, Server, Service, ServiceName, ServiceOrder

Ordered = TypeVar("Ordered")
_FORMS = {each.name: each.form for each in keys_of(Service)}


def rows_of(orders: Mapping[ServiceName, ServiceOrder]) -> list[dict[str, Any]]:
    """One for each service."""
    return [
        {
            "external_ip": str(name.external_ip),
            "protocol": name.protocol,
            "port": name.port,
            "scheduler": _row(order.scheduler, str),
            "servers": _row(order.servers, lambda servers: list(map(document_of, servers))),
            "drained": sorted(map(str, order.drained)),
            "entries": _row(order.entries, str),
        }
        for name, order in orders.items()
    ]


def orders_of(rows: Sequence[Mapping[str, Any]]) -> dict[ServiceName, ServiceOrder]:
    """Raises KeyError, TypeError, ValueError or AttributeError if that is not what rows_of gives."""
    return {_name(row): ServiceOrder(_instead(row["scheduler"], _scheduler), _instead(row["servers"], _servers),
                                     frozenset(map(endpoint_of, row["drained"])),
                                     _instead(row.get("entries"), _entries)) for row in rows}


def _row(instead: Instead[Ordered] | None, to_json: Callable[[Ordered], object]) -> dict[str, object] | None:
    return instead and {"wanted": to_json(instead.wanted), "instead_of": to_json(instead.instead_of)}


def _instead(row: Mapping[str, Any] | None, from_json: Callable[[Any], Ordered]) -> Instead[Ordered] | None:
    return None if row is None else Instead(from_json(row["wanted"]), from_json(row["instead_of"]))


def _name(row: Mapping[str, Any]) -> ServiceName:
    return ServiceName(
        ip_address(row["external_ip"]), _FORMS["protocol"].value(row["protocol"]), _FORMS["port"].value(row["port"])
    )


def _scheduler(name: str) -> SchedulerName:
    scheduler: SchedulerName = _FORMS["scheduler"].value(name)
    return scheduler


def _entries(kind: str) -> EntryKind:
    entries: EntryKind = _FORMS["entries"].value(kind)
    return entries


def _servers(documents: Sequence[Mapping[str, Any]]) -> tuple[Server, ...]:
    if not documents:
        raise ValueError("a service without servers")
    return tuple(map(server_of, documents))
