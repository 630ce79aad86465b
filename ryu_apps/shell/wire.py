"""The little that the shell itself reads of an OpenFlow message: its type, its xid, and how long it has to be."""

from __future__ import annotations

ERROR, PACKET_IN, FLOW_REMOVED, MULTIPART_REPLY, BARRIER_REPLY, BUNDLE_CONTROL = 1, 10, 11, 19, 21, 33
SHORTEST = {ERROR: 12, MULTIPART_REPLY: 16, BUNDLE_CONTROL: 16}
"""Bytes that such a message has at least (OpenFlow 1.4.0, section 7); a header has 8."""
COMMIT_REPLY = b"\x00\x05"
"""The type of a BUNDLE_CONTROL, at bytes 12 and 13."""
XID_MARK = 0x4C000000
"""The high byte of our xids; the token is in the other 24 bits (0: nothing waits for an answer)."""


def token_of(xid: int) -> int | None:
    """The token in an xid of ours; None for any other xid."""
    return xid & 0xFFFFFF if xid & 0xFF000000 == XID_MARK else None
