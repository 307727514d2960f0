"""Reservoirs: recurrences that are not trained."""
