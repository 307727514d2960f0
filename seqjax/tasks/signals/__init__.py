"""Tasks of series and signals that were measured."""
