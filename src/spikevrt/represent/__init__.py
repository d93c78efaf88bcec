"""Spike windows to tensors: voxels (what the network reads), rates, intervals, raw ticks; and their warp and repair."""
