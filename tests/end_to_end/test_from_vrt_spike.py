"""From an older VRT+Spike to a training run on the command line, without an edit."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path

import numpy as np
import pytest

from spikevrt import cli
from spikevrt.checkpoint import read_info
from spikevrt.config import load_config
from spikevrt.data.dataset import open_dataset
from spikevrt.migrate.config_file import read_old_config
from spikevrt.recording.frames import write_image
from spikevrt.recording.spike_file import SpikeGeometry, pack
from tests.migrate.test_old_checkpoint import VRT, Older, saved

BINS, TICKS, SIZE, SENSOR = 5, 13, 64, 32  # of test_old_checkpoint's network
OLD = """
EXP_NAME: street
SEED: 123
DATA:
  NAME: SpikeDeblurDataset
  ROOT: old
  TRAIN_SPLIT: train
  VAL_SPLIT: test
  CROP_SIZE: 64
  VAL_CROP_SIZE: 64
  CLIP_LEN: 2
  K: 5
  NUM_VOXEL_BINS: 5
  VOXEL_CACHE_DIRNAME: spike_vox
  SPIKE_DIR: spike
  USE_PRECOMPUTED_VOXELS: true
  USE_RAM_CACHE: true
  CACHE_SIZE_GB: 1.5
  IMAGE_EXTS: [".png", ".jpg"]
  ALIGN_LOG_PATHS: [outputs/logs/align_x4k1000fps.txt]
  NORM: {MEAN: 0.0, STD: 1.0}
MODEL:
  NAME: VRTWithSpike
  USE_SPIKE: true
  VRT:
    DEPTHS: [1, 1, 1, 1, 1, 1, 1, 1]
    EMBED_DIMS: [8, 8, 8, 8, 8, 8, 8, 8]
    NUM_HEADS: [2, 2, 2, 2, 2, 2, 2, 2]
    INDEP_RECONSTS: []
    WINDOW_SIZE: [2, 4, 4]
    DEFORM_GROUPS: 2
  CHANNELS_PER_SCALE: [8, 8, 8, 8]
  LAYERS: 4
  SPIKE_ENCODER: {TEMPORAL_STRIDES: [1, 1, 1], SPATIAL_STRIDES: [2, 2, 2]}
  SPIKE_TSA: {HEADS: 2, ADAPTIVE_CHUNK: true, MAX_BATCH_TOKENS: 49152, CHUNK_SIZE: 64, CHUNK_SHAPE: square}
  FUSE: {TYPE: TemporalCrossAttn, HEADS: 2, CHUNK_SIZE: 64}
DATALOADER: {TOTAL_WORKERS: cpu*0.9, TRAIN_PREFETCH_FACTOR: 2, PIN_MEMORY: true, PERSISTENT_WORKERS: false}
TRAIN:
  EPOCHS: 2
  BATCH_SIZE: 1
  VAL_BATCH_SIZE: 1
  COMPILE_MODEL: false
  GRADIENT_ACCUMULATION_STEPS: 2
  MAX_NORM: 1.0
  AMP: true
  OPTIM: {TYPE: adamw, LR: 1e-4, BETAS: [0.9, 0.99], WEIGHT_DECAY: 1e-4}
  SCHED: {TYPE: cosine, WARMUP_STEPS: 512}
LOSS:
  CHARBONNIER: {DELTA: 1e-3, WEIGHT: 1.0}
  VGG_PERCEPTUAL: {LAYERS: [relu3_3], WEIGHT: 0.0}
LOG:
  TENSORBOARD: true
  WANDB: {ENABLE: false, PROJECT: deblur}
  SAVE_DIR: outputs
  VAL_EVERY_STEPS: 1000
  ENABLE_TIMING_LOG: true
