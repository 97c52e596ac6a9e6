"""Benchmarks of the receiver, alone and beside others: `python -m bench --help`."""
