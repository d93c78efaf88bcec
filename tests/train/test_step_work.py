from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from spikevrt.config import Config
from spikevrt.model.blocks import kept_shift_mask
from spikevrt.model.spike_vrt import SpikeVRT
from spikevrt.train.step_work import LiveBytes, Size, Work, charbonnier_loss, random_batch, step_work

KB = 1024  # a float32 tensor of 256 values
CPU = torch.device("cpu")


def tiny_config(*checkpoint: str) -> Config:
    """The smallest real network that trains: crops of 64 pixels, windows of 2x4x4."""
    vrt = {
        "window": [2, 4, 4],
        "depths": [2, 1, 1, 1, 1, 1, 1, 1],
        "dims": [8] * 8,
        "num_heads": [1] * 8,
        "independent": [],
        "deform_groups": 1,
        "drop_path": 0.0,
        "flow_widths": [2, 2, 2, 2],
    }
    values: dict[str, Any] = {
        "model": {"vrt": vrt, "spikes": None, "checkpoint": list(checkpoint)},
        "data": {"clip_frames": 2, "crop_px": 64, "batch": 1},
        "loss": {"perceptual_weight": 0.0},
        "train": {"device": "cpu", "precision": "fp32"},
    }
    return Config.from_dict(values)


def work(config: Config, size: Size) -> Work:
    return step_work(SpikeVRT(config.model), charbonnier_loss(config, CPU), config, size)


def peak_of(graph: Callable[[Tensor], Any], x: Tensor) -> LiveBytes:
    with LiveBytes() as live:
        live.ignore([x])
        graph(x)
    return live


def test_two_results_alive_at_once_count_twice_and_one_after_the_other_once():
    x = torch.zeros(256)

    def both(x: Tensor) -> Tensor:
        first = x + 1
        return first + 1

    def one_by_one(x: Tensor) -> None:
        first = x + 1
        del first
        x.add(1)

    assert peak_of(both, x).peak == 2 * KB
    assert peak_of(one_by_one, x).peak == 1 * KB


def test_all_is_forgotten_when_it_is_freed():
    assert peak_of(lambda x: (x + 1) * 2, torch.zeros(256)).now == 0


def test_a_view_and_a_change_in_place_cost_nothing():
    assert peak_of(lambda x: x.view(16, 16).t().add_(1), torch.zeros(256)).peak == 0


def test_what_a_backward_pass_will_need_stays_alive_till_then():
    x = torch.zeros(256, requires_grad=True)
    with LiveBytes() as live:
        live.ignore([x])
        y = x.exp().exp().exp()
        assert live.now == 3 * KB  # exp keeps its result
        y.sum().backward()
        del y
        assert live.now == 1 * KB  # the gradient of x


def test_fake_tensors_count_as_the_real_ones_and_compute_nothing():
    with FakeTensorMode():
        x = torch.empty(256 * 2**20)
    live = peak_of(lambda x: x + 1, x)
    assert live.peak == 2**20 * KB


def test_a_matrix_product_of_3x5_and_5x7_counts_210_operations():
    b = torch.zeros(5, 7)
    assert peak_of(lambda a: a @ b, torch.zeros(3, 5)).flops == 2 * 3 * 5 * 7


def test_a_batch_adds_the_same_memory_and_arithmetic_for_each_further_sample():
    one, two, three = (work(tiny_config(), Size(64, batch)) for batch in (1, 2, 3))
    assert three.live_bytes - two.live_bytes == pytest.approx(two.live_bytes - one.live_bytes, rel=0.02)
    assert three.flops - two.flops == two.flops - one.flops


def test_checkpointing_lowers_the_memory_and_raises_the_arithmetic():
    plain, recomputed = work(tiny_config(), Size(64, 1)), work(tiny_config("attention", "mlp"), Size(64, 1))
    assert recomputed.live_bytes < 0.9 * plain.live_bytes  # feed-forward layers keep nothing in either
    assert recomputed.flops > plain.flops


def test_the_count_on_fake_tensors_is_that_of_a_real_step():
    config, size = tiny_config(), Size(64, 1)
    network = SpikeVRT(config.model).train()
    batch = random_batch(config, size, CPU, 2)
    kept_shift_mask.cache_clear()
    live = LiveBytes()
    live.ignore([*network.parameters(), *network.buffers()])
    for tensor in batch.values():
        live.add(tensor)
    with live:
        charbonnier_loss(config, CPU)(network, batch).backward()
    assert work(config, size).live_bytes == pytest.approx(live.peak, rel=0.01)


def test_counting_leaves_the_network_as_it_was():
    config = tiny_config()
    network = SpikeVRT(config.model).eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    step_work(network, charbonnier_loss(config, CPU), config, Size(64, 1))
    assert not network.training
    assert all(type(value) is Tensor for value in network.state_dict().values())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())
