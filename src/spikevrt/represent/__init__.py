"""Spike windows to tensors: voxels, rates, intervals, profiles; and what enters a network for one frame."""
