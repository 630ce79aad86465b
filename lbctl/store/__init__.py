"""What must survive a restart of the controller and is not in the switches: who has which external IP, moves that had
passed the point of no return, and what operators ordered. Entries are not kept here: the switches have them.

Uses `site` and `values`. The control function says when the state is to be saved, and the shell loads and saves it.
Offered: `State` with `UnfinishedMove` and `SavedSlices`, `FileStore` with `StoreError`, and `new_fence_code`.
"""

from __future__ import annotations

import json
import os
import secrets
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, ip_address
from pathlib import Path

from lbctl.site.model import ServiceName, ServiceOrder
from lbctl.store import checked as checks
from lbctl.store import slices as saved_slices
from lbctl.store.checked import Checked
from lbctl.store.orders import orders_of, rows_of
from lbctl.store.slices import SavedSlices as SavedSlices
from lbctl.values.addresses import Address
from lbctl.values.transfer import Strategy

FORMAT = 1
SECRET_BYTES = 16


class StoreError(Exception):
    """The file can't be read or written; the message says what to do."""


@dataclass(frozen=True, slots=True)
class UnfinishedMove:
    """A move whose route step had begun: a new controller finishes it."""

    source: str
    target: str
    strategy: Strategy


@dataclass(frozen=True, slots=True)
class State:
    """assigned: external IP -> LB name; unfinished: external IP -> its move; watched: the LBs whose data paths have
    answered probes; fence_code: the secret of openflow/probe_rules.py ("": none, no LB can be fenced), and fences: LB
    -> how many of its codes have been used; orders: for services;
    drained: LBs that an operator wants empty; checked: what is known of servers, of the services whose check has been
    passed; slices: who has those of sliced services."""

    assigned: Mapping[Address, str] = field(default_factory=dict)
    unfinished: Mapping[Address, UnfinishedMove] = field(default_factory=dict)
    watched: frozenset[str] = frozenset()
    fence_code: str = ""
    fences: Mapping[str, int] = field(default_factory=dict)
    orders: Mapping[ServiceName, ServiceOrder] = field(default_factory=dict)
    drained: frozenset[str] = frozenset()
    checked: Mapping[ServiceName, Checked] = field(default_factory=dict)
    slices: Mapping[ServiceName, SavedSlices] = field(default_factory=dict)


def new_fence_code() -> str:
    """Nobody shall guess it, nor find it out from a code that was made of it."""
    return secrets.token_hex(SECRET_BYTES)


def _fence_code(text: str) -> str:
    """None, of one that an earlier release has kept: an IPv4 address, the same for all LBs. Raises ValueError if it is
    neither."""
    if "." in text:
        return str(IPv4Address(text)) and ""
    if text and len(bytes.fromhex(text)) != SECRET_BYTES:
        raise ValueError(f"fence_code must have {2 * SECRET_BYTES} hex digits")
    return text


def _text(document: Mapping[str, object]) -> str:
    """Each part in a line of its own. (With more lines JSON takes ten times as long, which a failover of thousands of
    external IPs would wait for.)"""
    return "{\n" + ",\n".join(f"{json.dumps(name)}: {json.dumps(part)}" for name, part in document.items()) + "\n}\n"


class FileStore:
    """The state as one JSON file, replaced atomically (write, fsync, rename, fsync of the directory)."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> State:
        """The saved state; empty if there is no file yet. Raises StoreError if the file is damaged."""
        try:
            document = json.loads(self.path.read_text())
            if document["format"] != FORMAT:
                raise ValueError(f"format {document['format']}, this release reads {FORMAT}")
            return State({ip_address(ip): str(lb) for ip, lb in document["assigned"].items()},
                         {ip_address(ip): UnfinishedMove(move["from"], move["to"], Strategy(move["strategy"]))
                          for ip, move in document["unfinished"].items()},
                         frozenset(map(str, document.get("watched", ()))),
                         _fence_code(document.get("fence_code", "")),
                         {str(lb): int(used) for lb, used in document.get("fences", {}).items()},
                         orders_of(document.get("orders", ())), frozenset(map(str, document.get("drained", ()))),
                         checks.checked_of(document.get("checked", ())),
                         saved_slices.slices_of(document.get("slices", ())))
        except FileNotFoundError:
            return State()
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise StoreError(f"{self.path}: can't be read ({error}); mend it, or remove it to start from the "
                             "assignment in the site file") from error

    def save(self, state: State) -> None:
        """Raises StoreError if the file can't be written."""
        document = {
            "format": FORMAT,
            "assigned": {str(ip): lb for ip, lb in state.assigned.items()},
            "unfinished": {str(ip): {"from": move.source, "to": move.target, "strategy": move.strategy.value}
                           for ip, move in state.unfinished.items()},
            "watched": sorted(state.watched),
            "fence_code": state.fence_code,
            "fences": dict(state.fences),
            "orders": rows_of(state.orders),
            "drained": sorted(state.drained),
            "checked": checks.rows_of(state.checked),
            "slices": saved_slices.rows_of(state.slices),
        }
        try:
            self._replace(_text(document))
        except OSError as error:
            raise StoreError(f"{self.path}: can't be written ({error.strerror}); the assignment of the external IPs "
                             "would be forgotten at the next start") from error

    def _replace(self, text: str) -> None:
        with tempfile.NamedTemporaryFile("w", dir=self.path.parent, prefix=self.path.name, delete=False) as file:
            try:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
                os.replace(file.name, self.path)
            except OSError:
                os.unlink(file.name)
                raise
        directory = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)  # else a power failure may bring the old file back
        finally:
            os.close(directory)
