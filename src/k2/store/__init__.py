"""The hot store."""
