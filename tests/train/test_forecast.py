from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from spikevrt.config import Config
from spikevrt.losses import charbonnier
from spikevrt.model.blocks import kept_shift_mask
from spikevrt.model.spike_vrt import SpikeVRT
from spikevrt.train import forecast as fc
from spikevrt.train.forecast import CountedStep, Forecast, LinearCost, LiveBytes, Size, count_step, random_batch
from tests.train.conftest import small_config

KB = 1024  # a float32 tensor of 256 values
CPU = torch.device("cpu")
META = {"t0": [0.0, 1.0], "t1": [1.0, 2.0]}
FRAMES = {"blur": torch.zeros(2, 3, 64, 64), "sharp": torch.zeros(2, 3, 64, 64), "meta": META}


def terms(batch: dict[str, Any], network: nn.Module) -> dict[str, Tensor]:
    """Charbonnier alone."""
    return {"charbonnier": charbonnier(network(batch["blur"]), batch["sharp"], 1e-3)}


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


@functools.cache
def counted(config: Config, size: Size) -> CountedStep:
    return count_step(SpikeVRT(config.model), terms, FRAMES, size)


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


def test_a_random_batch_has_every_clip_of_the_sample_at_the_other_size():
    sample = FRAMES | {"spike_vox": torch.zeros(2, 5, 32, 32), "spikes_present": torch.tensor(True)}
    batch = random_batch(sample, Size(96, 3), CPU)
    shapes = {name: tuple(value.shape) for name, value in batch.items() if name != "meta"}
    assert shapes == {"blur": (3, 2, 3, 96, 96), "sharp": (3, 2, 3, 96, 96), "spike_vox": (3, 2, 5, 48, 48)}
    assert batch["meta"] == [META] * 3


@pytest.mark.slow
def test_a_batch_adds_the_same_memory_and_arithmetic_for_each_further_sample():
    one, two, three = (counted(tiny_config(), Size(64, batch)) for batch in (1, 2, 3))
    assert three.live_bytes - two.live_bytes == pytest.approx(two.live_bytes - one.live_bytes, rel=0.02)
    assert three.flops - two.flops == two.flops - one.flops


@pytest.mark.slow
def test_checkpointing_lowers_the_memory_and_raises_the_arithmetic():
    plain, recomputed = counted(tiny_config(), Size(64, 1)), counted(tiny_config("attention", "mlp"), Size(64, 1))
    assert recomputed.live_bytes < 0.9 * plain.live_bytes  # feed-forward layers keep nothing in either
    assert recomputed.flops > plain.flops


@pytest.mark.slow
def test_the_count_on_fake_tensors_is_that_of_a_real_step():
    config, size = tiny_config(), Size(64, 1)
    network = SpikeVRT(config.model).train()
    batch = random_batch(FRAMES, size, CPU)
    kept_shift_mask.cache_clear()
    live = LiveBytes()
    live.ignore([*network.parameters(), *network.buffers()])
    for name in ("blur", "sharp"):
        live.add(batch[name])
    with live:
        terms(batch, network)["charbonnier"].backward()
    assert counted(config, size).live_bytes == pytest.approx(live.peak, rel=0.01)


@pytest.mark.slow
def test_counting_leaves_the_network_as_it_was():
    config = tiny_config()
    network = SpikeVRT(config.model).eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    count_step(network, terms, FRAMES, Size(64, 1))
    assert not network.training
    assert all(type(value) is Tensor for value in network.state_dict().values())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())


def test_adam_keeps_two_values_a_parameter_eight_bits_each_if_asked_and_an_average_is_one_more():
    network = nn.Linear(256, 1, bias=False)
    frozen = nn.Linear(256, 1, bias=False).requires_grad_(False)
    assert fc.optimizer_bytes(network, small_config()) == 2 * KB
    assert fc.optimizer_bytes(network, small_config(optim__kind="adamw8bit")) == KB // 2
    assert fc.optimizer_bytes(network, small_config(optim__ema_decay=0.9)) == 3 * KB
    assert fc.optimizer_bytes(frozen, small_config()) == 0


def test_a_line_passes_through_its_points_and_never_starts_below_zero():
    assert fc.line_through((1, 5), (3, 9)) == (3, 2)
    assert fc.line_through((1, 1), (2, 4)) == (0, 2)


def a_forecast(*, crop_px: int = 64, batch: int = 1, budget: int | None = 10**9) -> Forecast:
    """100 MB, and 100 bytes x 2 a pixel: crop 64 is 0.8 MB a sample."""
    cost = LinearCost(10**8, 0.0, 100.0, 2.0, 0.5, 1e-4)
    return Forecast(Size(crop_px, batch), cost, budget, budget, tuple(range(64, 4097, 8)), 3, 1000, 2.0)


def test_the_largest_crop_and_batch_fit_and_the_next_ones_do_not():
    told = a_forecast()
    crop_px, batch = told.largest_crop_px(1), told.largest_batch(64)
    assert crop_px == 2120  # 2120^2 x 200 = 898.9 MB of 900
    assert batch == 1098  # 64^2 x 200 x 1098 = 899.5 MB of 900
    assert told.fits(Size(2120, 1)) and not told.fits(Size(2128, 1))
    assert told.fits(Size(64, 1098)) and not told.fits(Size(64, 1099))


