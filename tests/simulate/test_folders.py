"""Other people's folders of sharp footage: which clips are found, what they are called, and the way to a dataset."""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from spikevrt.cli import main
from spikevrt.data.dataset import open_dataset
from spikevrt.formats.layouts import open_recordings
from spikevrt.recording.frames import write_image
from spikevrt.recording.recording import open_recording
from spikevrt.simulate.folders import find_clips
from spikevrt.simulate.footage import source_motion_px
from spikevrt.simulate.setup import SimulateOptions
from tests.simulate.conftest import textured, video_of

SIZE = ["--width", "32", "--height", "24", "--frames", "2", "--exposure-ticks", "13", "--period-ticks", "17"]


def frames(
    folder: Path, num: int = 7, *, height: int = 24, width: int = 32, seed: int = 1, step: int = 1, first: int = 0
) -> Path:
    """So many consecutive frames: a picture that moves by `step` pixels from one to the next."""
    folder.mkdir(parents=True)
    image = textured(height, width + num * step, seed=seed)
    for index in range(num):
        write_image(folder / f"{first + index:06d}.png", image[:, index * step : index * step + width])
    return folder


def gopro(root: Path) -> Path:
    for seed, (split, clip) in enumerate(
        (("train", "GOPR0372_07_00"), ("train", "GOPR0374_11_01"), ("test", "GOPR0384_11_00"))
    ):
        frames(root / split / clip / "sharp", seed=seed, first=47)
        for blur in ("blur", "blur_gamma"):
            frames(root / split / clip / blur, 2, first=47)
    return root


def reds(root: Path) -> Path:
    frames(root / "train" / "train_sharp" / "000", seed=1)
    frames(root / "train" / "train_blur" / "000", seed=1)
    frames(root / "val" / "val_sharp" / "000", seed=2)
    frames(root / "train" / "train_sharp_bicubic" / "X4" / "000", 2)
    return root


def reds_flat(root: Path) -> Path:
    frames(root / "train_sharp" / "000", seed=1)
    frames(root / "val_sharp" / "000", seed=2)
    return root


def vimeo(root: Path) -> Path:
    for seed, clip in enumerate(("00001/0001", "00001/0002", "00007/0001", "00009/0009")):
        folder = frames(root / "sequences" / clip, seed=seed)
        for number, path in enumerate(sorted(folder.iterdir())):
            path.rename(folder / f"im{number + 1}.png")
    (root / "sep_trainlist.txt").write_text("00001/0001\n00001/0002\n")
    (root / "sep_testlist.txt").write_text("00007/0001\n\n")
    return root


def plain(root: Path) -> Path:
    frames(root / "street" / "left", seed=1)
    frames(root / "street" / "right", seed=2)
    frames(root / "park", seed=3)
    return root


