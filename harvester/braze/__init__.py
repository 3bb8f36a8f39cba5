"""The requests of one workspace to Braze: when each may be sent, what its response means, and when it is repeated."""
