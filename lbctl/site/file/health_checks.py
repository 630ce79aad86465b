"""The rules for how a service's servers are checked (docs/health-checks.md)."""

from __future__ import annotations

from lbctl.site.file.loader import Draft
from lbctl.site.file.yaml_reader import Reader
from lbctl.site.keys import default_of
from lbctl.site.model import CHECK_PORTS, HealthCheck


def check_times(check: Draft, reader: Reader) -> None:
    """Says the timeout, if the file does not."""
    if check.unread("interval") or check.unread("timeout"):
        return
    interval: float = check.values.get("interval", default_of(HealthCheck, "interval"))
    timeout: float = check.values.setdefault("timeout", min(interval, default_of(HealthCheck, "timeout")))
    if timeout > interval:
        reader.problem(
            check.nodes["timeout"],
            f"timeout {timeout:g} is longer than interval {interval:g}: a check must have ended when the "
            "next one begins",
        )


def keep_ports_apart(external_ip: Draft, reader: Reader) -> None:
    """Full NAT: what connections are translated to must not be what checks come from."""
    first, last = CHECK_PORTS
    ports: tuple[int, int] | None = external_ip.values.get("port_range")
    checked = any("health_check" in service.values for service in external_ip.parts("services"))
    if ports is not None and checked and ports[0] <= last and first <= ports[1]:
        reader.problem(external_ip.nodes["port_range"],
                       f"port_range {ports[0]}-{ports[1]} holds some of the ports {first}-{last}, which this external "
                       f"IP's health checks come from: begin it at {last + 1}, or end it at {first - 1}")
