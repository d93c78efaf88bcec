"""prepare: what is written, what is refused, what is dropped and why."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from spikevrt.align.health import admit
from spikevrt.config import DataConfig, SpikeInputs
from spikevrt.data.dataset import ClipDataset, open_dataset
from spikevrt.data.prepare import log1p_mean_std, narrow, occurrences
from spikevrt.formats.layouts import LayoutOptions
from spikevrt.recording.frames import read_image
from spikevrt.recording.recording import open_recording
from spikevrt.recording.spike_file import SpikeWriter, read_spikes
from spikevrt.represent.counts import frame_counts
from spikevrt.simulate.setup import SimulateOptions
from spikevrt.simulate.synthesise import simulate_recording
from tests.data.conftest import NUM_BINS, NUM_TICKS, MakeRecording, prepare
from tests.formats.test_layouts import MAKERS, make_rsb, make_spk_gopro

PHOTO = Path(__file__).resolve().parents[2] / "src" / "spikevrt" / "assets" / "chelsea.jpg"


def contents(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def read_frame(path: Path) -> np.ndarray:
    return np.load(path) if path.suffix == ".npy" else read_image(path)


@pytest.mark.parametrize("frames", ["npy", "png"])
def test_every_exposure_becomes_four_files_that_hold_what_the_recording_holds(
    make_recording: MakeRecording, tmp_path, frames: str
):
    recording = open_recording(make_recording("street", num_frames=3, frame_idx=[4, 5, 7]))
    root = prepare([recording.root], tmp_path / "set", num_bins=NUM_BINS, frames=frames, val_fraction=0)
    folder = root / "train" / "street"
    for kind, suffix in [("blur", frames), ("sharp", frames), ("spike", "dat"), ("spike_vox", "npy")]:
        assert sorted(p.name for p in (folder / kind).iterdir()) == [f"{i:06d}.{suffix}" for i in (4, 5, 7)]
    for position, stem in enumerate(["000004", "000005", "000007"]):
        spikes = recording.read_exposure_spikes(position)
        np.testing.assert_array_equal(read_frame(folder / "blur" / f"{stem}.{frames}"), recording.read_blur(position))
        np.testing.assert_array_equal(read_frame(folder / "sharp" / f"{stem}.{frames}"), recording.read_sharp(position))
        np.testing.assert_array_equal(read_spikes(folder / "spike" / f"{stem}.dat", recording.spikes.geometry), spikes)
        counts = np.load(folder / "spike_vox" / f"{stem}.npy")
        assert counts.dtype == np.uint8 and counts.shape == (NUM_BINS, 7, 11)
        np.testing.assert_array_equal(counts.sum(axis=0), spikes.sum(axis=0))


def test_the_alignment_log_lists_frame_times_and_spikes(make_recording: MakeRecording, tmp_path):
    recording = open_recording(make_recording("street", num_frames=2))
    root = prepare([recording.root], tmp_path / "set", num_bins=NUM_BINS, val_fraction=0)
    num_spikes = [int(recording.read_exposure_spikes(i).sum()) for i in range(2)]
    assert (root / "train" / "street" / "alignment.log").read_text().splitlines() == [
        "frame_idx t0 t1 spike_count",
        f"0 0.000000000 0.017000000 {num_spikes[0]}",
        f"1 0.020000000 0.037000000 {num_spikes[1]}",
    ]
    assert (root / "train" / "street" / "dropped.log").read_text() == "frame_idx reason\n"


def test_mean_and_std_are_those_of_log1p_counts_over_the_training_split_only(make_recording: MakeRecording, tmp_path):
    train, val = make_recording("a", seed=1, num_frames=2), make_recording("b", seed=2, num_frames=2)
    root = prepare([train], tmp_path / "set", num_bins=NUM_BINS, val=[val])
    counts = np.stack([np.load(p) for p in (root / "train").glob("*/spike_vox/*.npy")]).astype(np.float64)
    info = open_dataset(root)
    assert info.stats.mean == pytest.approx(np.log1p(counts).mean(), rel=1e-12)
    assert info.stats.std == pytest.approx(np.log1p(counts).std(), rel=1e-12)


def test_mean_and_std_of_a_count_seen_once_beside_an_empty_one():
    mean, std = log1p_mean_std({1.0: 1, 0.0: 1})
    assert (mean, std) == pytest.approx((math.log(2) / 2, math.log(2) / 2))


@pytest.mark.parametrize(
    ("value", "dtype"),
    [(255, np.uint8), (257, np.uint16), (2.5, np.float16), (70000, np.float32), (np.float32(1) / 3, np.float32)],
)
def test_counts_are_stored_in_the_smallest_type_that_holds_them_exactly(value: float, dtype: type):
    counts = narrow(torch.tensor([[[0.0, float(value)]]]))
    assert counts.dtype == dtype and counts.ravel().tolist() == [0, value]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float16, np.float32])
def test_each_count_is_met_as_often_as_it_occurs(dtype: type):
    counts = np.array([3, 0, 3, 1, 0, 3], dtype=dtype).reshape(1, 2, 3)
    assert occurrences(counts) == {0.0: 2, 1.0: 1, 3.0: 3}


def test_the_density_of_an_exposure_is_the_mean_log1p_count_of_its_whole_frame(make_recording: MakeRecording, tmp_path):
    root = prepare([make_recording("a", num_frames=2)], tmp_path / "set", num_bins=NUM_BINS, val_fraction=0)
    sequence = open_dataset(root).train[0]
    for stem, density in zip(["000000", "000001"], sequence.densities, strict=True):
        counts = np.load(sequence.folder / "spike_vox" / f"{stem}.npy").astype(np.float64)
        assert density == pytest.approx(np.log1p(counts).mean(), rel=1e-6)  # log1p is taken in float32


def test_shared_ticks_make_bins_of_fewer_ticks_than_bins(make_recording: MakeRecording, tmp_path):
    recording = open_recording(make_recording("a", ticks=3, num_frames=3))
    root = prepare([recording.root], tmp_path / "set", num_bins=4, binning="fractional", val_fraction=0)
    assert open_dataset(root).binning == "fractional"
    counts = np.load(root / "train" / "a" / "spike_vox" / "000000.npy")
    spikes = recording.read_exposure_spikes(0)
    assert counts.dtype == np.float16
    np.testing.assert_array_equal(counts[0], spikes[0] * 0.75)
    np.testing.assert_array_equal(counts[1], spikes[0] * 0.25 + spikes[1] * 0.5)


def test_the_same_recordings_give_the_same_bytes_wherever_they_are_written(make_recording: MakeRecording, tmp_path):
    paths = [make_recording(name, seed=i, num_frames=2) for i, name in enumerate("abc")]
    first = prepare(paths, tmp_path / "one", num_bins=NUM_BINS, val_fraction=0.4, seed=7)
    second = prepare(paths, tmp_path / "two", num_bins=NUM_BINS, val_fraction=0.4, seed=7)
    assert contents(first) == contents(second)


def test_one_changed_pixel_changes_the_data_hash(make_recording: MakeRecording, tmp_path):
    frames = np.zeros((2, 14, 22, 3), dtype=np.uint8)
    hashes = []
    for value in (0, 1):
        frames[1, 13, 21, 2] = value
        path = make_recording(f"day{value}/a", num_frames=2, frames=frames)
        root = prepare([path], tmp_path / f"set{value}", num_bins=NUM_BINS, val_fraction=0)
        hashes.append(open_dataset(root).data_hash)
    assert hashes[0] != hashes[1]


# --- the split ------------------------------------------------------------------------------------------------------


def test_recordings_of_one_source_are_never_in_both_splits(make_recording: MakeRecording, tmp_path):
    paths = [make_recording(f"r{i}", seed=i, num_frames=1, source="xyz"[i % 3]) for i in range(7)]
    for seed in range(5):
        root = prepare(paths, tmp_path / f"set{seed}", num_bins=NUM_BINS, val_fraction=0.3, seed=seed)
        values = json.loads((root / "dataset.json").read_text())
        sources = [{int(name[1]) % 3 for name in values[split]} for split in ("train", "val")]
        assert sources[0] and sources[1] and not sources[0] & sources[1]


def test_a_list_of_validation_recordings_is_obeyed(make_recording: MakeRecording, tmp_path):
    a, b, c = (make_recording(name, num_frames=1, source="one") for name in "abc")
    info = open_dataset(prepare([a, c], tmp_path / "set", num_bins=NUM_BINS, val=[b]))
    assert [s.name for s in info.train] == ["a", "c"] and [s.name for s in info.val] == ["b"]


def test_one_source_cannot_be_split(make_recording: MakeRecording, tmp_path):
    paths = [make_recording(name, num_frames=1, source="one") for name in "ab"]
    with pytest.raises(ValueError, match="val_fraction: 0.1, but all 2 recordings come from one source"):
        prepare(paths, tmp_path / "set", num_bins=NUM_BINS)
    assert not (tmp_path / "set").exists()


def test_a_fraction_of_one_is_refused(make_recording: MakeRecording, tmp_path):
    with pytest.raises(ValueError, match=r"val_fraction: 1.0; allowed: 0 or more, below 1"):
        prepare([make_recording("a")], tmp_path / "set", num_bins=NUM_BINS, val_fraction=1.0)


# --- dropped frames -------------------------------------------------------------------------------------------------


def test_a_frame_whose_clock_and_ticks_disagree_is_dropped_with_the_reason(make_recording: MakeRecording, tmp_path):
    root = prepare([make_recording("a", t1_late_ticks=3)], tmp_path / "set", num_bins=NUM_BINS, val_fraction=0)
    folder = root / "train" / "a"
    assert (folder / "dropped.log").read_text().splitlines()[1:] == [
        "2 lasts 20.00 ticks by the clock, but its window holds 17"
    ]
    assert [line.split()[0] for line in (folder / "alignment.log").read_text().splitlines()[1:]] == ["0", "1", "3", "4"]
    assert not (folder / "blur" / "000002.npy").exists()
    assert json.loads((root / "dataset.json").read_text())["num_dropped"] == 1
    assert (open_dataset(root).num_frames, open_dataset(root).num_dropped) == (4, 1)


def test_a_frame_without_a_spike_is_dropped_with_the_reason(make_recording: MakeRecording, tmp_path):
    spikes = np.ones((2 * (NUM_TICKS + 3), 7, 11), dtype=np.uint8)
    spikes[: NUM_TICKS + 3] = 0
    spikes[-9:, 0, 0] = 0
    settings = {"num_bins": NUM_BINS, "val_fraction": 0, "ignore_health": ["empty ticks"]}
    root = prepare([make_recording("a", num_frames=2, spikes=spikes)], tmp_path / "set", **settings)
    reason = "0 no spike in 17 ticks; is the shutter closed, or the stream dead?"
    assert (root / "train" / "a" / "dropped.log").read_text().splitlines()[1:] == [reason]


def test_a_frame_with_a_damaged_picture_is_dropped_with_the_reason(make_recording: MakeRecording, tmp_path):
    path = make_recording("a", num_frames=2)
    picture = path / "sharp" / "000001.png"

    def damage(done: int, total: int) -> None:  # after the recording was opened and found whole
        picture.write_bytes(picture.read_bytes()[:-40])

    root = prepare([path], tmp_path / "set", num_bins=NUM_BINS, val_fraction=0, progress=damage)
    (line,) = (root / "train" / "a" / "dropped.log").read_text().splitlines()[1:]
    assert line.startswith("1 ") and "000001.png: damaged image" in line
    assert len(open_dataset(root).train[0].exposures) == 1


# --- the health gate ------------------------------------------------------------------------------------------------


def test_a_dead_pixel_is_filled_in_the_voxels_as_the_restorer_fills_it(
    recording_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    whole = open_recording(recording_folder)
    spikes = whole.spikes.read(0, whole.num_ticks)
    spikes[:, 13, 17] = 0
    with SpikeWriter(whole.spikes.path, whole.spikes.geometry) as writer:
        writer.append(spikes)
    root = prepare([recording_folder], tmp_path / "set", num_bins=NUM_BINS, val_fraction=0)
    told = f"spikevrt: {recording_folder}: 1 bad spike pixel, filled from the neighbours (see `inspect`)\n"
    assert capsys.readouterr().err == told
    assert json.loads((root / "train/waves/sequence.json").read_text())["spikes"]["bad_pixels"] == [[13, 17]]
    admitted = admit(open_recording(recording_folder))
    for frame in range(3):
        counts = np.load(root / "train/waves/spike_vox" / f"{frame:06d}.npy").astype(np.float32)
        np.testing.assert_array_equal(counts, frame_counts(admitted, frame, num_bins=NUM_BINS).numpy())
        assert counts[:, 13, 17].all()


def test_a_sound_recording_is_prepared_without_a_word(
    recording_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    prepare([recording_folder], tmp_path / "set", num_bins=NUM_BINS, val_fraction=0)
    assert capsys.readouterr().err == ""


@pytest.fixture
def flipped(tmp_path: Path) -> Path:
    """Its recording.json says that the top row is stored first, which is not so."""
    options = SimulateOptions(frames=2, width=96, height=64, exposure_ticks=32, period_ticks=32, num_layers=0)
    root = simulate_recording(PHOTO, tmp_path / "cat", options).root
    values = json.loads((root / "recording.json").read_text())
    values["spikes"]["rows"] = "top-down"
    (root / "recording.json").write_text(json.dumps(values))
    return root


def test_a_flipped_recording_is_refused_by_name_unless_the_finding_is_ignored(flipped: Path, tmp_path: Path):
    with pytest.raises(ValueError, match=r"cat: orientation: .*; allowed: .* or `ignore_health` orientation"):
        prepare([flipped], tmp_path / "set", num_bins=NUM_BINS, val_fraction=0)
    assert not (tmp_path / "set").exists()
    root = prepare(
        [flipped], tmp_path / "set", num_bins=NUM_BINS, val_fraction=0, ignore_health=["orientation", "channel order"]
    )
    assert open_dataset(root).num_frames == 2


def test_a_damaged_blurry_picture_that_the_gate_would_look_at_drops_its_frame_alone(
    make_recording: MakeRecording, tmp_path: Path
):
    path = make_recording("a", num_frames=3)

    def damage(done: int, total: int) -> None:  # after the recording was opened and found whole
        picture = path / "blur" / "000002.png"
        picture.write_bytes(picture.read_bytes()[:-40])

    root = prepare([path], tmp_path / "set", num_bins=NUM_BINS, val_fraction=0, progress=damage)
    (line,) = (root / "train" / "a" / "dropped.log").read_text().splitlines()[1:]
    assert line.startswith("2 ") and "000002.png: damaged image" in line


def test_a_recording_whose_blurry_pictures_are_all_damaged_is_refused_with_the_reason(
    make_recording: MakeRecording, tmp_path: Path
):
    path = make_recording("a", num_frames=2)

    def damage(done: int, total: int) -> None:
        for picture in (path / "blur").iterdir():
            picture.write_bytes(picture.read_bytes()[:-40])

    with pytest.raises(ValueError, match=r"a: no frame can be used; the first: .*000000\.png: damaged image"):
        prepare([path], tmp_path / "set", num_bins=NUM_BINS, val_fraction=0, progress=damage)


def test_what_the_gate_cannot_tell_is_said_in_one_line(
    recording_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    sidecar = recording_folder / "recording.json"
    values = json.loads(sidecar.read_text())
    values["exposures"], values["frames"]["count"] = values["exposures"][:1], 1
    sidecar.write_text(json.dumps(values))
    for index in (1, 2):
        for folder in ("blur", "sharp"):
            (recording_folder / folder / f"{index:06}.png").unlink()
    prepare([recording_folder], tmp_path / "set", num_bins=NUM_BINS, val_fraction=0)
    told = capsys.readouterr().err
    assert told.startswith(f"spikevrt: {recording_folder}: cannot tell: time offset: ")
    assert told.count("\n") == 1


# --- dataset folders of other layouts -------------------------------------------------------------------------------


def test_a_dataset_folder_is_prepared_with_its_own_split_and_says_what_it_lacked(tmp_path: Path):
    make_spk_gopro(tmp_path / "gopro")
    missing = tmp_path / "gopro/GOPRO_Large_spike_seq/train/GOPR0884_11_00/spike/000047.dat"
    missing.unlink()
    root = prepare([tmp_path / "gopro"], tmp_path / "set", layout=LayoutOptions(exposure_ticks=40))
    info = open_dataset(root)
    assert [s.name for s in info.train] == ["GOPR0372_07_00", "GOPR0884_11_00"]
    assert [s.name for s in info.val] == ["GOPR0854_13_00"]
    assert (info.num_frames, info.num_dropped) == (5, 1)
    assert {e.num_ticks for s in (*info.train, *info.val) for e in s.exposures} == {40}
    log = (root / "train/GOPR0884_11_00/dropped.log").read_text().splitlines()
    assert len(log) == 2 and log[1].startswith("47 no spike file for ")


@pytest.mark.parametrize("name", sorted(set(MAKERS) - {"rsb"}))
def test_every_layout_with_sharp_frames_becomes_a_dataset_that_both_ways_read_alike(tmp_path: Path, name: str):
    root = prepare([MAKERS[name](tmp_path / "theirs")], tmp_path / "set")
    settings = {"root": str(root), "clip_frames": 1, "crop_px": 12, "augment": True}
    spikes = SpikeInputs(num_bins=open_dataset(root).num_bins)
    cached, raw = (ClipDataset(DataConfig(voxels=voxels, **settings), spikes) for voxels in ("precomputed", "raw"))
    assert len(cached) > 0
    for item in range(len(cached)):
        assert torch.equal(cached[item]["spike_vox"], raw[item]["spike_vox"])
    sequences = open_dataset(root).val
    for sequence in sequences:
        recording = sequence.as_recording()
        for position, exposure in enumerate(sequence.exposures):
            counts = frame_counts(recording, position, num_bins=spikes.num_bins)
            assert np.array_equal(counts, np.load(sequence.path("spike_vox", exposure.frame_idx)))
    assert sequences


def test_a_dataset_folder_without_sharp_frames_is_refused(tmp_path: Path):
    make_rsb(tmp_path / "rsb")
    with pytest.raises(ValueError, match="car: has no sharp frames; training and validation need them"):
        prepare([tmp_path / "rsb"], tmp_path / "set")


def test_a_dataset_folder_and_recordings_make_one_set(make_recording: MakeRecording, tmp_path: Path):
    make_spk_gopro(tmp_path / "gopro")
    settings = {"num_bins": NUM_BINS, "val_fraction": 0}
    info = open_dataset(prepare([make_recording("a"), tmp_path / "gopro"], tmp_path / "set", **settings))
    assert [s.name for s in info.train] == ["GOPR0372_07_00", "GOPR0884_11_00", "a"]


def test_recordings_for_validation_are_refused_beside_a_dataset_folder(make_recording: MakeRecording, tmp_path: Path):
    make_spk_gopro(tmp_path / "gopro")
    with pytest.raises(ValueError, match=r"val: .*/b, but .*gopro brings its own split; allowed: none with a dataset"):
        prepare([make_recording("a"), tmp_path / "gopro"], tmp_path / "set", val=[make_recording("b")])
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize(("name", "value"), [("val_fraction", 0.2), ("seed", 5)])
def test_a_choice_for_validation_is_refused_where_the_dataset_brings_its_split(tmp_path: Path, name: str, value: float):
    make_spk_gopro(tmp_path / "gopro")
    with pytest.raises(ValueError, match=rf"{name}: {value}, but .*gopro brings its own split; allowed: none"):
        prepare([tmp_path / "gopro"], tmp_path / "set", **{name: value})


def test_a_dataset_folder_without_a_training_part_is_refused(tmp_path: Path):
    make_spk_gopro(tmp_path / "gopro")
    shutil.rmtree(tmp_path / "gopro/GOPRO_Large/train")
    with pytest.raises(ValueError, match="recordings: none for training, and mean and std are measured there"):
        prepare([tmp_path / "gopro"], tmp_path / "set")
    assert not (tmp_path / "set").exists()


# --- refusals -------------------------------------------------------------------------------------------------------


def test_fewer_ticks_than_bins_is_an_error_not_a_row_of_empty_bins(make_recording: MakeRecording, tmp_path):
    """Fault 2: 10 ticks spread over 32 bins leave 22 bins empty for ever."""
    with pytest.raises(ValueError, match="a: no frame can be used; the first: num_bins: 32 bins for 10 ticks"):
        prepare([make_recording("a", ticks=10)], tmp_path / "set", num_bins=32, val_fraction=0)
    assert [p.name for p in tmp_path.iterdir()] == ["recordings"]  # nothing half-written


def test_an_existing_folder_is_refused_and_kept(make_recording: MakeRecording, tmp_path):
    path = make_recording("a", num_frames=1)
    (tmp_path / "set").mkdir()
    with pytest.raises(FileExistsError, match="set: exists; choose another --out or pass --overwrite"):
        prepare([path], tmp_path / "set", num_bins=NUM_BINS, val_fraction=0)


def test_overwrite_replaces_a_dataset(make_recording: MakeRecording, tmp_path):
    out = prepare([make_recording("a", num_frames=1)], tmp_path / "set", num_bins=NUM_BINS, val_fraction=0)
    prepare([make_recording("b", num_frames=1)], out, num_bins=NUM_BINS, val_fraction=0, overwrite=True)
    assert [s.name for s in open_dataset(out).train] == ["b"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["recordings", "set"]


def test_overwrite_never_replaces_a_folder_that_is_no_dataset(make_recording: MakeRecording, tmp_path):
    path = make_recording("a", num_frames=1)
    precious = tmp_path / "set" / "thesis.tex"
    precious.parent.mkdir()
    precious.write_text("years")
    with pytest.raises(FileExistsError, match=r"set: exists and holds no dataset\.json, so it is not overwritten"):
        prepare([path], tmp_path / "set", num_bins=NUM_BINS, val_fraction=0, overwrite=True)
    assert precious.read_text() == "years"


def test_a_failed_overwrite_leaves_the_old_dataset(make_recording: MakeRecording, tmp_path):
    out = prepare([make_recording("a", num_frames=1)], tmp_path / "set", num_bins=NUM_BINS, val_fraction=0)
    before = contents(out)
    with pytest.raises(ValueError):
        prepare([make_recording("b", sharp=False)], out, num_bins=NUM_BINS, val_fraction=0, overwrite=True)
    assert contents(out) == before


def test_a_recording_without_sharp_frames_is_refused(make_recording: MakeRecording, tmp_path):
    with pytest.raises(ValueError, match="a: has no sharp frames; training and validation need them"):
        prepare([make_recording("a", sharp=False)], tmp_path / "set", num_bins=NUM_BINS, val_fraction=0)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"frames": "jpg"}, "frames: 'jpg'; allowed: npy, png"),
        ({"binning": "half"}, "binning: 'half'; allowed: whole, start, fractional"),
        ({"num_bins": 0}, "num_bins: 0; allowed: 1 or more"),
        ({"ignore_health": ["colour"]}, "ignore_health: 'colour'; allowed: spikes, dead pixels, "),
        ({"layout": LayoutOptions(blur="blur")}, "a: a recording tells all by itself; allowed: options of layouts for"),
    ],
)
def test_a_setting_that_cannot_be_obeyed_is_refused(
    make_recording: MakeRecording, tmp_path, setting: dict, message: str
):
    with pytest.raises(ValueError, match=message):
        prepare([make_recording("a")], tmp_path / "set", **{"num_bins": NUM_BINS, "val_fraction": 0} | setting)
    assert not (tmp_path / "set").exists()


def test_two_recordings_of_one_name_are_refused(make_recording: MakeRecording, tmp_path):
    paths = [make_recording("day1/car", num_frames=1), make_recording("day2/car", num_frames=1)]
    with pytest.raises(ValueError, match=r"day2/car: its name is taken by .*day1/car; rename one of the two"):
        prepare(paths, tmp_path / "set", num_bins=NUM_BINS, val_fraction=0)


def test_a_recording_given_twice_is_told_so(make_recording: MakeRecording, tmp_path: Path):
    path, alias = make_recording("rec/b", num_frames=1), tmp_path / "other" / "b"
    alias.parent.mkdir()
    alias.symlink_to(path)
    for val in (path, alias):
        with pytest.raises(ValueError, match=r"/b: given for training and for validation \(`val`\); name"):
            prepare([path.parent], tmp_path / "set", num_bins=NUM_BINS, val=[val])
    with pytest.raises(ValueError, match="rec/b: given twice; name the recordings one by one, each once"):
        prepare([path.parent, path], tmp_path / "set", num_bins=NUM_BINS, val_fraction=0)
    assert not (tmp_path / "set").exists()


def test_a_dataset_is_never_written_over_what_it_is_made_of(make_recording: MakeRecording, tmp_path: Path):
    path = make_recording("rec/a", num_frames=1)
    (path / "dataset.json").touch()  # as if each were an earlier dataset
    (path.parent / "dataset.json").touch()
    before = contents(path.parent)
    (tmp_path / "alias").symlink_to(path.parent)
    for out in (path, path.parent, tmp_path / "alias"):
        with pytest.raises(FileExistsError, match=r"(is|holds) what is read( \(.*\))?, and would be lost"):
            prepare([path], out, num_bins=NUM_BINS, val_fraction=0, overwrite=True)
    assert contents(path.parent) == before


def test_a_recording_whose_name_holds_control_characters_is_refused_before_anything_is_written(
    make_recording: MakeRecording, tmp_path: Path
):
    path, told = make_recording("n\tame", num_frames=1), []
    with pytest.raises(ValueError, match=r"n\\tame': cannot name a sequence; allowed: no control characters"):
        prepare([path], tmp_path / "set", num_bins=NUM_BINS, val_fraction=0, progress=lambda *done: told.append(done))
    assert not told


def test_spikes_that_say_nothing_are_refused(make_recording: MakeRecording, tmp_path):
    spikes = np.ones((NUM_TICKS + 3, 7, 11), dtype=np.uint8)
    with pytest.raises(ValueError, match="every bin of the training set holds the same count"):
        settings = {"num_bins": 1, "val_fraction": 0, "ignore_health": ["spikes"]}
        prepare([make_recording("a", num_frames=1, spikes=spikes)], tmp_path / "set", **settings)


def test_no_recordings_are_refused(tmp_path):
    with pytest.raises(ValueError, match="recordings: none given; allowed: one or more"):
        prepare([], tmp_path / "set")


def test_a_missing_recording_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="stret: no such recording"):
        prepare([tmp_path / "stret"], tmp_path / "set")


# --- recordings without sharp frames ----------------------------------------------------------------------------------


def test_recordings_without_sharp_frames_make_a_dataset_that_says_so(make_recording: MakeRecording, tmp_path: Path):
    a, b, c = (make_recording(name, seed=i, num_frames=3, sharp=False) for i, name in enumerate("abc"))
    root = prepare([a, b], tmp_path / "set", num_bins=NUM_BINS, val=[c], without_sharp=True)
    assert not list(root.rglob("sharp")) and len(list(root.glob("train/a/blur/*.npy"))) == 3
    assert json.loads((root / "train/a/sequence.json").read_text())["frames"]["sharp"] == "none"
    assert not any(sequence.has_sharp for sequence in (*open_dataset(root).train, *open_dataset(root).val))


def test_recordings_with_sharp_frames_give_the_same_bytes_with_and_without_leave(
    make_recording: MakeRecording, tmp_path: Path
):
    path = make_recording("a", num_frames=2)
    settings = {"num_bins": NUM_BINS, "val_fraction": 0}
    plain = contents(prepare([path], tmp_path / "one", **settings))
    assert contents(prepare([path], tmp_path / "two", without_sharp=True, **settings)) == plain
    assert b'"sharp"' not in plain["train/a/sequence.json"]  # as it was before: no dataset is to be prepared again


def test_validation_may_have_sharp_frames_where_training_has_none(make_recording: MakeRecording, tmp_path: Path):
    a, b = make_recording("a", num_frames=2, sharp=False), make_recording("b", num_frames=2)
    info = open_dataset(prepare([a], tmp_path / "set", num_bins=NUM_BINS, val=[b], without_sharp=True))
    assert [sequence.has_sharp for sequence in (*info.train, *info.val)] == [False, True]


def test_a_split_in_which_only_some_have_sharp_frames_is_refused(make_recording: MakeRecording, tmp_path: Path):
    a, b = make_recording("a", num_frames=2, sharp=False), make_recording("b", num_frames=2)
    with pytest.raises(
        ValueError, match=r"a: has no sharp frames, but .*b has, for train too; allowed: all of a split"
    ):
        prepare([a, b], tmp_path / "set", num_bins=NUM_BINS, val_fraction=0, without_sharp=True)
    assert not (tmp_path / "set").exists()


def test_a_test_set_without_sharp_frames_is_split_like_recordings(tmp_path: Path):
    make_rsb(tmp_path / "rsb")
    options = LayoutOptions(exposure_ticks=40)
    root = prepare([tmp_path / "rsb"], tmp_path / "set", val_fraction=0, without_sharp=True, layout=options)
    info = open_dataset(root)
    assert [s.name for s in info.train] == ["car"] and info.val == ()
    assert {exposure.num_ticks for exposure in info.train[0].exposures} == {40}
