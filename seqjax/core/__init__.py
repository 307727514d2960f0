"""The algebra, and how it is run: monoids, scans, Newton, the primitive and its kernels."""
