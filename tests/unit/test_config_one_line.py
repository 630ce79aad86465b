"""Nothing in a site file is told from anything else by where it stands: what a program writes on one line means the
same, and its mistakes are found as well."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from lbctl.site import file as config
from lbctl.site.file import ConfigError
from lbctl.site.file.text import site_text
from tests.unit import test_config as plain
from tests.unit import test_config_checks as checks
from tests.unit import test_config_failover as failover
from tests.unit import test_config_rebalance as rebalance
from tests.unit import test_tunnels as tunnels
from tests.unit.test_config import EXAMPLES, KINDS, SITE, edited

RIGHT = {**{path.name: path.read_text() for path in sorted(EXAMPLES.glob("*.yaml"))}, "destination NAT": SITE,
         "all kinds": KINDS,
         "tunnels": tunnels.FILE, "keepers": SITE + failover.KEEPERS,
         "copies": failover.with_copies("[sockets, keeper]")}
NO_YAML = {"tab", "value that YAML keeps for itself", "alias", "further document", "control character", "deep nesting"}
"""Mistakes of which YAML makes no document."""


def parameters(test: Any) -> list[tuple[str, ...]]:
    """Of a parametrized test."""
    (mark,) = [mark for mark in test.pytestmark if mark.name == "parametrize"]
    return list(mark.args[1])


MISTAKES = {
    **{name: edited(number, line) for name, number, line, _ in plain.MISTAKES if name not in NO_YAML},
    **{name: edited(number, line, KINDS) for name, number, line, _ in plain.KIND_MISTAKES},
    **{f"check {given[:40]}": checks.text(given) for given, _ in checks.MISTAKES},
    **{f"{old} -> {new}"[:60]: tunnels.FILE.replace(old, new, 1)
       for old, new, _ in parameters(tunnels.test_one_mistake_one_problem)},
    **{words[:40]: text
       for text, words in parameters(rebalance.test_what_makes_no_sense_is_refused_with_the_line_and_the_reason)},
    **{line: f"{SITE}settings:\n  {line}\n" for line, _ in parameters(plain.test_settings)},
    "keeper missing": failover.with_copies("[keeper]", SITE), "copy twice": failover.with_copies("[keeper, keeper]"),
}


def on_one_line(text: str) -> str:
    """The same document, its values as they are written, on one line."""
    def flow(node: yaml.Node) -> None:
        if isinstance(node, yaml.CollectionNode):
            node.flow_style = True
            for item in node.value:
                for part in item if isinstance(item, tuple) else (item,):
                    flow(part)

    root = yaml.compose(text, Loader=yaml.SafeLoader)
    flow(root)
    line = yaml.serialize(root, Dumper=yaml.SafeDumper, width=10**9)
    assert line.count("\n") == 1, line
    return line


def as_json(text: str) -> str:
    return json.dumps(yaml.safe_load(text), default=str)


def problems(text: str) -> list[str]:
    """Without the lines where they are."""
    with pytest.raises(ConfigError) as error:
        config.parse(text, "site.yaml")
    return sorted(re.sub(r"\bline \d+", "line N", problem.message) for problem in error.value.errors)


def values(text: str) -> object:
    """What a reader of the text sees, key by key."""
    def of(node: yaml.Node) -> object:
        if isinstance(node, yaml.CollectionNode):
            return node.id, [[of(part) for part in item] if isinstance(item, tuple) else of(item)
                             for item in node.value]
        return node.tag, node.value

    return of(yaml.compose(text, Loader=yaml.SafeLoader))


def json_can_say(text: str) -> bool:
    """Are its values the same when it is written as JSON? JSON has no 080, for instance, and no key twice."""
    try:
        return values(as_json(text)) == values(text)
    except (TypeError, ValueError, yaml.YAMLError):
        return False


@pytest.mark.parametrize("text", RIGHT.values(), ids=RIGHT)
def test_on_one_line_a_site_is_the_same(text: str) -> None:
    site = config.parse(text)
    assert config.parse(on_one_line(text)) == config.parse(as_json(text)) == site
    assert config.parse(json.dumps(yaml.safe_load(site_text(site)))) == site


@pytest.mark.parametrize("text", MISTAKES.values(), ids=MISTAKES)
def test_on_one_line_mistakes_are_the_same(text: str) -> None:
    found = problems(text)
    assert problems(on_one_line(text)) == found
    if json_can_say(text):
        assert problems(as_json(text)) == found


def test_json_can_say_most_mistakes() -> None:
    assert sum(map(json_can_say, MISTAKES.values())) > 100


def test_a_server_of_two_external_ips_is_noticed_on_one_line() -> None:
    text = SITE.replace("10.0.0.21", "10.0.0.11")
    assert config.parse(SITE.replace("10.0.0.21", "10.0.0.13"))
    assert problems(as_json(text)) == ["server 10.0.0.11 already belongs to the external IP in line N; without nat: "
                                       "full a server "
                                       "belongs to one external IP"]


def test_each_external_ip_may_have_a_service_on_the_same_port() -> None:
    assert [service.port for ip in config.parse(as_json(SITE)).external_ips for service in ip.services] == [80, 443, 80]
    assert problems(as_json(SITE.replace("port: 443\n        servers", "port: 80\n        servers"))) == [
        "this external IP already has a service on tcp port 80 (line N)"]


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_an_example_is_written_as_json(path: Path, tmp_path: Path) -> None:
    """And read from a file that is called so."""
    file = tmp_path / "site.json"
    file.write_text(as_json(path.read_text()))
    assert config.load(file) == config.load(path)
