"""The classic networks."""
