"""Parts of a site file, read as their keys are declared (lbctl/site/keys.py): first what stands there (drafts, which
rules look at and complete), then, when no problem was noted, the values."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

import yaml

from lbctl.site.file.values import Listed, ValueReader
from lbctl.site.file.yaml_reader import in_quotes
from lbctl.site.forms import Choice, Form, Inline, Networks, Part, Parts
from lbctl.site.keys import Declared, deciding_keys, inlined_in, keys_of, part_of, variants_of
from lbctl.values.addresses import Address


@dataclass(eq=False, slots=True)
class Draft:
    """What a file has for one part, and where. values: by key, those that could be read: drafts of parts, `Listed` of
    other lists, and values. What stands at two places is two drafts, whatever it says, and be it in one line."""

    of: type
    node: yaml.Node
    nodes: dict[str, yaml.Node]
    values: dict[str, Any] = field(default_factory=dict)

    def address(self, key: str) -> Address | None:
        found: Address | None = self.values.get(key)
        return found

    def word(self, key: str) -> str | None:
        found: str | None = self.values.get(key)
        return found

    def number(self, key: str) -> int | None:
        found: int | None = self.values.get(key)
        return found

    def parts(self, key: str) -> list[Draft]:
        found: list[Draft] = self.values.get(key, [])
        return found

    def items(self, key: str) -> list[tuple[Any, yaml.Node]]:
        """The values of a list that could be read, each with its node."""
        found: Listed | None = self.values.get(key)
        return found.items if found else []

    def unread(self, key: str) -> bool:
        """Is the key there, with a value that could not be read?"""
        return key in self.nodes and key not in self.values

    def built(self) -> Any:
        """The value, of a draft that is complete."""
        return part_of(self.of, {key: _built(value) for key, value in self.values.items()})


class Loader(ValueReader):
    """A reader of parts."""

    def part(
        self, form: Part, node: yaml.Node, inherited: Mapping[str, str | None] = MappingProxyType({})
    ) -> Draft | None:
        """The draft of a part; None if it can't be said which keys belong into it. inherited: deciding keys that it may
        leave out."""
        decided = self._decided(form, node, inherited)
        if decided is None:
            return None
        plan = _plan(form.of, tuple(decided.items()))
        nodes = self.mapping(node, form.called, plan.required, plan.optional, plan.only_for)
        if nodes is None:
            return None
        draft = Draft(form.of, node, nodes, decided)
        for key, kind in plan.forms.items():
            child = nodes.get(key)
            if child is not None and key not in decided and (value := self._value(kind, child, key, draft)) is not None:
                draft.values[key] = value
        return draft

    def _value(self, form: Form[Any], node: yaml.Node, key: str, beside: Draft) -> Any:
        if isinstance(form, Part):
            return self.part(form, node, {own: beside.word(other) for own, other in form.inherits})
        if isinstance(form, Parts):
            return [draft for item in self.items(node, key) if (draft := self.part(form.part, item)) is not None]
        value = self.value(form, node, key)
        if isinstance(form, Networks):
            self.networks[key] = value
        return value

    def _decided(self, form: Part, node: yaml.Node, inherited: Mapping[str, str | None]) -> dict[str, str] | None:
        """The values of the keys that say which other keys there may be; None if one is wrong, or missing where it is
        needed."""
        deciding = deciding_keys(form.of)
        if not deciding:
            return {}
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        given = {key.value: child for key, child in reversed(pairs) if isinstance(key, yaml.ScalarNode)}
        found: dict[str, str] = {}
        for each in deciding:
            word = (
                self.value(each.form, given[each.name], each.name)
                if each.name in given
                else inherited.get(each.name, _default(each))
            )
            if word is not None:
                found[each.name] = word
        for inline in inlined_in(form.of):
            theirs, others = _beside(inline)
            if inline.decided_by and found.get(inline.decided_by) == inline.unless and not theirs.isdisjoint(given):
                first = next(key for key, _ in pairs if isinstance(key, yaml.ScalarNode) and key.value in theirs)
                self.problem(
                    first,
                    f"{form.called}: {in_quotes(first.value)} is {inline.whose}: add {inline.decided_by}, {others}",
                )
                return None
        return found if len(found) == len(deciding) else None


class _Plan(NamedTuple):
    """The keys of one variant of a part."""

    required: tuple[str, ...]
    optional: tuple[str, ...]
    only_for: dict[str, str]
    """Keys of other variants -> those that may have them, in words."""
    forms: dict[str, Form[Any]]


@functools.cache
def _plan(part: type, decided: tuple[tuple[str, str], ...]) -> _Plan:
    """decided: the deciding keys and their values; the first that names a variant counts."""
    variants = variants_of(part)
    variant = next((words for words in map(": ".join, decided) if words in variants), None)
    allowed = [each for each in keys_of(part) if each.allowed_in(variant)]
    return _Plan(tuple(each.name for each in allowed if each.required_in(variant)),
                 tuple(each.name for each in allowed if not each.required_in(variant)),
                 {each.name: " or ".join(each.key.variants) for each in keys_of(part) if not each.allowed_in(variant)},
                 {each.name: each.form.of_variant(variant) for each in allowed})


def _default(deciding: Declared) -> str | None:
    """What a deciding key is when it is left out, and nothing beside it says so."""
    if isinstance(deciding.default, str):
        return deciding.default
    assert isinstance(deciding.form, Choice), deciding
    return deciding.form.choices[0]


@functools.cache
def _beside(inline: Inline) -> tuple[frozenset[str], str]:
    """The keys of an inlined type but the one that says whether it is there; what that one may say, in words."""
    forms = {each.name: each.form for each in keys_of(inline.of)}
    deciding = forms.pop(inline.decided_by or "", None)
    words = deciding.choices if isinstance(deciding, Choice) else ()
    return frozenset(forms), " or ".join(word for word in words if word != inline.unless)


def _built(value: Any) -> Any:
    if isinstance(value, Draft | Listed):
        return value.built()
    return tuple(draft.built() for draft in value) if isinstance(value, list) else value
