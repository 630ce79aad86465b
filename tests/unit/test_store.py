"""What must survive a restart: written whole or not at all, and read with clear words when it is damaged."""

from __future__ import annotations

import json
import os
from ipaddress import IPv4Address, ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbctl.site.model import SCHEDULERS, TUNNEL_OVERHEAD, Instead, Server, ServiceName, ServiceOrder, Tunnel
from lbctl.store import FileStore, State, StoreError, UnfinishedMove
from lbctl.store.checked import Checked
from lbctl.store.slices import SavedSlices, rows_of, slices_of
from lbctl.values.addresses import Endpoint
from lbctl.values.transfer import Strategy

ADDRESS = IPv4Address("198.51.100.1")
SERVER = Server(IPv4Address("10.0.0.11"), 80)
STATE = State({ADDRESS: "lb-b"}, {ADDRESS: UnfinishedMove("lb-a", "lb-b", Strategy.BUFFERED)},
              orders={ServiceName(ADDRESS, "tcp", 80): ServiceOrder(
                  Instead("maglev", "round-robin"),
                  Instead((Server(IPv4Address("10.0.0.11"), 80, max_connections=7),), (SERVER,)),
                  frozenset({Endpoint(IPv4Address("10.0.0.11"), 80)}))})
names = st.text(min_size=1, max_size=8)
ports = st.integers(1, 65535)
servers = st.tuples(st.builds(
    Server, st.ip_addresses(), ports, ports, st.none() | st.ip_addresses(),
    st.none() | st.builds(Tunnel, st.sampled_from(list(TUNNEL_OVERHEAD)), st.ip_addresses(v=4), st.integers(0, 9),
                          st.integers(576, 1500)),
    st.none() | ports))
orders = st.builds(
    ServiceOrder, st.none() | st.builds(Instead, st.sampled_from(SCHEDULERS), st.sampled_from(SCHEDULERS)),
    st.none() | st.builds(Instead, servers, servers),
    st.frozensets(st.builds(Endpoint, st.ip_addresses(), ports), max_size=2))
states = st.builds(
    State, st.dictionaries(st.ip_addresses(v=4), names, max_size=4),
    st.dictionaries(st.ip_addresses(v=4), st.builds(UnfinishedMove, names, names, st.sampled_from(Strategy)),
                    max_size=3),
    orders=st.dictionaries(st.builds(ServiceName, st.ip_addresses(), st.sampled_from(["tcp", "udp"]), ports), orders,
                           max_size=3),
    checked=st.dictionaries(
        st.builds(ServiceName, st.ip_addresses(), st.sampled_from(["tcp", "udp"]), ports),
        st.builds(Checked, names, st.dictionaries(
            st.builds(Endpoint, st.ip_addresses(), ports), st.tuples(names, st.floats(0, 2e9)), max_size=2)),
        max_size=3))


@given(state=states)
def test_what_is_saved_is_loaded(tmp_path_factory, state) -> None:
    store = FileStore(tmp_path_factory.mktemp("store") / "state.json")
    store.save(state)
    assert store.load() == state


def test_no_file_is_an_empty_state(tmp_path) -> None:
    assert FileStore(tmp_path / "state.json").load() == State()


@pytest.mark.parametrize("text", [
    "", "{", "[]", "null", "7", "{}", '{"format": 1}', '{"format": 2, "assigned": {}, "unfinished": {}}',
    '{"format": 1, "assigned": [], "unfinished": {}}',
    '{"format": 1, "assigned": {"no address": "lb-a"}, "unfinished": {}}',
    '{"format": 1, "assigned": {}, "unfinished": {"198.51.100.1": 7}}',
    '{"format": 1, "assigned": {}, "unfinished": {}, "orders": [{"external_ip": "198.51.100.1", "protocol": "tcp", '
    '"port": 80, '
    '"scheduler": {"wanted": "at-random", "instead_of": "maglev"}, "servers": null, "drained": []}]}',
    '{"format": 1, "assigned": {}, "unfinished": {}, "orders": [7]}',
    '{"format": 1, "assigned": {}, "unfinished": {}, "orders": [{"external_ip": "198.51.100.1", "protocol": "tcp", '
    '"port": 80, '
    '"scheduler": null, "servers": {"wanted": [], "instead_of": []}, "drained": []}]}',
    '{"format": 1, "assigned": {}, "unfinished": {}, "orders": [{"external_ip": "198.51.100.1", "protocol": "tcp", '
    '"port": 80, '
    '"scheduler": null, "servers": null, "drained": ["10.0.0.11"]}]}',
    '{"format": 1, "assigned": {}, "unfinished": {"198.51.100.1": {"from": "a", "to": "b", "strategy": "luck"}}}',
    "\ud800"])
