"""What the types of requests and answers have in common, and how they follow from the keys of the site file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import MISSING
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model

from lbctl.site.forms import Choice, Form, HostAddress, Whole
from lbctl.site.keys import Declared, keys_of


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


def description_of(part: type, key: str) -> str:
    """What a key of the site file means."""
    return next(_description(each) for each in keys_of(part) if each.name == key)


def request_model(name: str, keys: Iterable[Declared]) -> type[Closed]:
    """What takes these keys, with the bounds and defaults that they have in the site file."""
    fields: dict[str, Any] = {}
    for each in keys:
        taken = _taken(each.form)
        default = each.default
        if isinstance(each.form, Choice) and default is MISSING:
            default = each.form.choices[0]
        elif each.key.derived is not None or default is MISSING and each.key.variants:
            default = None
        fields[each.name] = (taken | None if default is None else taken,
                             Field(... if default is MISSING else default, description=_description(each)))
    return create_model(name, __base__=Closed, **fields)


def view_model(name: str, keys: Iterable[Declared]) -> type[BaseModel]:
    """What shows these keys."""
    fields: dict[str, Any] = {}
    for each in keys:
        shown = int if isinstance(each.form, Whole) else str
        fields[each.name] = (shown | None if each.default is None else shown, Field(description=_description(each)))
    return create_model(name, **fields)


def shown_keys(part: object, keys: Iterable[Declared]) -> dict[str, Any]:
    """The values that a model of `view_model` has for that part."""
    values = {each: each.value_in(part) for each in keys}
    return {each.name: None if value is None else each.form.document(value) for each, value in values.items()}


def _taken(form: Form[Any]) -> Any:
    """The type of a field that takes values of that form."""
    if isinstance(form, Whole):
        return Annotated[int, Field(ge=form.low, le=form.high)]
    if isinstance(form, Choice):
        return cast(Any, Literal)[form.choices]
    if isinstance(form, HostAddress):
        return AddressText
    raise TypeError(f"no request takes values of the form {form}: say here how")


def _description(declared: Declared) -> str:
    key = declared.key
    null = key.absent if declared.default is None else key.derived
    return f"{key.meaning}; null: {null}" if null else key.meaning
