"""From request to response: what is checked, in which order, and what is answered."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbctl.api import operations
from lbctl.api.dispatch import dispatch
from lbctl.api.routes import ROUTES
from lbctl.http.message import Request
from tests.unit.api_fakes import IP_1, Api, problem

MOVE = f"/v1/external-ips/{IP_1}/move"
SERVICE = f"/v1/external-ips/{IP_1}/services/tcp/80"

REFUSED = [
    # (sentence, method, path, body, headers, status, part of the detail)
    ("unknown path", "GET", "/v2", None, None, 404, "/v1/openapi.json"),
    ("unknown LB", "GET", "/v1/load-balancers/lb-x", None, None, 404, "lb-a, lb-b"),
    ("unknown external IP", "POST", "/v1/external-ips/203.0.113.1/move", {"to": "lb-b"}, None, 404, "198.51.100.1"),
    ("no address at all", "GET", "/v1/external-ips/nonsense", None, None, 404, "nonsense"),
    ("unknown service", "PATCH", f"/v1/external-ips/{IP_1}/services/udp/80", {"scheduler": "maglev"}, None, 404,
     "There is no service of 198.51.100.1 udp/80; there are: tcp/80."),
    ("service of no external IP", "PATCH", "/v1/external-ips/203.0.113.1/services/tcp/80", {"scheduler": "maglev"},
     None, 404,
     "198.51.100.1"),
    ("unknown scheduler", "PATCH", SERVICE, {"scheduler": "at-random"}, None, 422, "scheduler: "),
    ("no scheduler", "PATCH", SERVICE, {}, None, 422, "give scheduler, or entries, or both"),
    ("what a service has not", "PATCH", SERVICE, {"scheduler": "maglev", "port": 81}, None, 422,
     "port: is not known here"),
    ("unknown move", "GET", "/v1/moves/7", None, None, 404, "there are none"),
    ("wrong method", "DELETE", "/v1/load-balancers", None, None, 405, "takes GET, HEAD"),
    ("not JSON", "POST", MOVE, b"{to: lb-b", None, 400, "not JSON"),
    ("not UTF-8", "POST", MOVE, b"\xff\xfe", None, 400, "not JSON"),
    ("nested beyond measure", "POST", MOVE, b"[" * 60_000, None, 400, "not JSON"),
    ("not said to be JSON", "POST", MOVE, b"to=lb-b", {"content-type": "text/plain"}, 415, "application/json"),
    ("no content type", "POST", MOVE, b"{}", {}, 415, "application/json"),
    ("empty body", "POST", MOVE, None, None, 400, "not JSON"),
    ("JSON, but a list", "POST", MOVE, ["lb-b"], None, 422, "body"),
    ("missing field", "POST", MOVE, {}, None, 422, "to: is missing"),
    ("wrong type", "POST", MOVE, {"to": 5}, None, 422, "to: "),
    ("unknown field", "POST", MOVE, {"to": "lb-b", "stratgy": "precopy"}, None, 422, "stratgy: is not known here"),
    ("unknown strategy", "POST", MOVE, {"to": "lb-b", "strategy": "fast"}, None, 422, "buffered"),
    ("unknown target", "POST", MOVE, {"to": "lb-x"}, None, 422, "lb-a, lb-b"),
    ("refused by the core", "POST", MOVE, {"to": "lb-a"}, None, 409, "already"),
]


@pytest.mark.parametrize(("method", "path", "body", "headers", "status", "detail"),
                         [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_refusals_say_what_is_wrong(method, path, body, headers, status, detail):
    details = problem(Api().call(method, path, body, headers=headers), status)
    assert detail in details["detail"]


def test_a_service_gets_another_scheduler():
    api = Api()
    answer = json.loads(api.call("PATCH", SERVICE, {"scheduler": "maglev"}).body)
    assert answer == api.get(f"/v1/external-ips/{IP_1}")["services"][0]
    assert (answer["scheduler"], answer["site_file_scheduler"]) == ("maglev", "weighted-round-robin")


def test_each_wrong_field_is_named():
    details = problem(Api().call("POST", MOVE, {"strategy": "fast", "when": "now"}), 422)
    assert sorted(error["field"] for error in details["errors"]) == ["strategy", "to", "when"]


def test_a_wrong_method_is_told_the_right_ones():
    response = Api().call("PUT", MOVE, {})
    problem(response, 405)
    assert response.headers["Allow"] == "POST"


def test_a_body_too_long_is_refused_whatever_it_says():
    problem(dispatch(Request("POST", MOVE, {}, {"content-type": "application/json"}, None), Api().orders), 413)


@pytest.mark.parametrize(("query", "field"), [
    ({"limt": "5"}, "limt"), ({"limit": "0"}, "limit"), ({"limit": "1001"}, "limit"),
    ({"external_ip": "80"}, "external_ip"),
    ({"after": "xyz"}, "after"), ({"after": "é"}, "after"), ({"client_port": "70000"}, "client_port")])
def test_a_wrong_query_is_named(query, field):
    details = problem(Api().call("GET", "/v1/load-balancers/lb-a/access-table", query=query), 422)
    assert [error["field"] for error in details["errors"]] == [field]


def test_a_parameter_given_twice_is_refused():
    request = Request("GET", "/v1/load-balancers/lb-a/access-table", {"limit": ["1", "2"]})
    problem(dispatch(request, Api().orders), 422)


# Whose order is it?


FAILOVER = "/v1/load-balancers/lb-a/failover"


@pytest.mark.parametrize("headers", [
    {"origin": "https://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"}, {"origin": "http://127.0.0.1:9090", "host": "127.0.0.1:8080"}])
def test_a_page_of_another_site_gives_no_orders(headers):
    api = Api()
    for method, path in (("POST", FAILOVER), ("DELETE", "/v1/moves/1"), ("POST", MOVE)):
        problem(api.call(method, path, {"to": "lb-b"}, headers={"content-type": "application/json", **headers}), 403)
    assert api.call("GET", "/v1/health", headers=headers).status == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded; charset=utf-8",
                                  "multipart/form-data; boundary=x"])
def test_a_form_gives_no_orders(kind):
    problem(Api().call("POST", FAILOVER, b"a=b", headers={"content-type": kind}), 415)


@pytest.mark.parametrize("headers", [{}, {"origin": "http://127.0.0.1:8080", "host": "127.0.0.1:8080"},
                                     {"sec-fetch-site": "same-origin"}, {"sec-fetch-site": "none"}])
def test_scripts_and_our_own_page_give_orders(headers):
    assert Api().call("POST", FAILOVER, headers=headers).status == 202


@pytest.mark.parametrize(("host", "status"), [
    ("127.0.0.1:8080", 200), ("[::1]:8080", 200), ("localhost", 200), ("198.18.0.1", 200), ("lab-host:8080", 200),
    ("evil.example", 421), ("evil.example:8080", 421), ("127.0.0.1.evil.example", 421)])
def test_a_name_that_somebody_else_has_given_to_the_controller(host, status):
    """DNS rebinding: a page's own name leads to the controller's address, so that the browser takes them for one."""
    request = Request("GET", "/v1/health", {}, {"host": host})
    assert dispatch(request, Api().orders, names={"lab-host"}).status == status
    with_token = Request("GET", "/v1/health", {}, {"host": host, "authorization": "Bearer secret"})
    assert dispatch(with_token, Api().orders, "secret").status == 200


@pytest.mark.parametrize("header", [None, "Bearer", "Bearer wrong", "Basic secret", "Bearer sécret", "secret"])
def test_without_the_token_nothing_is_shown(header):
    api = Api(token="secret")
    for path in ("/v1/health", "/v1/nothing", "/metrics"):
        response = api.call("GET", path, headers={} if header is None else {"authorization": header})
        problem(response, 401)
        assert response.headers["WWW-Authenticate"].startswith("Bearer")


def test_with_the_token_everything_is_as_without():
    response = Api(token="secret").call("GET", "/v1/health", headers={"authorization": "bearer secret"})
    assert json.loads(response.body)["load_balancers_ready"] == 2


def test_an_unforeseen_error_is_logged_and_not_shown(monkeypatch, caplog):
    def fail(call):
        raise RuntimeError("the secret of the house")

    monkeypatch.setattr(operations, "get_health", fail)
    response = Api().call("GET", "/v1/health")
    problem(response, 500)
    assert b"secret" not in response.body and b"Traceback" not in response.body
    assert "the secret of the house" in caplog.text


def test_head_is_get_without_its_body():
    response = Api().call("HEAD", "/v1/health")
    assert (response.status, response.body) == (200, b"")


def test_every_route_has_its_operation():
    for route in ROUTES:
        assert callable(getattr(operations, route.operation))


JSON_VALUES = st.recursive(st.one_of(st.none(), st.text(), st.floats(), st.integers()),
                           lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))


@given(method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "OPTIONS", "X"]),
       path=st.one_of(st.text(), st.sampled_from([MOVE, "/v1/moves/1", "/v1/load-balancers/lb-a/access-table"])),
       query=st.dictionaries(st.text(), st.lists(st.text(), min_size=1, max_size=2), max_size=3),
       headers=st.dictionaries(st.sampled_from(["authorization", "content-type", "accept"]),
                               st.one_of(st.text(), st.just("application/json"))),
       body=st.one_of(st.binary(), st.none(), JSON_VALUES.map(lambda value: json.dumps(value).encode())))
def test_no_request_brings_an_internal_error(method, path, query, headers, body):
    response = dispatch(Request(method, path, query, headers, body), Api().orders)
    assert response.status < 500
    if response.status >= 400:
        problem(response, response.status)
