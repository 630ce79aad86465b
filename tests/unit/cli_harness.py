"""Runs the lbctl command in this process, against the REST API over a control function that only has state."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from lbctl.api.dispatch import dispatch
from lbctl.cli.main import app
from lbctl.http.message import Request
from lbctl.site.model import Site
from tests.unit.api_fakes import FakeOrders


class Run(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Command:
    """The command; `orders` is what is behind the API."""

    def __init__(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, of_site: Site | None = None
    ) -> None:
        self.orders = FakeOrders(of_site)
        self.control = self.orders.control
        self.token: str | None = None
        self._capsys = capsys
        self._monkeypatch = monkeypatch

    def __call__(self, *args: str) -> Run:
        self._monkeypatch.setattr(sys, "argv", ["lbctl", *args])
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            app()
        out, err = self._capsys.readouterr()
        assert "Traceback" not in out + err
        return Run(ended.value.code or 0, out, err)


@contextmanager
def serving(command: Command) -> Iterator[str]:
    """The REST API on a port of its own; yields its URL."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            parts = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            response = dispatch(Request(self.command, unquote(parts.path), parse_qs(parts.query), headers, body),
                                command.orders, command.token)
            self.send_response(response.status)
            for name, value in response.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(response.body)))
            self.end_headers()
            self.wfile.write(response.body)

        do_GET = do_POST = do_PATCH = do_DELETE = answer

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
