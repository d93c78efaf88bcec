"""Exposures: in order, apart, not empty."""

from __future__ import annotations

from pathlib import Path

import pytest

from spikevrt.recording.sidecar import Exposure, check_exposures

GOOD = (Exposure(0, 0, 5, 0.0, 0.5), Exposure(2, 5, 11, 0.5, 1.1))


def test_exposures_that_touch_and_skip_a_frame_are_good() -> None:
    check_exposures(Path("a.json"), GOOD)
    assert [exposure.num_ticks for exposure in GOOD] == [5, 6]


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (Exposure(2, 4, 11, 0.5, 1.1), r"exposures\[1\]: ticks \[4, 11\) begin before the exposure before it ends"),
        (Exposure(2, 7, 7, 0.5, 1.1), r"ticks \[7, 7\); allowed: at least one tick"),
        (Exposure(2, 5, 11, 0.5, 0.5), "t0_s 0.5 is not before t1_s 0.5"),
        (Exposure(0, 5, 11, 0.5, 1.1), "frame_idx 0 is not in rising order"),
    ],
)
def test_what_cannot_be_is_refused(second: Exposure, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_exposures(Path("a.json"), (GOOD[0], second))


def test_no_exposures_are_refused() -> None:
    with pytest.raises(ValueError, match="no exposures"):
        check_exposures(Path("a.json"), ())
