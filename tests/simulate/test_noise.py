"""Normal noise that is the same everywhere is still normal."""

from __future__ import annotations

import math

import torch

from spikevrt.simulate.sensor import normal


def drawn(*shape: int, seed: int) -> torch.Tensor:
    return normal(shape, torch.Generator().manual_seed(seed))


def test_its_moments_are_those_of_a_standard_normal():
    values = drawn(1000, 1009, seed=3).double()
    error = 1 / math.sqrt(values.numel())  # of the mean; of the others a few times as much
    assert abs(float(values.mean())) < 4 * error
    assert abs(float(values.std()) - 1) < 4 * error
    assert abs(float((values**3).mean())) < 4 * math.sqrt(15) * error
    assert abs(float((values**4).mean()) - 3) < 4 * math.sqrt(96) * error + 0.003  # 0.003: nothing beyond 4.33


def test_as_many_lie_within_one_and_two_deviations_as_should():
    values = drawn(1_000_000, seed=5).abs()
    assert abs(float((values < 1).double().mean()) - 0.6827) < 0.002
    assert abs(float((values < 2).double().mean()) - 0.9545) < 0.001


def test_the_first_numbers_of_a_seed_are_these():
    assert drawn(3, seed=7).tolist() == FIRST
    assert drawn(3, seed=7).dtype == torch.float32


FIRST = [1.5562686920166016, 1.2460298538208008, 0.7005290985107422]
