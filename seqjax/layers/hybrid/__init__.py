"""Hybrids: recurrences and attention in one stack."""
