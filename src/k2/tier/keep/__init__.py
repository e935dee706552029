"""Keeping the tables: what `k2 archive maintain` does."""
