"""Scores: one number a row, one file a method. They see arrays only, never a path, a model or the command line."""
