"""What health checks have found, as JSON values, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from typing import Any, NamedTuple

from lbctl.site.documents import endpoint_of
from lbctl.site.model import ServiceName
from lbctl.values.addresses import Endpoint


class Checked(NamedTuple):
    """Of one service's servers. check: how it was configured, in words; down: why, and since when (seconds since the
    epoch)."""

    check: str
    down: dict[Endpoint, tuple[str, float]]


def rows_of(checked: Mapping[ServiceName, Checked]) -> list[dict[str, Any]]:
    """One for each service."""
    return [
        {
            "external_ip": str(name.external_ip),
            "protocol": name.protocol,
            "port": name.port,
            "check": found.check,
            "down": [
                {"server": str(endpoint), "reason": reason, "since": since}
                for endpoint, (reason, since) in found.down.items()
            ],
        }
        for name, found in checked.items()
    ]


def checked_of(rows: Sequence[Mapping[str, Any]]) -> dict[ServiceName, Checked]:
    """Raises KeyError, TypeError, ValueError or AttributeError if that is not what rows_of gives."""
    return {
        ServiceName(ip_address(row["external_ip"]), str(row["protocol"]), int(row["port"])): Checked(
            str(row["check"]),
            {endpoint_of(each["server"]): (str(each["reason"]), float(each["since"])) for each in row["down"]},
        )
        for row in rows
    }
