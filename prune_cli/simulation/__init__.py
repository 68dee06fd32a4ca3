"""Pruning of points in the plane: every representation and selection where they can be seen.

Source: Du et al. 2025, arXiv 2507.03648, Figure 2, whose authors' notebook has the setting.
"""
