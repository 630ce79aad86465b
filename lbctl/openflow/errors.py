"""What a switch refuses, and why, in words, with what to do about it (OpenFlow 1.4.0, section 7.5.4)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from lbctl.openflow.cookies import ENTRY_KINDS, known_kind
from lbctl.openflow.tables import TABLES

_PACKET_OUT, _FLOW_MOD, _GROUP_MOD, _QUESTION, _SET_ASYNC, _METER_MOD = 13, 14, 15, 18, 28, 29
_ORDERS = {_FLOW_MOD: "a flow", _GROUP_MOD: "a group", _METER_MOD: "a meter",
           _SET_ASYNC: "to be told what it shall tell", **dict.fromkeys((33, 34), "a bundle of flows")}
"""By message type: what a switch keeps."""
_OTHERS = {_PACKET_OUT: "a packet", _QUESTION: "a question"}
_BAD_ACTION, _BAD_INSTRUCTION, _BAD_MATCH, _FLOW_MOD_FAILED, _METER_MOD_FAILED = 2, 3, 4, 5, 12
_TABLE_FULL, _METER_EXISTS = 1, 1
_TOO_OLD = {_BAD_ACTION: "an action", _BAD_INSTRUCTION: "an instruction", _BAD_MATCH: "a field"}
_HEAD = struct.Struct("!HH")
_FLOW_MOD_HEAD = struct.Struct("!8xQQB")
_TABLE_NAMES = {table.number: table.name for table in TABLES.values()}
_MEND = "the controller's log, and that of ovs-vswitchd on its host, tell more"


@dataclass(frozen=True, slots=True)
class Refusal:
    """what: that was refused. order: was it something that the switch should keep? of_entry: one connection's flow?"""

    what: str
    why: str
    mend: str = _MEND
    order: bool = True
    of_entry: bool = False

    def __str__(self) -> str:
        return f"it refuses {self.what}: {self.why}"


def decode_error(message: bytes) -> Refusal | None:
    """The whole OpenFlow message in, of 12 bytes or more. None: it tells of nothing that is wrong."""
    kind, code = _HEAD.unpack_from(message, 8)
    refused = message[12:]
    of_type = refused[1] if len(refused) > 1 else -1
    if (kind, code) == (_METER_MOD_FAILED, _METER_EXISTS):
        return None  # it has been added before, and is modified next
    what, of_entry = _ORDERS.get(of_type) or _OTHERS.get(of_type) or f"a message of type {of_type}", False
    if of_type == _FLOW_MOD and len(refused) >= _FLOW_MOD_HEAD.size:
        cookie, _, table = _FLOW_MOD_HEAD.unpack_from(refused)
        of_entry = known_kind(cookie) in ENTRY_KINDS.values()
        what = f"a flow of table {_TABLE_NAMES.get(table, 'number')} ({table})"
    return Refusal(what, *_why(kind, code, of_type), of_type in _ORDERS, of_entry)


def _why(kind: int, code: int, of_type: int) -> tuple[str, str]:
    """And what to do."""
    if (kind, code) == (_FLOW_MOD_FAILED, _TABLE_FULL):
        return "that table is full", ("on its host: ovs-vsctl list Flow_Table shows a flow_limit; take it away by "
                                      "ovs-vsctl clear bridge BRIDGE flow_tables, or raise it")
    if kind == _METER_MOD_FAILED:
        which = "it has no meters, or no more" if of_type == _METER_MOD else "it needs a meter that is not there"
        return which, ("on its host: ovs-ofctl -O OpenFlow14 meter-features BRIDGE; the kernel's datapath has meters "
                       "since Linux 4.15, that in user space (datapath_type=netdev) always")
    if kind in _TOO_OLD:
        return (f"it does not know {_TOO_OLD[kind]} of it (OpenFlow error type {kind} code {code})",
                "on its host: ovs-vswitchd --version tells its release; lbctl needs 3.1 or later")
    return f"OpenFlow error type {kind} code {code}", _MEND
