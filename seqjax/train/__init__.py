"""Training: configs, the loop, checkpoints, records, generation."""
