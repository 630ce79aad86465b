"""lbctl scheduler: another scheduler for a service, at run time."""

from __future__ import annotations

from typing import Annotated

import typer

from lbctl.cli import output
from lbctl.cli.client import Client
from lbctl.cli.services import ExternalIpArgument, ServiceArgument, split_service
from lbctl.site.model import SCHEDULERS, SchedulerName


def scheduler(
    external_ip: ExternalIpArgument,
    service: ServiceArgument,
    name: Annotated[
        SchedulerName, typer.Argument(metavar="NAME", help=f"{', '.join(SCHEDULERS)}; see docs/schedulers.md.")
    ],
    json: output.Json = False,
) -> None:
    """Let a service choose servers by another scheduler; open connections stay."""
    protocol, port = split_service(service)
    view = Client.from_environment().patch(
        "external-ips", external_ip, "services", protocol, port, body={"scheduler": name}
    )
    if json:
        output.print_json(view)
        return
    in_file = view["site_file_scheduler"]
    lasts = "as in the site file" if name == in_file else f"until the site file says another than {in_file}"
    output.print_line(f"New connections to {external_ip} {service} choose by {name}, {lasts}.")
