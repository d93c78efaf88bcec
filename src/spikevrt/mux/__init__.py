"""FRAMES -> VIDEO FILES, with what the source held beside its pictures."""
