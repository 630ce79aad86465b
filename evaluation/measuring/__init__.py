"""What everything that measures has in common: the machine and the other work on it, figures, and the records of them.

Experiments and benchmarks use it; it imports nothing else of evaluation/. record.py is the form of the JSON files,
findings.py what a run hands over, session.py makes a record of it, others.py and usage.py look at processes.
"""
