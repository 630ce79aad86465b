"""The app that serves the REST API: on 127.0.0.1 unless `wsapi_host` says where else, on port `wsapi_port`."""

from __future__ import annotations

import socket
from ipaddress import ip_address

from lbctl.api.orders import Orders
from lbctl.http.tokens import TokenError, make_token, read_token
from ryu_apps.library import web
from ryu_apps.library.names import App, lookup_service_brick
from ryu_apps.library.options import CONF, config_path
from ryu_apps.library.threads import GreenThreads
from ryu_apps.shell.log import log
from ryu_apps.shell.unusable import unusable
from ryu_apps.shell.web import Application

OPERATOR = "LoadBalancerApp"
"""Name of the app that has the control function."""
NO_TOKEN, OWN_TOKEN_FILE = "none", "lbctl-token"
"""Of `token_file`: what stands for no token, and the file where the option is not given and one is needed."""


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
    """The token that calls must carry; None: they need none. Where others than this host can call, there is one unless
    the configuration says no."""
    name = CONF.lbctl.token_file
    if name == NO_TOKEN or not name and _is_loopback(CONF.wsapi_host):
        return None
    file = config_path(name or OWN_TOKEN_FILE)
    try:
        if not name:
            make_token(file)
            log.info("REST calls must carry a token", token_file=str(file), hint=f"token_file = {NO_TOKEN} wants none")
        return read_token(file)
    except TokenError as error:
        raise unusable(f"token_file {error}") from error


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
