"""`inspect`: what a path holds, in plain lines; on made-up files and on real recordings where present."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spikevrt import cli
from spikevrt.align.inspect import inspect
from spikevrt.align.settings import InspectOptions
from spikevrt.formats.convert import write_stream
from spikevrt.mux.join import write_video
from spikevrt.recording.alignment import Alignment, write_alignment
from spikevrt.recording.frames import image_size, read_image, write_image
from spikevrt.recording.sidecar import ROWS, Exposure, StreamFormat
from spikevrt.recording.spike_file import SpikeGeometry, SpikeWriter
from spikevrt.recording.spike_formats import open_stream
from spikevrt.recording.stored import write_sidecar

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
        spikes=writer,
        tick_rate_hz=20000.0,
        width=120,
        height=80,
        fps=100.0,
        exposures=[Exposure(0, 0, NUM_TICKS, 0.0, NUM_TICKS / 20000)],
        provenance={},
    )
    return root


def _look(path: Path, **options: Any) -> list[str]:
    """The lines about a path that is not ambiguous; `size` (width, height) states a packed file's geometry."""
    if "size" in options:
        width, height = options.pop("size")
        options["stated"] = StreamFormat("packed", width, height, ROWS[options.pop("bottom_up", True)])
    inspection = inspect(path, InspectOptions(**options))
    assert inspection.refusal is None, inspection.refusal
    return inspection.lines


def _has(lines: list[str], text: str) -> bool:
    return any(text in line for line in lines)


def test_a_healthy_stream_is_told_in_plain_numbers(tmp_path: Path) -> None:
    spikes = _fire(_scene())
    _write(tmp_path / "a.dat", spikes)
    lines = _look(tmp_path / "a.dat", size=(60, 40))
    assert _has(lines, "packed spike stream, 60 x 40, rows bottom-up, 300 bytes per tick")
    assert _has(lines, "61 ticks, 0.003050 s at 20000 Hz (assumed)")
    assert _has(lines, f"mean rate {spikes.mean():.4f}")
    assert _has(lines, "0 dead, 0 hot, 0 saturated, of 2400")
    assert not _has(lines, "warning")


def test_lost_ticks_are_reported(tmp_path: Path) -> None:
    spikes = _fire(_scene())
    spikes[[3, 4, 41]] = 0
    np.savez(tmp_path / "a.npz", spk=spikes)
    assert _has(_look(tmp_path / "a.npz"), "warning: 3 ticks without any spike")


def test_a_stream_that_never_fires_is_reported(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((5, 7, 11), dtype=np.uint8))
    assert _has(_look(tmp_path / "a.npy"), "warning: no spike at all")


def test_a_wrong_size_that_fits_is_doubted(tmp_path: Path) -> None:
    _write(tmp_path / "a.dat", _fire(_scene(250, 400), 20))
    lines = _look(tmp_path / "a.dat", size=(200, 250))
    assert _has(lines, "warning: neighbouring rows do not resemble each other")
    assert _has(lines, "warning: 400 x 250 fits better")


def test_a_size_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    _write(tmp_path / "a.dat", _fire(_scene()))
    with pytest.raises(ValueError, match="18300 bytes are no whole number of ticks of 63x40"):
        _look(tmp_path / "a.dat", size=(63, 40))


def test_a_recording_whose_spikes_fit_its_frames_has_no_warning(tmp_path: Path) -> None:
    lines = _look(_recording(tmp_path / "a"))
    assert _has(lines, "recording, 1 frame of 120 x 80, 100 fps, without sharp frames")
    assert _has(lines, "exposures of 61 ticks")
    assert _has(lines, "gain about 1.0")
    assert not _has(lines, "warning")


def test_flipped_rows_are_noticed(tmp_path: Path) -> None:
    lines = _look(_recording(tmp_path / "a", flipped=True))
    assert _has(lines, "bad: orientation: the spikes fit the frames with rows flipped")


def test_an_exchanged_spike_file_is_noticed(tmp_path: Path) -> None:
    root = _recording(tmp_path / "a")
    data = bytearray((root / "spikes.dat").read_bytes())
    data[7] ^= 1
    (root / "spikes.dat").write_bytes(data)
    assert _has(_look(root), "is not the file that was recorded (sha256 differs)")


