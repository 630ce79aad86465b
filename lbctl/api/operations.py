"""What each route does. An operation takes a Call and returns a Result, or raises RequestProblem."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Generic, NamedTuple, TypeVar

from pydantic import BaseModel

from lbctl import __version__
from lbctl.api import metrics, openapi, views
from lbctl.api import service_types as s
from lbctl.api import types as t
from lbctl.api.orders import Orders
from lbctl.api.paging import START, Cursor, entry_filter, page, parse_cursor, slice_filter
from lbctl.api.problems import not_found, refusal, wrong_field
from lbctl.api.shown import Shown
from lbctl.assignment import Plan, Unassignable
from lbctl.ground.move_record import MoveRecord
from lbctl.http.problems import RequestProblem
from lbctl.load.balancing import Run
from lbctl.site.documents import endpoint_of
from lbctl.site.model import ExternalIp, LoadBalancer, Server, Service, ServiceName
from lbctl.values.addresses import Address
from lbctl.values.refused import Refused

WAIT_LIMIT = 300.0
"""Seconds that `wait` waits for a move to end. After it the answer is 202, as without `wait`."""

Query = TypeVar("Query", bound=BaseModel)
Body = TypeVar("Body", bound=BaseModel | None)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Call(Generic[Query, Body]):
    """orders: what the control function can be told. values: of the path's placeholders. query, body: of the types that
    the route declares."""

    orders: Orders
    values: dict[str, str]
    query: Query
    body: Body

    @property
    def shown(self) -> Shown:
        return self.orders.shown


class Result(NamedTuple):
    """content: a response type, sent as JSON; or bytes, sent with `content_type`."""

    content: BaseModel | bytes
    status: int = 200
    location: str | None = None
    content_type: str = "application/json"


AnyCall = Call[Any, Any]
Plain = Call[t.NoQuery, None]


def _paused(call: AnyCall, items: Iterable[T]) -> Iterator[T]:
    """These, while others run in between."""
    for item in items:
        yield item
        call.orders.pause()


def _listed(name: str, items: Iterable[BaseModel]) -> Result:
    """A response with one field, a list; item by item, since a large one takes long."""
    return Result(f'{{"{name}":[{",".join([item.model_dump_json(by_alias=True) for item in items])}]}}'.encode())


def _shown_plan(call: AnyCall, plan: Plan, run: Run | None = None) -> t.PlanView:
    return views.plan(plan, _paused(call, plan.moves), run)


def list_load_balancers(call: Plain) -> Result:
    shown = call.shown
    return _listed("load_balancers", (
        views.load_balancer(shown, lb, call.orders.pause) for lb in shown.each_load_balancer(call.orders.pause)))


def get_load_balancer(call: Plain) -> Result:
    return Result(views.load_balancer(call.shown, _load_balancer(call), call.orders.pause))


def get_access_table(call: Call[t.AccessTableQuery, None]) -> Result:
    query, shown = call.query, call.shown
    addresses = shown.assigned(_load_balancer(call), call.orders.pause).external_ips
    if query.external_ip is not None:
        _known_external_ip(shown, query.external_ip)
        addresses = [address for address in addresses if address == query.external_ip]
    wanted = query.model_dump(include=t.ENTRY_FILTERS)
    fits = slice_filter(**wanted)
    entries, after = page(addresses, shown.entries, query.limit, _cursor(query.after), entry_filter(**wanted),
                          lambda address: filter(fits, shown.slices(address)), call.orders.pause)
    return Result(t.AccessTablePage.model_construct(
        entries=[views.entry(entry) for entry in _paused(call, entries)], next=after and after.text(),
        total=sum(map(shown.entry_count, addresses))))


def get_transfer_modes(call: Plain) -> Result:
    modes = call.shown.transfer_modes(_load_balancer(call))
    return Result(t.TransferModes(transfer_modes={str(address): mode.value for address, mode in modes.items()}))


def list_external_ips(call: Plain) -> Result:
    shown = call.shown
    return _listed("external_ips", (
        views.external_ip(shown, ip) for ip in shown.each_external_ip(call.orders.pause)))


def get_external_ip(call: Plain) -> Result:
    return Result(views.external_ip(call.shown, _external_ip(call)))


def start_move(call: Call[t.MoveQuery, t.MoveRequest]) -> Result:
    external_ip, order, site = _external_ip(call), call.body, call.shown.site
    if site.load_balancer(order.to) is None:
        known = ", ".join(lb.name for lb in site.load_balancers)
        raise wrong_field("body", "to", f"there is no load balancer {order.to}; there are: {known}")
    with _refusals():
        record = call.orders.start_move(external_ip.address, order.to, order.strategy, order.entries == "copy")
    if call.query.wait:
        call.orders.wait_for_move(record.id, WAIT_LIMIT)
    return Result(views.move(record), 202 if record.state == "running" else 200, f"/v1/moves/{record.id}")


def fail_over(call: Call[t.MoveQuery, None]) -> Result:
    name = _load_balancer(call).name
    with _refusals():
        records = call.orders.fail_over(name)
    if call.query.wait:
        for record in records:
            call.orders.wait_for_move(record.id, WAIT_LIMIT)
    running = any(record.state == "running" for record in records)
    return Result(t.MoveList(moves=[views.move(record) for record in records]), 202 if running else 200)


def change_service(call: Call[t.NoQuery, s.ServiceChange]) -> Result:
    external_ip, service = _service(call)
    with _refusals():
        if call.body.entries:
            call.orders.set_entries(_name(external_ip, service), call.body.entries)
        if call.body.scheduler:
            call.orders.set_scheduler(_name(external_ip, service), call.body.scheduler)
    return Result(views.service_of(call.shown, *_service(call)))


def list_servers(call: AnyCall) -> Result:
    external_ip, service = _service(call)
    return Result(s.ServerList(servers=views.servers_of(call.shown, external_ip, service, service.servers)))


def add_server(call: Call[t.NoQuery, s.ServerRequest]) -> Result:
    external_ip, service = _service(call)
    server = call.body.server(call.shown.site.settings.internal_mtu)
    with _refusals():
        call.orders.add_server(_name(external_ip, service), server)
    external_ip, service = _service(call)
    of_service = f"/v1/external-ips/{external_ip.address}/services/{service.protocol}/{service.port}"
    place = f"{of_service}/servers/{server.endpoint}"
    return Result(views.server_of(call.shown, external_ip, service, server), 201, place)


def get_server(call: AnyCall) -> Result:
    return Result(views.server_of(call.shown, *_server(call)))


def change_server(call: Call[t.NoQuery, s.ServerChange]) -> Result:
    external_ip, service, server = _server(call)
    given = call.body.model_dump(exclude_unset=True)
    drained = given.pop("drained", None)
    with _refusals():
        call.orders.change_server(_name(external_ip, service), server.endpoint, given, drained)
    return get_server(call)


def remove_server(call: Plain) -> Result:
    external_ip, service, server = _server(call)
    with _refusals():
        call.orders.remove_server(_name(external_ip, service), server.endpoint)
    return list_servers(call)


def list_moves(call: Plain) -> Result:
    records = sorted(call.shown.moves(), key=lambda record: record.started, reverse=True)
    return Result(t.MoveList(moves=[views.move(record) for record in records]))


def get_move(call: Plain) -> Result:
    return Result(views.move(_move(call)))


def abort_move(call: Plain) -> Result:
    record = _move(call)
    with _refusals():
        call.orders.abort_move(record.id)
    return Result(views.move(record), 202)


def rebalance(call: Call[t.MoveQuery, t.RebalanceRequest]) -> Result:
    plan = _plan(call, call.body.algorithm)
    return Result(_shown_plan(call, plan)) if call.body.dry_run else _carry_out(call, plan)


def get_rebalance(call: Plain) -> Result:
    run = call.shown.last_run()
    if run is None:
        raise RequestProblem(404, "Nothing has been rebalanced since the controller started.")
    return Result(_shown_plan(call, run.plan, run))


def drain(call: Call[t.MoveQuery, t.DrainRequest]) -> Result:
    lb = _load_balancer(call)
    before = call.shown.drained(lb)
    call.orders.set_drained(lb.name, not call.body.undo)
    try:
        plan = _plan(call, None)
        return Result(_shown_plan(call, plan)) if call.body.undo else _carry_out(call, plan)
    except RequestProblem:
        call.orders.set_drained(lb.name, before)  # refused: nothing has changed
        raise


def _plan(call: AnyCall, algorithm: str | None) -> Plan:
    """algorithm: None, the site file's."""
    try:
        return call.orders.plan(algorithm)
    except Unassignable as error:
        raise RequestProblem(409, str(error), title="No such assignment") from error


