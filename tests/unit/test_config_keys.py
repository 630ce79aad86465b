"""Each key of the site file is declared once: all that reads, writes, shows, orders and documents it follows."""

from __future__ import annotations

import importlib.util
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated

import pytest
import yaml
from typer.testing import CliRunner

from lbctl.api import service_types
from lbctl.cli.main import app
from lbctl.site import file as config
from lbctl.site.documents import document_of, server_of, short_document_of
from lbctl.site.file.loader import Loader
from lbctl.site.file.text import site_text
from lbctl.site.file.values import _READ
from lbctl.site.forms import NAME, Choice, HostAddress, Inline, Part, Parts, Several, Spread, Unordered, Whole
from lbctl.site.keys import Declared, Key, keys_of
from lbctl.site.model import ExternalIp, Server, Site, Tunnel
from tests.unit.test_config import EXAMPLES

ROOT = Path(__file__).resolve().parents[2]
NOT_IN_FILES = {"former_servers", "former_internal_ips", "leaving", "gone", "_hops"}
"""Fields of an external IP that come from connections, or are computed."""


def parts(part: type = Site) -> Iterator[type]:
    """All value types of a site that are parts of its file."""
    yield part
    for each in fields(part):
        form = next((key.form for key in _keys(part, each.name)), None)
        inner = form.part if isinstance(form, Parts) else form
        if isinstance(inner, Part | Inline):
            yield from parts(inner.of)


def _keys(part: type, name: str) -> list[Key]:
    hints = typing.get_type_hints(part, include_extras=True)
    return [each for each in getattr(hints[name], "__metadata__", ()) if isinstance(each, Key)]


def all_keys() -> list[Declared]:
    return [each for part in set(parts()) for each in keys_of(part)]


def test_each_field_is_a_key() -> None:
    assert {each.name for part in set(parts()) for each in fields(part) if not _keys(part, each.name)} == NOT_IN_FILES


def test_no_part_has_a_key_twice() -> None:
    for part in set(parts()):
        names = [each.name for each in keys_of(part)]
        assert len(names) == len(set(names)), part


def test_each_form_can_be_read_and_has_words() -> None:
    for each in all_keys():
        form = each.form
        assert isinstance(form, Part | Parts) or type(form) in _READ, each
        assert form.words() and each.key.meaning and not each.key.meaning.endswith("."), each


