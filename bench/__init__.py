"""Benchmarks: the library against what people use today, on the machine at hand. See README.md."""
