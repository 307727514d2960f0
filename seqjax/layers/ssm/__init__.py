"""State-space models and long convolutions."""
