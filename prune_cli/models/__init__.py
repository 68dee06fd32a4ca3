"""Models: find them, load them, put adapters on them, place them on a device, and feed them batches."""
