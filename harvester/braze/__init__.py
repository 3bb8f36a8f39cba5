"""The requests of one workspace to Braze: when each may leave, what its response means, and when it is repeated."""
