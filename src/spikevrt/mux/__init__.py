"""Frames to video files, with what the source held beside its pictures."""
