"""A day of a large site in minutes.

What measures, decides and plans is lbctl's own code; switches, moves and the load are simulated.
"""
