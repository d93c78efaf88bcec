import pytest

from spikevrt.config import ModelConfig, UnetConfig, VrtConfig
from spikevrt.restore.plan import Plan, largest_tile_px, plan_tiles, predict_peak_bytes, stored_flow_bytes

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


SMALLEST = {"smallest_px": 64, "multiple": 16}


def test_several_tiles_share_flows_and_a_single_one_does_not():
    plan = {
        width: plan_tiles(ModelConfig(), 5, 256, width, tile_px=256, budget_bytes=None, **SMALLEST)
        for width in (256, 512)
    }
    assert plan == {256: Plan(256, False), 512: Plan(256, True)}


def test_a_network_without_flow_shares_none():
    model = ModelConfig(vrt=VrtConfig(pa_frames=0), spikes=None)
    assert plan_tiles(model, 6, 256, 512, tile_px=256, budget_bytes=None, **SMALLEST) == Plan(256, False)


UNET = ModelConfig(unet=UnetConfig())


def test_a_unet_has_no_flows_to_share_and_needs_less_than_the_reference_network():
    plan = plan_tiles(UNET, 5, 256, 512, tile_px=256, budget_bytes=None, **SMALLEST)
    assert plan == Plan(256, False)
    assert predict_peak_bytes(UNET, 5, 256, 256) < predict_peak_bytes(ModelConfig(), 5, 256, 256)


def test_a_budget_picks_the_largest_tile_of_a_unet_that_is_predicted_to_fit():
    budget = predict_peak_bytes(UNET, 5, 208, 208)
    options = {"tile_px": 10**9, **SMALLEST}
    assert plan_tiles(UNET, 5, 720, 1280, budget_bytes=budget, **options) == Plan(208, False)
    assert plan_tiles(UNET, 5, 720, 1280, budget_bytes=budget - 1, **options) == Plan(192, False)


def test_a_unet_that_reads_spikes_or_is_wider_at_a_coarse_level_is_predicted_to_need_more():
    models = [
        ModelConfig(unet=UnetConfig(width=7), spikes=None),
        ModelConfig(unet=UnetConfig(width=7)),
        ModelConfig(unet=UnetConfig(width=7, growth=59)),
    ]
    needs = [predict_peak_bytes(model, 5, 64, 64) for model in models]
    assert needs == sorted(set(needs))


def test_flows_that_would_take_more_memory_than_a_tile_are_not_shared():
    """4K with the reference network is shared, 64 times a tile of 64 pixels is not."""
    shared = [
        plan_tiles(ModelConfig(), 5, 2160, 3840, tile_px=tile_px, budget_bytes=None, **SMALLEST).shares_flows
        for tile_px in (64, 256)
    ]
    assert shared == [False, True]


def test_under_a_budget_tiles_leave_room_for_the_flows_that_they_share():
    flows = stored_flow_bytes(ModelConfig(), 5, 720, 1280)
    assert flows == 22 * 4 * 720 * 1280
    budget = predict_peak_bytes(ModelConfig(), 5, 256, 256) + flows
    options = {"tile_px": 10**9, **SMALLEST}
    assert plan_tiles(ModelConfig(), 5, 720, 1280, budget_bytes=budget, **options) == Plan(256, True)
    assert plan_tiles(ModelConfig(), 5, 720, 1280, budget_bytes=budget - 1, **options) == Plan(240, True)


def test_a_budget_too_small_for_shared_flows_is_kept_without_them():
    budget = predict_peak_bytes(ModelConfig(), 5, 64, 64)
    plan = plan_tiles(ModelConfig(), 5, 720, 1280, tile_px=10**9, budget_bytes=budget, **SMALLEST)
    assert plan == Plan(64, False)
