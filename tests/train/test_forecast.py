from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import nn

from spikevrt.model.spike_vrt import SpikeVRT
from spikevrt.train import forecast as fc
from spikevrt.train.forecast import Forecast, Needs
from spikevrt.train.optim import make_optimizer
from spikevrt.train.step_work import Size, Work, charbonnier_loss
from tests.train.conftest import small_config
from tests.train.test_step_work import CPU, KB, tiny_config


def never(network: nn.Module) -> torch.optim.Optimizer:
    raise AssertionError("no step may be run")


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


def test_bisection_finds_the_last_that_fits():
    for most in range(9):
        assert fc.largest(lambda n, most=most: n <= most, range(1, 8)) == (min(most, 7) or None)


def a_forecast(*, crop_px: int = 64, batch: int = 1, budget: int | None = 10**9) -> Forecast:
    """100 MB, and 100 bytes x 2 a pixel: crop 64 is 0.8 MB a sample."""
    needs = Needs(10**8, 0.0, 100.0, 2.0, 0.5, 1e-4)
    return Forecast(Size(crop_px, batch), needs, budget, budget, tuple(range(64, 4097, 8)), 3, 1000, 2.0)


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
    assert told.needs.seconds(Size(100, 1)) == 0.5 + 1.0
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
    told = dataclasses.replace(told, needs=dataclasses.replace(told.needs, offset_s=0.0, s_per_pixel=0.0))
    assert "seconds unknown, no step was run" in told.lines()[0]


def test_where_the_system_tells_no_memory_the_report_does_without_it():
    assert len(dataclasses.replace(a_forecast(), free_bytes=None).lines()) == 1


def test_a_forecast_of_a_real_network_is_of_its_size_and_leaves_it_alone():
    config = tiny_config()
    network = SpikeVRT(config.model)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    loss = charbonnier_loss(config, CPU)
    told = fc.forecast(network, loss, lambda net: make_optimizer(net, config.optim), config, free=8 * 10**9)
    assert told.size == Size(64, 1) and told.crops_px[:3] == (64, 72, 80)
    assert told.needs.peak_bytes(Size(64, 2)) > told.needs.peak_bytes(Size(64, 1)) > told.needs.fixed_bytes
    assert told.step_s > 0
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_a_network_whose_smallest_size_does_not_fit_is_refused_without_running_it():
    config = tiny_config()

    network = SpikeVRT(config.model)
    told = fc.forecast(network, charbonnier_loss(config, CPU), never, config, free=1000)
    with pytest.raises(ValueError, match="no size of this network"):
        told.check()


@pytest.mark.parametrize(("crop_px", "counted_px"), [(64, 64), (96, 96), (512, 128)])
def test_a_crop_is_counted_at_its_size_and_beyond_128_pixels_by_a_line(
    monkeypatch: pytest.MonkeyPatch, crop_px: int, counted_px: int
):
    """The live bytes are 1000 + 7 a pixel."""
    counted = set()

    def step_work(network: Any, loss: Any, config: Any, size: Size, *, spike_ratio: int) -> Work:
        counted.add(size)
        return Work(1000 + 7 * size.pixels, size.pixels)

    monkeypatch.setattr(fc, "step_work", step_work)
    config = tiny_config()
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, crop_px=crop_px))
    network = SpikeVRT(config.model)
    told = fc.forecast(network, charbonnier_loss(config, CPU), never, config, free=8 * 10**9, run_steps=False)
    assert counted == {Size(64, 1), Size(64, 2), Size(counted_px, 1)}
    live = (told.needs.peak_bytes(Size(crop_px, 3)) - told.needs.fixed_bytes) / told.needs.overhead
    assert live == pytest.approx(1000 + 7 * 3 * crop_px**2, abs=1)


def test_without_steps_the_allocator_is_taken_at_its_least_and_no_seconds_are_told():
    config = tiny_config()

    network = SpikeVRT(config.model)
    told = fc.forecast(network, charbonnier_loss(config, CPU), never, config, free=8 * 10**9, run_steps=False)
    assert told.needs.overhead == fc.LEAST_OVERHEAD and told.step_s == 0
    told.check()
