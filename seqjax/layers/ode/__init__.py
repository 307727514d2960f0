"""Recurrences that are steps of a differential equation."""
