"""What benchmarks run: processes, servers, and the bare loop."""
