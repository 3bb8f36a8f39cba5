"""The Braze side of the house: one GET, when it may leave, what its answer means, and what becomes of a reading."""
