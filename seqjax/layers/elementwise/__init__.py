"""Elementwise recurrences: gates that act on each channel alone."""
