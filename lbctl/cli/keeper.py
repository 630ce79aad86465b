"""lbctl keeper: the keeper, until it is told to end."""

from __future__ import annotations

import logging
import signal
import ssl
import stat
import sys
import threading
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from lbctl.cli import output
from lbctl.cli.failure import Failure
from lbctl.http.tokens import TokenError, read_token
from lbctl.keeper.process.copy import Copy
from lbctl.keeper.process.journal import JournalError, KeptCopy
from lbctl.keeper.process.server import KeeperServer
from lbctl.site.model import KEEPER_PORT
from lbctl.values.addresses import Address

DIRECTORY = Path("/var/lib/lbctl-keeper")


def keeper(
    server: Annotated[
        list[str], typer.Option(metavar="ADDRESS", help="A server whose entries are kept; once for each.")
    ],
    listen: Annotated[
        str, typer.Option(metavar="ADDRESS:PORT", help="Where the control function finds it.")
    ] = f":{KEEPER_PORT}",
    directory: Annotated[Path, typer.Option(metavar="DIR", help="Where the copy is kept.")] = DIRECTORY,
    token_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Holds the token that requests must carry.")
    ] = None,
    no_token: Annotated[bool, typer.Option("--no-token", help="Answer everybody.")] = False,
    tls_cert: Annotated[Path | None, typer.Option(metavar="FILE", help="Certificate (PEM), with it TLS.")] = None,
    tls_key: Annotated[Path | None, typer.Option(metavar="FILE", help="Its private key (PEM).")] = None,
    max_rows: Annotated[int, typer.Option(metavar="N", min=1, help="Entries that the copy may have.")] = 1_000_000,
) -> None:
    """Keep a copy of the access-table entries of servers, and give it back at a failover. Runs until SIGTERM."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="lbctl keeper: %(message)s")
    servers = [_address(text, "--server") for text in server]
    place = _place(listen)
    token = _token(token_file, no_token, place)
    tls = _tls(tls_cert, tls_key)
    try:
        kept = KeptCopy(Copy([each.packed for each in servers], max_rows), directory, logging.warning)
    except JournalError as error:
        raise Failure(str(error)) from error
    try:
        http = KeeperServer(place, kept, token, tls)
    except OSError as error:
        raise Failure(
            f"cannot listen on {output.endpoint(*place)}: {error.strerror}; give --listen another address or port."
        ) from error
    if token and not tls and not _is_loopback(place):
        logging.warning("without --tls-cert, token and entries can be read by whoever sees the network between")
    address, port = http.server_address[:2]
    logging.info(
        "listening on %s for %s, with %d entries kept",
        output.endpoint(str(address), port),
        ", ".join(map(str, servers)),
        kept.copy.rows,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: threading.Thread(target=http.shutdown).start())
    http.serve_forever()
    http.server_close()
    http.resources.lock.acquire()  # what is being written comes to its end; nothing more is begun
    kept.close()
    logging.info("ended")


def _address(text: str, option: str) -> Address:
    try:
        return ip_address(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no IP address", param_hint=option) from None


def _place(listen: str) -> tuple[str, int]:
    """Where to listen; without an address on all of them, of both IP versions if the machine has IPv6."""
    try:
        parts = urlsplit(f"//{listen}")
        host, port = parts.hostname or "", parts.port
        address = ip_address(host) if host else None
        if port is None or parts.path or parts.username:
            raise ValueError
    except ValueError:
        raise typer.BadParameter(
            f"{listen!r} is not ADDRESS:PORT, such as 10.0.0.11:{KEEPER_PORT} or [2001:db8:2::11]:{KEEPER_PORT}",
            param_hint="--listen",
        ) from None
    return str(address) if address else "::" if Path("/proc/net/if_inet6").exists() else "0.0.0.0", port


def _is_loopback(place: tuple[str, int]) -> bool:
    return ip_address(place[0]).is_loopback


def _token(file: Path | None, no_token: bool, place: tuple[str, int]) -> str | None:
    """The token. Without one, only this machine may ask, unless the operator says that everybody may."""
    if file is None:
        if not no_token and not _is_loopback(place):
            raise Failure(
                f"anybody who reaches {output.endpoint(*place)} could read and change the copy: give --token-file "
                f"(made by: openssl rand -hex 32), or --listen 127.0.0.1:{place[1]}, or --no-token if this is wanted."
            )
        return None
    if no_token:
        raise typer.BadParameter("not together with --token-file", param_hint="--no-token")
    try:
        token = read_token(file)
    except TokenError as error:
        raise Failure(f"--token-file {error}") from error
    if file.stat().st_mode & stat.S_IROTH:
        logging.warning("%s can be read by every user of this machine: chmod o-r %s", file, file)
    return token


def _tls(cert: Path | None, key: Path | None) -> ssl.SSLContext | None:
    if cert is None:
        if key is not None:
            raise typer.BadParameter("needs --tls-cert", param_hint="--tls-key")
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        raise Failure(f"--tls-cert {cert} with {key or 'its key in the same file'} cannot be used: {error}.") from error
    return context
