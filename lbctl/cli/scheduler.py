"""lbctl scheduler and lbctl entries: another scheduler for a service, or other entries, at run time."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from lbctl.cli import output
from lbctl.cli.client import Client
from lbctl.cli.services import ExternalIpArgument, ServiceArgument, split_service
from lbctl.site.model import ENTRY_KINDS, SCHEDULERS, EntryKind, SchedulerName


def scheduler(
    external_ip: ExternalIpArgument,
    service: ServiceArgument,
    name: Annotated[
        SchedulerName, typer.Argument(metavar="NAME", help=f"{', '.join(SCHEDULERS)}; see docs/schedulers.md.")
    ],
    json: output.Json = False,
) -> None:
    """Let a service choose servers by another scheduler; open connections stay."""
    view = _changed(external_ip, service, {"scheduler": name})
    if json:
        output.print_json(view)
        return
    in_file = view["site_file_scheduler"]
    lasts = "as in the site file" if name == in_file else f"until the site file says another than {in_file}"
    output.print_line(f"New connections to {external_ip} {service} choose by {name}, {lasts}.")


def entries(
    external_ip: ExternalIpArgument,
    service: ServiceArgument,
    kind: Annotated[EntryKind, typer.Argument(metavar="KIND", help=f"{' or '.join(ENTRY_KINDS)}; see docs/slices.md.")],
    json: output.Json = False,
) -> None:
    """Give a service entries by connection, or slices; open connections stay."""
    view = _changed(external_ip, service, {"entries": kind})
    if json:
        output.print_json(view)
        return
    in_file = view["site_file_entries"]
    lasts = "as in the site file" if kind == in_file else f"until the site file says something else than {in_file}"
    output.print_line(f"{external_ip} {service} has entries: {kind}, {lasts}.")


def _changed(external_ip: str, service: str, body: dict[str, str]) -> dict[str, Any]:
    """The service, after what is ordered for it."""
    protocol, port = split_service(service)
    view: dict[str, Any] = Client.from_environment().patch(
        "external-ips", external_ip, "services", protocol, port, body=body
    )
    return view
