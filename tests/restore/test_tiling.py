import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spikevrt.restore.tiling import (
    cut_voxels,
    pad_mirrored,
    padded_size,
    spatial_tiles,
    tile_starts,
    tile_weights,
    voxel_ratio,
)


@st.composite
def axes(draw):
    multiple = draw(st.sampled_from([1, 2, 8]))
    tile = multiple * draw(st.integers(2, 13))
    return multiple * draw(st.integers(1, 71)), tile, draw(st.integers(0, tile - multiple)), multiple


@settings(deadline=None, max_examples=100, derandomize=True)
@given(axes())
def test_the_weights_over_every_step_sum_to_one_and_are_never_negative(axis):
    size, tile, overlap, multiple = axis
    total = torch.zeros(size)
    starts = tile_starts(size, tile, overlap, multiple=multiple)
    for start, weights in zip(starts, tile_weights(size, tile, overlap, multiple=multiple), strict=True):
        assert bool((weights >= 0).all())
        total[start : start + len(weights)] += weights
    torch.testing.assert_close(total, torch.ones(size), rtol=0, atol=1e-6)  # float32 sums of a few weights


@settings(deadline=None, max_examples=300, derandomize=True)
@given(axes())
def test_tiles_start_on_the_grid_reach_both_ends_and_overlap_as_asked(axis):
    size, tile, overlap, multiple = axis
    starts = tile_starts(size, tile, overlap, multiple=multiple)
    assert starts[0] == 0 and starts[-1] == max(0, size - tile)
    assert all(start % multiple == 0 for start in starts)
    assert all(0 < after - before <= tile - overlap for before, after in zip(starts, starts[1:], strict=False))


def test_seven_frames_in_clips_of_five_are_two_clips():
    assert tile_starts(7, 5, 1) == [0, 2]


def test_the_picture_border_has_full_weight():
    first, *_, last = tile_weights(97, 31, 7)
    assert first[0] == 1 and last[-1] == 1


def test_one_tile_has_weight_one_everywhere():
    assert tile_starts(13, 17, 5) == [0]
    (weights,) = tile_weights(13, 17, 5)
    assert torch.equal(weights, torch.ones(13))


def test_the_outer_quarter_of_an_overlap_gets_nothing():
    first, second = tile_weights(12, 10, 8)
    assert second[:2].tolist() == [0, 0] and first[-2:].tolist() == [0, 0]
    assert second[2:6].tolist() == pytest.approx([0.2, 0.4, 0.6, 0.8])


def test_an_overlap_that_leaves_no_step_is_refused():
    with pytest.raises(ValueError, match=r"overlap: 9 of tiles of 16; allowed: 0 to 8 \(steps of 8\)"):
        tile_starts(64, 16, 9, multiple=8)


def test_an_overlap_larger_than_a_picture_of_one_tile_does_not_matter():
    assert tile_starts(16, 64, 60, multiple=8) == [0]


def test_spatial_tiles_cover_every_pixel_with_weight_one():
    total = torch.zeros(48, 72)
    tiles = spatial_tiles(48, 72, 32, 9, multiple=8)
    for tile in tiles:
        total[tile.rows, tile.columns] += tile.row_weights[:, None] * tile.column_weights
    assert len(tiles) == 2 * 4  # on a grid of 8 an overlap of 9 is one of 16
    torch.testing.assert_close(total, torch.ones(48, 72), rtol=0, atol=1e-6)


def test_tile_0_is_the_whole_picture():
    (tile,) = spatial_tiles(48, 72, 0, 32, multiple=8)
    assert (tile.top, tile.left, tile.height, tile.width) == (0, 0, 48, 72)


def test_a_padded_size_is_a_multiple_and_no_less_than_the_minimum():
    assert padded_size(17, multiple=8, minimum=16) == 24
    assert padded_size(3, multiple=8, minimum=17) == 24
    assert padded_size(16, multiple=8, minimum=16) == 16


def test_mirroring_repeats_the_edge_and_goes_on_as_often_as_needed():
    row = torch.tensor([[1, 2, 3]])
    assert pad_mirrored(row, 1, 8).tolist() == [[1, 2, 3, 3, 2, 1, 1, 2]]
    assert pad_mirrored(row.t(), 5, 1).flatten().tolist() == [1, 2, 3, 3, 2]


def test_nothing_to_pad_is_the_same_tensor():
    x = torch.ones(2, 3, 5, 7)
    assert pad_mirrored(x, 5, 7) is x


def test_padding_voxels_by_p_and_frames_by_r_times_p_keeps_one_field_of_view():
    voxels = torch.arange(35.0).view(1, 1, 5, 7)
    frames = voxels.repeat_interleave(3, -1).repeat_interleave(3, -2)
    padded = pad_mirrored(voxels, 11, 17)
    assert torch.equal(pad_mirrored(frames, 33, 51), padded.repeat_interleave(3, -1).repeat_interleave(3, -2))


def test_a_tile_cuts_the_voxels_that_see_the_same():
    voxels = torch.arange(24.0 * 40).view(1, 1, 24, 40)
    frames = voxels.repeat_interleave(2, -1).repeat_interleave(2, -2)
    for tile in spatial_tiles(48, 80, 32, 9, multiple=16):
        cut = cut_voxels(voxels, tile, 2).repeat_interleave(2, -1).repeat_interleave(2, -2)
        assert torch.equal(cut, frames[..., tile.rows, tile.columns])


def test_a_voxel_sees_a_whole_number_of_pixels_and_the_last_one_may_reach_over_the_border():
    assert voxel_ratio(500, 800, 250, 400) == 2
    assert voxel_ratio(15, 21, 5, 7) == 3
    assert voxel_ratio(11, 15, 6, 8) == 2
    assert voxel_ratio(7, 5, 7, 5) == 1


@pytest.mark.parametrize(("frame", "voxels"), [((26, 34), (11, 17)), ((250, 400), (500, 800)), ((11, 15), (5, 7))])
def test_voxels_that_do_not_cover_the_frame_so_are_refused(frame: tuple[int, int], voxels: tuple[int, int]):
    with pytest.raises(ValueError, match=rf"voxels: {voxels[1]}x{voxels[0]} for frames of {frame[1]}x{frame[0]}; all"):
        voxel_ratio(*frame, *voxels)
