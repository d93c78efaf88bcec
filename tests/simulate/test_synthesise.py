from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from spikevrt.light import linear_to_srgb, luminance
from spikevrt.mux.join import write_video
from spikevrt.simulate.scene import photo_scene
from spikevrt.simulate.setup import CameraConfig, RigConfig, SensorConfig, sensor_preset
from spikevrt.simulate.synthesise import _chunks, simulate_recording
from tests.simulate.conftest import OPTIONS, fingerprint, textured


def test_a_recording_has_what_it_says(photo: Path, tmp_path: Path):
    told = []
    recording = simulate_recording(photo, tmp_path / "out", OPTIONS, progress=lambda *call: told.append(call))
    assert (recording.width, recording.height, recording.num_frames, recording.num_ticks) == (46, 34, 3, 84)
    assert (recording.spikes.width, recording.spikes.height) == (23, 17)
    assert [(e.start_tick, e.stop_tick) for e in recording.exposures] == [(0, 22), (31, 53), (62, 84)]
    assert recording.exposures[1].t0_s == 31 / 20000
    assert recording.fps == 20000 / 31
    assert recording.read_blur(2).shape == recording.read_sharp(2).shape == (34, 46, 3)
    assert told[-1] == (84, 84)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(photo: Path, tmp_path: Path):
    for name in ("one", "two"):
        simulate_recording(photo, tmp_path / name, OPTIONS)
    simulate_recording(photo, tmp_path / "three", dataclasses.replace(OPTIONS, seed=12))
    one, two, three = (fingerprint(tmp_path / name) for name in ("one", "two", "three"))
    assert one == two
    assert all(one[name] != three[name] for name in one)


@pytest.mark.parametrize("sensor", [SensorConfig(), SensorConfig(threshold=1.7, ratio=1)])
def test_blur_sharp_and_spikes_come_from_the_same_light(photo: Path, tmp_path: Path, sensor: SensorConfig):
    options = dataclasses.replace(OPTIONS, sensor=sensor)
    recording = simulate_recording(photo, tmp_path / "out", options)
    light = photo_scene(photo, options).light(torch.arange(84))

    def eight_bit(picture: torch.Tensor) -> np.ndarray:
        return (linear_to_srgb(picture) * 255).permute(1, 2, 0).numpy()

    for index, start in enumerate((0, 31, 62)):
        blur, sharp = recording.read_blur(index).astype(float), recording.read_sharp(index).astype(float)
        assert np.abs(blur - eight_bit(light[start : start + 22].mean(0))).max() <= 0.51  # half a level, and roundings
        assert np.abs(sharp - eight_bit(light[start + 11])).max() <= 0.51
    grey = F.avg_pool2d(luminance(light)[:, None], sensor.ratio)[:, 0].double()
    spikes = torch.from_numpy(recording.spikes.read(0, recording.num_ticks)).double()
    error = (spikes.cumsum(0) * sensor.threshold - grey.cumsum(0)).abs()
    assert float(error.max()) <= sensor.threshold * (1 + 1e-4)  # float32 accumulates 84 roundings


def test_the_blurry_frame_is_the_spikes_mean_in_linear_light_not_in_srgb(photo: Path, tmp_path: Path):
    # many ticks, so that quantisation is small: the spike rate must match linear light
    options = dataclasses.replace(OPTIONS, frames=1, exposure_ticks=400, period_ticks=400)
    recording = simulate_recording(photo, tmp_path / "out", options)
    rate = recording.read_exposure_spikes(0).mean(0)
    srgb = torch.from_numpy(recording.read_blur(0)).permute(2, 0, 1)[None].double() / 255
    linear = torch.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    grey = F.avg_pool2d(luminance(linear)[:, None], 2)[0, 0].numpy()
    assert np.abs(rate - grey).max() < 1 / 400 + 0.006  # one spike, and 8-bit rounding


def test_provenance_tells_how_to_make_it_again(photo: Path, other_photo: Path, tmp_path: Path):
    recording = simulate_recording(photo, tmp_path / "out", OPTIONS, layer_photos=[other_photo])
    made = recording.provenance
    assert made["source"] == "photo.png"
    assert made["source_sha256"] == hashlib.sha256(photo.read_bytes()).hexdigest()
    assert made["options"] == json.loads(json.dumps(dataclasses.asdict(OPTIONS)))
    assert [layer["name"] for layer in made["layers"]] == ["other.png", "other.png"]
    assert 2.5 <= made["speed_px"] <= 7.5


