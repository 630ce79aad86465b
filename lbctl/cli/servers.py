"""lbctl server: the servers of services, and which they are, at run time."""

from __future__ import annotations

import enum
from typing import Annotated, Any

import typer

from lbctl.cli import output
from lbctl.cli.client import Client
from lbctl.cli.services import (
    ExternalIp,
    OnlyExternalIp,
    OnlyService,
    Server,
    Service,
    external_ips,
    former_servers,
    servers,
    split_server,
    split_service,
)
from lbctl.site.model import MAX_CONNECTIONS, MAX_WEIGHT, TRANSPORTS

COLUMNS = ("external IP", "service", "server", "state", "connections", "limit", "weight", "reached", "remark")
Transport = enum.Enum("Transport", {name: name for name in TRANSPORTS})
Limit = Annotated[int | None, typer.Option("--max-connections", min=1, max=MAX_CONNECTIONS,
                                           help="It gets no new connection while it has so many.")]

app = typer.Typer(no_args_is_help=True, help="The servers of services, and which they are, at run time: docs/servers.md.")


@app.command("list")
def show(external_ip: OnlyExternalIp = None, service: OnlyService = None, json: output.Json = False) -> None:
    """Show servers: which take connections, and how many they have."""
    views = external_ips(Client.from_environment(), external_ip)
    found = servers(views, service)
    former = former_servers(views) if service is None else []
    if json:
        output.print_json({"servers": [each.json for each in found], "former_servers": former})
        return
    rows = [(each.external_ip, each.service, each.name, each.view["state"], each.view["connections"], each.view["max_connections"],
             each.view["weight"], _way(each.view), _remark(each.view)) for each in found]
    rows += [(each["external_ip"], None, each["address"], "removed", each["connections"], None, None, _way(each), None) for each in former]
    output.print_table("", COLUMNS, rows, "No servers.", optional=("limit", "remark"))


@app.command("add")
def add(
    external_ip: ExternalIp, service: Service, server: Server,
    weight: Annotated[int, typer.Option(min=1, max=MAX_WEIGHT, help="Counts with every scheduler but round-robin.")] = 1,
    max_connections: Limit = None,
    next_hop: Annotated[str | None, typer.Option(help="The router on the internal network that it is behind.")] = None,
    transport: Annotated[Transport | None, typer.Option(help="The tunnel that it is behind.")] = None,
    remote: Annotated[str | None, typer.Option(help="The tunnel's other end.")] = None,
    key: Annotated[int | None, typer.Option(min=0, help="The tunnel's VNI or key.")] = None,
    mtu: Annotated[int | None, typer.Option(min=1, help="Bytes that an IP packet in the tunnel may have.")] = None,
    json: output.Json = False,
) -> None:
    """Give a service one more server, until the site file says something else about its servers."""
    address, port = split_server(server)
    options = {"max_connections": max_connections, "next_hop": next_hop, "transport": transport and transport.value, "remote": remote,
               "key": key, "mtu": mtu}
    body = {"address": address, "port": port, "weight": weight, **{name: value for name, value in options.items() if value is not None}}
    view = Client.from_environment().post(*_servers(external_ip, service), body=body)
    if json:
        output.print_json(view)
    else:
        output.print_line(f"{external_ip} {service} has the server {server}, until the site file says something else about its servers.")


@app.command("remove")
def remove(external_ip: ExternalIp, service: Service, server: Server, json: output.Json = False) -> None:
    """Take a server out of a service; its open connections stay."""
    rest = Client.from_environment().delete(*_servers(external_ip, service), _name(server))
    if json:
        output.print_json(rest)
    else:
        output.print_line(f"{external_ip} {service} does without {server}, until the site file says something else about its servers; "
                          "connections that are open go on until they end.")


@app.command("change")
def change(
    external_ip: ExternalIp, service: Service, server: Server,
    weight: Annotated[int | None, typer.Option(min=1, max=MAX_WEIGHT, help="Counts with every scheduler but round-robin.")] = None,
    max_connections: Limit = None,
    no_limit: Annotated[bool, typer.Option("--no-limit", help="Take its max_connections away.")] = False,
    json: output.Json = False,
) -> None:
    """Change a server's weight or limit; open connections stay."""
    if no_limit and max_connections is not None:
        raise typer.BadParameter("--max-connections and --no-limit exclude each other", param_hint="--no-limit")
    body: dict[str, Any] = {} if weight is None else {"weight": weight}
    if no_limit or max_connections is not None:
        body["max_connections"] = max_connections
    if not body:
        raise typer.BadParameter("nothing is to be changed: give --weight, --max-connections or --no-limit", param_hint="--weight")
    view = Client.from_environment().patch(*_servers(external_ip, service), _name(server), body=body)
    if json:
        output.print_json(view)
    else:
        limit = "no limit" if view["max_connections"] is None else f"at most {view['max_connections']} connections"
        output.print_line(f"{server} of {external_ip} {service}: weight {view['weight']}, {limit}.")


def _servers(external_ip: str, service: str) -> tuple[str, ...]:
    protocol, port = split_service(service)
    return "external-ips", external_ip, "services", protocol, port, "servers"


def _name(server: str) -> str:
    return output.endpoint(*split_server(server))


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
