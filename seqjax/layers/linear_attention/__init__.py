"""Linear attention and its decays."""
