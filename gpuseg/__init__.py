"""gpuseg: a table in, explained segments out."""

__version__ = "0.1.0"
