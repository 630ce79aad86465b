"""Who is where on the networks around the LBs, and telling them.

`Neighbourhood` asks for the MACs of servers and routers (ARP, neighbour discovery), believes the answers, and announces
external IPs; `Announcements` says when an announcement is due again. It uses the Ground; control.py hands it what
neighbours say, and moves/, changes/ and failures/ ask it to announce and to probe.
"""
