"""From a request to a response: a pure function of the request and the control function.

It checks, in this order: sender (403, 415, 421), token (401), path (404), method (405), body (413, 415, 400, 422),
query (422). What an operation does not foresee is logged with its traceback, and answered with 500 and no more than
that.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping

from pydantic import BaseModel, ValidationError

from lbctl.api import operations, problems
from lbctl.api.operations import Call, Result
from lbctl.api.orders import Orders
from lbctl.api.origins import check_host, check_origin
from lbctl.api.routes import PathRoutes, Route, allowed, find
from lbctl.http.message import BODY_LIMIT, Request, Response
from lbctl.http.problems import RequestProblem
from lbctl.http.tokens import missing_token

LOG = logging.getLogger(__name__)
_NOT_STORED = {"Cache-Control": "no-store"}


def dispatch(request: Request, orders: Orders, token: str | None = None, names: Collection[str] = ()) -> Response:
    """Answers a request. token: what `Authorization: Bearer` has to carry; None: nothing has to be there. names: of the
    controller's host."""
    try:
        _check_sender(request, token, names)
        response = _answer(request, orders)
    except RequestProblem as problem:
        response = _problem_response(problem)
    except Exception:
        LOG.exception("%s %s failed; this is a bug in lbctl", request.method, request.path)
        response = failure(500, "The controller failed on this request; its log says why.")
    if request.method == "HEAD":
        return Response(response.status, {**response.headers, "Content-Length": str(len(response.body))}, b"")
    return response


def failure(status: int, detail: str) -> Response:
    """A response that says what failed, for the server around the API."""
    return _problem_response(RequestProblem(status, detail))


def _answer(request: Request, orders: Orders) -> Response:
    found = find(request.path)
    if found is None:
        raise RequestProblem(404, f"There is nothing at {request.path}; /v1/openapi.json lists what there is.")
    route = _route(request, found)
    body = _body(request, route)
    call = Call(orders, found.values, _query(request, route), body)
    return _response(getattr(operations, route.operation)(call))


def _check_sender(request: Request, token: str | None, names: Collection[str]) -> None:
    check_origin(request.method, request.headers)
    if token is None:
        check_host(request.headers, names)
    if detail := missing_token(request.headers, token, "controller"):
        raise RequestProblem(401, detail, headers={"WWW-Authenticate": 'Bearer realm="lbctl"'})


def _route(request: Request, found: PathRoutes) -> Route:
    route = found.routes.get("GET" if request.method == "HEAD" else request.method)
    if route is None:
        allow = allowed(found.routes)
        raise RequestProblem(405, f"{request.path} takes {allow}, not {request.method}.", headers={"Allow": allow})
    return route


def _body(request: Request, route: Route) -> BaseModel | None:
    if request.body is None:
        raise RequestProblem(413, f"The body is longer than {BODY_LIMIT} bytes.")
    if route.body is None:
        return None
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        raise RequestProblem(415, f"The body must be application/json, not {content_type or 'of no type'}.")
    try:
        content = json.loads(request.body.decode())
    except (ValueError, RecursionError) as error:
        raise RequestProblem(400, f"The body is not JSON: {error}.") from error
    try:
        return route.body.model_validate(content)
    except ValidationError as error:
        raise problems.from_validation(error, "body") from error


def _query(request: Request, route: Route) -> BaseModel:
    repeated = [name for name, values in request.query.items() if len(values) > 1]
    if repeated:
        raise RequestProblem(422, f"Wrong query: {', '.join(repeated)}: given more than once.")
    try:
        return route.query.model_validate({name: values[0] for name, values in request.query.items()})
    except ValidationError as error:
        raise problems.from_validation(error, "query") from error


def _response(result: Result) -> Response:
    content = result.content
    body = content if isinstance(content, bytes) else content.model_dump_json(by_alias=True).encode()
    headers = {"Location": result.location} if result.location else {}
    return Response(result.status, _headers(result.content_type, headers), body)


def _problem_response(problem: RequestProblem) -> Response:
    response = problem.response()
    return Response(response.status, {**response.headers, **_NOT_STORED}, response.body)


def _headers(content_type: str, more: Mapping[str, str]) -> dict[str, str]:
    return {"Content-Type": content_type, **_NOT_STORED, **more}