def _carry_out(call: Call[t.MoveQuery, Any], plan: Plan) -> Result:
    with _refusals():
        run = call.orders.rebalance(plan)
    if call.query.wait:
        call.orders.wait_for_run(run, WAIT_LIMIT)
    return Result(_shown_plan(call, plan, run), 202 if run.state == "running" else 200)


def list_keepers(call: Plain) -> Result:
    return Result(t.KeeperList(keepers=[views.keeper(state) for state in call.shown.keepers(call.orders.now())]))


def get_health(call: Plain) -> Result:
    switches = [call.shown.switch(lb) for lb in call.shown.site.load_balancers]
    return Result(t.Health(version=__version__, load_balancers=len(switches),
                           cut_off_since=views.iso_if_known(call.shown.cut_off_since),
                           dropped=views.dropped(call.shown.counters()),
                           internal_errors=call.shown.counters().get("internal_errors", 0),
                           crashes_in_a_row=call.shown.crashes,
                           load_balancers_ready=sum(switch.condition == "ready" for switch in switches)))


def get_openapi(call: Plain) -> Result:
    return Result(json.dumps(openapi.document()).encode())


def get_metrics(call: Plain) -> Result:
    orders = call.orders
    found = metrics.collected(call.shown, orders.now(), orders.pause)
    return Result(orders.apart(metrics.exposition, found), content_type=metrics.CONTENT_TYPE)


