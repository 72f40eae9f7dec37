"""Predictions that the owner lets go, on their way to the fleet: each row exactly once."""
