"""The demo, from the shipped footage to the page, with small pictures and untrained networks."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from spikevrt import shipped
from spikevrt.bench import demo as job
from spikevrt.checkpoint import WeightsInfo, save_weights
from spikevrt.config import ModelConfig, SpikeConfig, UnetConfig, VrtConfig
from spikevrt.model import build_network
from spikevrt.recording.frames import image_size, list_images
from spikevrt.recording.recording import open_recording
from spikevrt.recording.video import probe_video

SMALL = replace(job.OPTIONS, frames=2, exposure_ticks=37, period_ticks=41, width=70, height=66)
VRT = VrtConfig(
    window=(2, 4, 4),
    depths=(2, 1, 1, 1, 1, 1, 1, 1),
    dims=(8,) * 8,
    num_heads=(2,) * 8,
    independent=(),
    deform_groups=4,
    flow_widths=(4, 4, 4, 4),
)


def _save_untrained(folder: Path) -> list[Path]:
    torch.manual_seed(123)
    fold = ModelConfig(
        unet=UnetConfig(width=4, growth=2, depth=1, blocks=1, unshuffle=2, neighbours=0),
        spikes=SpikeConfig(representation="profile", relight=True),
    )
    for name, config in (
        (shipped.TWIN, ModelConfig(vrt=VRT, spikes=None)),
        (shipped.REFERENCE, ModelConfig(vrt=VRT, spikes=SpikeConfig(dims=(8, 8, 8, 8)))),
        (shipped.DEFAULT, fold),
    ):
        info = WeightsInfo(config, voxel_mean=0.9, voxel_std=0.5, provenance={"seed": 123})
        save_weights(folder / f"{name}.safetensors", build_network(config).state_dict(), info)
    return [folder / f"{name}.safetensors" for name in shipped.COMPARED]


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    return job.run_demo(folder / "out", weights=_save_untrained(folder / "weights"), options=SMALL)


@pytest.mark.slow
def test_the_demo_measures_the_blurry_input_the_twin_and_spikevrt_on_every_scene(demo):
    results = json.loads((demo / "results.json").read_text())
    assert [method["name"] for method in results["methods"]] == [
        "blur", "spike_ratio", "interval_ratio", shipped.TWIN, shipped.REFERENCE, shipped.DEFAULT,
    ]  # fmt: skip
    for method in results["methods"]:
        assert [sequence["name"] for sequence in method["sequences"]] == ["bridge", "clock", "astronaut", "city"]
        assert all(len(sequence["frames"]) == SMALL.frames for sequence in method["sequences"])
        assert method["mean"]["psnr_rgb"] > 5


@pytest.mark.slow
def test_the_demo_writes_frames_videos_pictures_and_a_page(demo):
    for recording in ("bridge", "clock", "astronaut", "city"):
        frames = list_images(demo / "frames" / shipped.REFERENCE / recording)
        assert [image_size(frame) for frame in frames] == [(66, 70)] * SMALL.frames
        assert (demo / "pictures" / f"{recording}_{shipped.REFERENCE}.png").is_file()
        for video in (shipped.REFERENCE, shipped.TWIN, "side_by_side"):
            assert probe_video(demo / "videos" / f"{recording}_{video}.mp4").num_frames == SMALL.frames
    page = (demo / "report.html").read_text()
    assert "Sander Klootwijk" in page
    assert all(source.startswith("data:") for source in re.findall(r'src="([^"]*)"', page))
    assert page.count('class="compare"') == page.count("data:video/mp4") == 4
    network = "U-Net on blocks of 2x2 pixels, spike-corrected frames, reads the spikes (profile)"
    assert f"<dt>{shipped.DEFAULT}</dt><dd>{network}" in page


@pytest.mark.slow
def test_the_demo_s_recordings_say_where_they_come_from(demo):
    for recording in ("bridge", "city"):
        opened = open_recording(demo / "recordings" / recording)
        assert opened.num_frames == SMALL.frames
        assert opened.provenance["source"].startswith(recording)


def test_every_shipped_asset_is_credited():
    credits = (job.ASSETS / "CREDITS.md").read_text(encoding="utf-8")
    for asset in job.ASSETS.iterdir():
        assert asset.name == "CREDITS.md" or f"`{asset.name}`" in credits, asset.name


def test_the_shipped_assets_are_small():
    assert sum(asset.stat().st_size for asset in job.ASSETS.iterdir()) < 3_000_000


def test_the_shipped_video_is_long_enough_for_the_demo():
    needed = (job.OPTIONS.num_ticks - 1) // job.OPTIONS.ticks_per_frame + 2
    assert probe_video(job.ASSETS / job.VIDEO).num_frames >= needed


def test_an_existing_folder_is_refused_before_any_work(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(FileExistsError, match="out: exists; choose another --out or pass --overwrite"):
        job.run_demo(out, weights=_save_untrained(tmp_path / "weights"))


def test_missing_weights_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"vrt_tiny\.safetensors: no such weights file"):
        job.run_demo(tmp_path / "out", weights=[tmp_path / "vrt_tiny.safetensors"])
    assert not (tmp_path / "out").exists()
