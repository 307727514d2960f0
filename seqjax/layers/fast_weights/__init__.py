"""Fast weights: delta rules and inner learners."""
