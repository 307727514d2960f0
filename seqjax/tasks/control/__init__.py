"""Tasks of acting in environments that hide their state."""
