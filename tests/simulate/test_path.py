from __future__ import annotations

import torch

from spikevrt.simulate.scene import smooth_path


def make(num_ticks: int, seed: int, steps: tuple[float, ...] = (12.0, 0.0, 0.3)):
    return smooth_path(steps, exposure_ticks=64, num_ticks=num_ticks, generator=torch.Generator().manual_seed(seed))


def test_each_component_moves_as_far_in_one_exposure_as_asked():
    path = make(640, seed=1)
    start = torch.arange(640 - 64)
    moved = (path.at(start + 64) - path.at(start)).square().mean(0).sqrt()
    torch.testing.assert_close(moved, torch.tensor([12.0, 0.0, 0.3], dtype=torch.float64), rtol=0.05, atol=0)


def test_one_exposure_alone_never_moves_wildly():
    # normalised over six exposures: a single exposure at a turning point must not blow the path up
    for seed in range(40):
        path = make(64, seed)
        travel = path.at(torch.arange(65))[:, 0]
        assert float(travel.max() - travel.min()) < 5 * 12


def test_the_path_is_smooth():
    positions = make(640, seed=2).at(torch.arange(640))[:, 0]
    velocity = positions.diff()
    assert float(velocity.diff().abs().max()) < 0.2 * float(velocity.abs().max())


def test_the_path_follows_its_seed():
    ticks = torch.arange(0, 640, 7)
    assert torch.equal(make(640, seed=3).at(ticks), make(640, seed=3).at(ticks))
    assert not torch.equal(make(640, seed=3).at(ticks), make(640, seed=4).at(ticks))
