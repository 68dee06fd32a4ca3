"""Representations of training examples: one pass over checkpoints and batches, one observer a kind."""
