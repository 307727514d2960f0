"""The command line and what it prints: reports, checks, benchmarks."""