def test_a_folder_of_frames_and_a_video_file_are_filmed_as_they_are(footage: Path, tmp_path: Path):
    folder = simulate_recording(footage, tmp_path / "folder", OPTIONS)
    video = tmp_path / "video.mp4"
    image = textured(34, 80, seed=3)
    write_video(video, [image[:, index : index + 50] for index in range(13)], fps=25)
    filmed = simulate_recording(video, tmp_path / "filmed", OPTIONS)
    assert folder.num_frames == filmed.num_frames == 3
    difference = folder.read_sharp(1).astype(float) - filmed.read_sharp(1).astype(float)
    assert np.abs(difference).mean() < 12  # chroma is subsampled in the video


def test_a_video_that_is_too_short_is_refused_with_the_number_that_is_needed(footage: Path, tmp_path: Path):
    options = dataclasses.replace(OPTIONS, ticks_per_frame=2)
    with pytest.raises(ValueError, match=r"footage: frames from start_frame 0 on: 13; 43 needed for 84 ticks at"):
        simulate_recording(footage, tmp_path / "out", options)
    assert not list(tmp_path.glob("*out*"))


def test_layers_before_a_video_are_refused(photo: Path, footage: Path, tmp_path: Path):
    with pytest.raises(
        ValueError, match=r"layer_photos: .*footage is no photograph; a video is filmed as it is, withou"
    ):
        simulate_recording(footage, tmp_path / "out", OPTIONS, layer_photos=[photo])


def test_a_recording_is_never_written_over_what_it_is_made_of(photo: Path, tmp_path: Path):
    out = tmp_path / "out"
    simulate_recording(photo, out, OPTIONS)
    before, sharp = fingerprint(out), out / "sharp"
    for source, layers in ((sharp, ()), (sharp / "000000.png", ()), (photo, [sharp / "000001.png"])):
        with pytest.raises(FileExistsError, match=r"out: holds what is read \(.*sharp.*\), and would be lost"):
            simulate_recording(source, out, OPTIONS, layer_photos=layers, overwrite=True)
    assert fingerprint(out) == before


def test_overwrite_never_replaces_what_is_no_recording(photo: Path, tmp_path: Path):
    precious = tmp_path / "out" / "thesis.tex"
    precious.parent.mkdir()
    precious.write_text("years")
    with pytest.raises(FileExistsError, match=r"out: exists and holds no recording\.json, so it is not overwritten"):
        simulate_recording(photo, tmp_path / "out", OPTIONS, overwrite=True)
    assert precious.read_text() == "years"


@pytest.mark.parametrize("seed", [2**64, 10**23, -(2**63) - 1])
def test_a_seed_out_of_range_is_named(seed: int):
    with pytest.raises(ValueError, match=rf"^seed: {seed}; must be from -2\*\*63 to 2\*\*64 - 1$"):
        dataclasses.replace(OPTIONS, seed=seed)


@pytest.mark.parametrize("seed", [2**64 - 1, -(2**63)])
def test_the_outermost_seeds_make_recordings(photo: Path, tmp_path: Path, seed: int):
    options = dataclasses.replace(OPTIONS, seed=seed, camera=CameraConfig(read_noise=0.01))
    assert simulate_recording(photo, tmp_path / "out", options).num_frames == 3


def test_a_missing_source_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.png: no such photograph, video or folder of frames$"):
        simulate_recording(tmp_path / "nothing.png", tmp_path / "out", OPTIONS)


def test_an_existing_recording_is_kept_unless_told_otherwise(photo: Path, tmp_path: Path):
    out = tmp_path / "out"
    simulate_recording(photo, out, OPTIONS)
    before = fingerprint(out)
    with pytest.raises(FileExistsError, match=r"out: exists; choose another --out or pass --overwrite$"):
        simulate_recording(photo, out, dataclasses.replace(OPTIONS, seed=12))
    assert fingerprint(out) == before
    simulate_recording(photo, out, dataclasses.replace(OPTIONS, seed=12), overwrite=True)
    assert fingerprint(out) != before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "photo.png"]


def test_an_interrupted_simulation_leaves_nothing_and_keeps_the_old(photo: Path, tmp_path: Path):
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    simulate_recording(photo, tmp_path / "old", OPTIONS)
    before = fingerprint(tmp_path / "old")
    for name in ("new", "old"):
        with pytest.raises(KeyboardInterrupt):
            simulate_recording(photo, tmp_path / name, OPTIONS, overwrite=True, progress=interrupt)
    assert fingerprint(tmp_path / "old") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old", "photo.png"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": 0}, "frames: 0; must be 1 or more"),
        ({"num_layers": -1}, "num_layers: -1; must be 0 or more"),
        ({"motion_px": -2.0}, "motion_px: -2.0; must be 0 or more"),
        ({"period_ticks": 21}, "period_ticks: 21; must be at least exposure_ticks = 22"),
        ({"width": 45}, "width: 45; must be a multiple of `ratio` = 2"),
    ],
)
def test_impossible_options_are_refused_by_name(change: dict[str, float], message: str):
    with pytest.raises(ValueError, match=f"^{message}$"):
        dataclasses.replace(OPTIONS, **change)


