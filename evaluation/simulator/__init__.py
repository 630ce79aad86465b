"""A day of a large site in minutes: what measures, decides and plans is lbctl's own code; switches, moves and the load are simulated."""
