"""Measurements behind docs/benchmarks; run each as `python -m benchmarks.NAME`."""
