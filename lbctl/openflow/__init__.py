"""What a switch may hold, in words and in bytes.

In words: the declared tables (`tables`), flows that keep to the declaration (`flow`), the flows that an LB should hold
(`rules`, `responder_rules`, `probe_rules`, by its `ports`), an entry's two flows (`entry_flows`), `cookies`, `meters`,
and the messages to a switch (`messages`). In bytes, for the hot paths only: what is sent often (entries and
packet-outs: `outbound`, by their `layout`) and what a switch sends often (`inbound`). All other bytes are the switch
library's.

It uses `entries`, `site`, `frames` and `values`. What decides about switches calls it, and the shell that sends the
messages.
"""
