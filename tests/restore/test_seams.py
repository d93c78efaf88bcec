"""Tiles of the weights that ship do not show: against one tile over the whole picture, on a simulated recording."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from spikevrt.bench.demo import ASSETS
from spikevrt.recording.recording import Recording
from spikevrt.restore.clip import restore_clip
from spikevrt.restore.options import RestoreOptions
from spikevrt.restore.restorer import Restorer
from spikevrt.simulate.setup import SimulateOptions
from spikevrt.simulate.synthesise import simulate_recording

BORDER_PX = 16
INSIDE, BORDER = 2 / 255, 4 / 255  # the bounds; measured: benchmarks/restore_cpu_*.md


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    options = SimulateOptions(frames=2, exposure_ticks=128, period_ticks=160, width=176, height=144, motion_px=16.0)
    return simulate_recording(ASSETS / "astronaut.jpg", tmp_path_factory.mktemp("seams") / "rec", options)


@pytest.mark.parametrize(
    "name", ["spikefold_tiny", *(pytest.param(name, marks=pytest.mark.slow) for name in ("spikevrt_tiny", "vrt_tiny"))]
)
def test_tiles_with_the_usual_overlap_differ_from_the_whole_picture_by_less_than_anyone_sees(
    recording: Recording, name: str
):
    restorer = Restorer(name, RestoreOptions(device="cpu"))
    whole, tiled = (
        torch.stack(list(restorer.with_options(options).frames(recording))).clamp(0, 1)
        for options in (
            replace(restorer.options, tile_px=0, overlap_px=0),
            replace(restorer.options, tile_px=96, overlap_px=RestoreOptions().overlap_px),
        )
    )
    difference = (whole - tiled).abs()
    assert difference.max() > 0  # there were tiles
    assert difference.max() < BORDER
    assert difference[..., BORDER_PX:-BORDER_PX, BORDER_PX:-BORDER_PX].max() < INSIDE


def test_a_grey_clip_shows_no_tiles():
    """What the network makes of it, it makes of every tile; that weights sum to one is in test_tiling."""
    restorer = Restorer("spikefold_tiny", RestoreOptions(device="cpu", tile_px=96, without_spikes=True))
    clip = torch.full((2, 3, 144, 176), 0.4)
    whole = restore_clip(restorer.network, clip, None, replace(restorer.options, tile_px=0, overlap_px=0))
    tiled = restore_clip(restorer.network, clip, None, restorer.options)
    middle = (slice(None), slice(None), slice(48, -48), slice(48, -48))  # out of the network's sight of the border
    few_levels = 0.005 / 255  # what is left of tiles whose edges the network saw
    torch.testing.assert_close(tiled[middle], whole[middle], rtol=0, atol=few_levels)
