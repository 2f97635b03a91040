"""Benchmarks: ratios from one run. ``python -m benchmarks.lockstep``."""
