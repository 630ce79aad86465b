"""How much is carried, and where it belongs.

`Loads` reads what external IPs carry from the switches' counters. `Balancing` asks for assignments (assignment/
computes them, in a process of the shell's), carries plans out move by move, and knows which LBs an operator wants
empty. The room orders moves/ to move; failures/ asks it for weights.
"""
