"""Rows and batches: what is sent is what comes out, and any bytes are a batch or refused."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbctl.entries.access_table import FIN_IN, FIN_OUT, GONE, NO_HOP, RESET, REUSED
from lbctl.keeper.batches import MAGIC, Batch, BatchKind, MalformedBatch, decode, encode
from lbctl.keeper.rows import RowKind, count, derived_ports, entries, row_size, sections, unpack_ports
from lbctl.site.model import ExternalIp, Server, Service
from tests.unit.keeper_entries import DERIVED, EXTERNAL, KINDS, SERVER, SERVER_6, entry, ports, row, rows, rows_of

HOPS = st.sampled_from([NO_HOP, bytes.fromhex("02000000c0fe"), bytes.fromhex("ffffffffffff")])
FLAGS = st.integers(0, 63).map(lambda flags: flags & ~GONE)


@st.composite
def many(draw, kinds: tuple[str, ...] = KINDS) -> list:
    found = {}
    places = st.tuples(st.sampled_from(kinds), st.integers(0, 60_000), FLAGS, HOPS)
    for kind, number, flags, hop in draw(st.lists(places, max_size=30)):
        item = entry(kind, number, hop=hop)
        item.flags = flags
        found[item.key] = item
    return list(found.values())


@given(many())
def test_rows_come_back_as_the_entries_that_they_were(items) -> None:
    assert rows_of(sections(items, ports)) == rows(items)


@given(many(KINDS[:-1]), st.sampled_from(BatchKind), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_a_batch_comes_out_as_it_went_in(items, kind, session, sequence) -> None:
    batch = Batch(kind, SERVER, session, sequence, sections(items, ports))
    assert decode(encode(batch)) == batch
    assert batch.rows == len(items)


def test_a_batch_of_ipv6() -> None:
    batch = Batch(BatchKind.INCREMENT, SERVER_6, 1, 2, sections([entry("ipv6")], ports))
    assert decode(encode(batch)) == batch


@pytest.mark.parametrize("kind, of_kind, size", [
    ("derived", RowKind.DESTINATION, 16), ("udp", RowKind.DESTINATION, 16), ("explicit", RowKind.EXPLICIT, 24),
    ("full", RowKind.FULL, 24),
    ("outbound", RowKind.EXPLICIT, 24), ("ipv6", RowKind.DESTINATION, 28)])
def test_only_what_cannot_be_derived_is_in_a_row(kind, of_kind, size) -> None:
    """Seed: with destination NAT client address and port, server port, state (and the next hop); with full NAT all but
    the server address. The external IP is the section's."""
    item = entry(kind)
    (section,) = sections([item], ports)
    assert (section.kind, len(section.rows), count(section)) == (of_kind, size, 1)
    assert size == row_size(of_kind, 6 if kind == "ipv6" else 4)
    assert section.stream.server not in section.rows and section.stream.external not in section.rows


@pytest.mark.parametrize("flags", [GONE, GONE | FIN_IN])
def test_what_is_gone_is_said_and_given_back_to_nobody(flags) -> None:
    item = entry()
    item.flags = flags
    (section,) = sections([item], ports)
    assert count(section) == 1 and rows_of([section]) == set()


def test_the_state_is_that_of_the_flags_that_last() -> None:
    item = entry()
    item.flags = FIN_OUT | RESET | REUSED
    assert row(item).flags == FIN_OUT | RESET
    assert rows_of(sections([item], ports)) == {row(item)}


def test_a_service_that_the_site_file_has_dropped_keeps_its_port_in_the_row() -> None:
    (section,) = sections([entry()], lambda stream: {})
    assert section.kind is RowKind.EXPLICIT and rows_of([section]) == rows([entry()])


def test_what_external_ports_follow_from() -> None:
    server, other = Server(ip_address("10.0.0.11"), 8080), Server(ip_address("10.0.0.12"), 8080)
    ambiguous = replace(server, port=9090)
    services = (Service("tcp", 80, servers=(server, other)), Service("udp", 53, servers=(replace(server, port=53),)),
                Service("tcp", 443, servers=(ambiguous,)), Service("tcp", 444, servers=(ambiguous,)),
                Service("tcp", 81, servers=(replace(other, port=81),)))
    site = ExternalIp(ip_address(EXTERNAL), "lb-a", ip_address("10.0.0.1"), services=services)
    assert derived_ports(site, ip_address(SERVER)) == DERIVED
    assert derived_ports(site, ip_address("10.0.0.13")) == {}
    assert derived_ports(replace(site, nat="full"), ip_address(SERVER)) == {}
    assert derived_ports(replace(site, kind="nat-gateway", services=()), ip_address(SERVER)) == {}


def refused_or_the_same(body: bytes) -> None:
    try:
        batch = decode(body)
    except MalformedBatch:
        return
    assert encode(batch) == body
    assert len(rows_of_all(batch)) <= batch.rows


def rows_of_all(batch: Batch) -> list:
    return [each for section in batch.sections for each in entries(section)]


@given(st.binary(max_size=200), st.sampled_from([b"", MAGIC, MAGIC + b"\1\4", MAGIC + b"\3\6"]))
def test_any_bytes_are_a_batch_or_refused(body, beginning) -> None:
    refused_or_the_same(beginning + body)


@given(many(KINDS[:-1]), st.data())
def test_a_damaged_batch_is_another_one_or_refused(items, data) -> None:
    body = bytearray(encode(Batch(BatchKind.PART, SERVER, 1, 1, sections(items, ports))))
    for place in data.draw(st.lists(st.integers(0, len(body) - 1), max_size=3)):
        body[place] = data.draw(st.integers(0, 255))
    for damaged in (bytes(body), bytes(body[:data.draw(st.integers(0, len(body)))]), bytes(body) + b"\0"):
        refused_or_the_same(damaged)


def test_rows_whose_external_port_is_said_nowhere_are_refused() -> None:
    (section,) = sections([entry()], ports)
    body = encode(Batch(BatchKind.PART, SERVER, 1, 1, [section._replace(ports=b"")]))
    with pytest.raises(MalformedBatch, match="061f90"):
        decode(body)
    assert unpack_ports(section.ports) == DERIVED
