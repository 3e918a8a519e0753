"""What is measured, each as ``python -m benchmarks.<name>`` from the root of the repository."""
