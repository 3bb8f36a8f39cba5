"""Lists of sends: their kinds, encodings and dialects, and the rows that become pairs."""
