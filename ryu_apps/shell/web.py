"""The REST API as a WSGI application (PEP 3333): translates between WSGI and lbctl.api, and decides nothing."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from http import HTTPStatus
from urllib.parse import parse_qs, urljoin
from wsgiref.types import StartResponse, WSGIEnvironment
from wsgiref.util import application_uri

from lbctl.api.dispatch import dispatch, failure
from lbctl.api.orders import Orders
from lbctl.http.message import BODY_LIMIT, Request, Response

NOT_LOADED = "The app ryu_apps/load_balancer.py is not loaded: start ryu-manager with it."


class Application:
    """Takes each request, whatever its path and method: lbctl.api answers all of them, and never with a traceback.

    orders: finds those of the control function, if it is loaded. token: what requests must carry, if anything. names:
    of the host.
    """

    def __init__(self, orders: Callable[[], Orders | None], token: str | None, names: Collection[str]) -> None:
        self._orders, self._token, self._names = orders, token, names

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        response = self._answer(environ)
        headers = {"Content-Length": str(len(response.body)), **response.headers}
        if "Location" in headers:
            headers["Location"] = urljoin(application_uri(environ), headers["Location"])
        start_response(f"{response.status} {HTTPStatus(response.status).phrase}", list(headers.items()))
        return [response.body]

    def _answer(self, environ: WSGIEnvironment) -> Response:
        orders = self._orders()
        if orders is None:
            return failure(503, NOT_LOADED)
        try:
            request = read(environ)
        except (OSError, ValueError) as error:
            return failure(400, f"The request could not be read: {error}.")
        return dispatch(request, orders, self._token, self._names)


def read(environ: WSGIEnvironment) -> Request:
    """WSGI carries bytes as latin-1 text. Raises OSError or ValueError if the body cannot be read."""
    headers = {name[5:].replace("_", "-").lower(): value for name, value in environ.items() if name.startswith("HTTP_")}
    # Of a request without a type eventlet's server says that it is text/plain.
    sent = {name.lower() for name, _ in environ.get("headers_raw", (("content-type", ""),))}
    headers["content-type"] = environ.get("CONTENT_TYPE", "") if "content-type" in sent else ""
    path = environ.get("PATH_INFO", "").encode("latin-1").decode("utf-8", "replace")
    query = parse_qs(environ.get("QUERY_STRING", ""), keep_blank_values=True)
    body = environ["wsgi.input"].read(BODY_LIMIT + 1)
    return Request(environ["REQUEST_METHOD"], path, query, headers, body if len(body) <= BODY_LIMIT else None)
