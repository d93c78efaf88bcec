"""`inspect`: geometry, broken pixels, orientation, gain; on made-up files and on real recordings where present."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from spikevrt.align.health import SpikeStream, inspect, measure_health
from spikevrt.recording.frames import image_size, read_image, write_image
from spikevrt.recording.recording import Exposure, write_sidecar
from spikevrt.recording.spike_file import SpikeGeometry, SpikeWriter
from spikevrt.recording.video import write_video

NUM_TICKS = 61


def _scene(height: int = 40, width: int = 60) -> np.ndarray:
    """Linear light in [0.1, 0.9]: a smooth hill off the centre, so that every flip is another picture."""
    row, column = np.mgrid[:height, :width]
    hill = np.exp(-(((row - 0.2 * height) / (0.4 * height)) ** 2 + ((column - 0.3 * width) / (0.4 * width)) ** 2))
    return 0.1 + 0.8 * hill


def _fire(light: np.ndarray, num_ticks: int = NUM_TICKS, seed: int = 0) -> np.ndarray:
    phase = np.random.default_rng(seed).random(light.shape)
    charge = np.floor(phase + light * np.arange(num_ticks + 1)[:, None, None])
    return np.diff(charge, axis=0).astype(np.uint8)


def _write(path: Path, spikes: np.ndarray, *, bottom_up: bool = True) -> SpikeGeometry:
    geometry = SpikeGeometry(spikes.shape[2], spikes.shape[1], bottom_up)
    with SpikeWriter(path, geometry) as writer:
        writer.append(spikes)
    return geometry


def _recording(root: Path, *, flipped: bool = False) -> Path:
    light = _scene()
    spikes = _fire(light)
    (root / "blur").mkdir(parents=True)
    frame = np.repeat((light ** (1 / 2.2) * 255).round().astype(np.uint8)[:, :, None], 3, axis=2)
    write_image(root / "blur" / "000000.png", frame.repeat(2, axis=0).repeat(2, axis=1))
    geometry = SpikeGeometry(60, 40)
    with SpikeWriter(root / "spikes.dat", geometry) as writer:
        writer.append(spikes[:, ::-1] if flipped else spikes)
    write_sidecar(
        root,
        geometry=geometry,
        num_ticks=NUM_TICKS,
        tick_rate_hz=20000.0,
        spike_sha256=writer.sha256,
        width=120,
        height=80,
        fps=100.0,
        exposures=[Exposure(0, 0, NUM_TICKS, 0.0, NUM_TICKS / 20000)],
        provenance={},
    )
    return root


def _has(lines: list[str], text: str) -> bool:
    return any(text in line for line in lines)


def test_a_healthy_stream_is_told_in_plain_numbers(tmp_path: Path) -> None:
    spikes = _fire(_scene())
    _write(tmp_path / "a.dat", spikes)
    lines = inspect(tmp_path / "a.dat", width=60, height=40)
    assert _has(lines, "packed spike stream, 60 x 40, rows bottom-up, 300 bytes per tick")
    assert _has(lines, "61 ticks, 0.003050 s at 20000 Hz (assumed)")
    assert _has(lines, f"mean rate {spikes.mean():.4f}")
    assert _has(lines, "0 dead, 0 hot, 0 saturated, of 2400")
    assert not _has(lines, "warning")


def test_dead_hot_and_saturated_pixels_are_counted() -> None:
    light = np.full((17, 19), 0.25)
    light[5, 7] = 0.0
    light[11, 3] = 1.0
    light[0, 0] = 0.0
    spikes = _fire(light)
    health = measure_health(SpikeStream("a", NUM_TICKS, 17, 19, lambda start, stop: spikes[start:stop]))
    assert (health.num_dead, health.num_hot, health.num_saturated) == (2, 1, 1)


def test_a_dark_region_is_not_dead_and_a_bright_region_is_not_hot() -> None:
    light = np.full((16, 16), 0.01)
    light[:, 8:] = 0.9
    spikes = _fire(light)
    health = measure_health(SpikeStream("a", NUM_TICKS, 16, 16, lambda start, stop: spikes[start:stop]))
    assert (health.num_dead, health.num_hot) == (0, 0)


def test_lost_ticks_are_reported(tmp_path: Path) -> None:
    spikes = _fire(_scene())
    spikes[[3, 4, 41]] = 0
    np.savez(tmp_path / "a.npz", spk=spikes)
    assert _has(inspect(tmp_path / "a.npz"), "warning: 3 ticks without any spike")


def test_a_stream_that_never_fires_is_reported(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((5, 7, 11), dtype=np.uint8))
    assert _has(inspect(tmp_path / "a.npy"), "warning: no spike at all")


def test_a_packed_file_without_a_size_lists_the_sizes_that_fit_likeliest_first(tmp_path: Path) -> None:
    _write(tmp_path / "a.dat", _fire(_scene(250, 400), 20))
    with pytest.raises(
        ValueError, match=r"250000 bytes .* pass width and height; .*first: 400x250 \(20 ticks"
    ) as caught:
        inspect(tmp_path / "a.dat")
    assert "\n" not in str(caught.value)


def test_the_file_that_was_once_read_as_bytes_is_recognised_as_bits(tmp_path: Path) -> None:
    """2,534,400 bytes are 88 ticks of 640 x 360 bits; an earlier attempt read them as 10 x 396 x 640 bytes."""
    _write(tmp_path / "a.dat", _fire(_scene(360, 640), 88))
    assert (tmp_path / "a.dat").stat().st_size == 2_534_400
    with pytest.raises(ValueError, match=r"first: 640x360 \(88 ticks"):
        inspect(tmp_path / "a.dat")


def test_a_wrong_size_that_fits_is_doubted(tmp_path: Path) -> None:
    _write(tmp_path / "a.dat", _fire(_scene(250, 400), 20))
    lines = inspect(tmp_path / "a.dat", width=200, height=250)
    assert _has(lines, "warning: neighbouring rows do not resemble each other")
    assert _has(lines, "warning: 400 x 250 fits better")


def test_a_size_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    _write(tmp_path / "a.dat", _fire(_scene()))
    with pytest.raises(ValueError, match="18300 bytes are no whole number of ticks of 63x40"):
        inspect(tmp_path / "a.dat", width=63, height=40)


def test_a_recording_whose_spikes_fit_its_frames_has_no_warning(tmp_path: Path) -> None:
    lines = inspect(_recording(tmp_path / "a"))
    assert _has(lines, "recording, 1 frames of 120 x 80, 100 fps, without sharp frames")
    assert _has(lines, "exposures of 61 ticks")
    assert _has(lines, "gain about 1.0")
    assert not _has(lines, "warning")


def test_flipped_rows_are_noticed(tmp_path: Path) -> None:
    lines = inspect(_recording(tmp_path / "a", flipped=True))
    assert _has(lines, "warning: the spikes fit the frame better with rows flipped")


def test_an_exchanged_spike_file_is_noticed(tmp_path: Path) -> None:
    root = _recording(tmp_path / "a")
    data = bytearray((root / "spikes.dat").read_bytes())
    data[7] ^= 1
    (root / "spikes.dat").write_bytes(data)
    assert _has(inspect(root), "is not the file that was recorded (sha256 differs)")


def test_footage_is_measured(tmp_path: Path) -> None:
    frames = [np.full((16, 32, 3), 90, dtype=np.uint8)] * 3
    write_video(tmp_path / "a.mp4", frames, fps=25)
    assert inspect(tmp_path / "a.mp4") == [f"{tmp_path / 'a.mp4'}: video, 32 x 16, 3 frames, 25 fps, 0.120 s"]
    write_image(tmp_path / "a.png", frames[0])
    assert inspect(tmp_path / "a.png") == [f"{tmp_path / 'a.png'}: image, 32 x 16"]
    (tmp_path / "images").mkdir()
    for index, frame in enumerate([*frames, frames[0][1:]]):
        write_image(tmp_path / "images" / f"{index}.png", frame)
    lines = inspect(tmp_path / "images")
    assert _has(lines, "4 images, 32 x 16") and _has(lines, "first 0.png, last 3.png")
    assert _has(lines, "warning: 1 images have another size than the first")


def test_an_option_that_a_file_does_not_have_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((5, 7, 11), dtype=np.uint8))
    with pytest.raises(ValueError, match="width, height and top_down are for packed spike files"):
        inspect(tmp_path / "a.npy", top_down=True)
    (tmp_path / "images").mkdir()
    with pytest.raises(ValueError, match="images: out is for spikes; this is plain footage"):
        inspect(tmp_path / "images", out=tmp_path / "a.png")


@pytest.mark.parametrize("option", [{"centre": 3}, {"half_window": 3}, {"overwrite": True}])
def test_an_option_of_the_preview_without_a_preview_is_refused(tmp_path: Path, option: dict[str, int]) -> None:
    np.save(tmp_path / "a.npy", np.ones((5, 7, 11), dtype=np.uint8))
    with pytest.raises(ValueError, match=f"^{next(iter(option))}: is for the preview; allowed: only with out$"):
        inspect(tmp_path / "a.npy", **option)


def test_a_folder_of_recordings_is_told_in_one_line_each(tmp_path: Path) -> None:
    for name in ("b", "a", ".c.partial-17"):
        _recording(tmp_path / "many" / name)
    what = "1 frames of 120 x 80, without sharp frames, exposures of 61 ticks, 61 ticks of 60 x 40 spikes"
    assert inspect(tmp_path / "many") == [f"{tmp_path / 'many' / name}: {what}" for name in "ab"]
    with pytest.raises(ValueError, match="many: out is for spikes; this is a folder of recordings; name one of them"):
        inspect(tmp_path / "many", out=tmp_path / "a.png")


def test_a_missing_path_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="gone: no such recording, spike file, image folder or video"):
        inspect(tmp_path / "gone")


def test_an_empty_array_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((0, 7, 11), dtype=np.uint8))
    with pytest.raises(ValueError, match="no spikes in it"):
        inspect(tmp_path / "a.npy")


def test_the_preview_has_three_panels_and_frames_below_for_a_recording(tmp_path: Path) -> None:
    _write(tmp_path / "a.dat", _fire(_scene()))
    lines = inspect(tmp_path / "a.dat", width=60, height=40, out=tmp_path / "a.png")
    assert lines[-1] == f"preview -> {tmp_path / 'a.png'}"
    scale = 6  # 60 columns shown at 320 px or more
    assert image_size(tmp_path / "a.png") == (40 * scale + 16, 3 * 60 * scale)
    inspect(_recording(tmp_path / "b"), out=tmp_path / "b.png")
    assert image_size(tmp_path / "b.png") == (2 * (40 * scale + 16), 3 * 60 * scale)


def test_the_preview_is_upright_whichever_row_comes_first(tmp_path: Path) -> None:
    light = np.full((40, 60), 0.1)
    light[:10] = 0.9  # the sky is bright
    for bottom_up in (True, False):
        _write(tmp_path / "a.dat", _fire(light), bottom_up=bottom_up)
        inspect(tmp_path / "a.dat", width=60, height=40, top_down=not bottom_up, out=tmp_path / "a.png", overwrite=True)
        sheet = read_image(tmp_path / "a.png")[16:]
        assert sheet[:50].mean() > 200 and sheet[80:].mean() < 120


def test_an_existing_preview_is_kept_unless_told(tmp_path: Path) -> None:
    _write(tmp_path / "a.dat", _fire(_scene()))
    (tmp_path / "a.png").write_text("mine")
    with pytest.raises(FileExistsError, match="a.png: exists; choose another --out or pass --overwrite$"):
        inspect(tmp_path / "a.dat", width=60, height=40, out=tmp_path / "a.png")
    assert (tmp_path / "a.png").read_text() == "mine"
    with pytest.raises(FileExistsError, match=f"{tmp_path.name}: exists; choose another --out$"):
        inspect(tmp_path / "a.dat", width=60, height=40, out=tmp_path, overwrite=True)


def test_a_preview_window_outside_the_stream_is_refused_and_draws_nothing(tmp_path: Path) -> None:
    _write(tmp_path / "a.dat", _fire(_scene()))
    with pytest.raises(ValueError, match=r"centre 5, half_window 20: ticks \[-15, 26\); allowed: inside \[0, 61\)"):
        inspect(tmp_path / "a.dat", width=60, height=40, out=tmp_path / "a.png", centre=5)
    assert not (tmp_path / "a.png").exists()


def test_the_real_car_stands_on_its_wheels(shared: Path, tmp_path: Path) -> None:
    car = shared / "data" / "real_car" / "car_400x250_200f.dat"
    lines = inspect(car, width=400, height=250, out=tmp_path / "car.png")
    assert _has(lines, "200 ticks, 0.010000 s") and _has(lines, "mean rate 0.366")
    assert not _has(lines, "warning")
    sheet = read_image(tmp_path / "car.png")[16:]
    assert (
        sheet[200:240, 0:80, 0].mean() < 80 < 150 < sheet[100:140, 30:130, 0].mean()
    )  # dark wheel below bright bonnet
    with pytest.raises(ValueError, match=r"likeliest first: 400x250 \(200 ticks"):
        inspect(car)


def test_the_real_low_light_recording_is_sparse_but_sound(shared: Path) -> None:
    lines = inspect(shared / "data" / "real_lowlight" / "uhsr_200x250x250.npz")
    assert _has(lines, "unpacked spike stream, 250 x 250") and _has(lines, "mean rate 0.0314")
    assert not _has(lines, "warning")
