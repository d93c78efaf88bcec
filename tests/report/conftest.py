"""Fixtures shared with the tests of evaluation."""

from tests.evaluate.conftest import made_scores, offset_weights  # noqa: F401
