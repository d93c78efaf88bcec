import pytest

from spikevrt.config import ModelConfig
from spikevrt.restore.plan import largest_tile_px, predict_peak_bytes

RANGE = {"smallest_px": 64, "largest_px": 512, "multiple": 16}


def test_more_memory_never_picks_a_smaller_tile():
    budgets = [4, 8, 16, 32, 64]
    tiles = [largest_tile_px(ModelConfig(), 5, budget_bytes=gb * 10**9, **RANGE) for gb in budgets]
    assert tiles == sorted(tiles) and tiles[0] < tiles[-1]
    assert all(tile % 16 == 0 for tile in tiles)


def test_the_picked_tile_is_predicted_to_fit_and_the_next_one_is_not():
    budget = 8 * 10**9
    tile = largest_tile_px(ModelConfig(), 5, budget_bytes=budget, **RANGE)
    assert predict_peak_bytes(ModelConfig(), 5, tile, tile) <= budget
    assert predict_peak_bytes(ModelConfig(), 5, tile + 16, tile + 16) > budget


def test_a_budget_that_no_tile_fits_is_refused():
    with pytest.raises(
        ValueError, match=r"max_memory_gb: 0\.001 GB are left beside the clip; the smallest tile of 64 px"
    ):
        largest_tile_px(ModelConfig(), 5, budget_bytes=10**6, **RANGE)
