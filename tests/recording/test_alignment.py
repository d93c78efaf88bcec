"""An alignment in recording.json: written, read back, applied on opening, left out on demand, taken out again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spikevrt.recording.alignment import Alignment, write_alignment
from spikevrt.recording.recording import open_recording, with_alignment

# conftest's recording: 3 frames of 80x64, 40x32 spikes, 19 ticks each, one every 23: ticks 0, 23 and 46 of 65
HALF = ((0.5, 0.0, 1.0), (0.0, 0.5, 0.0), (0.0, 0.0, 1.0))


def _starts(path: Path) -> list[int]:
    return [exposure.start_tick for exposure in open_recording(path).exposures]


def _edit(root: Path, change: Callable[[dict[str, Any]], None]) -> None:
    values = json.loads((root / "recording.json").read_text())
    change(values["alignment"])
    (root / "recording.json").write_text(json.dumps(values))


def test_what_was_written_is_what_opens(recording_folder: Path) -> None:
    alignment = Alignment(offset_ticks=2.0, homography=HALF, quality={"frames": 3})
    write_alignment(recording_folder, alignment)
    assert open_recording(recording_folder).alignment == alignment


def test_everything_else_in_the_sidecar_stays(recording_folder: Path) -> None:
    before = json.loads((recording_folder / "recording.json").read_text())
    write_alignment(recording_folder, Alignment(offset_ticks=2.0))
    after = json.loads((recording_folder / "recording.json").read_text())
    assert after.pop("alignment") == {"offset_ticks": 2.0, "homography": None, "flow": None, "quality": {}}
    assert after == before
    write_alignment(recording_folder, None)
    assert json.loads((recording_folder / "recording.json").read_text()) == before


def test_an_offset_moves_exposures_by_whole_ticks_and_drops_frames_outside_the_stream(recording_folder: Path) -> None:
    plain = open_recording(recording_folder)
    write_alignment(recording_folder, Alignment(offset_ticks=2.4))
    moved = open_recording(recording_folder)
    assert [exposure.start_tick for exposure in moved.exposures] == [2, 25]
    assert moved.exposures[0].t0_s == pytest.approx(plain.exposures[0].t0_s + 2 / plain.tick_rate_hz)
    assert moved.dropped == ((2, "its ticks are [48, 67) with an offset of 2.4; allowed: inside [0, 65)"),)
    assert plain.spikes is not None
    np.testing.assert_array_equal(moved.read_exposure_spikes(0), plain.spikes.read(2, 21))
    np.testing.assert_array_equal(moved.read_blur(1), plain.read_blur(1))


def test_a_negative_offset_drops_the_first_frame_and_its_pictures(recording_folder: Path) -> None:
    plain = open_recording(recording_folder)
    moved = with_alignment(plain, Alignment(offset_ticks=-3.0))
    assert [exposure.frame_idx for exposure in moved.exposures] == [1, 2]
    np.testing.assert_array_equal(moved.read_blur(0), plain.read_blur(1))
    np.testing.assert_array_equal(moved.read_sharp(0), plain.read_sharp(1))
    assert plain.num_frames == 3  # the input is untouched


def test_a_homography_gives_positions_and_none_gives_none(recording_folder: Path) -> None:
    assert open_recording(recording_folder).sensor_positions is None
    write_alignment(recording_folder, Alignment(homography=HALF))
    positions = open_recording(recording_folder).sensor_positions
    assert positions is not None
    np.testing.assert_array_equal(positions[0, 0], [1.5, 0.5])


def test_a_recording_opens_without_its_alignment_on_demand(recording_folder: Path) -> None:
    write_alignment(recording_folder, Alignment(offset_ticks=2.0))
    assert _starts(recording_folder) == [2, 25]
    plain = open_recording(recording_folder, apply_alignment=False)
    assert plain.alignment == Alignment()
    assert [exposure.start_tick for exposure in plain.exposures] == [0, 23, 46]


def test_a_recording_is_not_aligned_twice(recording_folder: Path) -> None:
    once = with_alignment(open_recording(recording_folder), Alignment(offset_ticks=1.0))
    with pytest.raises(ValueError, match=r"waves: aligned already; open it without its alignment first$"):
        with_alignment(once, Alignment(offset_ticks=1.0))


def test_an_offset_that_leaves_no_frame_is_refused(recording_folder: Path) -> None:
    with pytest.raises(ValueError, match=r"waves: no frame is left: its ticks are \[90, 109\)"):
        with_alignment(open_recording(recording_folder), Alignment(offset_ticks=90.0))


def test_a_displacement_must_lie_beside_the_sidecar(recording_folder: Path) -> None:
    write_alignment(recording_folder, Alignment(flow=recording_folder / "alignment_flow.npy"))
    with pytest.raises(FileNotFoundError, match=r"alignment_flow.npy: no such displacement field"):
        _ = open_recording(recording_folder).sensor_positions
    _edit(recording_folder, lambda values: values.update(flow="../elsewhere.npy"))
    with pytest.raises(ValueError, match=r"alignment.flow: '../elsewhere.npy'; allowed: the name of a file beside it$"):
        open_recording(recording_folder)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        ([1, 2, 3], r"\[0\]: 1; allowed: list"),
        ([[1, 2], [3, 4]], r": \[\[1, 2\], \[3, 4\]\]; allowed: list of length 3"),
        ([["a", 0, 0], [0, 1, 0], [0, 0, 1]], r"\[0\]\[0\]: 'a'; allowed: float"),
    ],
)
def test_a_stored_matrix_of_another_form_is_named(matrix: list[Any], message: str, recording_folder: Path) -> None:
    write_alignment(recording_folder, Alignment(homography=HALF))
    _edit(recording_folder, lambda values: values.update(homography=matrix))
    with pytest.raises(ValueError, match=rf"recording.json: alignment\.homography{message}$"):
        open_recording(recording_folder)


def test_frames_that_an_offset_moves_outside_the_stream_are_kept_on_demand(recording_folder: Path) -> None:
    plain = open_recording(recording_folder)
    write_alignment(recording_folder, Alignment(offset_ticks=2.0))
    kept = open_recording(recording_folder, keep_outside=True)
    assert [(exposure.start_tick, exposure.stop_tick) for exposure in kept.exposures] == [(2, 21), (25, 44), (48, 67)]
    assert kept.dropped == ()
    np.testing.assert_array_equal(kept.read_blur(2), plain.read_blur(2))
    with pytest.raises(ValueError, match=r"ticks \[48, 67\) asked for; allowed: inside \[0, 65\)"):
        kept.read_exposure_spikes(2)
