"""The plain U-Net: what it starts as, what a frame of its output depends on, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from spikevrt.checkpoint import WeightsInfo, save_weights
from spikevrt.config import ModelConfig, SpikeConfig, UnetConfig, load_config
from spikevrt.model import build_network
from spikevrt.model.network import within_colours
from spikevrt.model.spike_vrt import SpikeVRT
from spikevrt.model.unet import Unet, with_neighbours
from spikevrt.restore.clip import ClipWork
from spikevrt.restore.restorer import RestoreOptions, load_network, restore_clip

CONFIGS = Path(__file__).parents[2] / "configs"
NUM_BINS = 7
MICRO = UnetConfig(width=5, growth=3, depth=2, blocks=1)
CONFIG = ModelConfig(unet=MICRO, spikes=SpikeConfig(num_bins=NUM_BINS))
RGB = ModelConfig(unet=MICRO, spikes=None)


def make(config: ModelConfig = CONFIG, *, trained: bool = True) -> Unet:
    torch.manual_seed(5)
    network = Unet(config).eval()
    if trained:  # stands for training: the last convolution is not zero any more
        with torch.no_grad():
            for p in network.parameters():
                p.add_(0.05 * torch.randn(p.shape))
    return network


def clip(batch: int = 1, frames: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(11)
    blur = torch.rand(batch, frames, 3, 28, 44, generator=generator)
    return blur, torch.randn(batch, frames, NUM_BINS, 14, 22, generator=generator)


def changed_frames(before: torch.Tensor, after: torch.Tensor) -> list[int]:
    return [t for t in range(before.shape[1]) if not torch.equal(before[:, t], after[:, t])]


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_fresh_unet_is_the_identity_whatever_the_spikes(precision: torch.dtype):
    network = make(trained=False)
    blur, spikes = clip()
    with torch.no_grad(), torch.autocast("cpu", precision, enabled=precision != torch.float32):
        for factor in (0.0, 1.0, -300.0):
            assert torch.equal(network(blur, factor * spikes), blur)
        assert torch.equal(network(blur), blur)


def test_a_frame_and_its_neighbours_are_stacked_in_order_of_time_and_the_ends_repeated():
    frames = torch.tensor([10.0, 20.0, 30.0]).view(1, 3, 1, 1, 1)
    assert with_neighbours(frames, 0).flatten(1).tolist() == [[10], [20], [30]]
    assert with_neighbours(frames, 1).flatten(1).tolist() == [[10, 10, 20], [10, 20, 30], [20, 30, 30]]
    assert with_neighbours(frames, 2).flatten(1).tolist() == [
        [10, 10, 10, 20, 30],
        [10, 10, 20, 30, 30],
        [10, 20, 30, 30, 30],
    ]


def test_a_voxel_changes_its_frame_and_the_two_beside_it_and_no_other():
    network = make()
    blur, spikes = clip()
    other = spikes.clone()
    other[0, 3, 4, 6, 13] += 3.0
    with torch.no_grad():
        before, after = network(blur, spikes), network(blur, other)
    assert changed_frames(before, after) == [2, 3, 4]
    assert (before - after).abs().max() > 1e-3


def test_a_frame_changes_itself_and_the_two_beside_it_and_no_other():
    network = make(RGB)
    blur, _ = clip()
    other = blur.clone()
    other[0, 0, 1, 20, 31] += 0.5
    with torch.no_grad():
        assert changed_frames(network(blur), network(other)) == [0, 1]


def test_a_unet_without_neighbours_restores_every_frame_alone():
    network = make(ModelConfig(unet=UnetConfig(width=5, growth=3, depth=2, blocks=1, neighbours=0), spikes=None))
    blur, _ = clip()
    other = blur.clone()
    other[0, 2] += 0.5
    with torch.no_grad():
        assert changed_frames(network(blur), network(other)) == [2]


def test_a_clip_of_one_frame_is_restored_as_the_middle_of_three_alike():
    network = make()
    blur, spikes = clip(frames=1)
    with torch.no_grad():
        alone, repeated = network(blur, spikes), network(blur.repeat(1, 3, 1, 1, 1), spikes.repeat(1, 3, 1, 1, 1))
    torch.testing.assert_close(alone[:, 0], repeated[:, 1], rtol=0, atol=1e-6)  # sums over another batch


def test_a_batch_of_two_equals_two_batches_of_one():
    network = make()
    blur, spikes = clip(batch=2)
    with torch.no_grad():
        both = network(blur, spikes)
        apart = torch.cat([network(blur[i : i + 1], spikes[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(both, apart, rtol=0, atol=1e-6)  # sums over another batch
    assert (both[0] - both[1]).abs().max() > 1e-2


def test_without_spikes_nothing_is_added_in_a_batch_with_others_too():
    network = make()
    blur, spikes = clip(batch=2)
    with torch.no_grad():
        both, alone = network(blur, spikes), network(blur)
        mixed = network(blur, spikes, torch.tensor([True, False]))
    assert torch.equal(mixed[0], both[0]) and torch.equal(mixed[1], alone[1])
    assert (both[1] - alone[1]).abs().max() > 1e-2


def test_a_batch_without_any_spikes_has_gradients_of_zero_in_the_spike_layers():
    """Not none: the ranks of a distributed run exchange the same gradients whatever their samples."""
    network = make()
    blur, spikes = clip()
    network(blur, spikes, torch.tensor([False])).sum().backward()
    gradients = [p.grad for p in network.first_spikes.parameters()]
    assert gradients and all(grad is not None and not grad.any() for grad in gradients)
    assert network.first.weight.grad.any()


def test_every_parameter_gets_a_gradient():
    network = make().train()
    network(*clip()).square().mean().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize(("rows", "columns"), [(28, 44), (14, 22), (9, 15)])
def test_spikes_may_have_any_resolution(rows: int, columns: int):
    blur, _ = clip(frames=2)
    spikes = torch.randn(1, 2, NUM_BINS, rows, columns, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        assert make()(blur, spikes).shape == blur.shape


def test_the_inputs_are_left_as_they_were():
    blur, spikes = clip()
    before = blur.clone(), spikes.clone()
    with torch.no_grad():
        make()(blur, spikes)
    assert torch.equal(blur, before[0]) and torch.equal(spikes, before[1])


def test_frames_that_cannot_be_halved_so_often_are_refused():
    with pytest.raises(ValueError, match="frames of 46x28: both sides must be multiples of 4"):
        make()(torch.rand(1, 2, 3, 28, 46))


def test_voxels_of_another_number_of_bins_are_refused():
    blur, spikes = clip()
    with pytest.raises(ValueError, match=r"spike_vox: shape \(1, 5, 6, 14, 22\); expected \(1, 5, 7, rows, columns\)"):
        make()(blur, spikes[:, :, :6])


def test_spikes_for_a_unet_without_them_are_refused():
    with pytest.raises(ValueError, match="no spike branch"):
        make(RGB)(*clip())


# --- the network of a config -----------------------------------------------------------------------------------------


def test_a_config_with_unet_is_a_unet_and_any_other_is_spikevrt():
    assert type(build_network(CONFIG)) is Unet
    assert type(build_network(load_config(CONFIGS / "tiny_rgb.yaml").model)) is SpikeVRT


@pytest.mark.parametrize(("name", "expected"), [("unet", 727_241), ("unet_rgb", 726_535)])
def test_a_shipped_unet_is_as_large_as_the_tiny_spikevrt_within_one_percent(name: str, expected: int):
    sizes = [
        sum(p.numel() for p in build_network(load_config(CONFIGS / f"{config}.yaml").model).parameters())
        for config in (name, "tiny")
    ]
    assert sizes == [expected, 728_357]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.01)
    assert f"{expected:,}" in (CONFIGS / f"{name}.yaml").read_text(encoding="utf-8")


# --- through the restorer --------------------------------------------------------------------------------------------


def test_a_unet_restores_odd_sizes_and_a_single_frame():
    network = make()
    generator = torch.Generator().manual_seed(3)
    for frames, height, width in ((1, 29, 47), (3, 67, 71)):
        blur = torch.rand(frames, 3, height, width, generator=generator)
        spikes = torch.randn(frames, NUM_BINS, (height + 1) // 2, (width + 1) // 2, generator=generator)
        restored = restore_clip(network, blur, spikes, RestoreOptions())
        assert restored.shape == blur.shape and bool(restored.isfinite().all())
        assert (restored - blur).abs().max() > 1e-2


def test_one_tile_is_restored_as_by_hand():
    network = make()
    generator = torch.Generator().manual_seed(3)
    blur = torch.rand(3, 3, 64, 72, generator=generator)
    spikes = torch.randn(3, NUM_BINS, 32, 36, generator=generator)
    with torch.no_grad():
        by_hand = network(blur[None], spikes[None])[0]
    assert torch.equal(restore_clip(network, blur, spikes, RestoreOptions()), by_hand)


def test_tiles_of_a_unet_share_no_flows_and_blend_without_a_seam():
    """A pixel sees 31 pixels far, and the outer 34 of the 136 shared columns have no weight."""
    network = make()
    generator = torch.Generator().manual_seed(3)
    blur = torch.rand(2, 3, 64, 200, generator=generator)
    spikes = torch.randn(2, NUM_BINS, 32, 100, generator=generator)
    work: list[ClipWork] = []
    tiled = restore_clip(network, blur, spikes, RestoreOptions(tile_px=168, overlap_px=128), tell=work.append)
    assert [(clip.num_tiles, clip.shared_flows) for clip in work] == [(2, False)]
    whole = restore_clip(network, blur, spikes, RestoreOptions(tile_px=0))
    torch.testing.assert_close(tiled, whole, rtol=0, atol=1e-5)


def test_told_to_do_without_spikes_a_unet_restores_the_frames_alone():
    network = make()
    blur = torch.rand(2, 3, 64, 72, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        by_hand = network(blur[None])[0]
    assert torch.equal(restore_clip(network, blur, None, RestoreOptions(without_spikes=True)), by_hand)


def test_a_loaded_unet_is_the_saved_one_and_another_is_refused_by_its_keys(tmp_path: Path):
    network, path = make(), tmp_path / "unet.safetensors"
    save_weights(path, network.state_dict(), WeightsInfo(CONFIG, 0.25, 0.5))
    loaded, info = load_network(path, torch.device("cpu"))
    assert type(loaded) is Unet and not loaded.training
    assert (info.model, info.voxel_mean, info.voxel_std) == (CONFIG, 0.25, 0.5)
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in loaded.state_dict().items())
    save_weights(path, network.state_dict(), WeightsInfo(RGB, 0.0, 1.0))
    with pytest.raises(ValueError, match=r"unet\.safetensors: does not fit the network: 6 unknown keys \(first_spikes"):
        load_network(path, torch.device("cpu"))


FOLDED = UnetConfig(width=5, growth=3, depth=1, blocks=1, unshuffle=2)


def test_a_folded_unet_starts_as_the_identity_and_every_pixel_of_a_square_has_channels_of_its_own():
    config = ModelConfig(unet=FOLDED, spikes=SpikeConfig(num_bins=NUM_BINS))
    fresh, network = make(config, trained=False), make(config)
    blur, spikes = clip()
    assert network.pad_multiple == 4
    with torch.no_grad():
        assert torch.equal(fresh(blur, spikes), blur)
        before = network(blur, spikes) - blur
        for row, column in ((12, 20), (12, 21), (13, 20), (13, 21)):
            other = blur.clone()
            other[0, 2, :, row, column] += 0.5
            after = network(other, spikes) - other
            assert changed_frames(before, after) == [1, 2, 3]


def test_a_folded_unet_of_no_halvings_sees_a_few_cells_around_a_pixel_and_no_more():
    network = make(ModelConfig(unet=UnetConfig(width=5, depth=0, blocks=1, unshuffle=2, neighbours=0), spikes=None))
    blur = torch.rand(1, 1, 3, 28, 44, generator=torch.Generator().manual_seed(3))
    other = blur.clone()
    other[0, 0, :, 12, 20] += 0.5
    with torch.no_grad():
        changed = ((network(other) - other) - (network(blur) - blur)).abs().amax((0, 1, 2)) > 1e-7
    rows, columns = changed.nonzero().T
    # four 3x3 convolutions at half the size reach 4 cells of 2x2 pixels to each side of the cell (6, 10)
    assert (int(rows.min()), int(rows.max())) == (4, 21) and (int(columns.min()), int(columns.max())) == (12, 29)


def test_no_pixel_counts_beyond_the_reach_and_some_near_its_end_does():
    unet = UnetConfig(width=3, growth=1, depth=2, blocks=1, unshuffle=2, neighbours=0)
    torch.manual_seed(5)
    network = Unet(ModelConfig(unet=unet, spikes=None)).double()
    torch.nn.init.normal_(network.last.weight)
    reach, side = network.reach_px, 256
    assert reach is not None
    farthest = 0
    for place in (124, 127, 128, 131):  # other corners of the blocks of 8 pixels that become one
        blur = torch.full((1, 1, 3, side, side), 0.5, dtype=torch.float64)
        other = blur.clone()
        other[..., place, place] += 1
        with torch.no_grad():
            changed = (network(blur) - network(other)).abs().amax((0, 1, 2)).nonzero()
        farthest = max(farthest, int((changed - place).abs().max()))
    assert reach - 2 * network.pad_multiple <= farthest <= reach


def test_networks_are_told_apart_by_name():
    relit = SpikeConfig(representation="profile", relight=True)
    models = {
        "SpikeVRT": ModelConfig(),
        "VRT": ModelConfig(spikes=None),
        "SpikeVRT, spike-corrected frames": ModelConfig(spikes=relit),
        "U-Net": ModelConfig(unet=UnetConfig()),
        "U-Net, without spikes": ModelConfig(unet=UnetConfig(), spikes=None),
        "U-Net on blocks of 2x2 pixels, spike-corrected frames": ModelConfig(
            unet=UnetConfig(unshuffle=2), spikes=relit
        ),
    }
    assert {name: model.name for name, model in models.items()} == {name: name for name in models}


def test_no_colour_comes_out_that_a_relit_frame_does_not_hold_nearby_and_a_blurry_frame_binds_nothing():
    relit = ModelConfig(unet=MICRO, spikes=SpikeConfig(num_bins=NUM_BINS, relight=True))
    blur, spikes = clip()
    grey = blur[:, :, :1].expand_as(blur).contiguous()
    with torch.no_grad():
        bound, free = make(relit)(grey, spikes), make()(grey, spikes)
    assert float(bound.diff(dim=2).abs().max()) < 1e-5 < 1e-2 < float(free.diff(dim=2).abs().max())
    weights = torch.tensor([0.2126, 0.7152, 0.0722]).view(3, 1, 1)
    torch.testing.assert_close((bound * weights).sum(2), (free * weights).sum(2), rtol=0, atol=1e-5)  # as bright


def test_a_colour_may_lie_four_pixels_off_and_what_keeps_to_the_colours_keeps_its_bits():
    frames = torch.full((1, 1, 3, 13, 15), 0.5)
    frames[..., 0, 6, 7] = 0.9  # one red pixel
    red = frames[..., 6:7, 7:8].expand_as(frames).contiguous()
    reddest = within_colours(red, frames)[0, 0]
    assert torch.equal(reddest[:, 2:11, 3:12], red[0, 0, :, 2:11, 3:12])
    outside = torch.cat((reddest[:, [1, 11]].flatten(1), reddest[:, :, [2, 12]].flatten(1)), 1)
    torch.testing.assert_close(outside[0], outside[2])  # grey, five pixels off
    assert torch.equal(within_colours(frames, frames), frames)
