"""Benchmarks of optimizer steps and of training, compared with other libraries in the same run."""