def test_the_document_is_current() -> None:
    spec = importlib.util.spec_from_file_location("generate_site_file", ROOT / "docs" / "generate_site_file.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = (ROOT / "docs" / "site-file.md").read_text()
    assert module.document() == text, "run: python docs/generate_site_file.py"
    assert not [each.name for each in all_keys() if f"| `{each.name}` |" not in text]


def test_defaults_are_values_that_a_file_may_say() -> None:
    """Each default, written out, is read as what it is."""
    site = config.load(EXAMPLES / "kinds.yaml")
    for name in ("settings", "rebalance"):
        said = document_of(getattr(site, name))
        if name == "rebalance":
            assert said.pop("headroom") == 0  # there is none
        document = {**short_document_of(site), name: said}
        assert getattr(config.parse(yaml.safe_dump(document)), name) == getattr(site, name)


def test_rest_takes_and_shows_each_key_of_a_server() -> None:
    names = [each.name for each in keys_of(Server)]
    assert list(service_types.ServerRequest.model_fields) == names
    tunnel = [each.name for each in keys_of(Tunnel)]
    shown = {*service_types.ServerView.model_fields, *service_types.TunnelView.model_fields}
    assert set(names) <= shown and list(service_types.TunnelView.model_fields) == tunnel
    schema = service_types.ServerRequest.model_json_schema()["properties"]
    assert (schema["weight"]["minimum"], schema["weight"]["maximum"], schema["weight"]["default"]) == (0, 65535, 1)
    assert schema["transport"]["enum"] == ["ethernet", "vxlan", "geneve", "gre"]
    changeable = {each.name for each in keys_of(Server) if each.key.changeable}
    assert set(service_types.ServerChange.model_fields) == changeable | {"drained"}


@pytest.mark.parametrize("command", ["add", "change"])
def test_the_command_has_an_option_for_each_key_of_a_server(command: str) -> None:
    run = CliRunner().invoke(app, ["server", command, "--help"], env={"COLUMNS": "200"})
    wanted = [each for each in keys_of(Server) if each.name not in ("address", "port")
              and (command == "add" or each.key.changeable)]
    assert run.exit_code == 0 and wanted
    for each in wanted:
        assert f"--{each.name.replace('_', '-')} " in run.output
    assert ("--no-limit" in run.output) == (command == "change")


def test_a_server_is_what_its_document_says() -> None:
    server = Server(IPv4Address("10.0.0.11"), 80, 3, IPv4Address("10.0.0.254"),
                    Tunnel("gre", IPv4Address("198.18.0.1"), 2**32 - 1, 1400), 7)
    assert server_of(document_of(server)) == server
    for wrong in ({"weight": -1}, {"weight": "3"}, {"weight": True}, {"transport": "ether"}, {"address": 5},
                  {"port": 65536},
                  {"max_connections": 0}):
        with pytest.raises(ValueError):
            server_of({**document_of(server), **wrong})


def test_what_is_derived_is_written() -> None:
    """Else a file would mean something else when the rest of it changes."""
    site = config.load(EXAMPLES / "site.yaml")
    document = yaml.safe_load(site_text(replace(site, external_ips=site.external_ips[:1])))
    (external_ip,) = document["external_ips"]
    assert external_ip["copies"] == ["controller"] and external_ip["services"][0]["health_check"]["timeout"] == 1
    assert "weight" not in external_ip["services"][0]["servers"][0] and "only_on" not in external_ip


# A part that no site has: what is declared is all that there is to do.


@dataclass(frozen=True, slots=True)
class Lamp:
    name: Annotated[str, Key(NAME, "how it is called")]
    bulbs: Annotated[int, Key(Whole(1, 9, {"shape: star": 5}), "how many")]
    shape: Annotated[str, Key(Choice(("ball", "star")), "how it looks")] = "ball"
    points: Annotated[int, Key(Whole(3, 99), "of a star", required_for=("shape: star",))] = 0
    beside: Annotated[tuple[IPv4Address, ...], Key(Several(HostAddress(), item="neighbour"), "what it lights")] = ()
    wires: Annotated[tuple[tuple[str, int], ...], Key(
        Spread((("red_wire", "red"), ("blue_wire", "blue")), Whole(0, 5)), "how thick")] = ()


@dataclass(frozen=True, slots=True)
class Room:
    lamps: Annotated[tuple[Lamp, ...], Key(Parts(Part(Lamp, "lamp")), "what lights it")]
    best: Annotated[Lamp | None, Key(Part(Lamp, "best lamp"), "the other")] = None
    doors: Annotated[frozenset[str], Key(Unordered(NAME), "ways out")] = field(default=frozenset())


ROOM = Part(Room, "room")


def read(text: str) -> tuple[object, list[str]]:
    loader = Loader("room.yaml")
    root = loader.compose(text)
    assert root is not None
    draft = loader.part(ROOM, root)
    problems = [str(problem) for problem in loader.problems]
    return draft.built() if draft and not problems else None, problems


def test_a_new_part_is_read_and_written() -> None:
    room, problems = read("lamps:\n"
                          "  - {name: a, bulbs: 9, beside: [10.0.0.1], blue_wire: 2}\n"
                          "  - {name: b, bulbs: 5, shape: star, points: 7}\n"
                          "best: {name: c, bulbs: 1}\ndoors: [west, east]\n")
    assert not problems
    assert room == Room((Lamp("a", 9, beside=(IPv4Address("10.0.0.1"),), wires=(("blue", 2),)),
                         Lamp("b", 5, "star", 7)), Lamp("c", 1),
                        frozenset({"east", "west"}))
    document = short_document_of(room)
    assert document == {"lamps": [{"name": "a", "bulbs": 9, "beside": ["10.0.0.1"], "blue_wire": 2},
                                  {"name": "b", "bulbs": 5, "shape": "star", "points": 7}],
                                  "best": {"name": "c", "bulbs": 1},
                        "doors": ["east", "west"]}
    assert read(yaml.safe_dump(document)) == (room, [])


@pytest.mark.parametrize(("text", "expected"), [
    ("lamps: []", ["room.yaml:1: lamps is empty: at least one is needed"]),
    ("best: {}", ["room.yaml:1: room: the key 'lamps' is missing", "room.yaml:1: best lamp: the key 'name' is missing",
                  "room.yaml:1: best lamp: the key 'bulbs' is missing"]),
    ("lamps: [{name: a, bulb: 1}]", ["room.yaml:1: lamp: unknown key 'bulb': did you mean 'bulbs'?"]),
    ("lamps: [{name: a, bulbs: 10}]", ["room.yaml:1: bulbs must be a whole number from 1 to 9; it is 10"]),
    ("lamps: [{name: a, bulbs: 6, shape: star, points: 5}]",
     ["room.yaml:1: bulbs must be a whole number from 1 to 5; it is 6"]),
    ("lamps: [{name: a, bulbs: 1, shape: star}]", ["room.yaml:1: lamp: the key 'points' is missing"]),
    ("lamps: [{name: a, bulbs: 1, points: 5}]", ["room.yaml:1: lamp: the key 'points' is only for shape: star"]),
    ("lamps: [{name: a, bulbs: 1, shape: sta}]", ["room.yaml:1: unknown shape 'sta': did you mean 'star'?"]),
    ("lamps: [{name: a, bulbs: 1, beside: [x]}]",
     ["room.yaml:1: neighbour must be an IP address such as 10.0.0.11; it is 'x'"]),
    ("lamps: [{name: a, bulbs: 1, red_wire: 6}]",
     ["room.yaml:1: red_wire must be a whole number from 0 to 5; it is 6"]),
    ("lamps: [{? [x]: 1, name: a, bulbs: 1}]", ["room.yaml:1: lamp: a key must be a word, not a list"]),
])
def test_mistakes_in_a_new_part(text: str, expected: list[str]) -> None:
    assert read(text) == (None, expected)


def test_external_ips_are_compared_by_what_files_say() -> None:
    """And what comes from connections counts too."""
    bare = ExternalIp(IPv4Address("198.51.100.1"), "lb-a", IPv4Address("10.0.0.1"))
    assert replace(bare, former_internal_ips=(IPv4Address("10.0.0.9"),)) != bare == replace(bare)
