"""Which LBs have failed, who takes their external IPs over, and how an LB comes back.

`Detection` judges by the LBs' OpenFlow connections, ports and answers to probes (`Probing`). `Relief` starts takeovers,
`succession` spreads them. `Comebacks` reads an LB back that has connected, and sends it what it misses. The room orders
moves/ to move; control.py hands it connections, probes' answers and ticks.
"""
