"""Recurrences whose matrix is held to a set: antisymmetric, orthogonal, unitary."""
