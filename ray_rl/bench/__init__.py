"""Benchmarks: how fast the parts are on the machine at hand, measured side by side in one run."""
