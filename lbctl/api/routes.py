"""The route table, declared once: dispatch, `Allow` and OpenAPI are made from it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from pydantic import BaseModel

from lbctl.api import service_types as s
from lbctl.api import types as t


@dataclass(frozen=True, slots=True)
class Route:
    """`operation` names a function of lbctl/api/operations.py. `errors` are the statuses special to it.

    `response` is None where the answer is no JSON of ours; `statuses` gives each success status with its meaning.
    """

    method: str
    path: str
    operation: str
    summary: str
    response: type[BaseModel] | None
    body: type[BaseModel] | None = None
    query: type[BaseModel] = t.NoQuery
    statuses: Mapping[int, str] | None = None
    errors: tuple[int, ...] = ()


_MOVED = {202: "The move has started.", 200: "The move has ended (`wait`); its state says how."}
_FAILED_OVER = {202: "The moves have started.",
                200: "All of them have ended (`wait`), or there was nothing to take away."}
_REBALANCED = {202: "The moves have begun.", 200: "It has ended (`wait`), was a dry run, or there was nothing to do."}
_SERVERS = "/v1/external-ips/{address}/services/{protocol}/{port}/servers"
_ABORTING = {202: "The move is being rolled back."}

ROUTES: tuple[Route, ...] = (
    Route("GET", "/v1/load-balancers", "list_load_balancers", "All load balancers.", t.LoadBalancerList),
    Route("GET", "/v1/load-balancers/{name}", "get_load_balancer", "State, ports, external IPs, load.",
          t.LoadBalancerView, errors=(404,)),
    Route("GET", "/v1/load-balancers/{name}/access-table", "get_access_table", "The entries, by page.",
          t.AccessTablePage, query=t.AccessTableQuery, errors=(404,)),
    Route("GET", "/v1/load-balancers/{name}/transfer-modes", "get_transfer_modes",
          "The transfer mode of each external IP that has one there.", t.TransferModes, errors=(404,)),
    Route("POST", "/v1/load-balancers/{name}/failover", "fail_over",
          "Takes all external IPs of a load balancer away, as if it had failed.", t.MoveList, query=t.MoveQuery,
          statuses=_FAILED_OVER, errors=(404, 409)),
    Route("POST", "/v1/load-balancers/{name}/drain", "drain",
          "Empties a load balancer by moves, and keeps it empty; `undo` allows its use, and moves nothing.", t.PlanView,
          body=t.DrainRequest, query=t.MoveQuery, statuses=_REBALANCED, errors=(404, 409)),
    Route("GET", "/v1/rebalance", "get_rebalance", "The last assignment that was carried out, or is.", t.PlanView,
          errors=(404,)),
    Route("POST", "/v1/rebalance", "rebalance",
          "Computes an assignment from the measured loads, and carries it out unless `dry_run`.", t.PlanView,
          body=t.RebalanceRequest, query=t.MoveQuery, statuses=_REBALANCED, errors=(409,)),
    Route("GET", "/v1/external-ips", "list_external_ips", "All external IPs.", t.ExternalIpList),
    Route("GET", "/v1/external-ips/{address}", "get_external_ip", "Assignment, services, connections.",
          t.ExternalIpView, errors=(404,)),
    Route("POST", "/v1/external-ips/{address}/move", "start_move", "Moves an external IP to another load balancer.",
          t.MoveView, body=t.MoveRequest, query=t.MoveQuery, statuses=_MOVED, errors=(404, 409)),
    Route("PATCH", "/v1/external-ips/{address}/services/{protocol}/{port}", "change_service",
          "Gives a service another scheduler.", s.ServiceView, body=s.ServiceChange, errors=(404,)),
    Route("GET", _SERVERS, "list_servers", "The servers of a service.", s.ServerList, errors=(404,)),
    Route("POST", _SERVERS, "add_server", "Gives a service one more server.", s.ServerView, body=s.ServerRequest,
          statuses={201: "It is there, and gets connections as soon as the load balancer has its MAC."},
          errors=(404, 409)),
    Route("GET", _SERVERS + "/{server}", "get_server", "State, connections.", s.ServerView, errors=(404,)),
    Route("PATCH", _SERVERS + "/{server}", "change_server",
          "Drains a server, or changes its weight or limit; open connections stay.", s.ServerView,
          body=s.ServerChange, errors=(404, 409)),
    Route("DELETE", _SERVERS + "/{server}", "remove_server",
          "Takes a server out of a service; its open connections stay.", s.ServerList,
          statuses={200: "It is gone; these are the others."}, errors=(404, 409)),
    Route("GET", "/v1/moves", "list_moves", "The records of all moves, newest first.", t.MoveList),
    Route("GET", "/v1/moves/{id}", "get_move", "The record of a move.", t.MoveView, errors=(404,)),
    Route("DELETE", "/v1/moves/{id}", "abort_move", "Aborts a move that has not come to its route step.", t.MoveView,
          statuses=_ABORTING, errors=(404, 409)),
    Route("GET", "/v1/keepers", "list_keepers", "The keepers that are told of entries, and how far behind they are.",
          t.KeeperList),
    Route("GET", "/v1/health", "get_health", "That the controller answers, and how many load balancers are ready.",
          t.Health),
    Route("GET", "/v1/openapi.json", "get_openapi", "This API by OpenAPI 3.1.", None),
    Route("GET", "/metrics", "get_metrics", "Metrics in the text format of Prometheus.", None),
)


class PathRoutes(NamedTuple):
    """The routes of a path by method, and the values of the path's placeholders."""

    routes: dict[str, Route]
    values: dict[str, str]


def find(path: str) -> PathRoutes | None:
    """The routes of a path; None if there are none."""
    for pattern, routes in _PATTERNS:
        if match := pattern.fullmatch(path):
            return PathRoutes(routes, match.groupdict())
    return None


def allowed(routes: Mapping[str, Route]) -> str:
    """The header `Allow` for a path."""
    methods = set(routes) | ({"HEAD"} if "GET" in routes else set())
    return ", ".join(sorted(methods))


def _patterns() -> list[tuple[re.Pattern[str], dict[str, Route]]]:
    by_path: dict[str, dict[str, Route]] = {}
    for route in ROUTES:
        by_path.setdefault(route.path, {})[route.method] = route
    return [(re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(path))), routes)
            for path, routes in by_path.items()]


_PATTERNS = _patterns()
