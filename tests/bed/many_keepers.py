"""Keepers of many servers in one process, for benchmarks: the arguments are DIRECTORY COUNT FIRST_SERVER.

The keeper of server FIRST_SERVER + n listens on 127.0.0.1, port FIRST_PORT + n.
"""

from __future__ import annotations

import sys
import threading
from ipaddress import IPv4Address
from pathlib import Path

from lbctl.keeper.process.copy import Copy
from lbctl.keeper.process.journal import KeptCopy
from lbctl.keeper.process.server import KeeperServer
from tests.bed.keepers import TOKEN

FIRST_PORT = 20_000
MAX_ROWS = 1_000_000


def url(number: int) -> str:
    """Of the keeper of that number, from 0."""
    return f"http://127.0.0.1:{FIRST_PORT + number}"


def main(directory: Path, count: int, first_server: IPv4Address) -> None:
    """Until it is killed."""
    for number in range(count):
        copy = Copy([(first_server + number).packed], MAX_ROWS)
        kept = KeptCopy(copy, directory / str(number), lambda text: print(text, file=sys.stderr))
        server = KeeperServer(("127.0.0.1", FIRST_PORT + number), kept, TOKEN)
        threading.Thread(target=server.serve_forever, daemon=True).start()
    print("listening", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), IPv4Address(sys.argv[3]))
