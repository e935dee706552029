"""Proving that cold is what it should be: what `k2 archive audit` does."""