@pytest.mark.parametrize(
    ("tree", "names", "notes"),
    [
        (gopro, ["test/GOPR0384_11_00", "train/GOPR0372_07_00", "train/GOPR0374_11_01"],
         ["{root}: left out: blur (3), blur_gamma (3) beside sharp frames"]),
        (reds, ["train/000", "val/000"],
         ["{root}: left out: train_blur (1) beside sharp frames",
          "{root}/train/train_sharp_bicubic/X4/000: left out: others here have a folder sharp"]),
        (reds_flat, ["train/000", "val/000"], []),
        (vimeo, ["train/00001_0001", "train/00001_0002", "test/00007_0001"],
         ["{root}: 1 clip left out, in no list (*_trainlist.txt, *_testlist.txt)"]),
        (plain, ["park", "street_left", "street_right"], []),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)  # fmt: skip
def test_a_folder_of_others_gives_its_clips_by_split_and_name(
    tmp_path: Path, tree: Callable[[Path], Path], names: list[str], notes: list[str]
):
    found = find_clips(tree(tmp_path / "ROOT"))
    assert found is not None
    assert [clip.name for clip in found.clips] == names
    assert list(found.notes) == [note.format(root=tmp_path / "ROOT") for note in notes]
    assert all(len(list(clip.source.iterdir())) == 7 for clip in found.clips)


def test_a_dataset_within_a_folder_and_one_clip_of_it_are_found_too(tmp_path: Path):
    gopro(tmp_path / "download" / "GOPRO_Large")
    outer = find_clips(tmp_path / "download")
    assert outer is not None and outer.clips[0].name == "test/GOPR0384_11_00"
    one = find_clips(tmp_path / "download" / "GOPRO_Large" / "train" / "GOPR0372_07_00")
    assert one is not None and [clip.name for clip in one.clips] == ["GOPR0372_07_00"]
    assert find_clips(one.clips[0].source) is None  # one clip, as before


def test_what_is_no_sharp_clip_is_left_out_by_name(tmp_path: Path):
    root = gopro(tmp_path / "ROOT")
    frames(root / "train" / "only_blur" / "blur")
    (root / "train" / "hollow" / "sharp").mkdir(parents=True)
    (root / ".cache" / "x").mkdir(parents=True)
    (root / "loop").symlink_to(root, target_is_directory=True)
    found = find_clips(root)
    assert found is not None and len(found.clips) == 3
    assert f"{root}/train/only_blur/blur: left out: blurry frames without sharp ones" in found.notes
    assert f"{root}/train/hollow/sharp: left out: it holds no frames" in found.notes
    assert len(found.notes) == 3


@pytest.mark.parametrize(("inner", "message"), [("clip/blur", "blurry frames alone"), (None, "no frames, no videos")])
def test_a_folder_without_sharp_footage_is_refused(tmp_path: Path, inner: str | None, message: str):
    (tmp_path / "ROOT").mkdir()
    if inner:
        frames(tmp_path / "ROOT" / inner)
    with pytest.raises(ValueError, match=f"ROOT: {message}.*; allowed: folders of sharp frames"):
        find_clips(tmp_path / "ROOT")


def test_two_clips_of_one_name_are_refused(tmp_path: Path):
    frames(tmp_path / "ROOT" / "a" / "train" / "one")
    frames(tmp_path / "ROOT" / "b" / "train" / "one")
    with pytest.raises(ValueError, match="would both be called train/one"):
        find_clips(tmp_path / "ROOT")


def test_a_gopro_folder_becomes_recordings_and_a_dataset_with_the_split_it_came_with(tmp_path: Path, capsys):
    root, out, data = gopro(tmp_path / "ROOT"), tmp_path / "out", tmp_path / "data"
    assert main(["simulate", str(root), "--out", str(out), *SIZE, "--source-fps", "1500"]) == 0, capsys.readouterr().err
    told = capsys.readouterr()
    assert f"spikevrt: {root}: 3 clips (1 test, 2 train) of sharp frames\n" in told.err
    assert f"spikevrt: {root}: left out: blur (3), blur_gamma (3) beside sharp frames\n" in told.err
    assert told.out.startswith("3 recordings -> ")
    recording = open_recording(out / "train" / "GOPR0374_11_01")
    assert (recording.num_frames, recording.num_ticks, recording.width) == (2, 30, 32)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.json")}
    assert main(["simulate", str(root), "--out", str(out), *SIZE, "--source-fps", "1500"]) == 0
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*.json")}  # taken up again: all stand
    assert main(["prepare", str(out), "--out", str(data), "--num-bins", "4"]) == 0, capsys.readouterr().err
    info = open_dataset(data)
    assert [sequence.name for sequence in info.train] == ["GOPR0372_07_00", "GOPR0374_11_01"]
    assert [sequence.name for sequence in info.val] == ["GOPR0384_11_00"]
    assert [one.name for one in open_recordings([out], split="val")] == ["GOPR0384_11_00"]
    assert open_recordings([out])[0].provenance["source"] == "GOPR0372_07_00/sharp"
    assert main(["inspect", str(out)]) == 0
    assert capsys.readouterr().out.count("2 frames of 32 x 24, with sharp frames") == 3
    assert main(["simulate", str(out), "--out", str(tmp_path / "no")]) == 2
    assert f"{out}: recordings alone; allowed: folders of sharp frames" in capsys.readouterr().err
    assert main(["prepare", str(out), "--out", str(tmp_path / "no"), "--val-fraction", "0.5"]) == 2
    assert "brings its own split" in capsys.readouterr().err


def test_a_clip_that_cannot_be_filmed_is_told_by_name_and_stops_no_other(tmp_path: Path, capsys):
    root, out = gopro(tmp_path / "ROOT"), tmp_path / "out"
    frames(root / "train" / "short" / "sharp", 2)
    mixed = frames(root / "train" / "mixed" / "sharp")
    write_image(mixed / "000003.png", textured(20, 32, seed=5))
    (frames(root / "train" / "gap" / "sharp") / "000003.png").unlink()
    frames(root / "train" / "small" / "sharp", height=22)
    assert main(["simulate", str(root), "--out", str(out), *SIZE]) == 1
    told = capsys.readouterr()
    for line in (
        f"spikevrt: short: {root}/train/short/sharp: frames from start_frame 0 on: 2; 5 needed for 30 ticks at "
        "ticks_per_frame 8; left out",
        f"spikevrt: mixed: {mixed}/000003.png: size differs from 000000.png; frames of one video must be of one size",
        "000004.png: the frame before it is 000002.png, so 1 of them missing; allowed: numbers that rise by 1",
        f"spikevrt: small: {root}/train/small/sharp: frames of 32x22 pixels are smaller than the view of 32x24",
    ):
        assert line.replace("start_frame", "--start-frame").replace("ticks_per_frame", "--ticks-per-frame") in told.err
    assert told.out.startswith("3 recordings, 4 could not be made -> ")
    assert sorted(path.name for path in (out / "train").iterdir()) == ["GOPR0372_07_00", "GOPR0374_11_01"]


def test_nothing_is_left_where_no_clip_can_be_filmed(tmp_path: Path, capsys):
    root = gopro(tmp_path / "ROOT")
    assert main(["simulate", str(root), "--out", str(tmp_path / "out"), "--frames", "2"]) == 2
    assert "are smaller than the view of 640x360" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_with_a_count_the_clips_are_taken_in_turn(tmp_path: Path):
    out = tmp_path / "out"
    assert main(["simulate", str(plain(tmp_path / "ROOT")), "--out", str(out), *SIZE, "--count", "4"]) == 0
    assert sorted(path.name for path in out.iterdir()) == [
        "park_000",
        "park_003",
        "street_left_001",
        "street_right_002",
    ]


def test_inspect_tells_clips_splits_and_sizes_of_a_folder_of_others(tmp_path: Path, capsys):
    root = gopro(tmp_path / "ROOT")
    assert main(["inspect", str(root)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{root}: sharp footage without spikes: 3 clips (1 test, 2 train); `spikevrt simulate` makes recordings of it",
        "test/GOPR0384_11_00: 7 images, 32 x 24",
        "train/GOPR0372_07_00: 7 images, 32 x 24",
        "train/GOPR0374_11_01: 7 images, 32 x 24",
        f"{root}: left out: blur (3), blur_gamma (3) beside sharp frames",
    ]


def test_prepare_and_evaluate_of_sharp_footage_point_to_simulate(tmp_path: Path, capsys):
    root = gopro(tmp_path / "ROOT")
    for command in (["prepare", str(root)], ["evaluate", str(root)]):
        assert main([*command, "--out", str(tmp_path / "out")]) == 2
        told = capsys.readouterr().err
        assert (
            "(no recording.json); its sharp footage becomes recordings by `spikevrt simulate`" in told
            and told.count("\n") == 1
        )


@pytest.mark.parametrize(
    ("fps", "ticks"), [("240", Fraction(250, 3)), ("30000/1001", Fraction(2002, 3)), ("29.97", Fraction(2000000, 2997))]
)
def test_the_ticks_between_frames_follow_from_the_frame_rate_exactly(footage: Path, fps: str, ticks: Fraction):
    options = SimulateOptions(source_fps=fps)
    assert options.source_frame_ticks == ticks
    scene = video_of(footage, source_fps=fps)
    assert scene.num_ticks == int(12 * ticks)
    own, after = video_of(footage, ticks_per_frame=1).light(torch.arange(10, 12))
    tick = int(10 * ticks) + 5
    weight = float(tick / ticks - 10)
    torch.testing.assert_close(scene.light(torch.tensor([tick]))[0], torch.lerp(own, after, weight), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--source-fps", "fast"], "--source-fps: fast; must be above 0, as 240, 29.97 or 30000/1001, or file"),
        (["--source-fps", "-3"], "--source-fps: -3; must be above 0"),
        (
            ["--source-fps", "240", "--ticks-per-frame", "9"],
            "--ticks-per-frame: 9; not with --source-fps (the ticks follow from it)",
        ),
        (["--interpolate", "0"], "--interpolate: 0 (as many as the motion needs); must have --source-fps beside it"),
        (["--source-fps", "file"], "--source-fps: file, but {footage} is a folder of frames; allowed: a number"),
        (["--interpolate", "3"], "--interpolate: 3; must be a power of two"),
    ],
)
def test_what_a_frame_rate_cannot_be_is_one_line(footage: Path, tmp_path: Path, capsys, arguments, message):
    assert main(["simulate", str(footage), "--out", str(tmp_path / "out"), *SIZE, *arguments]) == 2
    assert message.format(footage=footage) in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("step", [0, 1, 3, 7])
def test_the_motion_between_frames_is_measured_in_pixels_of_the_view(tmp_path: Path, step: int):
    options = SimulateOptions(width=96, height=64, frames=1, exposure_ticks=17)
    folder = frames(tmp_path / "a", height=64, width=96, step=step)
    assert source_motion_px(folder, options) == pytest.approx(step, abs=0.35)


@pytest.mark.parametrize(
    ("numbers", "missing"),
    [((1, 2, 3, 5, 6), True), ((0, 4, 8, 16, 20), True), ((7, 8, 9, 10, 11), False), ((3, 21, 22, 60, 61), False),
     ((100, 133, 167, 200, 240), False)],
)  # fmt: skip
def test_a_number_that_is_missing_among_evenly_numbered_frames_is_told(tmp_path: Path, numbers, missing: bool):
    for number in numbers:
        (tmp_path / "a").mkdir(exist_ok=True)
        write_image(tmp_path / "a" / f"im{number}.png", textured(34, 50, seed=number))
    if missing:
        with pytest.raises(ValueError, match="so 1 of them missing; allowed: numbers that rise by [14]$"):
            video_of(tmp_path / "a")
    else:
        assert video_of(tmp_path / "a").num_source_frames == 5


def test_the_rate_that_a_video_file_says_is_taken_exactly(tmp_path: Path, capsys):
    images = [textured(64, 96, seed=seed) for seed in range(4)]
    (tmp_path / "ROOT").mkdir()
    with av.open(str(tmp_path / "ROOT" / "clip.mkv"), "w") as container:
        stream = container.add_stream("ffv1", Fraction(30000, 1001), width=96, height=64, pix_fmt="bgr0")
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        container.mux(stream.encode())
    size = ["--width", "96", "--height", "64", "--frames", "1", "--exposure-ticks", "700", "--period-ticks", "700"]
    assert (
        main(["simulate", str(tmp_path / "ROOT"), "--out", str(tmp_path / "out"), *size, "--source-fps", "file"]) == 0
    )
    recording = open_recording(tmp_path / "out" / "clip")
    assert recording.provenance["options"]["source_fps"] == "30000/1001"
    capsys.readouterr()


def test_frames_too_far_apart_are_told_with_their_distance_and_what_is_done(tmp_path: Path, capsys):
    folder = frames(tmp_path / "fast", height=64, width=96, step=5)
    size = ["--width", "96", "--height", "64", "--frames", "1", "--exposure-ticks", "17"]
    assert main(["simulate", str(folder), "--out", str(tmp_path / "a"), *size]) == 0
    told = capsys.readouterr().err
    assert (
        f"{folder}: --ticks-per-frame 8, as if filmed at 2500 frames a second; --source-fps says the true rate" in told
    )
    assert "source frames of a lie " in told and "px apart: blended between, so edges are double; --interpolate" in told
    motion_px = open_recording(tmp_path / "a").provenance["source_motion_px"]
    assert motion_px == pytest.approx(5, abs=0.5) and f"lie {motion_px:g} px apart" in told


def test_interpolation_by_need_follows_from_the_motion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    """The network's place is taken by one that repeats the frame before, which is enough to count frames."""
    monkeypatch.setattr("spikevrt.simulate.collection.find_weights", lambda: tmp_path)
    monkeypatch.setattr("spikevrt.simulate.footage.find_weights", lambda: tmp_path)
    monkeypatch.setattr("spikevrt.simulate.footage.load_network", lambda path: lambda before, after: before)
    root = tmp_path / "ROOT"
    for name, step in (("slow", 0), ("fast", 3)):
        frames(root / name, height=64, width=96, step=step)
    size = ["--width", "96", "--height", "64", "--frames", "1", "--exposure-ticks", "17", "--source-fps", "2000"]
    assert main(["simulate", str(root), "--out", str(tmp_path / "out"), *size, "--interpolate", "0"]) == 0
    told = {name: json.loads((tmp_path / "out" / name / "recording.json").read_text()) for name in ("slow", "fast")}
    assert {name: one["provenance"]["options"]["interpolate"] for name, one in told.items()} == {"slow": 1, "fast": 4}
    assert "source frames of fast lie 2.9 px apart, with 4 in the place of each 0.7\n" in capsys.readouterr().err
    assert np.array_equal(
        open_recording(tmp_path / "out" / "slow").read_blur(0), open_recording(tmp_path / "out" / "slow").read_sharp(0)
    )
