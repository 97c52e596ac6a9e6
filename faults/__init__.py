"""Tests that break things: a running daemon is hurt, and what it lost is measured.

`python -m faults` runs every fault and prints a table; `--quick` fewer and shorter ones. What is
promised is in docs/operations.md.
"""
