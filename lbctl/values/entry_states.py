"""What an entry of the access table says of its connection."""

from __future__ import annotations

from typing import Literal

EntryState = Literal["open", "half-closed", "reset"]
"""Nobody has closed it; one side has (FIN); a side has broken it off (RST)."""
EntriesFrom = Literal["table", "copy"]
"""Where a move takes entries from: the controller's access table, or the copies."""
SliceStateName = Literal["plain", "narrowed", "switched", "flipped", "settling", "mixed"]
"""Of a slice's entry: how far it has changed hands (lbctl/servers/slicing.py); mixed: some of its connections have
entries of their own, though it does not."""
