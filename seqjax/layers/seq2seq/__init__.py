"""Sequence to sequence and memory networks."""
