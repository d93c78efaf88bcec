"""Weights and recordings to sharp frames, of any size and length; all that restores goes through `restorer`."""
