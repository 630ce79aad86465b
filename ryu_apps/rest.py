"""The REST API on Ryu's web server: translates between WSGI and lbctl.api, and decides nothing.

Three things that Ryu's server does otherwise: it listens on 127.0.0.1 unless `wsapi_host` says where, a wrong method
gets 405 and not 404, and no traceback reaches a client (every path comes here, and lbctl.api answers all of them).
"""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path
from urllib.parse import parse_qs

from ryu import cfg
from ryu.app.wsgi import ControllerBase, WSGIApplication, route
from ryu.base import app_manager
from webob import Response as WebResponse

from lbctl.api.dispatch import dispatch, failure
from lbctl.http.message import BODY_LIMIT, Request, Response
from lbctl.http.tokens import TokenError, read_token

CONF = cfg.CONF
CONF.set_default("wsapi_host", "127.0.0.1")
CONF.register_opts([cfg.StrOpt("token_file", default=None, help="file with the token that REST calls must carry")],
                   group="lbctl")

OPERATOR = "LoadBalancerApp"
"""Name of the app that has the control function."""


class RestApp(app_manager.RyuApp):
    """Puts the REST API on the WSGI server."""

    _CONTEXTS = {"wsgi": WSGIApplication}

    def __init__(self, *args, wsgi: WSGIApplication, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.token = _token()
        wsgi.register(_Everything, self)


class _Everything(ControllerBase):
    """Takes each request, whatever its path and method."""

    @route("everything", r"/{path:[\s\S]*}")
    def answer(self, req, **_) -> WebResponse:
        orders = app_manager.lookup_service_brick(OPERATOR)
        if orders is None:
            return _to_web(failure(503, "The app ryu_apps/load_balancer.py is not loaded: start ryu-manager with it."))
        try:
            request = _from_environ(req.environ)
        except (OSError, ValueError) as error:
            return _to_web(failure(400, f"The request could not be read: {error}."))
        return _to_web(dispatch(request, orders, self.data.token))


def _from_environ(environ: dict) -> Request:
    """WSGI carries bytes as latin-1 text (PEP 3333). Raises OSError or ValueError if the body cannot be read."""
    headers = {name[5:].replace("_", "-").lower(): value for name, value in environ.items() if name.startswith("HTTP_")}
    headers["content-type"] = environ.get("CONTENT_TYPE", "")
    path = environ.get("PATH_INFO", "").encode("latin-1").decode("utf-8", "replace")
    query = parse_qs(environ.get("QUERY_STRING", ""), keep_blank_values=True)
    body = environ["wsgi.input"].read(BODY_LIMIT + 1)
    return Request(environ["REQUEST_METHOD"], path, query, headers, body if len(body) <= BODY_LIMIT else None)


def _to_web(response: Response) -> WebResponse:
    web = WebResponse(body=response.body, status=f"{response.status} {HTTPStatus(response.status).phrase}")
    for name, value in response.headers.items():
        web.headers[name] = value
    return web


def _token() -> str | None:
    """The token of `token_file`, which is relative to the configuration file; None if there is no such option.

    A token file that cannot be used stops the controller: without it the API would be open to everybody.
    """
    name = CONF.lbctl.token_file
    if not name:
        return None
    file = Path(CONF.config_file[0] if CONF.config_file else ".").parent / name
    try:
        return read_token(file)
    except TokenError as error:
        raise SystemExit(f"lbctl: token_file {error}") from error
