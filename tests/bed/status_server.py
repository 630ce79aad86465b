"""An HTTP server that answers each request with the status in a file: `python status_server.py ADDRESS FILE PORT`.
Stands alone.

It prints "ready" once it listens.
"""

from __future__ import annotations

import http.server
import sys
from pathlib import Path


class Handler(http.server.BaseHTTPRequestHandler):
    """The path that was asked for comes back in the header X-Path."""

    def do_GET(self) -> None:
        self.send_response(int(Path(sys.argv[2]).read_text()))
        self.send_header("X-Path", self.path)
        self.send_header("Content-Length", "0")
        self.end_headers()


if __name__ == "__main__":
    server = http.server.ThreadingHTTPServer((sys.argv[1], int(sys.argv[3])), Handler)
    print("ready", flush=True)
    server.serve_forever()
