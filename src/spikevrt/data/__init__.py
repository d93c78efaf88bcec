"""From recordings to batches: prepare a dataset once, then read clips from it."""
