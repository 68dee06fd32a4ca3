"""prune-cli: choose which fine-tuning examples are worth training on."""

__version__ = "0.1.0"
