"""Serves a WSGI application where the options say, by eventlet's web server, which is also the one that Ryu uses."""

from __future__ import annotations

import logging
import socket
from wsgiref.types import WSGIApplication

import eventlet.wsgi

from ryu_apps.library.names import hub
from ryu_apps.library.options import CONF

LOG = logging.getLogger("lbctl.rest")


class _Lines:
    """Each request is a line of the log."""

    def write(self, message: str) -> None:
        LOG.info("%s", message.rstrip("\n"))


def listen() -> socket.socket:
    """Raises SystemExit if another program listens there, or there is no such address."""
    try:
        return hub.StreamServer((CONF.wsapi_host, CONF.wsapi_port)).server
    except OSError as error:
        raise SystemExit(
            f"lbctl: the REST API cannot listen on {CONF.wsapi_host} port {CONF.wsapi_port} (wsapi_host, wsapi_port): "
            f"{error.strerror or error}"
        ) from error


def serve(listening: socket.socket, application: WSGIApplication) -> None:
    """Returns when the process ends."""
    eventlet.wsgi.server(listening, application, _Lines(), debug=False)
