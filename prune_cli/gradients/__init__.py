"""Per-example gradients in pure torch: captured, measured, projected, compared. Knows no task, file or option."""
