"""Mininet labs, one file for each figure of the seed: fig1.py, fig2.py, fig3.py, fig3_full_nat.py, fig3_sliced.py,
fig13.py.

A figure's file says what there is (`plan.py`: values) and hands it to `prompt.main`. `lab.Lab` builds and removes it:
`topo.py` and `nodes.py` are the machines, `controller.py` is the control function, `rundir.py` knows the files and
processes of a lab, `steps.py` bounds what a start may take. A lab uses `lbctl` and `tests.bed`; `evaluation` and the
integration tests use labs.
"""