TEST: {BATCH_SIZE: 1, NUM_WORKERS: 2}
"""


def spike_to_voxel(spikes: np.ndarray) -> np.ndarray:
    """As the older loader bins."""
    voxels = np.zeros((BINS, *spikes.shape[1:]), dtype=np.float32)
    for t in range(len(spikes)):
        voxels[int(t * BINS / len(spikes))] += spikes[t]
    return voxels


def make_old_tree(root: Path, mode: str) -> dict[str, np.ndarray]:
    """Three frames a clip of a textured scene; `mode` is one of the older loader's two. Returns the voxels."""
    rng, voxels = np.random.default_rng(1), {}
    texture = np.kron(rng.random((8, 8)), np.ones((4, 4))) * 0.8 + 0.1
    picture = (np.kron(texture, np.ones((2, 2)))[..., None] ** (1 / 2.2) * 255).astype(np.uint8).repeat(3, 2)
    for split, clip in (("train", "GOPR0372_07_00"), ("test", "GOPR0384_11_00")):
        for name in ("000001", "000002", "000003"):
            folder = root / split / clip
            for kind in ("blur", "sharp", "spike" if mode == "raw" else "spike_vox"):
                (folder / kind).mkdir(parents=True, exist_ok=True)
            for kind in ("blur", "sharp"):
                write_image(folder / kind / f"{name}.png", picture)
            spikes = (rng.random((TICKS, SENSOR, SENSOR)) < texture).astype(np.uint8)
            voxels[f"{clip}/{name}"] = spike_to_voxel(spikes)
            if mode == "raw":
                (folder / "spike" / f"{name}.dat").write_bytes(pack(spikes, SpikeGeometry(SENSOR, SENSOR)))
            else:
                np.save(folder / "spike_vox" / f"{name}.npy", np.log1p(voxels[f"{clip}/{name}"]))
    return voxels


def run(line: str) -> None:
    assert cli.main(shlex.split(line)[1:]) == 0, line


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["precomputed", "raw"])
def test_an_old_config_tree_and_checkpoint_lead_to_a_training_run_without_an_edit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], mode: str
):
    monkeypatch.chdir(tmp_path)
    voxels = make_old_tree(tmp_path / "old", mode)
    text = OLD
    if mode == "raw":
        text = OLD.replace("VOXELS: true", f"VOXELS: false\n  SPIKE_W: {SENSOR}\n  SPIKE_H: {SENSOR}")
    Path("old.yaml").write_text(text)
    saved(Path("old.pth"), Older(dataclasses.replace(VRT, flow_widths=(32, 64, 32, 16))).state_dict())
    assert cli.main(["train", "old.yaml", "--out", "run"]) == 2
    assert "first run `spikevrt config import old.yaml --out NEW.yaml`" in capsys.readouterr().err

    run("spikevrt config import old.yaml --out new.yaml --checkpoint old.pth")
    told = capsys.readouterr().out.splitlines()
    for key in read_old_config(Path("old.yaml")):
        assert sum(line.startswith(f"{key} = ") for line in told) == 1, key
    assert not any(" refused: " in line for line in told)
    commands = [line.removeprefix("next: ") for line in told if line.startswith("next: ")]
    assert commands[0].startswith("spikevrt prepare old --out old_prepared --num-bins 5 --binning start --voxels ")
    assert commands[1:] == ["spikevrt train new.yaml --out outputs/street"]
    config = load_config("new.yaml")
    assert config.model.spikes is not None and config.model.spikes.max_tokens == 64 * 64 * 2
    assert config.optim.steps == 2 and config.optim.warmup_steps == 0 and config.train.precision == "fp16"
    assert config.model.checkpoint == ("attention", "mlp") and config.train.init == "new.safetensors"

    run(commands[0])
    info = open_dataset("old_prepared")
    for sequence in info.train + info.val:
        for one in sequence.exposures:
            stored = np.load(sequence.path("spike_vox", one.frame_idx))
            assert np.array_equal(stored, voxels[f"{sequence.name}/{one.frame_idx:06d}"])
    run(commands[1])
    assert read_info("outputs/street/best.safetensors").model == config.model
