"""Programs that make traffic inside the machines of a lab: how they are started, and what they share.

The demonstration and the experiment use it. started.py is the side of who starts one, inside.py the inside of one.
"""
