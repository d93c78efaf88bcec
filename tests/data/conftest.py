"""Small recordings for the tests of data/: seeded spikes and pictures, 22x14 colour pixels over 11x7 spike pixels."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spikevrt.align.health import admit_readable
from spikevrt.config import PrepareOptions
from spikevrt.data import prepare as dataset
from spikevrt.formats.layouts import NO_OPTIONS, LayoutOptions, open_sources
from spikevrt.recording.frames import write_image
from spikevrt.recording.sidecar import SPIKE_FILE, Exposure
from spikevrt.recording.spike_file import SpikeGeometry, SpikeWriter
from spikevrt.recording.stored import write_sidecar

WIDTH, HEIGHT, RATIO, NUM_TICKS, NUM_BINS = 22, 14, 2, 17, 5
MakeRecording = Callable[..., Path]


def prepare(
    paths: Sequence[Path],
    out: Path,
    *,
    val: Sequence[Path] = (),
    layout: LayoutOptions = NO_OPTIONS,
    ignore_health: Sequence[str] = (),
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
    **settings: Any,
) -> Path:
    """A dataset of the recordings at these paths, as the command makes it; `settings` are those of PrepareOptions."""
    options = PrepareOptions(**settings)
    admit = functools.partial(admit_readable, ignore=ignore_health)
    sources = open_sources(paths, val, layout, options)
    return dataset.prepare(sources, out, options, admit=admit, overwrite=overwrite, progress=progress)


@pytest.fixture
def make_recording(tmp_path: Path) -> MakeRecording:
    """make_recording(name, ...) writes recordings/name and returns its path."""
    return functools.partial(write_recording, tmp_path)


def write_recording(
    base: Path,
    name: str,
    *,
    num_frames: int = 5,
    seed: int = 0,
    source: str | None = None,
    ticks: int = NUM_TICKS,
    sharp: bool = True,
    frame_idx: list[int] | None = None,
    t1_late_ticks: float = 0.0,
    ratio: int = RATIO,
    spikes: np.ndarray | None = None,
    frames: np.ndarray | None = None,
    bottom_up: bool = True,
) -> Path:
    """Write base/recordings/name.

    `t1_late_ticks` delays the clock at the end of exposure 2; spikes (N,h,w), frames (T,H,W,3) replace noise.
    """
    rng = np.random.default_rng(seed)
    root = base / "recordings" / name
    width, height = WIDTH // RATIO * ratio, HEIGHT // RATIO * ratio
    geometry = SpikeGeometry(WIDTH // RATIO, HEIGHT // RATIO, bottom_up)
    if spikes is None:
        rate = 0.3 + 0.4 * rng.random((geometry.height, geometry.width))  # no pixel looks dead, hot or stuck
        spikes = (rng.random((num_frames * (ticks + 3), *rate.shape)) < rate).astype(np.uint8)
    for kind in ["blur", "sharp"] if sharp else ["blur"]:
        (root / kind).mkdir(parents=True)
        for i in range(num_frames):
            noise = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
            write_image(root / kind / f"{i:06d}.png", noise if frames is None else frames[i])
    with SpikeWriter(root / SPIKE_FILE, geometry) as writer:
        writer.append(spikes)
    starts = [i * (ticks + 3) for i in range(num_frames)]
    late = [t1_late_ticks if i == 2 else 0.0 for i in range(num_frames)]
    indices = list(range(num_frames)) if frame_idx is None else frame_idx
    write_sidecar(
        root,
        spikes=writer,
        tick_rate_hz=1000.0,
        width=width,
        height=height,
        fps=50.0,
        exposures=[
            Exposure(i, s, s + ticks, s / 1000, (s + ticks + extra) / 1000)
            for i, s, extra in zip(indices, starts, late, strict=True)
        ],
        provenance={"source_sha256": source} if source else {},
    )
    return root


@pytest.fixture(scope="session")
def _made_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("made")
    a, b, c = (write_recording(base, name, seed=seed, num_frames=7) for seed, name in ((0, "a"), (1, "b"), (9, "c")))
    prepare([a, b], base / "set", num_bins=NUM_BINS, val=[c])
    return base


@pytest.fixture
def root(_made_set: Path, tmp_path: Path) -> Path:
    """A set of this test's own: two training sequences and one for validation, seven frames each; and recordings/."""
    shutil.copytree(_made_set, tmp_path, dirs_exist_ok=True)
    return tmp_path / "set"
