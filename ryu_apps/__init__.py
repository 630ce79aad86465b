"""The controller around lbctl's core: events in, effects out, and no decision.

`load_balancer.py` and `rest.py` are the apps that `ryu-manager` loads (or `os_ken_manager.py`, which does the same with
os-ken). `library/` is all that needs a switch library; `shell/` is all the rest. Nobody else calls any of it.
"""
