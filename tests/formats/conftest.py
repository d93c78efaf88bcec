"""Fixtures shared with the tests of recordings."""

from tests.recording.conftest import root  # noqa: F401
