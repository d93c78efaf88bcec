"""What memory a restoration takes, and what fits: straight lines, budgets, and the size of flows."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from spikevrt import runtime
from spikevrt.config import ModelConfig, SpikeConfig, SpikeInputs, UnetConfig, VrtConfig
from spikevrt.model import build_network
from spikevrt.model.network import Network
from spikevrt.recording.recording import Recording
from spikevrt.recording.sidecar import Exposure
from spikevrt.restore import memory
from spikevrt.restore.memory import (
    FootageSize,
    Needs,
    Plan,
    choose,
    is_out_of_memory,
    measure_needs,
    parse_bytes,
    plan_tiles,
)
from spikevrt.restore.options import RestoreOptions
from tests.restore.conftest import identity

MB = 10**6


@pytest.fixture(scope="module")
def reference() -> Network:
    return build_network(ModelConfig())


def test_several_tiles_share_flows_and_a_single_one_does_not(reference: Network):
    plans = {width: plan_tiles(reference, 5, 256, width, tile_px=256) for width in (256, 512)}
    assert plans == {256: Plan(256, False), 512: Plan(256, True)}


def test_a_network_without_flow_shares_none():
    for model in (ModelConfig(vrt=VrtConfig(pa_frames=0), spikes=None), ModelConfig(unet=UnetConfig())):
        assert plan_tiles(build_network(model), 6, 256, 512, tile_px=256) == Plan(256, False)


def test_flows_that_take_more_than_a_tile_are_not_shared(reference: Network):
    assert plan_tiles(reference, 5, 256, 40_000, tile_px=64) == Plan(64, False)


@pytest.mark.parametrize(
    ("text", "num_bytes"),
    [("6GiB", 6 << 30), ("800 MB", 800 * MB), ("1.5gb", 1_500_000_000), ("6e9", 6 * 10**9), ("12345", 12345)],
)
def test_sizes_have_units_of_1000_or_with_an_i_of_1024(text: str, num_bytes: int):
    assert parse_bytes(text) == num_bytes


@pytest.mark.parametrize("text", ["", "six", "6 TB", "-1GB", "0", "1..2GB", "nan"])
def test_what_is_no_size_is_refused(text: str):
    with pytest.raises(ValueError, match=r"memory: .*; allowed: a number of bytes, or with a unit as 6GiB, 800MB"):
        parse_bytes(text)


@pytest.fixture
def line(monkeypatch) -> Needs:
    """A process of 100 MB; a tile adds 10 MB and 1 kB for each pixel of each frame."""
    needs = Needs(100 * MB, 10.0 * MB, 1000.0)
    monkeypatch.setattr(memory, "measure_needs", lambda network, **_: needs)
    return needs


SIZE = FootageSize(num_frames=40, height_px=480, width_px=640, ratio=2)
WIDE = RestoreOptions(tile_px=256, overlap_px=16, clip_frames=5)


def fitted(budget_mb: float, options: RestoreOptions = WIDE, **changes) -> tuple[RestoreOptions, int]:
    precisions = changes.pop("precisions", ["fp32"])
    size = replace(SIZE, **changes)
    return choose(identity(), options, size, budget_bytes=int(budget_mb * MB), precisions=precisions)


def test_the_largest_tile_that_fits_is_taken_and_the_next_one_would_not(line):
    beside = memory.clip_bytes(WIDE, SIZE)
    budget = line.peak_bytes(5, 192, beside_bytes=beside) / MB
    options, predicted = fitted(budget)
    assert (options.tile_px, options.clip_frames) == (192, 5) and predicted == budget * MB
    assert fitted(budget - 0.001)[0].tile_px == 176


def test_more_memory_never_picks_a_smaller_tile(line):
    tiles = [fitted(budget)[0].tile_px for budget in (370, 440, 540, 640, 840)]
    assert tiles == sorted(tiles) and tiles[0] < tiles[-1] == 256


def test_a_shorter_clip_comes_before_tiles_that_are_mostly_overlap(line):
    options, _ = fitted(260)
    assert options.clip_frames == 3 and options.tile_px >= 128
    options, _ = fitted(180)
    assert options.clip_frames < 5 and options.tile_px < 128
    assert options.overlap_frames < options.clip_frames


def test_a_budget_that_nothing_fits_is_refused_with_what_is_needed(line):
    with pytest.raises(ValueError, match=r"memory: 0\.1 GB; the smallest tile of 32 px with clips of 2 frames needs"):
        fitted(100)


def test_the_whole_picture_stays_the_whole_picture_where_it_fits(line):
    whole = RestoreOptions(tile_px=0, overlap_px=0, clip_frames=0)
    options, _ = fitted(9000, whole, num_frames=3, height_px=64, width_px=96)
    assert options == whole


def test_what_a_tile_takes_is_measured_on_the_network_itself():
    """A U-Net's tile of 4 times the pixels takes about 4 times what the tile itself takes."""
    runtime.release_memory()  # of earlier tests: what is free in the process would not be seen to be taken
    config = ModelConfig(unet=UnetConfig(width=16, growth=4, depth=1, neighbours=0), spikes=SpikeConfig(num_bins=4))
    needs = measure_needs(build_network(config).eval(), ratio=2, num_frames=3, precision="fp32")
    assert needs.held_bytes > 50 * MB and needs.bytes_per_pixel > 16 * 4  # at least one layer's activations
    least = 16 * 4 * 3 * 512**2
    assert needs.held_bytes + least < needs.peak_bytes(3, 512) < needs.held_bytes + 30 * least


def test_the_spikes_of_a_long_exposure_take_their_bits_and_so_many_rows_that_do_not_grow_with_it():
    def needed(num_ticks: int, representation: str) -> int:
        exposures = (Exposure(0, 0, 100, 0.0, 1.0), Exposure(1, 100, 100 + num_ticks, 1.0, 2.0, shift_ticks=-50))
        recording = cast(Recording, SimpleNamespace(exposures=exposures, spikes=SimpleNamespace(height=250, width=401)))
        return memory.reading_bytes(recording, SpikeInputs(representation=cast(Any, representation)))

    bits = 250 * 51  # a tick
    assert needed(6000, "counts") - needed(3000, "counts") == 3000 * bits
    assert needed(6000, "profile") - needed(3000, "profile") == 3000 * bits
    assert needed(3000, "counts") == 3050 * bits + memory.READ_BITS
    assert needed(3000, "profile") == 3050 * bits + 3 * memory.STRIP_VALUES
    assert needed(50, "profile") == 100 * bits + 3 * 100 * 250 * 401  # of the longest, all at once


def test_errors_that_say_that_memory_ran_out_are_told_from_others():
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory")) and is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"))
    assert not is_out_of_memory(RuntimeError("shape mismatch")) and not is_out_of_memory(ValueError("memory"))
