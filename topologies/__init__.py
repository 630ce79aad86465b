"""Mininet labs, one file for each figure: fig1.py, fig2.py, fig3.py, fig3_full_nat.py."""
