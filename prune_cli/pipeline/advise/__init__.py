"""Advice: which method and budget, or a random draw, or all rows, or no training at all.

finished.py reads it from a pipeline's folder; trials.py plans cheap trials of its own, in rounds (rounds.py). Both put
what they measured into lines, which choice.py decides between and text.py tells of.
"""
