"""The site file's keys about failover: keepers, copies, standby, and settings."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from lbctl.site import file as config
from lbctl.site.file.text import site_text
from lbctl.site.model import Keeper, Keepers
from tests.unit.test_config import SITE, problems

KEEPERS = """\
keepers:
  - {server: 10.0.0.11}
  - {server: 10.0.0.12, url: "https://10.0.0.50:6654/"}
keeper_token_file: keeper-token
keeper_ca_file: keepers.pem
"""


def with_copies(copies: str, text: str = SITE + KEEPERS) -> str:
    return text.replace("    gateway: 10.0.0.1\n", f"    gateway: 10.0.0.1\n    copies: {copies}\n", 1)


def test_keepers() -> None:
    site = config.parse(SITE + KEEPERS)
    assert site.keepers == Keepers((Keeper(IPv4Address("10.0.0.11"), "http://10.0.0.11:6654"),
                                    Keeper(IPv4Address("10.0.0.12"), "https://10.0.0.50:6654")), "keeper-token",
                                    "keepers.pem")
    copies = [ip.copies for ip in site.external_ips]
    assert copies == [("controller", "sockets"), ("controller",)], "all servers have one, or not"


def test_the_default_without_keepers() -> None:
    assert {ip.copies for ip in config.parse(SITE).external_ips} == {("controller",)}


def test_the_default_with_udp_is_a_keeper() -> None:
    text = (SITE + KEEPERS).replace("      - protocol: tcp\n        port: 443\n",
                                    "      - protocol: udp\n        port: 443\n")
    assert config.parse(text).external_ips[0].copies == ("controller", "keeper")


@pytest.mark.parametrize("copies", ["[keeper]", "[sockets, keeper, controller]", "[controller]"])
@pytest.mark.parametrize("rest", [
    "", "settings: {automatic_failover: false, failover: transition, probe_interval: 0.1, probe_misses: 5,\n"
        "  relieve_after: 9.5, hold_down: 1.5, copy_interval: 0.5, copy_delay: 7.5, copy_timeout: 0.25}\n"])
def test_what_is_written_is_read(copies, rest) -> None:
    third = '  - {name: lb-c, dpid: "00000000000000cc", external_port: lbc-ext, internal_port: lbc-int, standby: true}'
    text = with_copies(copies).replace("internal_port: lbb-int}", "internal_port: lbb-int}\n" + third) + rest
    site = config.parse(text)
    assert config.parse(site_text(site)) == site
    assert site.load_balancers[2].standby and not site.load_balancers[0].standby


@pytest.mark.parametrize(("copies", "words"), [
    ("[keeper, keeper]", "keeper is there already"), ("[tape]", "tape"), ("[]", "copies")])
def test_copies_that_make_no_sense(copies, words) -> None:
    (problem,) = problems(with_copies(copies))
    assert words in problem


def test_copies_need_keepers() -> None:
    (problem,) = problems(with_copies("[keeper]", SITE))
    assert "keeper needs a keeper for 10.0.0.11, 10.0.0.12: add it to keepers" in problem


@pytest.mark.parametrize(("line", "words"), [
    ("  - {server: 10.0.0.11}", "the server 10.0.0.11 already has a keeper"),
    ("  - {server: 10.0.0.13, url: ftp://x:1}", "write http://ADDRESS:PORT or https://NAME:PORT"),
    ("  - {server: 10.0.0.13, url: http://10.0.0.13}", "write http://ADDRESS:PORT"),
    ("  - {server: 10.0.0.13, url: 'http://10.0.0.13:99999'}", "write http://ADDRESS:PORT"),
    ("  - {server: keeper}", "server"), ("  - {url: http://10.0.0.13:1}", "server"),
    ("  - {server: 10.0.0.13, port: 1}", "port")])
def test_keepers_that_make_no_sense(line, words) -> None:
    found = problems((SITE + KEEPERS).replace("keeper_token_file", f"{line}\nkeeper_token_file"))
    assert any(words in problem for problem in found), found


def test_a_standby_gets_nothing_from_the_file() -> None:
    (problem,) = problems(SITE.replace("internal_port: lbb-int}", "internal_port: lbb-int, standby: true}"))
    assert "lb-b is standby" in problem


@pytest.mark.parametrize(("setting", "words"), [
    ("probe_interval: 0", "probe_interval"), ("probe_misses: 0", "probe_misses"),
    ("automatic_failover: 1", "automatic_failover"),
    ("failover: sometimes", "failover"), ("relieve_after: -1", "relieve_after")])
def test_settings_that_make_no_sense(setting, words) -> None:
    (problem,) = problems(SITE + f"settings: {{{setting}}}\n")
    assert words in problem
