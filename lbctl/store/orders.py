"""Orders for services as JSON values, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_address
from typing import Any

from lbctl.site.model import SCHEDULERS, Instead, Server, ServiceName, ServiceOrder
from lbctl.site.server_documents import document_of, endpoint_of, server_of
from lbctl.values.protocols import PROTOCOL_NUMBERS


def rows_of(orders: Mapping[ServiceName, ServiceOrder]) -> list[dict[str, Any]]:
    """One for each service."""
    return [{"external_ip": str(name.external_ip), "protocol": name.protocol, "port": name.port,
             "scheduler": _row(order.scheduler, str), "servers": _row(order.servers, lambda servers: list(map(document_of, servers))),
             "drained": sorted(map(str, order.drained))} for name, order in orders.items()]


def orders_of(rows: Sequence[Mapping[str, Any]]) -> dict[ServiceName, ServiceOrder]:
    """Raises KeyError, TypeError, ValueError or AttributeError if that is not what rows_of gives."""
    return {_name(row): ServiceOrder(_instead(row["scheduler"], _scheduler), _instead(row["servers"], _servers),
                                     frozenset(map(endpoint_of, row["drained"]))) for row in rows}


def _row(instead: Instead | None, to_json: Callable[[Any], Any]) -> dict[str, Any] | None:
    return instead and {field: to_json(value) for field, value in instead._asdict().items()}


def _instead(row: Mapping[str, Any] | None, from_json: Callable[[Any], Any]) -> Instead | None:
    return None if row is None else Instead(from_json(row["wanted"]), from_json(row["instead_of"]))


def _name(row: Mapping[str, Any]) -> ServiceName:
    if row["protocol"] not in PROTOCOL_NUMBERS:
        raise ValueError(f"unknown protocol {row['protocol']}")
    return ServiceName(ip_address(row["external_ip"]), row["protocol"], int(row["port"]))


def _scheduler(name: str) -> str:
    if name not in SCHEDULERS:
        raise ValueError(f"unknown scheduler {name}")
    return name


def _servers(documents: Sequence[Mapping[str, Any]]) -> tuple[Server, ...]:
    if not documents:
        raise ValueError("a service without servers")
    return tuple(map(server_of, documents))
