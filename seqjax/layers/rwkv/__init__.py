"""The RWKVs together."""
