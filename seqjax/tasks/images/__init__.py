"""Tasks of images as sequences."""
