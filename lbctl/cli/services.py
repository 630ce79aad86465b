"""What commands about services and servers have in common: their arguments, and how they find what these mean."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Annotated, Any, NamedTuple

import typer

from lbctl.cli.client import Client
from lbctl.cli.failure import Failure
from lbctl.cli.output import endpoint
from lbctl.site.documents import endpoint_of

ExternalIpArgument = Annotated[str, typer.Argument(metavar="IP", help="The external IP.")]
ServiceArgument = Annotated[str, typer.Argument(metavar="PROTOCOL/PORT", help="Its service, such as tcp/80.")]
ServerArgument = Annotated[
    str, typer.Argument(metavar="ADDRESS:PORT", help="The server, such as 10.0.0.11:80 or [fd00::11]:80.")
]
OnlyExternalIp = Annotated[str | None, typer.Option("--external-ip", help="Only of this external IP.")]
OnlyService = Annotated[
    str | None, typer.Option("--service", metavar="PROTOCOL/PORT", help="Only of this service, such as tcp/80.")
]


class FoundServer(NamedTuple):
    """A server of a service, as the API shows it in `view`."""

    external_ip: str
    protocol: str
    port: int
    view: dict[str, Any]

    @property
    def name(self) -> str:
        return endpoint(self.view["address"], self.view["port"])

    @property
    def service(self) -> str:
        return f"{self.protocol}/{self.port}"

    @property
    def path(self) -> tuple[str, ...]:
        return ("external-ips", self.external_ip, "services", self.protocol, str(self.port), "servers", self.name)

    @property
    def json(self) -> dict[str, Any]:
        return {"external_ip": self.external_ip, "protocol": self.protocol, "service_port": self.port, **self.view}


def split_service(text: str) -> tuple[str, str]:
    """PROTOCOL and PORT. Raises BadParameter."""
    protocol, slash, port = text.partition("/")
    if not (protocol and slash and port):
        raise typer.BadParameter(
            f"{text!r} is no service: give PROTOCOL/PORT, such as tcp/80", param_hint="PROTOCOL/PORT"
        )
    return protocol, port


def split_server(text: str) -> tuple[str, int]:
    """Address and port. Raises BadParameter."""
    try:
        found = endpoint_of(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="ADDRESS:PORT") from None
    return str(found.address), found.port


def external_ips(client: Client, external_ip: str | None = None) -> list[dict[str, Any]]:
    """All, as the API shows them, or the one. Raises Failure if it does not exist."""
    return [client.get("external-ips", external_ip)] if external_ip else client.get("external-ips")["external_ips"]


def servers(views: list[dict[str, Any]], service: str | None = None) -> list[FoundServer]:
    """The servers of these external IPs' services, or of the one."""
    wanted = "/".join(split_service(service)) if service else None
    return [FoundServer(ip["address"], of["protocol"], of["port"], server) for ip in views for of in ip["services"]
            if wanted in (None, f"{of['protocol']}/{of['port']}") for server in of["servers"]]


def failing_open(views: list[dict[str, Any]], service: str | None = None) -> list[tuple[str, str]]:
    """The services (or the one) that serve though their health checks say no, and why."""
    wanted = "/".join(split_service(service)) if service else None
    named = [(ip["address"], f"{of['protocol']}/{of['port']}", of["fails_open"]) for ip in views
             for of in ip["services"]]
    return [(f"{address} {name}", why) for address, name, why in named if why and wanted in (None, name)]


def former_servers(views: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The servers that these external IPs' services do not have any more and that have connections still."""
    return [{"external_ip": ip["address"], **server} for ip in views for server in ip["former_servers"]]


def find_server(client: Client, server: str, external_ip: str | None, service: str | None) -> list[FoundServer]:
    """That server, wherever it is: ADDRESS or ADDRESS:PORT. Raises Failure if it is nowhere, BadParameter if it is
    neither."""
    try:
        address, port = str(ip_address(server)), None
    except ValueError:
        address, port = split_server(server)
    everywhere = servers(external_ips(client, external_ip), service)
    found = [each for each in everywhere if each.view["address"] == address and port in (None, each.view["port"])]
    if not found:
        known = ", ".join(dict.fromkeys(each.name for each in everywhere))
        raise Failure(
            f"There is no server {server} there; there are: {known}." if known else "There is no such service."
        )
    return found
