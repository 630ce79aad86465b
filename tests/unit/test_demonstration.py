"""The demonstration without a network: its naive orders, how it judges, what it shows; and the labs' site files."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import dataclasses
import re
import socket
import struct
import threading
from ipaddress import IPv4Address

import pytest

from evaluation.demonstration import command
from evaluation.demonstration.loads import probe
from evaluation.demonstration.loads.probe_server import Peer
from evaluation.demonstration.naive import MOVES, NaiveMove
from evaluation.demonstration.orders import BUFFERED, ORDERS, PRECOPY, ROUTE_FIRST, TABLE_FIRST, Order
from evaluation.demonstration.page import page
from evaluation.demonstration.report import table, text
from evaluation.demonstration.results import MoveResult, OrderResult, ProbeResult, Step, sentence
from evaluation.lab_traffic import inside
from lbctl.entries.access_table import AccessTable, Entry
from lbctl.ground.move_record import MoveRecord
from lbctl.moves.actions import Announce, Assign, CopyEntries, Forget, SetRole
from lbctl.moves.move import Move
from lbctl.site import file as config
from lbctl.site.model import Settings
from lbctl.values.keys import pack_key, reply_key
from lbctl.values.transfer import Strategy, TransferMode
from topologies import fig1, fig2, fig3, fig3_full_nat, fig3_sliced
from topologies.plan import Plan, site_yaml

SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27
"""socket(7); the socket module has no names for them."""

PROBE = ProbeResult(
    arrivals=((10.0, 0.001), (10.5, 0.002), (12.0, 0.050), (12.2, 0.001)), sent=4, retransmitted=3, lost=0
)
STEPS = (Step("route", 11.0, 0.01), Step("grace", 11.01, 3.0))
MOVED = MoveResult("lb-a", "lb-b", "done", None, 11.0, STEPS, entries_copied=7, packets_held=2, packets_lost=0)
HARMLESS = OrderResult(
    *(PRECOPY, 9.0, (MOVED,), PROBE),
    connections=10, resets=0, stalls=0, requests=5, failed_requests=0, retransmitted=1, dropped=0,
    transferred=1_000_000, wrong_bytes=0,
)  # fmt: skip
BROKEN = dataclasses.replace(HARMLESS, order=ROUTE_FIRST, resets=2, failed_requests=1, breaks=((11.1, "reset"),))


def run_move(kind: type[Move]) -> list[object]:
    """All actions of a move whose every wish is granted at once."""
    table = AccessTable()
    key = pack_key(6, IPv4Address("203.0.113.9").packed, 4000, IPv4Address("198.51.100.1").packed, 80)
    table.add(Entry(key, reply_key(key, IPv4Address("10.0.0.11").packed, 80), b"\2\0\0\0\0\1", 0.0, 1))
    record = MoveRecord("1", IPv4Address("198.51.100.1"), "lb-a", "lb-b", Strategy.PRECOPY, 0.0)
    move = kind(record, table, Settings(grace=3.0))
    new = move.start(0.0)
    actions: list[object] = []
    while new:
        actions += new
        new = [action for done in new if getattr(done, "label", None) for action in move.confirmed(done.label, 0.0)]
    assert not move.ended, "the grace time is kept"
    actions += move.tick(10.0)
    assert move.ended and record.state == "done"
    return actions


@pytest.mark.parametrize("name", MOVES)
def test_naive_orders_have_no_transition_mode(name: str) -> None:
    assert issubclass(MOVES[name], NaiveMove)
    roles = [action.role for action in run_move(MOVES[name]) if isinstance(action, SetRole)]
    assert roles
    assert all(role.mode is not TransferMode.TRANSITION for role in roles)


@pytest.mark.parametrize(
    ("order", "sequence"), [(ROUTE_FIRST, [Announce, CopyEntries]), (TABLE_FIRST, [CopyEntries, Announce])]
)
def test_naive_orders_do_what_their_name_says(order: Order, sequence: list[type]) -> None:
    actions = run_move(MOVES[order.name])
    assert [type(action) for action in actions if isinstance(action, Announce | CopyEntries)] == sequence
    assert [type(action) for action in actions[-3:]] == [SetRole, Forget, Assign], "and they end like the product's"


def test_naive_orders_are_not_strategies_of_the_product() -> None:
    strategies = {strategy.value for strategy in Strategy}
    assert strategies == {order.name for order in ORDERS if not (order.naive or order.sliced)}
    assert not strategies & set(MOVES)


def test_worst_round_trip_and_longest_gap_between_two_times() -> None:
    assert PROBE.worst_round_trip() == 0.050
    assert PROBE.worst_round_trip(before=11.0) == 0.002
    assert PROBE.longest_gap() == 1.5
    assert PROBE.longest_gap(after=11.0) == pytest.approx(0.2)
    assert PROBE.longest_gap(before=10.1) == 0.0


@pytest.mark.parametrize(
    "harm",
    [
        {"resets": 1},
        {"stalls": 1},
        {"failed_requests": 1},
        {"wrong_bytes": 1},
        {"probe": dataclasses.replace(PROBE, lost=1)},
        {"moves": (dataclasses.replace(MOVED, state="rolled-back", reason="lb-b was lost"),)},
        {"moves": (dataclasses.replace(MOVED, packets_lost=1),)},
    ],
    ids=lambda harm: next(iter(harm)),
)
def test_any_harm_is_not_what_the_seed_claims_of_its_orders(harm: dict[str, object]) -> None:
    harmed = dataclasses.replace(HARMLESS, **harm)
    assert HARMLESS.as_claimed and not harmed.as_claimed
    assert sentence([HARMLESS, harmed]).endswith("This is NOT what the seed claims.")


def test_a_naive_order_that_breaks_nothing_shows_nothing() -> None:
    assert BROKEN.as_claimed
    assert not dataclasses.replace(BROKEN, resets=0, failed_requests=0).as_claimed


def test_a_machine_that_is_too_busy_is_named() -> None:
    harmed = dataclasses.replace(HARMLESS, stalls=1, dropped=30)
    assert "too busy" in sentence([harmed])
    assert "too busy" not in sentence([dataclasses.replace(HARMLESS, dropped=30)])


def test_table_and_page_show_every_order() -> None:
    without_moves = dataclasses.replace(
        HARMLESS, order=BUFFERED, moves=(), probe=dataclasses.replace(PROBE, arrivals=())
    )
    results = [BROKEN, HARMLESS, without_moves]
    shown, html = text(results), page(results, "Machine: <two> cores")
    for result in results:
        assert result.order.name in shown and result.order.name in html
        assert result.order.name in table(results).columns
    assert "connections reset" in shown and "step route" in shown
    assert "Machine: &lt;two&gt; cores" in html
    assert sentence(results).split(".")[0] in html
    assert not re.search(r'(src|href)="(?!#)', html), "one file, no network needed"


def test_a_record_has_the_figures_that_its_texts_are_made_of() -> None:
    rows = {row.cells[0]: row for row in table([BROKEN, HARMLESS]).rows}
    assert rows["connections reset"].cells[1:] == ("2", "0")
    assert rows["moves (done / tried)"].cells[1:] == ("1 / 1", "1 / 1")
    assert rows["step grace"].cells[1] == "3000 ms"
    assert rows["step grace"].figures["route-first"].values == (3.0,)
    assert rows["bytes transferred"].cells[2] == "1 MB"


def test_orders_of_the_command_line() -> None:
    assert command._orders("precopy, buffered") == [PRECOPY, BUFFERED]
    for wrong in ("", "precopy,sideways"):
        with pytest.raises(argparse.ArgumentTypeError, match="route-first, table-first, buffered, precopy"):
            command._orders(wrong)


def test_transfers_notice_a_wrong_byte_and_a_gap() -> None:
    for offset in (0, 5, len(inside.BLOCK) - 3, 3 * len(inside.BLOCK) + 1):
        piece = bytes(inside.chunk(offset, 100))
        assert inside.matches(piece, offset)
        assert not inside.matches(piece, offset + 1)
        assert not inside.matches(piece[:-1] + bytes([piece[-1] ^ 1]), offset)


def test_reasons_of_broken_connections() -> None:
    errors = (ConnectionResetError(), EOFError(), TimeoutError(), ConnectionRefusedError())
    assert [inside.reason_of(error) for error in errors] == ["reset", "reset", "stalled", "refused"]


def test_tcp_info_of_a_healthy_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as sock:
        assert inside.tcp_info(sock) == inside.HEALTHY


DROP_ALL = struct.pack("HBBI", 6, 0, 0, 0)
"""Classic BPF (bpf(4)): return 0."""


@pytest.mark.parametrize("drops", [0, 5])
def test_the_probe_tells_lost_segments_from_those_that_tcp_only_sent_again(drops: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as sock:
        answering, _ = server.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = probe.Connection(sock)
        thread = threading.Thread(target=answer_all, args=(Peer(answering),))
        thread.start()
        assert connection.lost() == 0
        if drops:
            instructions = ctypes.create_string_buffer(DROP_ALL, len(DROP_ALL))
            program = struct.pack("HxxxxxxP", 1, ctypes.addressof(instructions))
            answering.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
        for number in range(5):
            connection.request(number)
        if drops:
            answering.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
        assert drops <= connection.lost() <= 2 * drops, "TCP may have sent one again before the filter was gone"
        sock.shutdown(socket.SHUT_WR)
        thread.join()
        answering.close()


def answer_all(peer: Peer) -> None:
    with contextlib.suppress(EOFError):
        while True:
            peer.answer()


@pytest.mark.parametrize(
    "plan",
    [fig1.PLAN, fig2.PLAN, fig3.PLAN, fig3_full_nat.PLAN, fig3_sliced.PLAN, fig3.PLAN.with_service(7001)],
    ids=lambda plan: plan.name,
)
def test_site_files_of_the_labs_are_valid_and_say_what_the_plan_says(plan: Plan) -> None:
    assert config.parse(site_yaml(plan), "site.yaml") == plan.site
    assert all((plan.gateway_of(server) is None) == (plan is fig3_full_nat.PLAN) for server in plan.servers)


def test_figure_3_is_the_seeds() -> None:
    """31a-IP-1 and 31a-IP-2 at 3a, 31b-IP-1 at 3b, and one server belongs to each."""
    site, names = fig3.PLAN.site, fig3.PLAN.seed_names
    assert {names[str(ip.address)]: ip.load_balancer for ip in site.external_ips} == {
        "31a-IP-1": "lb-a",
        "31a-IP-2": "lb-a",
        "31b-IP-1": "lb-b",
    }
    assert [len(ip.server_addresses()) for ip in site.external_ips] == [1, 1, 1]
    assert fig3.PLAN.remote_clients and set(fig3.PLAN.remote_clients) != set(fig3.PLAN.clients)


def test_settings_of_a_lab_must_exist() -> None:
    plan = dataclasses.replace(fig3.PLAN, settings={"grace": 1.0})
    assert config.parse(site_yaml(plan), "site.yaml").settings == Settings(grace=1.0)
    with pytest.raises(ValueError, match="no such settings: mercy"):
        site_yaml(dataclasses.replace(fig3.PLAN, settings={"mercy": 1.0}))
