"""What the types of requests have in common."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict


class Closed(BaseModel):
    """A name that is not declared is an error: a misspelt one must not be ignored."""

    model_config = ConfigDict(extra="forbid")


def _address_text(value: object) -> object:
    if isinstance(value, str):
        return ip_address(value)
    if not isinstance(value, (IPv4Address, IPv6Address)):
        raise ValueError("must be an IP address as text")
    return value


AddressText = Annotated[IPv4Address | IPv6Address, BeforeValidator(_address_text)]
"""An IP address as text; pydantic alone would take a number as well."""
