"""Spike windows to tensors: voxels (what the network reads), firing rate (TFP) and inverse interval (TFI)."""
