"""Tasks that are drawn from a key, and test one thing each."""
