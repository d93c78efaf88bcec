"""spikebench-v1: recordings of the same bytes on every machine, any method scored on them; and the demo."""
