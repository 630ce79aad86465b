"""How the keys of the site file are declared.

Each key is a field of a value type of `lbctl.site.model`. The field's annotation carries a `Key`: which form its value
has, and what it means. All else follows from that: the loader (site/file/loader.py) reads it, `lbctl.site.documents`
writes it, the state file keeps it, REST takes and shows it (api/service_types.py), `lbctl server` has an option for it
(cli/options.py), and docs/site-file.md lists it.
"""

from __future__ import annotations

import functools
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, TypeVar

from lbctl.site.forms import Form, Inline, Spread

Of = TypeVar("Of")
Found = TypeVar("Found")


def _once_for_each(find: Callable[[type], Found]) -> Callable[[type], Found]:
    """functools.cache for what is asked of types (which, for mypy, are not what that calls hashable)."""
    known: dict[type, Found] = {}

    @functools.wraps(find)
    def look_up(part: type) -> Found:
        if part not in known:
            known[part] = find(part)
        return known[part]

    return look_up


@dataclass(frozen=True, slots=True)
class Key:
    """What one key may be, and what it means.

    meaning: a sentence without its full stop. Some parts of a file come in variants, such as "nat: full", where one key
    says which others there may be: required_for: the variants that must have this key; only_for: those that may have it
    (empty: those of required_for, or else all).
    """

    form: Form[Any]
    meaning: str
    name: str | None = None
    """In the file; None: as its field's."""
    required: bool | None = None
    """In all variants that may have it; None: if its field has no default."""
    required_for: tuple[str, ...] = ()
    only_for: tuple[str, ...] = ()
    derived: str | None = None
    """What it is when it is left out, in words, where that depends on other keys. It is always written, then."""
    absent: str | None = None
    """What it means that it is left out (null in REST), in few words. If the key can be changed, `lbctl server
    change` has an option of that name."""
    changeable: bool = False
    """Can it be changed at run time?"""
    shown: str | None = None
    """How a command tells its value, which is {}."""

    @property
    def variants(self) -> tuple[str, ...]:
        """Those that may have it; empty: all."""
        return self.only_for or self.required_for


@dataclass(frozen=True, slots=True)
class Declared:
    """A key as a part of the file has it. path: the fields that lead to its value; item: which one of several keys that
    a field is (`Spread`)."""

    name: str
    key: Key
    path: tuple[str, ...]
    default: object = MISSING
    item: str | None = None

    @property
    def form(self) -> Form[Any]:
        """Of this one key."""
        return self.key.form.of if isinstance(self.key.form, Spread) else self.key.form

    def required_in(self, variant: str | None) -> bool:
        if self.key.required_for or self.key.required is not None:
            return bool(self.key.required) or variant in self.key.required_for
        return self.default is MISSING and self.key.derived is None and not self.key.variants

    def allowed_in(self, variant: str | None) -> bool:
        return not self.key.variants or variant in self.key.variants

    def value_in(self, part: object) -> Any:
        """What a part has for it; None: nothing."""
        for field in self.path:
            part = None if part is None else getattr(part, field)
        return part if self.item is None else dict(typing.cast("tuple[tuple[str, object], ...]", part)).get(self.item)


@_once_for_each
def keys_of(part: type) -> tuple[Declared, ...]:
    """The keys of a value type in the order of their declaration, with those of the types that are inlined in it."""
    found: list[Declared] = []
    for name, key, default in _fields_of(part):
        if isinstance(key.form, Inline):
            found += [
                Declared(each.name, each.key, (name, *each.path), each.default, each.item)
                for each in keys_of(key.form.of)
            ]
        elif isinstance(key.form, Spread):
            found += [Declared(each, key, (name,), None, item) for each, item in key.form.items]
        else:
            found.append(Declared(key.name or name, key, (name,), default))
    return tuple(found)


def part_of(part: type[Of], values: Mapping[str, object]) -> Of:
    """The part that has those values, by key; what is left out has its default."""
    given: dict[str, object] = {}
    for name, key, _ in _fields_of(part):
        form = key.form
        if isinstance(form, Inline):
            if form.decided_by is None or values.get(form.decided_by) not in (None, form.unless):
                given[name] = part_of(form.of, values)
        elif isinstance(form, Spread):
            given[name] = tuple((item, values[each]) for each, item in form.items if each in values)
        elif (each := key.name or name) in values:
            given[name] = values[each]
    return part(**given)


@_once_for_each
def variants_of(part: type) -> tuple[str, ...]:
    """The variants in which that part of a file comes, such as "nat: full"; empty: it has none."""
    return tuple(dict.fromkeys(variant for each in keys_of(part) for variant in each.key.variants))


@_once_for_each
def deciding_keys(part: type) -> tuple[Declared, ...]:
    """The keys that say which variant it is; an earlier one overrules the later ones."""
    names = {variant.partition(": ")[0] for variant in variants_of(part)}
    return tuple(each for each in keys_of(part) if each.name in names)


def default_of(part: type, name: str) -> Any:
    """What a key of a part is when it is left out."""
    return next(each.default for each in keys_of(part) if each.name == name)


@_once_for_each
def inlined_in(part: type) -> tuple[Inline, ...]:
    """The value types whose keys stand beside the part's own."""
    return tuple(key.form for _, key, _ in _fields_of(part) if isinstance(key.form, Inline))


@_once_for_each
def _fields_of(part: type) -> tuple[tuple[str, Key, object], ...]:
    """The fields that keys are declared for, each with its key and its default (MISSING: none)."""
    hints = typing.get_type_hints(part, include_extras=True)
    found = []
    for field in fields(part):
        key = next((each for each in getattr(hints[field.name], "__metadata__", ()) if isinstance(each, Key)), None)
        if key is not None:
            found.append(
                (field.name, key, field.default if field.default_factory is MISSING else field.default_factory())
            )
    return tuple(found)
