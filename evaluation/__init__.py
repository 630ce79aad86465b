"""What measures lbctl: the demonstration, experiments, and benchmarks that print the figures in docs/.

`python -m evaluation` lists them all (catalogue.py) and runs them; each leaves a JSON file of what it found, and
`python -m evaluation tables` makes the tables in docs/ from such files (tables.py). `demonstration`, `experiment`,
`simulator` and `benchmarks` import neither each other nor anything above them; what several of them need is in
`measuring` (the machine, other work on it, records) and `lab_traffic` (programs inside a lab). Nothing outside this
folder imports from it but tests.
"""
