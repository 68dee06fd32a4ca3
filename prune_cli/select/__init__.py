"""Selections: which rows to keep, best first, one file a method. They see arrays only, as scores do."""
