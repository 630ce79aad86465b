"""Parts of a site as mappings with the keys of the site file, of JSON values."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address

from lbctl.site.forms import Part, Parts
from lbctl.site.keys import keys_of, part_of
from lbctl.site.model import Server
from lbctl.values.addresses import Endpoint

Document = dict[str, object]


def document_of(part: object) -> Document:
    """What the part says; nothing is left to defaults but what it does not have."""
    found = {each.name: (each.form, each.value_in(part)) for each in keys_of(type(part))}
    return {name: form.document(value) for name, (form, value) in found.items() if value is not None}


def short_document_of(part: object) -> Document:
    """The same without what is a default, as a person would write it."""
    found: Document = {}
    for each in keys_of(type(part)):
        value, form = each.value_in(part), each.form
        if value is None or value == each.default and each.key.derived is None:
            continue
        if isinstance(form, Part):
            found[each.name] = short_document_of(value)
        elif isinstance(form, Parts):
            found[each.name] = [short_document_of(item) for item in value]
        else:
            found[each.name] = form.document(value)
    return found


def server_of(document: Mapping[str, object]) -> Server:
    """The inverse of document_of. Raises ValueError or KeyError for what no server has; whether it fits the site is not
    asked here."""
    forms = {each.name: each.form for each in keys_of(Server)}
    return part_of(Server, {name: forms[name].value(value) for name, value in document.items()})


def endpoint_of(text: str) -> Endpoint:
    """From ADDRESS:PORT, with IPv6 [ADDRESS]:PORT, as Endpoint is printed. Raises ValueError."""
    address, colon, port = text.rpartition(":")
    if not (colon and port.isascii() and port.isdigit() and 0 < int(port) <= 0xFFFF):
        raise ValueError(f"{text!r} is no server: give ADDRESS:PORT, such as 10.0.0.11:80 or [fd00::11]:80")
    bracketed = address.startswith("[") and address.endswith("]")
    found = ip_address(address[1:-1] if bracketed else address)
    if bracketed != (found.version == 6):
        raise ValueError(
            f"{text!r} is no server: an IPv6 address is written in brackets, such as [fd00::11]:80, and no other"
        )
    return Endpoint(found, int(port))
