"""SpikeVRT as a whole: what a fresh network is, what its fusion may and may not do."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from spikevrt.config import CHECKPOINT_PARTS, ModelConfig, SpikeConfig, VrtConfig, load_config
from spikevrt.model.spike_vrt import SpikeTemporalSA, SpikeVRT, TemporalCrossAttnFuse, over_pixels, resize_features

CONFIGS = Path(__file__).parents[2] / "configs"
VRT_CONFIG = VrtConfig(
    window=(2, 4, 4), depths=(2,) * 7 + (1, 1), dims=(8,) * 7 + (12, 12), num_heads=(2,) * 9, independent=(8,),
    deform_groups=2, flow_widths=(4, 4, 4, 4), drop_path=0.0,
)  # fmt: skip
CONFIG = ModelConfig(vrt=VRT_CONFIG, spikes=SpikeConfig(num_bins=7, dims=(8, 8, 8, 8)))


def make(config: ModelConfig = CONFIG, *, trained: bool = False) -> SpikeVRT:
    torch.manual_seed(5)
    network = SpikeVRT(config).eval()
    if trained:  # stands for training: nothing is zero any more
        with torch.no_grad():
            for p in network.parameters():
                p.add_(0.05 * torch.randn(p.shape))
    return network


def clip(batch: int = 1, frames: int = 3):
    generator = torch.Generator().manual_seed(11)
    blur = torch.rand(batch, frames, 3, 64, 72, generator=generator)
    return blur, torch.randn(batch, frames, 7, 32, 36, generator=generator)


def test_a_fresh_network_equals_its_vrt_bit_for_bit_whatever_the_spikes():
    network = make()
    blur, spikes = clip()
    with torch.no_grad():
        alone = network.vrt(blur)
        for factor in (0.0, 1.0, -300.0):
            assert torch.equal(network(blur, factor * spikes), alone)
        assert torch.equal(network(blur), alone)


def test_a_trained_network_uses_the_spikes_and_without_them_runs_as_its_vrt():
    network = make(trained=True)
    blur, spikes = clip()
    with torch.no_grad():
        assert torch.equal(network(blur, None), network.vrt(blur))
        assert (network(blur, spikes) - network.vrt(blur)).abs().max() > 1e-3


def test_a_sample_without_spikes_runs_as_vrt_beside_one_that_has_them():
    network = make(trained=True)
    blur, spikes = clip(batch=2)
    with torch.no_grad():
        both = network(blur, spikes)
        mixed = network(blur, spikes, torch.tensor([True, False]))
        alone = network.vrt(blur)
    assert torch.equal(mixed[0], both[0]) and torch.equal(mixed[1], alone[1])
    assert not torch.equal(mixed[1], both[1])


def test_a_batch_without_any_spikes_has_gradients_of_zero_in_the_spike_branch():
    """Not none: the ranks of a distributed run exchange the same gradients whatever their samples."""
    network = make(trained=True)
    blur, spikes = clip()
    network(blur, spikes, torch.tensor([False])).sum().backward()
    branch = [p.grad for name, p in network.named_parameters() if not name.startswith("vrt.")]
    assert branch and all(grad is not None and not grad.any() for grad in branch)
    assert network.vrt.conv_last.weight.grad.any()


def test_fusion_happens_in_the_four_encoder_stages_and_nowhere_else():
    network = make(trained=True)
    calls = []
    blur, _ = clip()
    with torch.no_grad():
        network.vrt(blur, fuse=lambda index, x: calls.append((index, x.shape[2])) or x)
    assert calls == [(0, 64), (1, 32), (2, 16), (3, 8)]
    own = [name for name, _ in network.named_children()]
    assert own == ["vrt", "spike_encoder", "spike_attention", "fusion"]
    assert not any("concat" in name for name, _ in network.named_modules())


def test_the_fusion_residual_carries_the_rgb_feature_and_not_its_normalised_copy():
    fuse = TemporalCrossAttnFuse(8, 2, 2.0, time_bias=False)
    rgb, spikes = 1000 * torch.randn(3, 5, 8), torch.randn(3, 5, 8)
    assert torch.equal(fuse(rgb, spikes), rgb)


def test_forward_changes_nothing_so_threads_may_share_a_network():
    network = make(trained=True)
    before = list(network.__dict__), [type(m).forward for m in network.modules()]
    blur, spikes = clip(batch=2)

    def run(index: int) -> torch.Tensor:
        with torch.no_grad():
            return network(blur[index : index + 1], spikes[index : index + 1])

    apart = [run(0), run(1)]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(run, [0, 1, 0, 1]))
    for index, result in enumerate(together):
        assert torch.equal(result, apart[index % 2])
    assert (list(network.__dict__), [type(m).forward for m in network.modules()]) == before
    assert not any("forward" in m.__dict__ for m in network.modules())


def test_a_batch_of_two_equals_two_batches_of_one():
    network = make(trained=True)
    blur, spikes = clip(batch=2)
    with torch.no_grad():
        both = network(blur, spikes)
        apart = torch.cat([network(blur[i : i + 1], spikes[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(both, apart, rtol=0, atol=1e-5)  # other chunk sizes, other rounding


@pytest.mark.parametrize("max_tokens", [1, 40, 1 << 19])
def test_attention_over_time_does_not_depend_on_the_chunks(max_tokens):
    block = SpikeTemporalSA(8, 4, 2.0)
    x = torch.randn(2, 3, 5, 7, 8)
    whole = over_pixels(block, x, max_tokens=1 << 30)
    torch.testing.assert_close(over_pixels(block, x, max_tokens=max_tokens), whole, rtol=0, atol=1e-6)
    one_pixel = block(x[1, :, 2, 3][:, None])[:, 0]
    torch.testing.assert_close(whole[1, :, 2, 3], one_pixel, rtol=0, atol=1e-6)


def test_spike_attention_has_no_position_code():
    block = SpikeTemporalSA(8, 4, 2.0)
    x = torch.randn(2, 5, 8)
    order = [3, 0, 4, 1, 2]
    torch.testing.assert_close(block(x[:, order]), block(x)[:, order], rtol=0, atol=1e-6)


def test_a_time_bias_makes_fusion_prefer_its_own_frame_and_starts_as_the_identity():
    fuse = TemporalCrossAttnFuse(8, 2, 2.0, time_bias=True)
    rgb, spikes = torch.randn(3, 5, 8), torch.randn(3, 5, 8)
    assert torch.equal(fuse(rgb, spikes), rgb)
    bias = fuse._bias(5, torch.float32)
    assert bias is not None and bias.shape == (2, 5, 5)
    assert torch.equal(bias.argmax(-1), torch.arange(5).expand(2, 5))
    assert fuse._bias(23, torch.float32).shape == (2, 23, 23)  # any clip length


def test_spike_features_are_resized_to_the_frames_and_left_alone_where_they_fit():
    x = torch.randn(1, 2, 3, 5, 4)
    assert resize_features(x, 3, 5) is x
    grown = resize_features(torch.full((1, 2, 3, 5, 4), 0.25), 7, 11)
    torch.testing.assert_close(grown, torch.full((1, 2, 7, 11, 4), 0.25), rtol=0, atol=1e-6)


def gradients(checkpoint: tuple[str, ...]) -> dict[str, torch.Tensor]:
    blur, spikes = clip(frames=2)
    config = ModelConfig(vrt=VRT_CONFIG, spikes=CONFIG.spikes, checkpoint=checkpoint)
    network = make(config, trained=True).train()
    network(blur, spikes).square().mean().backward()
    return {name: p.grad for name, p in network.named_parameters() if p.grad is not None}


@pytest.fixture(scope="module")
def gradients_of_all_kept() -> dict[str, torch.Tensor]:
    return gradients(())


@pytest.mark.parametrize("part", CHECKPOINT_PARTS)
def test_recomputing_a_part_changes_no_gradient(gradients_of_all_kept, part):
    found = gradients((part,))
    assert found.keys() == gradients_of_all_kept.keys() and len(found) > 100
    for name, gradient in gradients_of_all_kept.items():
        assert torch.equal(found[name], gradient), name


def test_given_its_own_flows_a_network_answers_as_it_would_bit_for_bit():
    network = make(trained=True)
    blur, spikes = clip()
    with torch.no_grad():
        assert torch.equal(network(blur, spikes, flows=network.clip_flows(blur)), network(blur, spikes))
        assert torch.equal(network(blur, flows=network.clip_flows(blur)), network(blur))


def test_training_from_scratch_starts_at_the_blurry_clip():
    network = make()
    network.start_at_identity()
    blur, spikes = clip()
    with torch.no_grad():
        assert torch.equal(network(blur, spikes), blur)


@pytest.mark.slow  # in software, on a processor without bfloat16
@pytest.mark.parametrize("parts", [(), CHECKPOINT_PARTS])
def test_mixed_precision_keeps_the_identity_and_trains_every_parameter_of_the_fusion(parts):
    spikes_config = SpikeConfig(num_bins=7, dims=(8, 8, 8, 8), fusion_time_bias=True)
    network = make(ModelConfig(vrt=VRT_CONFIG, spikes=spikes_config, checkpoint=parts))
    blur, spikes = clip(frames=2)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(network(blur, spikes), network.vrt(blur))
    network.fusion.apply(lambda m: m.weight.data.normal_(0, 0.1) if isinstance(m, torch.nn.Linear) else None)
    with torch.autocast("cpu", torch.bfloat16):
        network.train()(blur, spikes).float().square().mean().backward()
    for name, parameter in network.fusion.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0 or name.endswith("kv.bias"), name


def test_the_reference_network_is_the_published_deblurring_vrt_in_size_and_number_of_keys():
    config = load_config(CONFIGS / "vrt_spike_baseline.yaml").model
    network = SpikeVRT(config)
    assert sum(p.numel() for p in network.vrt.parameters()) == 18_320_007
    assert len(network.vrt.state_dict()) == 1526


def test_voxels_of_another_number_of_bins_are_refused():
    blur, spikes = clip()
    with pytest.raises(ValueError, match=r"spike_vox: shape \(1, 3, 6, 32, 36\); expected \(1, 3, 7, rows, columns\)"):
        make()(blur, spikes[:, :, :6])


def test_spikes_for_a_network_without_spike_branch_are_refused():
    blur, spikes = clip()
    with pytest.raises(ValueError, match="no spike branch"):
        make(ModelConfig(vrt=VRT_CONFIG, spikes=None))(blur, spikes)


def test_frames_that_are_no_multiple_of_eight_are_refused():
    with pytest.raises(ValueError, match="frames of 70x64: both sides must be multiples of 8"):
        make()(torch.rand(1, 3, 3, 64, 70))


def test_a_single_frame_is_refused():
    with pytest.raises(ValueError, match="a clip of 1 frames: at least 2"):
        make()(torch.rand(1, 1, 3, 64, 72))
