"""The whole way on the command line: a shipped photograph in, restored frames and scores out, with a tiny network.

Nothing here is about quality: two training steps teach nothing. That a trained network helps is the demo's to show.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from spikevrt import cli
from tests.train.conftest import MICRO_UNET

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
ASSETS = ROOT / "src" / "spikevrt" / "assets"


def run(*arguments: object) -> None:
    assert cli.main([str(argument) for argument in arguments]) == 0


@pytest.fixture
def crops(tmp_path: Path) -> list[Path]:
    """Two crops of shipped photographs, large enough for a camera to move over."""
    from PIL import Image

    paths = []
    for name in ("bridge", "astronaut"):
        path = tmp_path / f"{name}.png"
        with Image.open(ASSETS / f"{name}.jpg") as photo:
            width, height = photo.size
            photo.crop((width // 2 - 150, height // 2 - 110, width // 2 + 150, height // 2 + 110)).save(path)
        paths.append(path)
    return paths


def test_from_sharp_pictures_to_restored_frames(
    tmp_path: Path, crops: list[Path], micro_config: dict[str, Any], capsys: pytest.CaptureFixture[str]
):
    recordings, dataset, trained = tmp_path / "recordings", tmp_path / "dataset", tmp_path / "run"
    size = ["--width", 96, "--height", 64, "--frames", 3, "--exposure-ticks", 32, "--period-ticks", 40]
    run("simulate", *crops, "--count", 2, "--out", recordings, *size, "--motion-px", 4)
    names = sorted(path.name for path in recordings.iterdir())
    assert names == ["astronaut_001", "bridge_000"]

    run("inspect", recordings / names[0], "--out", tmp_path / "preview.png")
    assert (tmp_path / "preview.png").stat().st_size > 0

    bins = 16
    run("prepare", recordings, "--out", dataset, "--num-bins", bins, "--val-fraction", 0.5)
    assert json.loads((dataset / "dataset.json").read_text())["num_bins"] == bins

    micro_config["model"] = {"unet": MICRO_UNET, "spikes": {"num_bins": bins}}
    config = tmp_path / "micro.yaml"
    config.write_text(yaml.safe_dump(micro_config), encoding="utf-8")
    settings = ["--set", f"data.root={dataset}"]
    run("train", config, "--out", tmp_path / "none", "--dry-run", *settings)
    assert not (tmp_path / "none").exists()
    run("train", config, "--out", trained, *settings)
    run("train", config, "--out", trained, *settings, "optim.steps=3", "--resume")
    best = trained / "best.safetensors"
    assert best.is_file() and (trained / "last.safetensors").is_file()

    capsys.readouterr()
    restored = tmp_path / "restored"
    run("restore", recordings / names[0], "--weights", best, "--out", restored)
    assert [path.name for path in sorted(restored.glob("*.png"))] == ["000000.png", "000001.png", "000002.png"]
    assert capsys.readouterr().out.startswith(f"3 frames -> {restored} (")

    spikes = ["--spikes", recordings / names[0] / "spikes.dat", "--spike-width", 48, "--spike-height", 32]
    timing = ["--exposure-ticks", 32, "--period-ticks", 40]
    loose = tmp_path / "loose"
    run("restore", recordings / names[0] / "blur", *spikes, *timing, "--weights", best, "--out", loose)
    for path in restored.glob("*.png"):
        assert path.read_bytes() == (loose / path.name).read_bytes(), "a recording and its loose files are the same"

    run("restore", recordings / names[0], "--weights", best, "--out", tmp_path / "restored.mp4")
    assert (tmp_path / "restored.mp4").stat().st_size > 0

    scores = tmp_path / "scores"
    run("evaluate", recordings, "--weights", best, trained / "last.safetensors", "--out", scores)
    results = json.loads((scores / "results.json").read_text())
    assert [method["name"] for method in results["methods"]] == [
        "blur", "spike_ratio", "interval_ratio", "best", "last",
    ]  # fmt: skip
    assert all(method["mean"]["psnr_rgb"] > 5 for method in results["methods"])

    left_over = list(tmp_path.rglob(".*partial*"))
    assert left_over == []
