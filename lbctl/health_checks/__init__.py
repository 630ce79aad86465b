"""Which servers answer: health checks over the data path (docs/health-checks.md).

`Checker` says when which server is checked, and what follows from its answers. `Targets` are who is checked, `tcp` and
`udp` are what a check says and hears, `verdict` what several checks come to. The room tells servers/states.py who is
down, and has connections/ end their entries; control.py hands it answers and ticks.
"""
