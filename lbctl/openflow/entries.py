"""The two flows of an access-table entry as OpenFlow 1.4 flow-mods: one at a time, and in bulk.

Ryu needs 215 us to build such a flow-mod; this needs about one. lbctl/pipeline/entries.py says in words what these
bytes say, and a test compares the two through Ryu's encoder. Source: OpenFlow 1.4.0 sections 7.3.4 and 7.3.9.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

import numpy as np

from lbctl.access_table import Entry
from lbctl.openflow.layout import KEY_DTYPE, SEND_FLOW_REM, Layout, Part, instruction_parts, match_parts
from lbctl.pipeline.cookies import MARK, Kind
from lbctl.pipeline.entries import ENTRY_PRIORITY
from lbctl.pipeline.tables import number

ADD, DELETE_STRICT = 0, 4
VERSION, FLOW_MOD, BUNDLE_CONTROL, BUNDLE_ADD = 5, 14, 33, 34
OPEN_REQUEST, COMMIT_REQUEST = 0, 4
BUNDLE_ATOMIC_ORDERED = 3



def _mod_head(direction: str, command: int) -> list[Part]:
    table = number(f"access_{direction}")
    return [("cookie", 8), bytes(8) + struct.pack("!BBHHHIIIHH", table, command, 0, 0, ENTRY_PRIORITY, 0xFFFFFFFF,
                                                  0xFFFFFFFF, 0xFFFFFFFF, SEND_FLOW_REM, 0)]


class EntryCodec:
    """Encodes entries for switches whose finished entries linger for that many seconds (1..65535)."""

    def __init__(self, linger: int) -> None:
        self._mods = {(direction, command): self._mod_layout(direction, command, linger)
                      for direction in ("in", "out") for command in (ADD, DELETE_STRICT)}
        self._bundled = {direction: self._mod_layout(direction, ADD, linger, bundled=True)
                         for direction in ("in", "out")}
        self._single = {command: _single_packer(self._mods["in", command], self._mods["out", command], command)
                        for command in (ADD, DELETE_STRICT)}

    @staticmethod
    def _mod_layout(direction: str, command: int, linger: int, bundled: bool = False) -> Layout:
        body = [*_mod_head(direction, command), *match_parts(),
                *(instruction_parts(direction, linger) if command == ADD else [])]
        size = 8 + sum(len(part) if isinstance(part, bytes) else part[1] for part in body)
        head = [struct.pack("!BBH", VERSION, FLOW_MOD, size), ("xid", 4)]
        if bundled:
            head = [struct.pack("!BBH", VERSION, BUNDLE_ADD, size + 16), ("outer_xid", 4), ("bundle", 4),
                    struct.pack("!HH", 0, BUNDLE_ATOMIC_ORDERED), *head]
        return Layout([*head, *body])

    def add(self, entry: Entry) -> bytes:
        """Two flow-mods that add the entry, or put it back as it was."""
        return self._single[ADD](entry)

    def delete(self, entries: Iterable[Entry]) -> bytes:
        """Flow-mods that delete both flows of each entry."""
        one = self._single[DELETE_STRICT]
        return b"".join([one(entry) for entry in entries])

    def bundle(self, entries: Sequence[Entry], xid: int) -> bytes:
        """An atomic, ordered bundle that adds the entries. Its number, and the xid of its commit, is `xid`.

        All its messages carry that xid, because OVS demands that an inner message has the xid of its bundle-add.
        """
        control = struct.Struct("!BBHIIHH")
        packed = struct.pack("!I", xid)
        parts = [control.pack(VERSION, BUNDLE_CONTROL, 16, xid, xid, OPEN_REQUEST, BUNDLE_ATOMIC_ORDERED)]
        for direction in ("in", "out"):
            rows = self._rows(self._bundled[direction], direction, entries)
            rows["outer_xid"] = rows["bundle"] = rows["xid"] = np.void(packed)
            parts.append(rows.tobytes())
        parts.append(control.pack(VERSION, BUNDLE_CONTROL, 16, xid, xid, COMMIT_REQUEST, BUNDLE_ATOMIC_ORDERED))
        return b"".join(parts)

    @staticmethod
    def _rows(layout: Layout, direction: str, entries: Sequence[Entry]) -> np.ndarray:
        keys = np.frombuffer(b"".join([entry.key for entry in entries]), KEY_DTYPE)
        replies = np.frombuffer(b"".join([entry.reply for entry in entries]), KEY_DTYPE)
        rows = layout.rows(len(entries))
        match, set_from = (keys, ("a", replies)) if direction == "in" else (replies, ("b", keys))
        for name in KEY_DTYPE.names:
            rows[name] = match[name].view("V1") if name == "protocol" else match[name]
        side, source = set_from
        rows["address"], rows["port"] = source[side], source[f"{side}_port"]
        if direction == "out":
            rows["next_hop"] = np.frombuffer(b"".join([entry.next_hop for entry in entries]), "V6")
        rows["cookie"] = _cookies(Kind.ENTRY_IN if direction == "in" else Kind.ENTRY_OUT, keys)
        return rows


def _cookies(kind: Kind, keys: np.ndarray) -> np.ndarray:
    raw = keys.view("u1").reshape(len(keys), 13)
    cookies = np.empty((len(keys), 8), "u1")
    cookies[:, 0], cookies[:, 1], cookies[:, 2] = MARK, kind, 0
    cookies[:, 3] = raw[:, 4] ^ raw[:, 6]
    cookies[:, 4:8] = raw[:, 7:11]
    return cookies.view("V8").reshape(len(keys))


def _single_packer(inward: Layout, outward: Layout, command: int):
    """A function from an entry to both flow-mods, by splitting the constant bytes once, here."""
    cut_in, cut_out = _cuts(inward), _cuts(outward)
    in_cookie = bytes([MARK, Kind.ENTRY_IN, 0])
    out_cookie = bytes([MARK, Kind.ENTRY_OUT, 0])
    join = b"".join

    def pack_add(entry: Entry) -> bytes:
        key, reply = entry.key, entry.reply
        place = bytes([key[4] ^ key[6]]) + key[7:11]
        return join((
            cut_in[0], bytes(4), cut_in[1], in_cookie, place, cut_in[2], key[1:5], cut_in[3], key[7:11], cut_in[4],
            key[:1], cut_in[5], key[5:7], cut_in[6], key[11:], cut_in[7], reply[1:5], cut_in[8], reply[5:7], cut_in[9],
            cut_out[0], bytes(4), cut_out[1], out_cookie, place, cut_out[2], reply[1:5], cut_out[3], reply[7:11],
            cut_out[4], reply[:1], cut_out[5], reply[5:7], cut_out[6], reply[11:], cut_out[7], key[7:11], cut_out[8],
            key[11:], cut_out[9], entry.next_hop, cut_out[10]))

    def pack_delete(entry: Entry) -> bytes:
        key, reply = entry.key, entry.reply
        place = bytes([key[4] ^ key[6]]) + key[7:11]
        return join((
            cut_in[0], bytes(4), cut_in[1], in_cookie, place, cut_in[2], key[1:5], cut_in[3], key[7:11], cut_in[4],
            key[:1], cut_in[5], key[5:7], cut_in[6], key[11:], cut_in[7],
            cut_out[0], bytes(4), cut_out[1], out_cookie, place, cut_out[2], reply[1:5], cut_out[3], reply[7:11],
            cut_out[4], reply[:1], cut_out[5], reply[5:7], cut_out[6], reply[11:], cut_out[7]))

    return pack_add if command == ADD else pack_delete


def _cuts(layout: Layout) -> list[bytes]:
    """The constant bytes between the fields, in order; there is one more of them than fields."""
    cuts, start = [], 0
    for name in layout.dtype.names:
        kind, offset = layout.dtype.fields[name][:2]
        cuts.append(layout.constant[start:offset])
        start = offset + kind.itemsize
    return [*cuts, layout.constant[start:]]
