"""Healthy and sick trainings on which the doctor is measured: `python benchmarks/faults/run.py --help`."""
