"""The keepers (seed figure 13, copy keeping function 53): what goes over the wire, and the keeper's own process.

rows and batches are the protocol; both sides use them: the control function's (lbctl.copies, with its client and
publisher) and the keeper's. `process` is the keeper's side alone, and only `lbctl keeper` (lbctl.cli) runs it.

The room uses lbctl.entries, lbctl.values, lbctl.site.model and lbctl.http. No Ryu, no eventlet, no numpy: a keeper runs
where there is none of them. docs/keeper.md describes it.

rows: Row, Section, Stream, RowKind, sections, entries, derived_ports. batches: Batch, BatchKind, Reply, Answer, encode,
decode, MalformedBatch. claims: own_rows.
"""
