"""The rules for sliced services (docs/slices.md): of a site file, or with what is ordered at run time."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from lbctl.site.file.loader import Draft
from lbctl.site.file.yaml_reader import Reader
from lbctl.site.model import ExternalIp, Service
from lbctl.values.addresses import Address, Endpoint

_TURNS = "take round-robin or weighted-round-robin"
_UNFIT = {
    "least-connections": f"nobody counts the connections of a slice: {_TURNS}, or entries: connections",
    "source-hash": "take affinity: client for one server for each client, and round-robin or weighted-round-robin",
    "maglev": f"slices stay with their servers by themselves when others come and go: {_TURNS}",
}
"""The schedulers that slices can't follow."""
_FULL_NAT = (
    "entries: slices needs nat: destination, or none: full NAT gives each connection a port of its own, so each needs "
    "its entry"
)
_SLOW_START = (
    "a sliced service can't have slow_start: a server gets its share of the slices at once. Remove it, or take "
    "entries: connections"
)
_DIRECT = (
    "with nat: none a service needs entries: slices: nobody sees what its servers answer, so nobody can tell when a "
    "connection has ended"
)
_LIMITED = (
    "a sliced service's server can't have max_connections, since nobody counts the connections of a slice: "
    "remove it and give weights, or take entries: connections"
)


def check_sliced(external_ip: Draft, reader: Reader) -> None:
    """Of an external IP's services, and what there is for them."""
    services = external_ip.parts("services")
    sliced = [service for service in services if service.word("entries") == "slices"]
    for service in sliced:
        _check(service, external_ip, reader)
    for service in services:
        if service not in sliced and service.word("affinity") == "client" and not service.unread("entries"):
            reader.problem(
                service.nodes["affinity"],
                "affinity: client is for sliced services (entries: slices): with entries by connection, scheduler: "
                "source-hash does it",
            )
    if external_ip.word("nat") == "none":
        for service in services:
            _check_direct(service, sliced, reader)
    if sliced:
        _check_apart(services, reader)
    elif _has_idle_router(external_ip, services):
        reader.problem(
            external_ip.nodes["router"],
            "router has no meaning here: clients are answered to where their packets came from. It is for sliced "
            "services (entries: slices) and kind: nat-gateway: remove it",
        )


def check_routers(external_ips: Iterable[Draft], reader: Reader) -> None:
    """Of all external IPs: packets from a router that is known are not looked at one by one, so it has to be known to
    all whose clients it may carry."""
    with_router: dict[int, Address] = {}
    for external_ip in sorted(external_ips, key=lambda each: "router" not in each.nodes):
        address = external_ip.address("address")
        if address is None or not any(each.word("entries") == "slices" for each in external_ip.parts("services")):
            continue
        if external_ip.word("nat") == "none":
            continue  # its servers know the way to its clients
        if "router" in external_ip.nodes:
            with_router.setdefault(address.version, address)
        elif address.version in with_router:
            reader.problem(external_ip.node, _no_router(address, with_router[address.version]))


def _has_idle_router(external_ip: Draft, services: list[Draft]) -> bool:
    return (
        "router" in external_ip.nodes
        and external_ip.word("kind") != "nat-gateway"
        and not external_ip.unread("services")
        and not any(service.unread("entries") for service in services)
    )


def _check(service: Draft, external_ip: Draft, reader: Reader) -> None:
    if external_ip.word("nat") == "full":
        reader.problem(service.nodes["entries"], _FULL_NAT)
    if reason := unfit_scheduler(service.word("scheduler")):
        reader.problem(service.nodes["scheduler"], reason)
    if service.values.get("slow_start"):
        reader.problem(service.nodes["slow_start"], _SLOW_START)
    for server in service.parts("servers"):
        if "max_connections" in server.values:
            reader.problem(server.nodes["max_connections"], _LIMITED)


def _check_direct(service: Draft, sliced: list[Draft], reader: Reader) -> None:
    """Of an external IP with `nat: none`."""
    if service not in sliced and not service.unread("entries"):
        reader.problem(service.node, _DIRECT)
    for server in service.parts("servers"):
        port = service.number("port")
        if port is not None and server.number("port") not in (None, port):
            reader.problem(server.nodes["port"], _other_port(port))


def _check_apart(services: list[Draft], reader: Reader) -> None:
    """Of the services of an external IP, some of them sliced."""
    first: dict[tuple[str | None, Endpoint], Draft] = {}
    for service in services:
        for server in service.parts("servers"):
            address, port = server.address("address"), server.number("port")
            if address is None or port is None:
                continue
            endpoint = Endpoint(address, port)
            other = first.setdefault((service.word("protocol"), endpoint), service)
            if other is not service and "slices" in (service.word("entries"), other.word("entries")):
                reader.problem(server.node, _shared(endpoint, f"{other.word('protocol')}/{other.number('port')}"))


def unfit_scheduler(scheduler: str | None) -> str | None:
    """Why slices can't follow it, and what to do. None: they can."""
    reason = _UNFIT.get(scheduler or "")
    return f"a sliced service can't have scheduler: {scheduler}: {reason}" if reason else None


def unfit_entries(external_ip: ExternalIp, service: Service) -> str | None:
    """Why that service of an external IP can't have the kind of entries that it is to have, and what to do."""
    if not service.sliced:
        return _DIRECT if external_ip.direct else None
    if external_ip.nat == "full":
        return _FULL_NAT
    if service.slow_start:
        return _SLOW_START
    return unfit_scheduler(service.scheduler) or unfit_servers(external_ip, service, external_ip.services)


def without_router(external_ip: ExternalIp, external_ips: Iterable[ExternalIp]) -> str | None:
    """What check_routers finds of that external IP, which may have got sliced services."""
    if external_ip.router or external_ip.direct or not any(service.sliced for service in external_ip.services):
        return None
    other = next((each for each in external_ips if each.address.version == external_ip.address.version and each.router
                  and any(service.sliced for service in each.services)), None)
    return _no_router(external_ip.address, other.address) if other else None


def unfit_servers(external_ip: ExternalIp, service: Service, apart: Collection[Service]) -> str | None:
    """What is wrong with the servers of that service of an external IP. apart: the services there that they are
    compared with."""
    if external_ip.direct and any(server.port != service.port for server in service.servers):
        return _other_port(service.port)
    if service.sliced and any(server.max_connections is not None for server in service.servers):
        return _LIMITED
    endpoints = {server.endpoint for server in service.servers}
    for other in apart:
        if other is service or other.protocol != service.protocol or not (other.sliced or service.sliced):
            continue
        for server in other.servers:
            if server.endpoint in endpoints:
                return _shared(server.endpoint, f"{other.protocol}/{other.port}")
    return None


def _no_router(address: Address, other: Address) -> str:
    return (
        f"{address} has sliced services and no router, which {other} has: name the router of its clients as well, or "
        "that of no external IP with sliced services (docs/slices.md)"
    )


def _other_port(port: int) -> str:
    return f"with nat: none a server gets packets as clients send them: its port is the service's, {port}"


def _shared(endpoint: Endpoint, service: str) -> str:
    return (
        f"server {endpoint} is already in the service {service} of this external IP, and one of the two is sliced: "
        "from a server's answer nobody could tell which it belongs to. Let the server listen on another port for "
        "one of them"
    )
