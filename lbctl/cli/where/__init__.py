"""lbctl where: which rules, and which server, a packet meets.

`command.where` asks the API what matters for one connection (`situation.Situation`). `fate.fate_of` makes from that the
rules that the load balancer should hold, by the same functions as the controller, sends a packet through them
(`walk.walk`), and says what becomes of it; `trace.trace` asks the switch the same. It uses the rooms of flows and
entries; only `cli.main` calls it.
"""
