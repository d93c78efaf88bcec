from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from spikevrt.config import DataConfig, DegradeConfig
from spikevrt.data.augment import Degradation, check_degrade, degrade, degrade_ticks, draw_degradation


def worsened(counts: torch.Tensor, seed: int = 3, num_ticks: int | None = None, **how: Any) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    ticks = num_ticks or len(counts)
    return degrade(counts, Degradation(**how), num_ticks=ticks, binning="whole", generator=generator)


def some_counts(seed: int = 5) -> torch.Tensor:
    return torch.randint(0, 2, (24, 13, 17), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def test_the_identity_changes_no_count():
    counts = some_counts()
    torch.testing.assert_close(worsened(counts), counts.float(), rtol=0, atol=0)


def test_a_threshold_twice_as_high_lets_every_second_spike_through():
    counts = torch.ones(24, 3, 5)
    halved = worsened(counts, threshold=2.0)
    assert set(halved.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(halved.sum(0), torch.full((3, 5), 12.0), rtol=0, atol=0)
    torch.testing.assert_close(halved[2:], halved[:-2], rtol=0, atol=0)  # the rhythm has period 2
    assert len(halved[0].unique()) == 2  # pixels start anywhere


def test_a_threshold_that_is_no_whole_number_keeps_the_number_of_spikes_to_one():
    fired = worsened(torch.ones(24, 13, 17), threshold=2.5).sum(0)
    assert set(fired.unique().tolist()) == {9.0, 10.0}  # 24 / 2.5 = 9.6
    assert float(fired.mean()) == pytest.approx(9.6, abs=0.1)


def test_a_higher_threshold_never_adds_a_spike_and_equals_a_sensor_with_that_threshold():
    """What a pixel that integrates unit charges and keeps its remainder does at threshold 3, for some start."""
    counts = some_counts()
    tripled = worsened(counts, threshold=3.0)
    assert bool((tripled.cumsum(0) <= counts.float().cumsum(0)).all())
    for row, column in ((0, 0), (12, 16), (5, 7)):
        found = tripled[:, row, column].tolist()
        candidates = []
        for start in range(3):
            charge, spikes = start, []
            for count in counts[:, row, column].tolist():
                charge += count
                spikes.append(float(charge // 3))
                charge %= 3
            candidates.append(spikes)
        assert found in candidates


def test_missed_spikes_and_spikes_that_nothing_caused_come_at_their_rate():
    full, empty_but_one = torch.ones(24, 31, 37), torch.zeros(24, 31, 37)
    empty_but_one[0] = 1
    noisy = worsened(full, noise=0.25)
    assert float(noisy.max()) == 1  # a tick holds one spike at most
    assert float(noisy.mean()) == pytest.approx(1 - 0.25 * math.exp(-0.25), abs=0.01)  # missed and not made up for
    invented = worsened(empty_but_one, noise=0.25)[1:]
    assert float(invented.mean()) == pytest.approx(1 - math.exp(-0.25 / 24), abs=0.002)


def test_dropped_ticks_are_dark_for_all_pixels_at_once():
    dropped = worsened(torch.ones(24, 3, 5), dropped_ticks=0.5)
    per_tick = dropped.flatten(1).mean(1)
    assert set(per_tick.tolist()) == {0.0, 1.0}
    assert 4 <= int(per_tick.sum()) <= 20


def test_a_shift_moves_the_picture_and_repeats_its_edge():
    counts = torch.arange(3.0).view(1, 1, 3).expand(2, 2, 3)
    assert worsened(counts, columns=1)[0, 0].tolist() == [0.0, 0.0, 1.0]
    assert worsened(counts, columns=-1)[0, 0].tolist() == [1.0, 2.0, 2.0]
    rows = counts.transpose(1, 2)
    assert worsened(rows, rows=2)[0, :, 0].tolist() == [0.0, 0.0, 0.0]


def test_a_late_stream_shows_in_each_bin_what_came_before():
    counts = torch.arange(4.0).view(4, 1, 1)
    assert worsened(counts, num_ticks=8, shift_ticks=2.0).flatten().tolist() == [0.0, 0.0, 1.0, 2.0]  # 2 ticks: a bin
    assert worsened(counts, num_ticks=8, shift_ticks=-4.0).flatten().tolist() == [2.0, 3.0, 3.0, 3.0]


def test_the_input_is_untouched_and_a_seed_gives_the_same_bits():
    counts = some_counts()
    before = counts.clone()
    how: dict[str, Any] = {"threshold": 1.5, "noise": 0.1, "dropped_ticks": 0.2, "rows": 1, "shift_ticks": 3.0}
    torch.testing.assert_close(worsened(counts, **how), worsened(counts, **how), rtol=0, atol=0)
    assert torch.equal(counts, before)
    assert not torch.equal(worsened(counts, seed=4, **how), worsened(counts, seed=5, **how))


def test_counts_stay_whole_and_never_negative():
    counts = some_counts().float() * 2.25  # counts that were repaired or warped are no whole numbers
    worse = worsened(counts, num_ticks=96, threshold=1.25, noise=0.2, dropped_ticks=0.3)
    assert bool((worse >= 0).all()) and torch.equal(worse, worse.round())


def test_what_is_drawn_stays_in_its_ranges():
    config = DegradeConfig(
        probability=0.5, threshold=(1.0, 4.0), dropped_ticks=0.2, noise=0.1, shift_px=5.0, shift_ticks=8.0
    )
    generator = torch.Generator().manual_seed(7)
    drawn = [draw_degradation(config, 2, generator) for _ in range(400)]
    worse = [how for how in drawn if how is not None]
    assert 160 <= len(worse) <= 240
    assert all(1 <= how.threshold <= 4 and abs(how.shift_ticks) <= 8 for how in worse)
    assert {how.rows for how in worse} == {-2, -1, 0, 1, 2}  # whole cells of 2 pixels within 5 pixels
    assert sum(how.threshold < 2 for how in worse) / len(worse) == pytest.approx(0.5, abs=0.1)  # uniform in the log
    assert all(how.dropped_ticks <= 0.2 and how.noise <= 0.1 for how in worse)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (DataConfig(spike_dropout=1.5), "data.spike_dropout: 1.5; allowed: 0 to 1"),
        (DataConfig(degrade=DegradeConfig(probability=-1.0)), "data.degrade.probability: -1.0; allowed: 0 to 1"),
        (
            DataConfig(degrade=DegradeConfig(probability=1.0, shift_px=-1.0)),
            "data.degrade.shift_px: -1.0; allowed: 0 or more",
        ),
        (
            DataConfig(degrade=DegradeConfig(probability=1.0, threshold=(0.5, 2.0))),
            "data.degrade.threshold: [0.5, 2.0]; allowed: from and to, 1 or more (a lower threshold than the "
            "recorded one would need spikes that were never fired)",
        ),
        (
            DataConfig(degrade=DegradeConfig(probability=0.5)),
            "data.degrade.probability: given, but no degradation is; allowed: 0, or say what is degraded",
        ),
        (
            DataConfig(degrade=DegradeConfig(noise=0.5)),
            "data.degrade: given, but data.degrade.probability is 0, which turns it off",
        ),
    ],
)
def test_a_degradation_that_makes_no_sense_is_refused(config: DataConfig, message: str):
    with pytest.raises(ValueError) as error:
        check_degrade(config)
    assert str(error.value) == message


def test_ticks_that_nothing_is_done_to_stay_as_they_are():
    spikes = torch.randint(0, 2, (17, 5, 7), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    assert torch.equal(degrade_ticks(spikes, Degradation(), generator=torch.Generator().manual_seed(2)), spikes)


def test_a_threshold_of_s_keeps_every_sth_spike_of_a_pixel():
    spikes = torch.ones(24, 3, 5, dtype=torch.uint8)
    how = Degradation(threshold=4.0)
    kept = degrade_ticks(spikes, how, generator=torch.Generator().manual_seed(3))
    assert kept.sum(0).unique().tolist() == [6]
    gaps = torch.stack([kept[:, 0, 0].nonzero()[:, 0].diff(), kept[:, 2, 4].nonzero()[:, 0].diff()])
    assert gaps.unique().tolist() == [4]
    assert spikes.min() == 1


def test_a_lost_tick_is_lost_for_every_pixel_and_the_share_is_what_was_asked_for():
    spikes = torch.ones(2000, 2, 2, dtype=torch.uint8)
    kept = degrade_ticks(spikes, Degradation(dropped_ticks=0.2), generator=torch.Generator().manual_seed(4))
    assert set(kept.sum((1, 2)).unique().tolist()) == {0, 4}
    assert abs(float((kept[:, 0, 0] == 0).double().mean()) - 0.2) < 0.03


def test_noise_misses_spikes_and_adds_as_many_as_it_says():
    spikes = torch.zeros(400, 20, 20, dtype=torch.uint8)
    spikes[::4] = 1
    noisy = degrade_ticks(spikes, Degradation(noise=0.1), generator=torch.Generator().manual_seed(5))
    assert abs(float((noisy[::4] == 0).double().mean()) - 0.1) < 0.01
    added = torch.cat([noisy[1::4], noisy[2::4], noisy[3::4]]).double().mean()
    assert abs(float(added) - 0.1 * 0.25) < 0.003


def test_ticks_are_shifted_in_space_and_time_and_a_spike_at_the_edge_does_not_become_many():
    spikes = torch.zeros(7, 4, 6, dtype=torch.uint8)
    spikes[2, 1, 2] = 1
    how = Degradation(rows=1, columns=-2, shift_ticks=1.0)
    moved = degrade_ticks(spikes, how, generator=torch.Generator().manual_seed(6))
    assert moved.nonzero().tolist() == [[3, 2, 0]]
    edge = torch.tensor([1, 0, 0, 1, 0, 0, 1], dtype=torch.uint8).view(7, 1, 1)
    for step, expected in ((2.0, [0, 0, 1, 0, 0, 1, 0]), (-2.0, [0, 1, 0, 0, 1, 0, 0])):
        late = degrade_ticks(edge, Degradation(shift_ticks=step), generator=torch.Generator().manual_seed(6))
        assert late.flatten().tolist() == expected, step
