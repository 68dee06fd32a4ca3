"""Representations of training examples: one pass over checkpoints and batches, one observer for each kind."""
