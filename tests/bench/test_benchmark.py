"""The benchmark: what its conditions are, and that a recording is, byte for byte, what every machine makes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from spikevrt.bench import benchmark
from spikevrt.bench.benchmark import CONDITIONS, SCENES, Condition, chosen, content_digest, digests, film
from spikevrt.recording.frames import read_image, write_image
from spikevrt.recording.recording import Recording, open_recording
from spikevrt.simulate.exact import grey_light, image_light, light_levels

BY_NAME = {condition.name: condition for condition in CONDITIONS}
CHELSEA = SCENES[3]
FILMED = ("medium", "medium_threshold_4", "medium_bright", "medium_exposure_56", "medium_ratio_4", "medium_shift_4",
          "medium_offset_8", "medium_dropped_20")  # fmt: skip


@pytest.fixture(scope="module")
def filmed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Recording]:
    root = tmp_path_factory.mktemp("filmed")
    film(CHELSEA, "medium", [BY_NAME[name] for name in FILMED], root)
    return {name: open_recording(root / name / CHELSEA.name) for name in FILMED}


def test_the_conditions_are_three_splits_and_one_change_each():
    assert len(BY_NAME) == len(CONDITIONS) == 17
    base = BY_NAME["medium"]
    for condition in CONDITIONS:
        changed = [name for name in vars(base) if getattr(condition, name) != getattr(base, name) and name != "name"]
        assert len(changed) == (0 if condition is base else 1), condition
    assert {c.threshold for c in CONDITIONS} == {1, 2, 4} and {c.ratio for c in CONDITIONS} == {2, 4}
    assert {c.sensor for c in CONDITIONS} == {"ideal", "bright", "lowlight"}
    assert {c.exposure_ticks for c in CONDITIONS} == {56, 104}
    assert {c.shift_px for c in CONDITIONS} == {0, 1, 2, 4} and {c.offset_ticks for c in CONDITIONS} == {0, 2, 8}
    assert {c.dropped for c in CONDITIONS} == {0, 0.05, 0.2} and {c.spikes for c in CONDITIONS} == {True, False}
    assert [c.name for c in CONDITIONS if c.has_own_frames] == ["slow", "medium", "fast", "medium_exposure_56"]


def test_conditions_are_chosen_by_name_in_the_benchmarks_order():
    assert [c.name for c in chosen(["medium_ratio_4", "slow"])] == ["slow", "medium_ratio_4"]
    assert chosen(None) == CONDITIONS
    with pytest.raises(ValueError, match="conditions: middle; allowed: slow, medium, fast"):
        chosen(["middle"])


def test_every_recording_of_the_benchmark_has_a_digest():
    folders = {condition.folder for condition in CONDITIONS}
    assert set(digests()) == {f"{folder}/{scene.name}" for folder in folders for scene in SCENES}
    assert len(set(digests().values())) == len(digests())


@pytest.mark.slow
@pytest.mark.parametrize("name", FILMED)
def test_a_recording_made_here_has_the_digest_that_it_must_have(filmed: dict[str, Recording], name: str):
    assert content_digest(filmed[name]) == digests()[f"{name}/{CHELSEA.name}"]


@pytest.mark.slow
def test_other_kernels_make_the_same_recording(tmp_path: Path):
    script = (
        "import sys, pathlib; from spikevrt.bench import benchmark as b; "
        "b.film(b.SCENES[4], 'fast', [b.Condition('fast', 'fast')], pathlib.Path(sys.argv[1]))"
    )
    environment = os.environ | {"ATEN_CPU_CAPABILITY": "default", "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], env=environment, check=True)
    assert content_digest(open_recording(tmp_path / "fast" / "city")) == digests()["fast/city"]


@pytest.mark.slow
def test_what_changes_only_the_sensor_changes_no_frame(filmed: dict[str, Recording]):
    base = filmed["medium"]
    for name in set(FILMED) - {"medium"}:
        other = filmed[name]
        for index in range(base.num_frames):
            same = np.array_equal(base.read_blur(index), other.read_blur(index))
            assert same == (name != "medium_exposure_56"), name
            assert np.array_equal(base.read_sharp(index), other.read_sharp(index)), name


@pytest.mark.slow
def test_a_blurry_frame_is_the_mean_light_of_its_exposure_and_the_sharp_one_its_middle(filmed: dict[str, Recording]):
    scene = benchmark.open_scene(CHELSEA, "medium")
    inner = slice(benchmark.MARGIN_PX, benchmark.MARGIN_PX + benchmark.SIZE_PX)
    exposure = filmed["medium"].exposures[2]
    light = scene.light(torch.arange(exposure.start_tick, exposure.stop_tick))[..., inner, inner]
    blur = light_levels(light.double().mean(0)).astype(int) - filmed["medium"].read_blur(2)
    assert np.abs(blur).max() <= 1 and (blur != 0).mean() < 1e-4  # the quotient is rounded to float32 there
    assert np.array_equal(light_levels(light[52]), filmed["medium"].read_sharp(2))
    short = filmed["medium_exposure_56"].exposures[2]
    assert (short.start_tick + 28, short.num_ticks) == (exposure.start_tick + 52, 56)


@pytest.mark.slow
def test_spikes_times_threshold_are_the_light_to_within_a_spike(filmed: dict[str, Recording]):
    scene = benchmark.open_scene(CHELSEA, "medium")
    inner = slice(benchmark.MARGIN_PX, benchmark.MARGIN_PX + benchmark.SIZE_PX)
    light = scene.light(torch.arange(200))[..., inner, inner]
    for name in ("medium", "medium_threshold_4", "medium_ratio_4"):
        condition = BY_NAME[name]
        arrived = grey_light(light, condition.ratio).double().sum(0)
        spikes = filmed[name].spikes
        assert spikes is not None
        counted = torch.from_numpy(spikes.count([0, 200])[0].astype(np.float64)) * condition.threshold
        assert float((arrived - counted).abs().max()) <= condition.threshold + 1e-3


@pytest.mark.slow
def test_a_shifted_sensor_sees_the_frame_shifted(filmed: dict[str, Recording]):
    rates = {}
    for name in ("medium", "medium_shift_4"):
        spikes = filmed[name].spikes
        assert spikes is not None
        rates[name] = spikes.count([0, 600])[0].astype(float)
    moved = [np.roll(rates["medium"], 2, axis=axis)[2:, 2:] for axis in (0, 1)]  # 4 frame pixels are 2 of the sensor's
    found = [float(np.abs(rates["medium_shift_4"][2:, 2:] - one).mean()) for one in moved]
    assert min(found) < 0.5 < 5 < max(found)


@pytest.mark.slow
def test_a_late_stream_is_told_of_as_if_it_were_in_time(filmed: dict[str, Recording]):
    base, late = filmed["medium"], filmed["medium_offset_8"]
    assert [e.start_tick for e in late.exposures] == [e.start_tick - 8 for e in base.exposures]
    assert base.spikes is not None and late.spikes is not None
    assert np.array_equal(base.spikes.read(0, 632), late.spikes.read(0, 632))


@pytest.mark.slow
def test_a_fifth_of_the_ticks_is_lost_and_the_others_are_as_they_were(filmed: dict[str, Recording]):
    base, dropped = filmed["medium"].spikes, filmed["medium_dropped_20"].spikes
    assert base is not None and dropped is not None
    before, after = base.read(0, 632), dropped.read(0, 632)
    empty = ~after.any((1, 2))
    assert 0.15 < empty.mean() < 0.25
    assert np.array_equal(before[~empty], after[~empty]) and before[empty].any((1, 2)).all()


def test_a_changed_recording_is_refused_by_name_and_what_is_missing_is_made(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(benchmark, "SCENES", (SCENES[4],))
    slow = (BY_NAME["slow"],)
    found = benchmark.prepare_benchmark(tmp_path / "b", slow)
    assert list(found) == ["slow/city"]
    assert json.loads((tmp_path / "b" / "benchmark.json").read_text())["sha256"] == benchmark.total_digest(found)
    path = tmp_path / "b" / "slow" / "city" / "blur" / "000001.png"
    before = path.stat().st_mtime_ns
    assert benchmark.prepare_benchmark(tmp_path / "b", slow) == found
    assert path.stat().st_mtime_ns == before  # what stands is kept
    image = read_image(path)
    write_image(path, np.where(image > 7, image - 1, image + 1).astype(np.uint8))
    with pytest.raises(ValueError, match=r"slow/city: not the bytes of spikebench-v1 .* remove the folder"):
        benchmark.prepare_benchmark(tmp_path / "b", slow)


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path: Path):
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(FileExistsError, match=r"exists and holds no benchmark.json"):
        benchmark.prepare_benchmark(tmp_path, (BY_NAME["slow"],))


def test_image_light_of_a_black_frame_is_dark():
    assert float(image_light(torch.zeros(2, 2, 3, dtype=torch.uint8)).max()) == 0
    assert replace(BY_NAME["medium"], spikes=False).folder == "medium" and Condition("slow", "slow").folder == "slow"
