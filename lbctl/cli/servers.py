"""lbctl server: the servers of services, and which they are, at run time."""

from __future__ import annotations

from typing import Any

import typer

from lbctl.cli import output
from lbctl.cli.client import Client
from lbctl.cli.options import changes, told, with_changes, with_options
from lbctl.cli.services import (
    ExternalIpArgument,
    OnlyExternalIp,
    OnlyService,
    ServerArgument,
    ServiceArgument,
    external_ips,
    failing_open,
    former_servers,
    servers,
    split_server,
    split_service,
)
from lbctl.site.keys import keys_of
from lbctl.site.model import Server as SiteServer

COLUMNS = ("external IP", "service", "server", "state", "connections", "slices", "limit", "weight", "reached", "remark")
ADDED = [each for each in keys_of(SiteServer) if each.name not in ("address", "port")]
"""The keys of the site file that a server may be added with, besides those that its argument says."""
CHANGED = [each for each in ADDED if each.key.changeable]

app = typer.Typer(
    no_args_is_help=True, help="The servers of services, and which they are, at run time: docs/servers.md."
)


@app.command("list")
def show(external_ip: OnlyExternalIp = None, service: OnlyService = None, json: output.Json = False) -> None:
    """Show servers: which take connections, and how many they have."""
    views = external_ips(Client.from_environment(), external_ip)
    found = servers(views, service)
    former = former_servers(views) if service is None else []
    if json:
        output.print_json({"servers": [each.json for each in found], "former_servers": former})
        return
    rows: list[tuple[object, ...]] = [
        (each.external_ip, each.service, each.name, each.view["state"], each.view["connections"], _slices(each.view),
         each.view["max_connections"], each.view["weight"], _way(each.view), _remark(each.view))
        for each in found]
    rows += [(each["external_ip"], None, each["address"], "removed", each["connections"], None, None, None, _way(each),
              None)
             for each in former]
    output.print_table("", COLUMNS, rows, "No servers.", optional=("slices", "limit", "remark"))
    for name, why in failing_open(views, service):
        output.print_line(f"{name} serves in spite of its health checks: {why}.")


@app.command("add")
@with_options(ADDED)
def add(
    external_ip: ExternalIpArgument,
    service: ServiceArgument,
    server: ServerArgument,
    json: output.Json = False,
    **given: Any,
) -> None:
    """Give a service one more server, until the site file says something else about its servers."""
    address, port = split_server(server)
    body = {"address": address, "port": port, **{name: value for name, value in given.items() if value is not None}}
    view = Client.from_environment().post(*_servers(external_ip, service), body=body)
    if json:
        output.print_json(view)
    else:
        output.print_line(
            f"{external_ip} {service} has the server {server}, until the site file says something else about its "
            f"servers."
        )


@app.command("remove")
def remove(
    external_ip: ExternalIpArgument, service: ServiceArgument, server: ServerArgument, json: output.Json = False
) -> None:
    """Take a server out of a service; its open connections stay."""
    rest = Client.from_environment().delete(*_servers(external_ip, service), _name(server))
    if json:
        output.print_json(rest)
    else:
        output.print_line(
            f"{external_ip} {service} does without {server}, until the site file says something else about its "
            f"servers; "
            "connections that are open go on until they end."
        )


@app.command("change")
@with_changes(CHANGED)
def change(
    external_ip: ExternalIpArgument,
    service: ServiceArgument,
    server: ServerArgument,
    json: output.Json = False,
    **given: Any,
) -> None:
    """Change what a server is given; open connections stay."""
    view = Client.from_environment().patch(*_servers(external_ip, service), _name(server), body=changes(CHANGED, given))
    if json:
        output.print_json(view)
    else:
        output.print_line(f"{server} of {external_ip} {service}: {told(CHANGED, view)}.")


def _servers(external_ip: str, service: str) -> tuple[str, ...]:
    protocol, port = split_service(service)
    return "external-ips", external_ip, "services", protocol, port, "servers"


def _name(server: str) -> str:
    return output.endpoint(*split_server(server))


def _slices(view: dict[str, Any]) -> str | None:
    """Of a sliced service's server: how many, and the part that they are beside the exact one."""
    if view["slices"] is None:
        return None
    return f"{view['slices']} ({view['share']:.1%}, by weight {view['ideal_share']:.1%})"


def _way(view: dict[str, Any]) -> str:
    way = f"by {view['tunnel']['transport']}" if view["tunnel"] else ""
    if view["next_hop"]:
        way += f" via {view['next_hop']}"
    return way.strip() or "directly"


def _remark(view: dict[str, Any]) -> str | None:
    """What is wrong with it; a drained one may be down as well."""
    if view["reason"]:
        return f"down since {output.local_time(view['since'])}: {view['reason']}"
    return None if view["mac"] else output.unfound(view["next_hop"] or view["address"])