def test_what_fits_is_let_through_and_an_unknown_budget_refuses_nothing():
    a_forecast(crop_px=2120).check()
    a_forecast(crop_px=4096, budget=None).check()


def test_a_size_that_cannot_fit_is_refused_in_one_line_with_what_can():
    with pytest.raises(ValueError) as refusal:
        a_forecast(crop_px=2128, batch=4).check()
    assert str(refusal.value) == (
        "data.crop_px: 2128 with data.batch 4 needs about 3.7 GB; 1.0 GB are free; "
        "allowed here: crop_px up to 1056 at batch 4, or batch up to 1 at crop_px 2120"
    )


def test_where_one_sample_fits_at_the_crop_the_refusal_names_that_crop():
    with pytest.raises(ValueError, match="or batch up to 1 at crop_px 2120$"):
        a_forecast(crop_px=2120, batch=4).check()


def test_where_nothing_fits_the_refusal_says_so():
    with pytest.raises(ValueError, match="allowed here: no size of this network$"):
        a_forecast(budget=10**8).check()


def test_a_step_takes_its_micro_batches_times_the_line():
    told = a_forecast(crop_px=100)
    assert told.cost.seconds(Size(100, 1)) == 0.5 + 1.0
    assert told.step_s == 3 * 1.5


def test_the_report_names_memory_seconds_hours_and_the_largest_sizes():
    assert a_forecast(crop_px=1000).lines() == [
        "forecast     peak memory 0.30 GB, 301.50 s a step, 1000 steps in 83:45 h (found in 2 s)",
        "memory       1.0 GB are free, 10% of them kept",
        "largest crop 2120 at batch 1",
        "     batch   4 at crop 1000",
    ]


def test_where_no_step_was_run_the_report_says_that_seconds_are_unknown():
    told = a_forecast()
    told = dataclasses.replace(told, cost=dataclasses.replace(told.cost, offset_s=0.0, s_per_pixel=0.0))
    assert "seconds unknown, no step was run" in told.lines()[0]


def test_where_the_system_tells_no_memory_the_report_does_without_it():
    assert len(dataclasses.replace(a_forecast(), free_bytes=None).lines()) == 1


@pytest.fixture
def free_memory(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    return lambda num_bytes: monkeypatch.setattr(fc.runtime, "free_bytes", lambda device: num_bytes)


@pytest.mark.slow
def test_a_forecast_of_a_real_network_is_of_its_size_and_leaves_it_alone(free_memory: Callable[[int], None]):
    free_memory(8 * 10**9)
    config = tiny_config()
    network = SpikeVRT(config.model)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    told = fc.forecast(network, terms, config, FRAMES)
    assert told.size == Size(64, 1) and told.crops_px[:3] == (64, 72, 80)
    assert told.cost.peak_bytes(Size(64, 2)) > told.cost.peak_bytes(Size(64, 1)) > told.cost.fixed_bytes
    assert told.step_s > 0
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_a_network_whose_smallest_size_does_not_fit_is_refused_without_running_it(
    monkeypatch: pytest.MonkeyPatch, free_memory: Callable[[int], None]
):
    def never(*arguments: Any) -> None:
        raise AssertionError("no step may be run")

    monkeypatch.setattr(fc, "measure_step", never)
    monkeypatch.setattr(fc, "count_step", lambda network, terms, sample, size: CountedStep(7 * size.pixels, 1))
    free_memory(1000)
    config = tiny_config()
    told = fc.forecast(SpikeVRT(config.model), terms, config, FRAMES)
    assert told.cost.overhead == fc.LEAST_OVERHEAD and told.step_s == 0
    with pytest.raises(ValueError, match="no size of this network"):
        told.check()


@pytest.mark.parametrize(("crop_px", "counted_px"), [(64, 64), (96, 96), (512, 128)])
def test_a_crop_is_counted_at_its_size_and_beyond_128_pixels_by_a_line(
    monkeypatch: pytest.MonkeyPatch, free_memory: Callable[[int], None], crop_px: int, counted_px: int
):
    """The live bytes are 1000 + 7 a pixel; no step is run, because none fits."""
    counted = set()

    def count(network: Any, terms: Any, sample: Any, size: Size) -> CountedStep:
        counted.add(size)
        return CountedStep(1000 + 7 * size.pixels, size.pixels)

    monkeypatch.setattr(fc, "count_step", count)
    free_memory(1000)
    config = tiny_config()
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, crop_px=crop_px))
    told = fc.forecast(SpikeVRT(config.model), terms, config, FRAMES)
    assert counted == {Size(64, 1), Size(64, 2), Size(counted_px, 1)}
    live = (told.cost.peak_bytes(Size(crop_px, 3)) - told.cost.fixed_bytes) / told.cost.overhead
    assert live == pytest.approx(1000 + 7 * 3 * crop_px**2, abs=1)
