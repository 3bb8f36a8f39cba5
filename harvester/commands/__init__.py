"""What a person runs once. Each command returns a report."""
