"""Selections: which rows to keep, best first, one file a method. They see arrays, as scores do."""
