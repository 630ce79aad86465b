"""The traffic of the demonstration: one program for each kind, run inside the machines of the lab.

A program prints the line `ready` when its traffic flows, ends when its standard input ends, and then prints its result
as one line of JSON. Times are those of time.monotonic(), which all machines of a lab share.
"""
