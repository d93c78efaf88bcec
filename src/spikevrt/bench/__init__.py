"""spikebench-v1: recordings that every machine makes alike, and any method scored on them."""
