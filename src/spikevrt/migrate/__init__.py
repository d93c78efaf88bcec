"""Configs of the reference system into ours."""
