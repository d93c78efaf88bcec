"""Registration as stored: positions on the sensor follow the homography and the displacement, and damage is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from spikevrt.recording.alignment import Alignment, apply_homography, same_field, sensor_positions

SIZES = {"width": 12, "height": 8, "sensor_width": 6, "sensor_height": 4, "ratio": 2}


def _rows(matrix: np.ndarray) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(value) for value in row) for row in matrix)


def _flow(path: Path, values: np.ndarray) -> Path:
    np.save(path, values)
    return path


def test_the_same_field_reads_every_sensor_pixel_at_its_centre() -> None:
    positions = sensor_positions(Alignment(), **SIZES)
    assert positions.dtype == np.float32 and positions.shape == (4, 6, 2)
    np.testing.assert_array_equal(positions[0, 0], [0.5, 0.5])
    np.testing.assert_array_equal(positions[3, 5], [5.5, 3.5])


def test_a_homography_maps_the_centres_of_the_grid() -> None:
    # x -> (x + 4) / 2, y -> y / 2, both divided by 1 + x / 12
    matrix = np.array([[0.5, 0, 2], [0, 0.5, 0], [1 / 12, 0, 1]])
    positions = sensor_positions(Alignment(homography=_rows(matrix)), **SIZES)  # type: ignore[arg-type]
    # cell (1, 1): centre (3, 3), divisor 1.25
    np.testing.assert_allclose(positions[1, 1], [3.5 / 1.25, 1.5 / 1.25], rtol=1e-6)


def test_points_go_through_a_homography_and_back() -> None:
    matrix = np.array([[0.5, 0.01, 2], [-0.02, 0.5, 1], [1e-3, 2e-3, 1]])
    points = np.array([[[0.0, 0.0], [12.0, 0.0]], [[0.0, 8.0], [12.0, 8.0]]])
    there = apply_homography(matrix, points)
    np.testing.assert_allclose(there[0, 0], [2, 1], rtol=0, atol=1e-15)
    np.testing.assert_allclose(apply_homography(np.linalg.inv(matrix), there), points, rtol=0, atol=1e-12)


def test_a_frame_that_is_no_multiple_of_the_ratio_gets_cells_for_its_rest() -> None:
    positions = sensor_positions(Alignment(), width=13, height=7, sensor_width=6, sensor_height=4, ratio=2)
    assert positions.shape == (4, 7, 2)


def test_the_same_field_is_the_ratio_of_the_sizes() -> None:
    np.testing.assert_array_equal(same_field(12, 8, 6, 4), np.diag([0.5, 0.5, 1.0]))


def test_a_displacement_of_one_cell_is_added_everywhere(tmp_path: Path) -> None:
    flow = _flow(tmp_path / "flow.npy", np.array([[[0.25]], [[-1.0]]], dtype=np.float32))
    moved = sensor_positions(Alignment(flow=flow), **SIZES) - sensor_positions(Alignment(), **SIZES)
    np.testing.assert_array_equal(moved, np.broadcast_to(np.float32([0.25, -1.0]), (4, 6, 2)))


def test_a_coarse_displacement_is_read_bilinearly_and_clamped_at_the_edge(tmp_path: Path) -> None:
    values = np.zeros((2, 1, 2), dtype=np.float32)
    values[0, 0] = [0, 1]  # cell centres at x = 3 and 9 of 12
    moved = sensor_positions(Alignment(flow=_flow(tmp_path / "flow.npy", values)), **SIZES)
    moved = moved - sensor_positions(Alignment(), **SIZES)
    np.testing.assert_allclose(moved[2, :, 0], [0, 0, 1 / 3, 2 / 3, 1, 1], rtol=0, atol=1e-6)
    np.testing.assert_array_equal(moved[..., 1], 0)


def test_a_missing_displacement_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"flow.npy: no such displacement field; run `spikevrt align` again$"):
        sensor_positions(Alignment(flow=tmp_path / "flow.npy"), **SIZES)


@pytest.mark.parametrize(
    "values",
    [
        np.zeros((3, 2, 2), dtype=np.float32),
        np.zeros((2, 2), dtype=np.float32),
        np.zeros((2, 2, 2), dtype=np.float64),
        np.zeros((2, 0, 2), dtype=np.float32),
        np.full((2, 2, 2), np.nan, dtype=np.float32),
        np.array([{}]),
    ],
    ids=["three planes", "two axes", "float64", "empty", "nan", "objects"],
)
def test_a_file_that_is_no_displacement_is_refused(values: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"flow.npy: (.*displacement field|damaged array)") as error:
        sensor_positions(Alignment(flow=_flow(tmp_path / "flow.npy", values)), **SIZES)
    assert "\n" not in str(error.value)


def test_a_truncated_displacement_is_refused(tmp_path: Path) -> None:
    flow = _flow(tmp_path / "flow.npy", np.zeros((2, 5, 7), dtype=np.float32))
    flow.write_bytes(flow.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"flow.npy: "):
        sensor_positions(Alignment(flow=flow), **SIZES)


def test_an_offset_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^alignment.offset_ticks: nan; allowed: a finite number$"):
        Alignment(offset_ticks=float("nan"))


@pytest.mark.parametrize("matrix", [np.zeros((3, 3)), np.full((3, 3), np.inf), np.ones((3, 3))])
def test_a_matrix_that_cannot_be_inverted_is_refused(matrix: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"^alignment.homography: not an invertible 3x3 matrix of finite numbers$"):
        Alignment(homography=_rows(matrix))  # type: ignore[arg-type]


def test_only_what_moves_positions_is_spatial(tmp_path: Path) -> None:
    assert not Alignment(offset_ticks=3).is_spatial
    assert Alignment(homography=_rows(np.eye(3))).is_spatial  # type: ignore[arg-type]
    assert Alignment(flow=tmp_path / "flow.npy").is_spatial


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "matrix",
    [
        [[0.5, 0, 2], [0, 0.5, 0], [-1 / 6, 0, 1]],  # the horizon is x = 6, in the middle of the frame
        [[0.5, 0, 2], [0, 0.5, 0], [-1 / 12, 0, 1]],  # x = 12, its right edge
        [[1e308, 0, 2], [0, 1e308, 0], [0, 0, 1e-308]],
        [[1e300, 0, 2], [0, 0.5, 0], [0, 0, 1]],  # more than float32 holds
    ],
    ids=str,
)
def test_a_homography_that_sends_a_part_of_the_frame_to_infinity_is_refused(matrix: list[list[float]]) -> None:
    with pytest.raises(ValueError, match=r"^alignment\.homography: .* sends a part of the 12x8 frame to infinity"):
        sensor_positions(Alignment(homography=_rows(np.array(matrix))), **SIZES)  # type: ignore[arg-type]


def test_a_homography_and_its_negative_are_the_same_map() -> None:
    matrix = np.array([[0.5, 0, 2], [0, 0.5, 0], [1 / 12, 0, 1]])
    plus, minus = (sensor_positions(Alignment(homography=_rows(m)), **SIZES) for m in (matrix, -matrix))  # type: ignore[arg-type]
    np.testing.assert_array_equal(plus, minus)


def test_an_offset_longer_than_any_recording_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^alignment.offset_ticks: 1e\+308; allowed: up to 2147483648 either way$"):
        Alignment(offset_ticks=1e308)