def _load_balancer(call: AnyCall) -> LoadBalancer:
    site, name = call.shown.site, call.values["name"]
    lb = site.load_balancer(name)
    if lb is None:
        raise not_found("load balancer", name, [lb.name for lb in site.load_balancers])
    return lb


def _external_ip(call: AnyCall) -> ExternalIp:
    text = call.values["address"]
    try:
        address = ip_address(text)
    except ValueError:
        raise _no_external_ip(call.shown, text) from None
    return _known_external_ip(call.shown, address)


def _known_external_ip(shown: Shown, address: Address) -> ExternalIp:
    external_ip = shown.site.external_ip(address)
    if external_ip is None:
        raise _no_external_ip(shown, str(address))
    return external_ip


def _no_external_ip(shown: Shown, text: str) -> RequestProblem:
    return not_found("external IP", text, [str(ip.address) for ip in shown.site.external_ips])


def _service(call: AnyCall) -> tuple[ExternalIp, Service]:
    external_ip = _external_ip(call)
    names = {f"{service.protocol}/{service.port}": service for service in external_ip.services}
    name = f"{call.values['protocol']}/{call.values['port']}"
    if name not in names:
        raise not_found(f"service of {external_ip.address}", name, list(names))
    return external_ip, names[name]


def _name(external_ip: ExternalIp, service: Service) -> ServiceName:
    return ServiceName(external_ip.address, service.protocol, service.port)


def _server(call: AnyCall) -> tuple[ExternalIp, Service, Server]:
    external_ip, service = _service(call)
    servers = {server.endpoint: server for server in service.servers}
    try:
        server = servers[endpoint_of(call.values["server"])]
    except (KeyError, ValueError):
        known = list(map(str, servers))
        raise not_found(f"server of {_name(external_ip, service)}", call.values["server"], known) from None
    return external_ip, service, server


def _move(call: AnyCall) -> MoveRecord:
    record = call.shown.move(call.values["id"])
    if record is None:
        raise not_found("move", call.values["id"], [record.id for record in reversed(call.shown.moves())])
    return record


def _cursor(text: str | None) -> Cursor:
    try:
        return START if text is None else parse_cursor(text)
    except ValueError as error:
        raise wrong_field("query", "after", str(error)) from error


@contextmanager
def _refusals() -> Iterator[None]:
    """What the control function will not do is the answer to the request."""
    try:
        yield
    except Refused as refused:
        raise refusal(refused) from refused
