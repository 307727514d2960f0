"""Models: what layers are stacked into."""
