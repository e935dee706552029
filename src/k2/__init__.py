"""K2: capture every crypto trade, keep it, serve it, and prove that none is missing."""

__version__ = "0.1.0"
