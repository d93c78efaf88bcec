"""From batches to weights: the visible loop, its schedule, its clip order, its validation and its journal."""