def test_footage_is_measured(tmp_path: Path) -> None:
    frames = [np.full((16, 32, 3), 90, dtype=np.uint8)] * 3
    write_video(tmp_path / "a.mp4", frames, fps=25)
    assert _look(tmp_path / "a.mp4") == [f"{tmp_path / 'a.mp4'}: video, 32 x 16, 3 frames, 25 fps, 0.120 s"]
    write_image(tmp_path / "a.png", frames[0])
    assert _look(tmp_path / "a.png") == [f"{tmp_path / 'a.png'}: image, 32 x 16"]
    (tmp_path / "images").mkdir()
    for index, frame in enumerate([*frames, frames[0][1:]]):
        write_image(tmp_path / "images" / f"{index}.png", frame)
    lines = _look(tmp_path / "images")
    assert _has(lines, "4 images, 32 x 16") and _has(lines, "first 0.png, last 3.png")
    assert _has(lines, "warning: images of another size than the first: 1")


@pytest.mark.parametrize("option", [{"centre": 3}, {"half_window": 3}])
def test_an_option_of_the_preview_without_a_preview_is_refused(tmp_path: Path, option: dict[str, int]) -> None:
    np.save(tmp_path / "a.npy", np.ones((5, 7, 11), dtype=np.uint8))
    with pytest.raises(ValueError, match=f"^{next(iter(option))}: is for the preview; allowed: only with `out`$"):
        _look(tmp_path / "a.npy", **option)


def test_a_folder_of_recordings_is_told_in_one_line_each(tmp_path: Path) -> None:
    for name in ("b", "a", ".c.partial-17"):
        _recording(tmp_path / "many" / name)
    what = "1 frame of 120 x 80, without sharp frames, exposures of 61 ticks, 61 ticks of 60 x 40 spikes"
    assert _look(tmp_path / "many") == [f"{tmp_path / 'many' / name}: {what}" for name in "ab"]
    with pytest.raises(ValueError, match="many: `out` is for spikes; this is a folder of recordings; name one of them"):
        _look(tmp_path / "many", out=tmp_path / "a.png")


def test_a_missing_path_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="gone: no such recording, spike file, image folder or video"):
        _look(tmp_path / "gone")


def test_an_empty_array_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((0, 7, 11), dtype=np.uint8))
    with pytest.raises(ValueError, match="allowed: three axes of numbers, none empty"):
        _look(tmp_path / "a.npy")


def test_the_preview_has_three_panels_and_frames_below_for_a_recording(tmp_path: Path) -> None:
    _write(tmp_path / "a.dat", _fire(_scene()))
    lines = _look(tmp_path / "a.dat", size=(60, 40), out=tmp_path / "a.png")
    assert lines[-1] == f"preview -> {tmp_path / 'a.png'}"
    scale = 6  # 60 columns shown at 320 px or more
    assert image_size(tmp_path / "a.png") == (40 * scale + 16, 3 * 60 * scale)
    _look(_recording(tmp_path / "b"), out=tmp_path / "b.png")
    assert image_size(tmp_path / "b.png") == (2 * (40 * scale + 16), 3 * 60 * scale)


def test_the_preview_is_upright_whichever_row_comes_first(tmp_path: Path) -> None:
    light = np.full((40, 60), 0.1)
    light[:10] = 0.9  # the sky is bright
    for bottom_up in (True, False):
        _write(tmp_path / "a.dat", _fire(light), bottom_up=bottom_up)
        _look(tmp_path / "a.dat", size=(60, 40), bottom_up=bottom_up, out=tmp_path / "a.png", overwrite=True)
        sheet = read_image(tmp_path / "a.png")[16:]
        assert sheet[:50].mean() > 200 and sheet[80:].mean() < 120


def test_an_existing_preview_is_kept_unless_told(tmp_path: Path) -> None:
    _write(tmp_path / "a.dat", _fire(_scene()))
    (tmp_path / "a.png").write_text("mine")
    with pytest.raises(FileExistsError, match="a.png: exists; choose another --out or pass --overwrite$"):
        _look(tmp_path / "a.dat", size=(60, 40), out=tmp_path / "a.png")
    assert (tmp_path / "a.png").read_text() == "mine"
    with pytest.raises(FileExistsError, match=f"{tmp_path.name}: exists; choose another --out$"):
        _look(tmp_path / "a.dat", size=(60, 40), out=tmp_path, overwrite=True)


