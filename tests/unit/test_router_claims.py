"""A router's new MAC is believed when it answers a question, and the known one does not."""

from __future__ import annotations

from ipaddress import IPv4Address

from lbctl.networks.router_claims import WAIT, RouterClaims

PLACE = "lb-a", IPv4Address("198.51.100.254")
KNOWN, OTHER = "02:00:00:00:00:01", "02:00:00:00:00:02"


def test_who_answers_is_believed() -> None:
    claims = RouterClaims()
    assert claims.heard(PLACE, KNOWN, OTHER, False, 0.0), "it is asked"
    assert not claims.heard(PLACE, KNOWN, OTHER, True, 0.1)
    assert not list(claims.confirmed(WAIT / 2)), "the known one may answer yet"
    assert list(claims.confirmed(WAIT)) == [(PLACE, OTHER)]
    assert not list(claims.confirmed(2 * WAIT))


def test_who_only_says_so_is_not() -> None:
    claims = RouterClaims()
    for moment in (0.0, 0.1, 0.2):
        claims.heard(PLACE, KNOWN, OTHER, False, moment)
    assert not list(claims.confirmed(WAIT))


def test_nor_while_the_known_one_answers() -> None:
    claims = RouterClaims()
    claims.heard(PLACE, KNOWN, OTHER, False, 0.0)
    claims.heard(PLACE, KNOWN, OTHER, True, 0.1)
    claims.heard(PLACE, KNOWN, KNOWN, True, 0.2)
    assert not list(claims.confirmed(WAIT))


def test_what_the_known_one_says_unasked_is_no_answer() -> None:
    claims = RouterClaims()
    claims.heard(PLACE, KNOWN, OTHER, True, 0.0)
    claims.heard(PLACE, KNOWN, OTHER, True, 0.1)
    claims.heard(PLACE, KNOWN, KNOWN, False, 0.2)
    assert list(claims.confirmed(WAIT)) == [(PLACE, OTHER)]
