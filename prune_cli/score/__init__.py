"""Scores: one number a row, one file a method. They see arrays, never a path, a model or a command."""