def test_a_damaged_file_is_told_with_what_to_do(tmp_path, text) -> None:
    file = tmp_path / "state.json"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(StoreError, match="state.json: can't be read .*; mend it, or remove it"):
        FileStore(file).load()


@given(data=st.binary(max_size=60))
def test_any_bytes_are_a_state_or_a_store_error(tmp_path_factory, data) -> None:
    file = tmp_path_factory.mktemp("store") / "state.json"
    file.write_bytes(data)
    try:
        FileStore(file).load()
    except StoreError:
        pass


@given(cut=st.integers(0, 1200))
def test_a_file_cut_short(tmp_path_factory, cut) -> None:
    store = FileStore(tmp_path_factory.mktemp("store") / "state.json")
    store.save(STATE)
    whole = store.path.read_text()
    store.path.write_text(whole[:cut])
    if cut >= len(whole):
        assert store.load() == STATE
    else:
        with pytest.raises(StoreError):
            store.load()


def test_a_save_that_fails_leaves_the_old_file(tmp_path, monkeypatch) -> None:
    store = FileStore(tmp_path / "state.json")
    store.save(STATE)

    def full(*_) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="No space left"):
        store.save(State())
    assert store.load() == STATE
    assert [file.name for file in tmp_path.iterdir()] == ["state.json"], "nothing is left lying about"


def test_a_directory_that_is_not_there() -> None:
    with pytest.raises(StoreError, match="can't be written"):
        FileStore(Path("/no/such/directory/state.json")).save(STATE)


def test_the_file_is_for_people_too(tmp_path) -> None:
    store = FileStore(tmp_path / "state.json")
    store.save(STATE)
    assert json.loads(store.path.read_text()) == {
        "format": 1, "assigned": {"198.51.100.1": "lb-b"},
        "unfinished": {"198.51.100.1": {"from": "lb-a", "to": "lb-b", "strategy": "buffered"}},
        "watched": [], "fence_code": "", "fences": {},
        "orders": [{"external_ip": "198.51.100.1", "protocol": "tcp", "port": 80,
                    "scheduler": {"wanted": "maglev", "instead_of": "round-robin"},
                    "servers": {"wanted": [{"address": "10.0.0.11", "port": 80, "weight": 1, "max_connections": 7}],
                                "instead_of": [{"address": "10.0.0.11", "port": 80, "weight": 1}]},
                    "drained": ["10.0.0.11:80"], "entries": None}], "drained": [], "checked": [], "slices": []}


@given(st.lists(st.integers(-1, 3), max_size=256), st.dictionaries(st.integers(0, 255), st.integers(0, 3)))
def test_who_has_the_slices_is_kept(owners, before) -> None:
    servers = [Endpoint(ip_address(text), 80) for text in ("10.0.0.11", "10.0.0.9", "fd00::11", "10.0.0.12")]
    name = ServiceName(ip_address("198.51.100.1"), "tcp", 80)
    saved = {name: SavedSlices(tuple(servers[number] if number >= 0 else None for number in owners),
                               {number: servers[server] for number, server in before.items()})}
    assert slices_of(json.loads(json.dumps(rows_of(saved)))) == saved


@pytest.mark.parametrize("rows", [
    [{}], [None], [{"servers": ["x"]}],
    [{"external_ip": "198.51.100.1", "protocol": "tcp", "port": 80, "servers": [], "owners": [0], "before": {}}],
    [{"external_ip": "198.51.100.1", "protocol": "tcp", "port": 80, "servers": [], "owners": [], "before": []}],
])
def test_other_rows_of_slices_are_refused(rows) -> None:
    with pytest.raises((KeyError, IndexError, TypeError, ValueError, AttributeError)):
        slices_of(rows)
