"""The app that serves the REST API: on 127.0.0.1 unless `wsapi_host` says where else, on port `wsapi_port`."""

from __future__ import annotations

import socket

from lbctl.api.orders import Orders
from lbctl.http.tokens import TokenError, read_token
from ryu_apps.library import web
from ryu_apps.library.names import App, lookup_service_brick
from ryu_apps.library.options import CONF, config_path
from ryu_apps.library.threads import GreenThreads
from ryu_apps.shell.web import Application

OPERATOR = "LoadBalancerApp"
"""Name of the app that has the control function."""


class RestApp(App):
    """A token file that cannot be used stops the controller: without it the API would be open to everybody."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self._application = Application(_orders, _token(), {socket.gethostname()})

    def start(self) -> None:
        """When all apps are there."""
        super().start()
        GreenThreads().spawn(web.serve, web.listen(), self._application)


def _orders() -> Orders | None:
    app = lookup_service_brick(OPERATOR)
    orders: Orders | None = getattr(app, "orders", None)
    return orders


def _token() -> str | None:
    """The token of `token_file`; None if there is no such option."""
    if not CONF.lbctl.token_file:
        return None
    try:
        return read_token(config_path(CONF.lbctl.token_file))
    except TokenError as error:
        raise SystemExit(f"lbctl: token_file {error}") from error
