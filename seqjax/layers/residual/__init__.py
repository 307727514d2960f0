"""Residual and highway recurrences."""