def test_a_preview_window_outside_the_stream_is_refused_and_draws_nothing(tmp_path: Path) -> None:
    _write(tmp_path / "a.dat", _fire(_scene()))
    with pytest.raises(ValueError, match=r"centre, half_window: 5, 20, ticks \[-15, 26\); allowed: inside \[0, 61\)"):
        _look(tmp_path / "a.dat", size=(60, 40), out=tmp_path / "a.png", centre=5)
    assert not (tmp_path / "a.png").exists()


def test_the_real_car_stands_on_its_wheels(shared: Path, tmp_path: Path) -> None:
    car = shared / "data" / "real_car" / "car_400x250_200f.dat"
    lines = _look(car, size=(400, 250), out=tmp_path / "car.png")
    assert _has(lines, "200 ticks, 0.010000 s") and _has(lines, "mean rate 0.366")
    assert not _has(lines, "warning")
    sheet = read_image(tmp_path / "car.png")[16:]
    assert (
        sheet[200:240, 0:80, 0].mean() < 80 < 150 < sheet[100:140, 30:130, 0].mean()
    )  # dark wheel below bright bonnet


def test_the_real_low_light_recording_is_sparse_but_sound(shared: Path) -> None:
    lines = _look(shared / "data" / "real_lowlight" / "uhsr_200x250x250.npz")
    assert _has(lines, "unpacked spike stream, 250 x 250") and _has(lines, "mean rate 0.0314")
    assert not _has(lines, "warning")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"overwrite": True}, "overwrite: is for the preview; allowed: only with `out`, `report` or `confirm`"),
        ({"tick_rate_hz": 1e4}, "tick_rate_hz: is kept in the sidecar; allowed: only with `confirm`"),
        ({"tick_rate_hz": 0.0, "confirm": 1}, "tick_rate_hz: 0.0; allowed: above 0"),
    ],
)
def test_an_option_without_the_one_that_it_serves_is_refused(option: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        InspectOptions(**option)


@pytest.mark.parametrize(
    ("option", "name"),
    [({"sizes": ((7, 5),)}, "size"), ({"rgb": Path("a.png")}, "rgb"), ({"confirm": 1}, "confirm")],
)
def test_what_serves_unknown_geometry_is_refused_where_it_is_known(
    tmp_path: Path, option: dict[str, Any], name: str
) -> None:
    np.save(tmp_path / "a.npy", np.ones((5, 7, 11), dtype=np.uint8))
    with pytest.raises(ValueError, match=f"a.npy: `{name}` is for a file of unknown geometry; this is known: the file"):
        _look(tmp_path / "a.npy", **option)
    _recording(tmp_path / "b")
    with pytest.raises(ValueError, match=f"b: `{name}` is for spike files of unknown geometry; this is none"):
        _look(tmp_path / "b", **option)


def test_a_stated_format_is_refused_for_a_recording_and_obeyed_for_an_array(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a: `width`, `height`, `rows` and the like are for spike files; this is none"):
        _look(_recording(tmp_path / "a"), size=(60, 40))
    np.save(tmp_path / "a.npy", np.ones((5, 7, 11), dtype=np.uint8))
    assert _has(_look(tmp_path / "a.npy", stated=StreamFormat("npy", axes="HWT")), "unpacked spike stream, 7 x 5")


def test_a_report_is_for_recordings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "a.npy", np.ones((5, 7, 11), dtype=np.uint8))
    with pytest.raises(ValueError, match="a.npy: `report` is for recordings; this is a spike file without frames"):
        _look(tmp_path / "a.npy", report=tmp_path / "a.html")
    (tmp_path / "images").mkdir()
    with pytest.raises(ValueError, match="images: `report` is for spikes; this is plain footage"):
        _look(tmp_path / "images", report=tmp_path / "a.html")
    _recording(tmp_path / "b")
    out = tmp_path / "b.html"
    assert cli.main(["inspect", str(tmp_path / "b"), "--report", str(out)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"report -> {out}" and out.is_file()
    with pytest.raises(FileExistsError, match="b.html: exists; choose another --report or pass --overwrite$"):
        _look(tmp_path / "b", report=tmp_path / "b.html")


def test_every_format_that_tells_itself_is_opened(tmp_path: Path) -> None:
    spikes = _fire(_scene())
    np.save(tmp_path / "a.npy", spikes)
    for name, kind in (("b.npz", "npz"), ("c.npz", "packed-time"), ("d.h5", "h5"), ("e.npy", "npy")):
        write_stream(tmp_path / name, open_stream(tmp_path / "a.npy"), StreamFormat(kind))
        lines = _look(tmp_path / name)
        assert _has(lines, "packed spike stream, 60 x 40") and _has(lines, f"mean rate {spikes.mean():.4f}"), name


def test_a_sidecar_tells_the_geometry_and_says_so_and_contradiction_is_a_warning(tmp_path: Path) -> None:
    spikes = _fire(_scene())
    np.save(tmp_path / "a.npy", spikes)
    form = StreamFormat("packed", 60, 40, tag_bits=4)
    write_stream(tmp_path / "a.dat", open_stream(tmp_path / "a.npy"), form, tick_rate_hz=1000.0)
    lines = _look(tmp_path / "a.dat")
    assert _has(
        lines, "packed spike stream, 60 x 40, rows bottom-up, 4 tag bits a row, 320 bytes per tick (says a.dat.json)"
    )
    assert _has(lines, "61 ticks, 0.061000 s at 1000 Hz") and not _has(lines, "warning")
    lines = _look(tmp_path / "a.dat", size=(64, 40))
    assert _has(lines, "warning: a.dat.json says packed, 60 x 40, rows bottom-up, 4 tag bits a row")
    data = bytearray((tmp_path / "a.dat").read_bytes())
    data[7] ^= 1
    (tmp_path / "a.dat").write_bytes(data)
    assert _has(_look(tmp_path / "a.dat"), "is not the file that a.dat.json was written for (sha256 differs)")


def test_a_spikecv_folder_is_told_file_by_file(tmp_path: Path) -> None:
    for name in ("b.dat", "a.dat"):
        _write(tmp_path / name, _fire(_scene()))
    (tmp_path / "config.yaml").write_text("filename: a.dat\nspike_w: 60\nspike_h: 40\nis_labeled: false\n")
    what = "packed spike stream, 60 x 40, rows bottom-up, 300 bytes per tick (says config.yaml), 61 ticks"
    assert _look(tmp_path) == [f"{tmp_path / name}: {what}" for name in ("a.dat", "b.dat")]


def test_a_dataset_folder_of_a_known_layout_is_told_clip_by_clip(tmp_path: Path) -> None:
    """S-SDM's tree: one spike file of 137 ticks for each blurry frame, at a quarter of its size."""
    for kind in ("blur_data", "sharp_data"):
        folder = tmp_path / "GOPRO" / "train" / kind / "clip"
        folder.mkdir(parents=True)
        for index in range(2):
            write_image(folder / f"{index}.png", np.full((160, 240, 3), 90, dtype=np.uint8))
    folder = tmp_path / "GOPRO" / "train" / "spike_data" / "clip"
    folder.mkdir(parents=True)
    for index in range(2):
        _write(folder / f"{index}.dat", _fire(_scene(), 137))
    lines = _look(tmp_path)
    assert lines[0] == f"{tmp_path}: dataset of layout s-sdm" and len(lines) == 2
    assert (
        "2 frames of 240 x 160, with sharp frames, exposures of 97 ticks" in lines[1] and "60 x 40 spikes" in lines[1]
    )


def test_missing_ticks_in_a_loose_stream_are_reported(tmp_path: Path) -> None:
    spikes = _fire(0.05 + 0.15 * _scene(), 200)
    np.save(tmp_path / "a.npy", np.concatenate([spikes[:100], spikes[111:]]))
    lines = _look(tmp_path / "a.npy")
    assert _has(
        lines,
        "warning: the rhythm of all pixels breaks before tick 100: ticks are missing, or the light changed at once",
    )


def test_an_alignment_is_told(tmp_path: Path) -> None:
    root = _recording(tmp_path / "a")
    write_alignment(root, Alignment(0.0, ((0.5, 0.0, 0.0), (0.0, 0.5, 0.0), (0.0, 0.0, 1.0))))
    assert _has(_look(root), "aligned: offset 0 ticks, registered")
