"""The processes that the benchmarks run: measured commands, servers, and the bare loop."""
