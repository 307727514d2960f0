"""Experiments: one file each, its docstring the command, hardware, time and expected number."""
