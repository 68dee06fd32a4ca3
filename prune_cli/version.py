"""The version of prune."""

__version__ = "0.1.0"
