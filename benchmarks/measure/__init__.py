"""The benchmarks: each file measures one thing."""