def test_a_noisy_sensor_changes_the_spikes_alone_and_a_noisy_camera_the_blurry_frames(photo: Path, tmp_path: Path):
    sensor = sensor_preset("bright")
    camera = CameraConfig(read_noise=0.01)
    made = {
        "plain": simulate_recording(photo, tmp_path / "plain", OPTIONS),
        "sensor": simulate_recording(photo, tmp_path / "sensor", dataclasses.replace(OPTIONS, sensor=sensor)),
        "camera": simulate_recording(photo, tmp_path / "camera", dataclasses.replace(OPTIONS, camera=camera)),
    }
    prints = {name: fingerprint(tmp_path / name) for name in made}
    for name, changed in (("sensor", "spikes.dat"), ("camera", "blur/")):
        for file, digest in prints["plain"].items():
            if file != "recording.json":
                assert (prints[name][file] != digest) == file.startswith(changed), (name, file)
    assert made["sensor"].provenance["options"]["sensor"] == json.loads(json.dumps(dataclasses.asdict(sensor)))
    assert made["camera"].provenance["options"]["camera"] == dataclasses.asdict(camera)


def test_under_a_rolling_shutter_every_row_has_its_own_exposure(photo: Path, tmp_path: Path):
    # 33 rows below the first: one tick later each; neighbouring exposures overlap in time (gap 9, delay 33)
    options = dataclasses.replace(OPTIONS, camera=CameraConfig(rolling_shutter_ticks=33))
    recording = simulate_recording(photo, tmp_path / "out", options)
    assert recording.num_ticks == 2 * 31 + 22 + 33
    assert [(e.start_tick, e.stop_tick) for e in recording.exposures] == [(16, 38), (47, 69), (78, 100)]
    light = photo_scene(photo, options).light(torch.arange(117))
    for index, start in enumerate((0, 31, 62)):
        rows = [light[start + row : start + row + 22, :, row].mean(0) for row in range(34)]
        expected = (linear_to_srgb(torch.stack(rows, 1)) * 255).permute(1, 2, 0).numpy()
        assert np.abs(recording.read_blur(index).astype(float) - expected).max() <= 0.51  # half a level, and roundings
        sharp = (linear_to_srgb(light[start + 16 + 11]) * 255).permute(1, 2, 0).numpy()
        assert np.abs(recording.read_sharp(index).astype(float) - sharp).max() <= 0.51


def test_the_number_of_threads_changes_no_byte(photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("spikevrt.simulate.synthesise.CHUNK_PIXELS", 1)  # one tick at a time, as large frames have it
    for name, threads in (("one", 1), ("three", 3)):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        simulate_recording(photo, tmp_path / name, OPTIONS)
    assert fingerprint(tmp_path / "one") == fingerprint(tmp_path / "three")


def test_chunks_cover_every_tick_once_and_none_lies_half_in_an_exposure():
    windows = [(5, 27), (36, 58)]
    chunks = list(_chunks(windows, 61, 7))
    assert [first for first, _ in chunks] == [0, 5, 12, 19, 26, 27, 34, 36, 43, 50, 57, 58]
    assert sum(count for _, count in chunks) == 61


def test_a_shift_moves_the_sharp_frame_and_nothing_else(photo: Path, tmp_path: Path):
    margin = RigConfig(margin_ticks=31)  # the period: the sharp frame shifted by it is the next one's
    plain = simulate_recording(photo, tmp_path / "plain", dataclasses.replace(OPTIONS, rig=margin))
    shifted = simulate_recording(
        photo, tmp_path / "shifted", dataclasses.replace(OPTIONS, rig=margin, sharp_shift_ticks=31)
    )
    assert (tmp_path / "plain/spikes.dat").read_bytes() == (tmp_path / "shifted/spikes.dat").read_bytes()
    assert [e.window for e in shifted.exposures] == [(62, 84), (93, 115), (124, 146)]
    for index in range(3):
        assert np.array_equal(plain.read_blur(index), shifted.read_blur(index))
    for index in range(2):
        assert np.array_equal(plain.read_sharp(index + 1), shifted.read_sharp(index))
        assert not np.array_equal(plain.read_sharp(index), shifted.read_sharp(index))


def test_a_shift_makes_the_stream_as_long_as_its_windows_need():
    options = dataclasses.replace(OPTIONS, sharp_shift_ticks=-7, rig=RigConfig(offset_ticks=3))
    assert options.margin_ticks == 10
    assert dataclasses.replace(OPTIONS, sharp_shift_ticks=-7).num_ticks == OPTIONS.num_ticks + 14
