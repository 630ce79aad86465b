"""The site file's keys about assignment: capacity, only_on, not_with, rebalance."""

from __future__ import annotations

import re
from ipaddress import IPv4Address
from pathlib import Path

import pytest
import yaml

from lbctl.site import file as config
from lbctl.site.file.text import site_text
from lbctl.site.model import Rebalance
from tests.unit.test_config import SITE, problems

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "assignment.md"
FIRST = "    gateway: 10.0.0.1\n"


def with_lb(words: str) -> str:
    return SITE.replace("internal_port: lba-int}", f"internal_port: lba-int, {words}}}")


def with_ip(words: str) -> str:
    return SITE.replace(FIRST, f"{FIRST}    {words}\n", 1)


def with_rebalance(words: str) -> str:
    return f"{SITE}rebalance: {{{words}}}\n"


def test_what_is_written_is_read() -> None:
    text = with_ip("only_on: [lb-a, lb-b]\n    not_with: [198.51.100.2]")
    text = text.replace("internal_port: lba-int}", "internal_port: lba-int, capacity: 2.5}")
    site = config.parse(text + "rebalance: {mode: automatic, algorithm: exact, threshold: 0.3, cooldown: 90, "
                               "at_once: 4, headroom: 0.9}\n")
    assert site.load_balancers[0].capacity == 2.5
    assert site.external_ips[0].only_on == {"lb-a", "lb-b"}
    assert site.external_ips[0].not_with == {IPv4Address("198.51.100.2")}
    assert site.rebalance == Rebalance("automatic", "exact", 0.3, 90.0, 4, 0.9)
    assert config.parse(site_text(site)) == site


def test_by_default_nothing_moves_by_itself() -> None:
    assert config.parse(SITE).rebalance == Rebalance() and Rebalance().mode == "manual"


def test_the_documents_example_is_valid() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", DOCUMENT.read_text(), re.S)
    (example,) = [block for block in blocks if "rebalance" in block]
    wanted = yaml.safe_load(example.replace("..., ", ""))
    words = ", ".join(f"{key}: {value}" for key, value in wanted["rebalance"].items())
    assert config.parse(with_rebalance(words)).rebalance == Rebalance(**wanted["rebalance"])


@pytest.mark.parametrize(("text", "words"), [
    (with_lb("capacity: 0"), "2: capacity must be a number above 0; it is 0"),
    (with_lb("capacity: -1"), "2: capacity must be a number above 0"),
    (with_lb("capacity: .nan"), "2: capacity must be a number above 0"),
    (with_lb("capacity: .inf"), "2: capacity must be a number above 0"),
    (with_lb("capacity: much"), "2: capacity must be a number above 0"),
    (with_lb("capacity: null"), "2: capacity must be a number above 0"),
    (with_ip("only_on: [lb-x]"), "unknown load balancer 'lb-x'"),
    (with_ip("only_on: lb-a"), "only_on must be a list"),
    (with_ip("only_on: []"), "only_on"),
    (with_ip("not_with: [198.51.100.99]"), "not_with: there is no external IP 198.51.100.99"),
    (with_ip("not_with: [198.51.100.1]"), "can't be apart from itself"),
    (with_ip("not_with: [lb-a]"), "not_with must be an IP address"),
    (with_rebalance("mode: sometimes"), "mode"),
    (with_rebalance("algorithm: magic"), "algorithm"),
    (with_rebalance("threshold: 0"), "threshold must be a number above 0"),
    (with_rebalance("threshold: -0.2"), "threshold must be a number above 0"),
    (with_rebalance("cooldown: -1"), "cooldown must be a number above 0"),
    (with_rebalance("at_once: 0"), "at_once must be a whole number from 1"),
    (with_rebalance("headroom: -1"), "headroom must be a number above 0"),
    (with_rebalance("patience: 1"), "unknown key 'patience'"),
    (SITE.replace("port: 80}", "port: 80, weight: -2}", 1), "weight must be a whole number"),
])
def test_what_makes_no_sense_is_refused_with_the_line_and_the_reason(text: str, words: str) -> None:
    assert text != SITE
    (problem,) = problems(text)
    assert words in problem and re.match(r"site.yaml:\d+: ", problem)
