"""The only room about concurrency."""
