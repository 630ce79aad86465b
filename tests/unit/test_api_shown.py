"""What is shown of a real control function: that `Shown` reads its parts, each by the name that it has."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lbctl.api import shown
from lbctl.api.dispatch import dispatch
from lbctl.api.routes import ROUTES
from lbctl.control import ControlFunction
from lbctl.http.message import Request, Response
from lbctl.store import State
from lbctl.switches.switch import PortState
from lbctl.values.transfer import Strategy
from tests.unit.api_fakes import GATEWAY, IP_1, SERVER_1, START, entry, site_of_all_kinds

SERVICE = f"/v1/external-ips/{IP_1}/services/tcp/80"
PLACES = {"name": "lb-a", "address": str(IP_1), "protocol": "tcp", "port": "80", "server": "10.0.0.11:80", "id": "1"}


class Reading:
    """A control function of a site of all kinds, whose switches are not connected; and what is shown of it."""

    def __init__(self) -> None:
        self.control = ControlFunction(site_of_all_kinds(), State(), START)
        self.shown = shown.of(self.control)

    def now(self) -> float:
        return START

    def get(self, path: str) -> Response:
        return dispatch(Request("GET", path), self)  # type: ignore[arg-type]  # it takes no orders

    def json(self, path: str) -> Any:
        response = self.get(path)
        assert response.status == 200, response.body
        return json.loads(response.body)

    def pause(self) -> None:
        pass

    def apart(self, function, *args):
        return function(*args)


@pytest.mark.parametrize("path", sorted({route.path for route in ROUTES if route.method == "GET"}))
def test_everything_can_be_read(path) -> None:
    response = Reading().get(path.format_map(PLACES))
    assert response.status == (404 if "{id}" in path or path == "/v1/rebalance" else 200), response.body


def test_it_is_what_the_parts_have() -> None:
    reading = Reading()
    control = reading.control
    serving = control.ground.external_ips.get(IP_1)
    assert serving
    serving.table.add(entry("203.0.113.9", 1000, server=SERVER_1))
    control.ground.switches["lb-a"].neighbours[SERVER_1] = "02:00:00:00:00:11"
    control.balancing.set_drained("lb-b", True)
    first, second = reading.json("/v1/load-balancers")["load_balancers"]
    assert (first["state"], first["connections"], first["drained"]) == ("disconnected", 1, False)
    assert (second["health"], second["drained"], second["connections"]) == ("unwatched", True, 0)
    assert len(reading.json("/v1/load-balancers/lb-a/access-table")["entries"]) == 1
    assert reading.json("/v1/load-balancers/lb-a/transfer-modes")["transfer_modes"][str(IP_1)] == "normal"
    server = reading.json(f"{SERVICE}/servers")["servers"][0]
    assert (server["connections"], server["mac"], server["state"]) == (1, "02:00:00:00:00:11", "up")
    assert reading.json(f"/v1/external-ips/{GATEWAY}")["router"] == {"address": "198.51.100.254", "mac": None}
    metrics = reading.get("/metrics").body.decode()
    assert f'lbctl_connections{{dp_name="lb-a",external_ip="{IP_1}"}} 1.0' in metrics.splitlines()


def test_a_move_is_shown_with_its_external_ip() -> None:
    reading = Reading()
    for switch in reading.control.ground.switches.values():
        switch.state, switch.confirmed = "ready", True
        switch.set_ports([PortState(name, number, f"02:00:00:00:00:0{number}", True)
                          for number, name in enumerate(switch.lb.ports().values(), 1)])
    for serving in reading.control.ground.external_ips:
        serving.unread.clear()
    assert reading.json(f"/v1/external-ips/{IP_1}")["move"] is None
    record, _ = reading.control.movement.start(IP_1, "lb-b", Strategy.PRECOPY, START)
    assert reading.json(f"/v1/external-ips/{IP_1}")["move"] == record.id
    assert [move["id"] for move in reading.json("/v1/moves")["moves"]] == [record.id]
