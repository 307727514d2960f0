"""Segment recurrence: networks that read a stretch of the sequence at a time."""
