"""ClipDataset: the same sample by every path, one field of view, settings obeyed or refused."""

from __future__ import annotations

import dataclasses
import itertools
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from spikevrt.config import DataConfig, DegradeConfig, SpikeInputs
from spikevrt.data.dataset import ClipDataset, check_sequences, collate, draw_crop, open_dataset
from spikevrt.recording.alignment import Alignment, write_alignment
from spikevrt.recording.frames import write_image
from spikevrt.recording.recording import Recording, open_recording
from spikevrt.represent.voxel import VoxelStats, normalise, voxelise
from spikevrt.restore.options import RestoreOptions
from spikevrt.restore.segments import FrameInputs, ReadSpec, Seen, read_clips
from spikevrt.train.validation import clips_of
from tests.data.conftest import NUM_BINS, NUM_TICKS, MakeRecording, prepare

CROP = 6


INPUTS = ("num_bins", "binning", "normalize", "representation", "relight")  # settings of what enters a network


def clips(
    root: Path, *, spikes: bool = True, stats: VoxelStats | None = None, seed: int = 123, **changes
) -> ClipDataset:
    """A dataset with these settings of `DataConfig` and `SpikeInputs`; bins as they were prepared."""
    info = open_dataset(root)
    inputs = {"num_bins": info.num_bins, "binning": info.binning}
    inputs |= {name: changes.pop(name) for name in INPUTS if name in changes}
    data = {"clip_frames": 3, "crop_px": CROP, "augment": True, **changes}
    return ClipDataset(
        DataConfig(root=str(root), **data), SpikeInputs(**inputs) if spikes else None, stats=stats, seed=seed
    )


def entering(spikes: SpikeInputs, stats: VoxelStats, recording: Recording) -> list[FrameInputs]:
    """What the restorer gives a network, frame by frame."""
    spec = ReadSpec(RestoreOptions(clip_frames=0), spikes, stats)
    return [inputs for clip in read_clips(recording, spec, Seen()) for inputs in clip.inputs]


def assert_same(first: dict, second: dict) -> None:
    assert first.keys() == second.keys() and first["meta"] == second["meta"]
    for key in first.keys() - {"meta"}:
        assert torch.equal(first[key], second[key]), key


# --- what a sample is -----------------------------------------------------------------------------------------------


def test_a_sample_has_the_shapes_types_and_meta_of_the_specification(root: Path):
    sample = clips(root, augment=False)[1]
    assert {key: tuple(sample[key].shape) for key in ("blur", "sharp", "spike_vox")} == {
        "blur": (3, 3, 6, 6),
        "sharp": (3, 3, 6, 6),
        "spike_vox": (3, NUM_BINS, 3, 3),
    }
    assert all(
        sample[key].dtype == torch.float32 and sample[key].is_contiguous() for key in ("blur", "sharp", "spike_vox")
    )
    assert sample["meta"] == {
        "seq": "a",
        "frame_idx": [1, 2, 3],
        "t0": [0.02, 0.04, 0.06],
        "t1": [0.037, 0.057, 0.077],
    }
    assert sample["blur"].min() >= 0 and sample["blur"].max() <= 1


@pytest.mark.parametrize("augment", [False, True])
def test_voxels_from_the_cache_equal_voxels_from_the_stream_bit_for_bit(root: Path, augment: bool):
    """Fault 3: log1p and standardisation on one loading path and not on the other."""
    for crop_px, normalize in ((CROP, "none"), (14, "none"), (CROP, "density")):
        settings = {"crop_px": crop_px, "augment": augment, "normalize": normalize}
        cached, streamed = (clips(root, voxels=voxels, **settings) for voxels in ("precomputed", "raw"))
        for item in range(len(cached)):
            assert_same(cached[item], streamed[item])


@pytest.mark.parametrize("bins", [4, 5])  # quarters are exact in float16, fifths are not
def test_shared_ticks_are_the_same_by_both_paths(make_recording: MakeRecording, tmp_path: Path, bins: int):
    root = prepare(
        [make_recording("a", ticks=3)], tmp_path / "set", num_bins=bins, binning="fractional", val_fraction=0
    )
    cached, streamed = (clips(root, voxels=voxels, binning="fractional") for voxels in ("precomputed", "raw"))
    for item in range(len(cached)):
        assert_same(cached[item], streamed[item])


def test_bins_by_the_start_of_a_tick_are_the_same_by_both_paths_and_others_than_whole_ones(
    make_recording: MakeRecording, tmp_path: Path
):
    recording = make_recording("a")
    found = {}
    for binning in ("whole", "start"):
        root = prepare([recording], tmp_path / binning, num_bins=NUM_BINS, binning=binning, val_fraction=0)
        cached, streamed = (clips(root, voxels=voxels, binning=binning) for voxels in ("precomputed", "raw"))
        assert_same(cached[0], streamed[0])
        found[binning] = np.load(root / "train" / "a" / "spike_vox" / "000000.npy")
    whole, start = found["whole"], found["start"]
    assert (whole != start).any() and np.array_equal(whole.sum(0), start.sum(0))  # 17 ticks in 5 bins


def test_pictures_mapped_and_decoded_are_the_same(make_recording: MakeRecording, tmp_path: Path):
    recording = make_recording("a")
    mapped, decoded = (
        clips(prepare([recording], tmp_path / kind, num_bins=NUM_BINS, frames=kind, val_fraction=0))
        for kind in ("npy", "png")
    )
    for item in range(len(mapped)):
        assert_same(mapped[item], decoded[item])


def test_normalised_density_brings_every_whole_frame_to_the_mean_of_the_training_set(root: Path):
    dataset = clips(root, crop_px=0, augment=False, clip_frames=7, normalize="density")
    for item in range(len(dataset)):
        for voxels_Khw in dataset[item]["spike_vox"]:
            assert voxels_Khw.mean().item() == pytest.approx(0, abs=1e-5)
    plain = clips(root, crop_px=0, augment=False, clip_frames=7)
    assert max(abs(voxels.mean().item()) for voxels in plain[0]["spike_vox"]) > 1e-3


def test_a_crop_is_brought_to_the_density_of_its_whole_frame(root: Path):
    whole, crop = (
        clips(root, crop_px=crop_px, augment=False, normalize="density", clip_frames=7) for crop_px in (None, CROP)
    )
    sample = crop[0]
    pieces = whole[0]["spike_vox"].unfold(-2, 3, 1).unfold(-2, 3, 1)  # every place of a 3x3 crop
    same = (pieces.permute(2, 3, 0, 1, 4, 5) == sample["spike_vox"]).flatten(2).all(-1)
    assert same.any()


@pytest.mark.parametrize("representation", ["counts", "profile"])
def test_what_enters_a_network_is_what_the_restorer_makes_of_the_recording(
    root: Path, tmp_path: Path, representation: str
):
    recording = open_recording(tmp_path / "recordings" / "a")
    common = {"crop_px": 0, "augment": False, "voxels": "raw"}
    dataset = clips(root, representation=representation, relight=True, **common)
    sample = dataset[2]
    spikes = SpikeInputs(num_bins=NUM_BINS, representation=representation, relight=True)
    stats = dataset.info.stats
    inputs = entering(spikes, stats, recording)
    for place, frame in enumerate(range(2, 5)):
        lit, voxels = inputs[frame][:2]
        assert torch.equal(sample["frames"][place], lit)
        assert torch.equal(sample["spike_vox"][place], voxels)
    assert not torch.equal(sample["frames"], sample["blur"])
    assert torch.equal(sample["blur"], clips(root, **common)[2]["blur"])


def test_a_profile_is_cut_and_worsened_with_its_frames_and_absent_spikes_light_nothing(root: Path):
    common = {"representation": "profile", "relight": True, "voxels": "raw"}
    whole = clips(root, crop_px=0, augment=False, **common)[0]["spike_vox"].unfold(-2, 3, 1).unfold(-2, 3, 1)
    sample = clips(root, augment=False, **common)[0]
    pieces = whole.permute(2, 3, 0, 1, 4, 5)  # every place of a 3x3 crop
    assert ((pieces - sample["spike_vox"]).abs() < 1e-5).flatten(2).all(-1).any()
    worse = clips(root, degrade=WORSE, **common)[0]
    assert worse["frames"].shape == worse["blur"].shape and not torch.equal(
        worse["frames"], clips(root, **common)[0]["frames"]
    )
    absent = clips(root, spike_dropout=1.0, **common)[0]
    assert torch.equal(absent["frames"], absent["blur"]) and not absent["spike_vox"].any()


def test_profiles_of_a_sequence_with_bad_pixels_are_those_of_the_restorer(
    make_recording: MakeRecording, tmp_path: Path
):
    path = make_recording("a")
    bad_pixels(path)
    root = prepare([path], tmp_path / "set", num_bins=NUM_BINS, val_fraction=0)
    common = {"representation": "profile", "relight": True, "voxels": "raw", "augment": False}
    sample = clips(root, crop_px=0, **common)[0]
    spikes = SpikeInputs(num_bins=NUM_BINS, representation="profile")
    inputs = entering(spikes, VoxelStats(0.0, 1.0), open_recording(path))
    for place in range(3):
        voxels = inputs[place].voxels
        assert torch.equal(sample["spike_vox"][place], voxels)
    part = clips(root, **common)[0]["spike_vox"]
    pieces = sample["spike_vox"].unfold(-2, 3, 1).unfold(-2, 3, 1).permute(2, 3, 0, 1, 4, 5)
    assert ((pieces - part).abs() < 1e-5).flatten(2).all(-1).any()


def shifted(path: Path, ticks: int) -> Path:
    """The recording with its sharp frames so many ticks after the middle; exposures 0 and 4, whose windows would leave
    the stream, stay as they are."""
    values = json.loads((path / "recording.json").read_text())
    for entry in values["exposures"][1:4]:
        entry["shift_ticks"] = ticks
    (path / "recording.json").write_text(json.dumps(values))
    return path


@pytest.mark.parametrize("ticks", [-6, 5])
def test_profiles_of_windows_off_the_exposures_are_those_of_the_restorer(
    make_recording: MakeRecording, tmp_path: Path, ticks: int
):
    path = shifted(make_recording("a"), ticks)
    root = prepare([path], tmp_path / "set", num_bins=NUM_BINS, val_fraction=0)
    common = {"representation": "profile", "relight": True, "voxels": "raw", "augment": False, "crop_px": 0}
    sample = clips(root, clip_frames=5, **common)[0]
    spikes = SpikeInputs(num_bins=NUM_BINS, representation="profile", relight=True)
    recording = open_recording(path)
    inputs = entering(spikes, VoxelStats(0.0, 1.0), recording)
    for place in range(5):
        lit, voxels = inputs[place][:2]
        assert torch.equal(sample["spike_vox"][place], voxels) and torch.equal(sample["frames"][place], lit)
    plain = recording.exposures[2]
    middle = dataclasses.replace(
        recording, exposures=tuple(dataclasses.replace(e, shift_ticks=0) for e in recording.exposures)
    )
    assert not torch.equal(entering(spikes, VoxelStats(0.0, 1.0), middle)[2].voxels, sample["spike_vox"][2])
    assert plain.window == (40 + ticks, 57 + ticks) and open_dataset(root).max_shift_ticks == abs(ticks)


def test_shifted_sharp_frames_are_refused_for_what_cannot_read_their_time(
    make_recording: MakeRecording, tmp_path: Path
):
    root = prepare([shifted(make_recording("a"), 4)], tmp_path / "set", num_bins=NUM_BINS, val_fraction=0)
    for changes in ({}, {"spikes": False}):
        with pytest.raises(ValueError, match=r"sharp frames 4 ticks off the middle .* allowed: representation profile"):
            clips(root, **changes)


@pytest.mark.parametrize("voxels", ["precomputed", "raw"])
def test_voxels_equal_those_that_the_restorer_makes_of_the_recording_bit_for_bit(
    root: Path, tmp_path: Path, voxels: str
):
    recording = open_recording(tmp_path / "recordings" / "a")
    dataset = clips(root, crop_px=0, augment=False, voxels=voxels)
    for frame, voxels_Khw in enumerate(dataset[2]["spike_vox"], start=2):
        spikes = torch.from_numpy(recording.read_exposure_spikes(frame))
        expected = normalise(voxelise(spikes, num_bins=NUM_BINS), dataset.info.stats)
        assert torch.equal(voxels_Khw, expected)


def test_training_voxels_have_mean_zero_and_deviation_one(root: Path):
    dataset = clips(root, crop_px=0, augment=False, clip_frames=7)
    voxels = torch.stack([dataset[item]["spike_vox"] for item in range(len(dataset))]).double()
    assert voxels.mean().item() == pytest.approx(0, abs=1e-6)
    assert voxels.std(correction=0).item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("ratio", [1, 2, 3])
@pytest.mark.parametrize("bottom_up", [True, False])
def test_crops_and_augmentations_show_the_same_scene_in_frames_and_voxels(
    make_recording: MakeRecording, tmp_path: Path, ratio: int, bottom_up: bool
):
    """Faults 8 and 15: every crop, mirror and row order keeps picture and spikes on top of each other."""
    half_Thw = np.random.default_rng(3).integers(0, 2, (2, 7, 11), dtype=np.uint8)
    scene_Thw = np.concatenate([half_Thw, 1 - half_Thw])  # so that no pixel looks dead, hot or stuck
    frames = np.repeat(scene_Thw.repeat(ratio, 1).repeat(ratio, 2)[..., None] * 255, 3, axis=-1)
    spikes = scene_Thw.repeat(NUM_TICKS + 3, axis=0)  # a pixel fires at every tick or at none
    recording = make_recording("a", num_frames=4, frames=frames, spikes=spikes, ratio=ratio, bottom_up=bottom_up)
    root = prepare([recording], tmp_path / "set", num_bins=NUM_BINS, val_fraction=0)
    for voxels in ("precomputed", "raw"):
        dataset = clips(root, crop_px=4 * ratio, voxels=voxels)
        for epoch in range(20):
            dataset.set_epoch(epoch)
            sample = dataset[epoch % len(dataset)]
            fires = (sample["spike_vox"][:, 0] > 0).float()
            seen = fires.repeat_interleave(ratio, 1).repeat_interleave(ratio, 2)
            assert torch.equal(sample["blur"][:, 1], seen) and torch.equal(sample["sharp"][:, 1], seen)


@pytest.mark.parametrize(
    ("voxels", "name", "content", "message"),
    [
        ("precomputed", "spike_vox/000003.npy", b"", r"000003\.npy: damaged array \("),
        ("precomputed", "spike_vox/000003.npy", np.full((NUM_BINS, 7, 11), np.nan), r"000003\.npy: float64 of shape"),
        ("raw", "spike/000003.dat", bytes(10 * (NUM_TICKS - 1)), r"000003\.dat: 16 ticks; allowed: 17"),
        ("raw", "spike/000003.dat", bytes(10 * NUM_TICKS - 1), r"000003\.dat: 169 bytes are no whole number of ticks"),
        (
            "raw",
            "blur/000003.npy",
            np.zeros((15, 22, 3), np.uint8),
            r"000003\.npy: uint8 of shape \(15, 22, 3\); allow",
        ),
        (
            "raw",
            "sharp/000003.npy",
            np.zeros((14, 22, 3)),
            r"000003\.npy: float64 of shape \(14, 22, 3\); allowed: uint8",
        ),
        ("raw", "sharp/000003.npy", b"\x93NUMPY\x01\x00\x05\x00{'a':", r"000003\.npy: damaged array \("),
        ("raw", "sharp/000003.npy", b"PK\x03\x04 a zip", r"000003\.npy: damaged array \("),
    ],
)
def test_a_file_that_was_exchanged_or_cut_is_named(
    root: Path, voxels: str, name: str, content: bytes | np.ndarray, message: str
):
    path = root / "train" / "a" / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content)
    with pytest.raises(ValueError, match=message):
        clips(root, voxels=voxels)[1]


@pytest.mark.parametrize("kind", ["spike_vox", "blur"])
def test_a_truncated_array_is_named(root: Path, kind: str):
    path = root / "train" / "a" / kind / "000003.npy"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"000003\.npy: damaged array \("):
        clips(root)[1]


def test_a_picture_of_another_size_is_named(make_recording: MakeRecording, tmp_path: Path):
    root = prepare([make_recording("a")], tmp_path / "set", num_bins=NUM_BINS, frames="png", val_fraction=0)
    write_image(root / "train" / "a" / "blur" / "000003.png", np.zeros((15, 22, 3), np.uint8))
    with pytest.raises(ValueError, match=r"000003\.png: 22x15 pixels; the recording has 22x14"):
        clips(root)[1]


def test_a_missing_file_is_named(root: Path):
    (root / "train" / "a" / "sharp" / "000003.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"sharp/000003\.npy: no such file; run `spikevrt prepare` again"):
        clips(root)[1]


def test_crops_reach_every_place_between_spike_pixels(root: Path):
    sequence, generator = open_dataset(root).train[0], torch.Generator().manual_seed(1)
    crops = [draw_crop(sequence, CROP, generator) for _ in range(1000)]
    assert {(c.top_px, c.left_px) for c in crops} == set(itertools.product(range(0, 9, 2), range(0, 17, 2)))
    assert {(c.height_px, c.width_px) for c in crops} == {(CROP, CROP)}


def test_without_spikes_no_spike_file_is_opened(root: Path):
    for path in [*root.glob("train/*/spike/*"), *root.glob("train/*/spike_vox/*")]:
        path.unlink()
    assert set(clips(root, spikes=False)[0]) == {"blur", "frames", "sharp", "meta"}


def test_the_twin_without_spikes_sees_the_same_pictures(root: Path):
    with_spikes, without = clips(root)[4], clips(root, spikes=False)[4]
    assert torch.equal(with_spikes["blur"], without["blur"]) and with_spikes["meta"] == without["meta"]


# --- spikes that are absent or worse ----------------------------------------------------------------------------------

WORSE = DegradeConfig(
    probability=1.0, threshold=(1.5, 3.0), noise=0.1, dropped_ticks=0.2, shift_px=2.0, shift_ticks=4.0
)


def test_dropped_spikes_are_zeros_that_say_so_and_no_file_is_opened(root: Path):
    for path in [*root.glob("train/*/spike/*"), *root.glob("train/*/spike_vox/*")]:
        path.unlink()
    sample = clips(root, spike_dropout=1.0)[0]
    assert sample["spikes_present"].dtype == torch.bool and not sample["spikes_present"]
    assert sample["spike_vox"].shape == (3, NUM_BINS, 3, 3) and not sample["spike_vox"].any()


def test_dropout_takes_its_share_and_changes_neither_pictures_nor_other_voxels(root: Path):
    whole, dropping = clips(root), clips(root, spike_dropout=0.5)
    present = []
    for epoch in range(12):
        whole.set_epoch(epoch)
        dropping.set_epoch(epoch)
        for item in range(len(whole)):
            expected, found = whole[item], dropping[item]
            present.append(bool(found.pop("spikes_present")))
            assert torch.equal(expected["blur"], found["blur"]) and torch.equal(expected["sharp"], found["sharp"])
            if present[-1]:
                assert_same(expected, found)
    assert 0.3 < sum(present) / len(present) < 0.7


@pytest.mark.parametrize("normalize", ["none", "density"])
def test_worse_voxels_are_the_same_by_both_paths_and_with_any_number_of_workers(root: Path, normalize: str):
    settings = {"degrade": WORSE, "spike_dropout": 0.25, "normalize": normalize}
    cached, streamed = (clips(root, voxels=voxels, **settings) for voxels in ("precomputed", "raw"))
    for item in range(len(cached)):
        assert_same(cached[item], streamed[item])
    assert not torch.equal(cached[0]["spike_vox"], clips(root, normalize=normalize)[0]["spike_vox"])
    loader = torch.utils.data.DataLoader(clips(root, **settings), batch_size=2, num_workers=2, collate_fn=collate)
    for number, batch in enumerate(loader):
        alone = collate([cached[item] for item in range(2 * number, 2 * number + len(batch["meta"]))])
        assert_same(alone, batch)


def test_a_higher_threshold_leaves_the_density_that_normalisation_promises(root: Path):
    """Fault 14: with `normalize: density` the mean of log1p is the training set's at any threshold."""
    worse = clips(
        root,
        crop_px=14,
        augment=False,
        normalize="density",
        degrade=DegradeConfig(probability=1.0, threshold=(2, 2)),
    )
    same = clips(root, crop_px=14, augment=False, normalize="density")
    for item in range(len(worse)):
        for frame, expected in zip(worse[item]["spike_vox"], same[item]["spike_vox"], strict=True):
            assert float(frame.mean()) == pytest.approx(float(expected.mean()), abs=1e-5)


def without_sharp(root: Path) -> Path:
    """What `prepare` would have made of the same recordings, had they had no sharp frames."""
    for path in root.glob("*/*/sequence.json"):
        shutil.rmtree(path.parent / "sharp")
        values = json.loads(path.read_text())
        values["frames"]["sharp"] = "none"
        path.write_text(json.dumps(values))
    return root


def test_without_sharp_frames_samples_and_batches_have_none_and_are_else_the_same(root: Path):
    before, had = [clips(root)[item] for item in (0, 5)], clips(root).has_sharp
    dataset = clips(without_sharp(root))
    after = [dataset[item] for item in (0, 5)]
    assert (had, dataset.has_sharp, check_sequences(dataset.info, "val", None)) == (True, False, False)
    for old, new in zip(before, after, strict=True):
        del old["sharp"]
        assert_same(old, new)
    assert set(collate(after)) == {"blur", "frames", "spike_vox", "meta"}


def test_a_split_in_which_only_some_sequences_have_sharp_frames_is_refused(root: Path):
    whole = (root / "train/b/sequence.json").read_text()
    without_sharp(root)
    (root / "train/b/sequence.json").write_text(whole)
    with pytest.raises(ValueError, match=r"set/train: only some sequences have sharp frames; allowed: all, or none"):
        clips(root)


def test_sharp_frames_that_are_neither_there_nor_none_are_refused(root: Path):
    path = root / "train/a/sequence.json"
    values = json.loads(path.read_text())
    values["frames"]["sharp"] = "some"
    path.write_text(json.dumps(values))
    with pytest.raises(ValueError, match=r"sequence\.json: frames\.sharp: 'some'; allowed: none$"):
        open_dataset(root)


# --- randomness -----------------------------------------------------------------------------------------------------


def test_an_item_depends_on_seed_epoch_and_number_only(root: Path):
    first, second = clips(root), clips(root)
    for item in (3, 0, 2):
        first[item]
    assert_same(first[1], second[1])


def test_another_seed_and_another_epoch_give_another_sample(root: Path):
    base = [clips(root)[i]["blur"] for i in range(4)]
    later = clips(root)
    later.set_epoch(1)
    other = clips(root, seed=124)
    assert not all(torch.equal(later[i]["blur"], base[i]) for i in range(4))
    assert not all(torch.equal(other[i]["blur"], base[i]) for i in range(4))


@pytest.mark.parametrize("num_workers", [1, 2])
def test_the_number_of_workers_changes_nothing(root: Path, num_workers: int):
    def batches(workers: int) -> list[dict]:
        dataset = clips(root)
        dataset.set_epoch(5)
        return list(torch.utils.data.DataLoader(dataset, batch_size=2, num_workers=workers, collate_fn=collate))

    for alone, shared in zip(batches(0), batches(num_workers), strict=True):
        assert_same(alone, shared)


def test_nothing_that_was_read_is_kept(root: Path):
    """Fault 10: caches multiplied by workers and ranks until the memory ran out."""
    dataset = clips(root, crop_px=14, voxels="precomputed")
    before = pickle.dumps(dataset)
    samples = [dataset[item] for item in range(len(dataset))]
    assert pickle.dumps(dataset) == before and len(samples) == 10


def test_a_sample_does_not_change_the_files_it_was_mapped_from(root: Path):
    path = root / "train" / "a" / "blur" / "000001.npy"
    before = path.read_bytes()
    sample = clips(root, augment=False, crop_px=0)[1]
    for key in ("blur", "sharp", "spike_vox"):
        sample[key].fill_(7)
    assert path.read_bytes() == before


# --- clips ----------------------------------------------------------------------------------------------------------


def test_training_offers_every_stretch_of_consecutive_frames(root: Path):
    dataset = clips(root, augment=False)
    seen = [
        (sample["meta"]["seq"], sample["meta"]["frame_idx"][0]) for sample in (dataset[i] for i in range(len(dataset)))
    ]
    assert seen == [(name, start) for name in "ab" for start in range(5)]


def test_validation_scores_every_frame_of_a_run_exactly_once():
    """Fault 11: frames counted twice by overlapping clips."""
    for clip_frames in range(1, 9):
        indices = [list(clip) for clip in clips_of(range(7), clip_frames)]
        assert sum(indices, []) == list(range(7))
        lengths = [len(part) for part in indices]
        assert max(lengths) <= clip_frames and max(lengths) - min(lengths) <= 1


def test_no_clip_runs_across_a_dropped_frame(make_recording: MakeRecording, tmp_path: Path):
    recording = make_recording("a", num_frames=6, t1_late_ticks=5)  # drops frame 2
    root = prepare([recording], tmp_path / "gap", num_bins=NUM_BINS, val_fraction=0)
    dataset = clips(root, clip_frames=2, augment=False)
    assert [dataset[i]["meta"]["frame_idx"] for i in range(len(dataset))] == [[0, 1], [3, 4], [4, 5]]


def test_a_batch_stacks_samples_and_lists_their_meta(root: Path):
    dataset = clips(root)
    batch = collate([dataset[0], dataset[5]])
    assert batch["blur"].shape == (2, 3, 3, 6, 6) and batch["spike_vox"].shape == (2, 3, NUM_BINS, 3, 3)
    assert [meta["seq"] for meta in batch["meta"]] == ["a", "b"]
    assert torch.equal(batch["sharp"][1], dataset[5]["sharp"])


def test_an_item_past_the_end_is_an_index_error(root: Path):
    dataset = clips(root)
    with pytest.raises(IndexError):
        dataset[len(dataset)]
    assert_same(dataset[-1], dataset[len(dataset) - 1])


# --- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_bins": 32}, "num_bins: 32, but .*set was prepared with 5; allowed: 5, or prepare again"),
        ({"crop_px": 16}, "crop_px: 16 does not fit a of 22x14; allowed: 1 to 14"),
        ({"crop_px": -2}, "crop_px: -2 does not fit a of 22x14"),
        ({"crop_px": 7}, "crop_px: 7 cuts through spike pixels of a; allowed: a multiple of 2"),
        ({"clip_frames": 0}, "clip_frames: 0; allowed: 1 or more"),
        ({"clip_frames": 8}, "clip_frames: 8, but the longest run of frames in .*train is 7; allowed: 1 to 7"),
        ({"crop_px": 0}, "data.augment: true needs data.crop_px"),
        ({"binning": "fractional"}, "binning: 'fractional', but .*set was prepared with 'whole'; allowed: 'whole'"),
        ({"representation": "profile"}, "voxels: 'precomputed'; allowed for representation profile: 'raw'"),
    ],
)
def test_a_setting_that_cannot_be_obeyed_is_refused(root: Path, changes: dict, message: str):
    with pytest.raises(ValueError, match=message) as caught:
        clips(root, **changes)
    assert "\n" not in str(caught.value)


def test_sequences_of_two_spike_ratios_cannot_be_cropped_alike(make_recording: MakeRecording, tmp_path: Path):
    paths = [make_recording(f"r{ratio}", ratio=ratio) for ratio in (1, 2)]
    root = prepare(paths, tmp_path / "set", num_bins=NUM_BINS, val_fraction=0)
    with pytest.raises(ValueError, match=r"crop_px: 6 over sequences of spike ratios \[1, 2\]; allowed: one ratio"):
        clips(root)
    assert len(clips(root, spikes=False)) == 6


def test_an_empty_split_is_refused(make_recording: MakeRecording, tmp_path: Path):
    root = prepare([make_recording("a")], tmp_path / "set", num_bins=NUM_BINS, val_fraction=0)
    with pytest.raises(ValueError, match="val: holds no sequence"):
        check_sequences(open_dataset(root), "val", None)


def test_a_missing_dataset_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"nowhere: no such dataset \(dataset.json is missing"):
        open_dataset(tmp_path / "nowhere")


def test_a_missing_sequence_is_named(root: Path):
    (root / "train" / "b" / "sequence.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"train/b: no such sequence \(sequence.json is missing\)"):
        open_dataset(root)


@pytest.mark.parametrize("name", ["dataset.json", "train/a/sequence.json"])
def test_damaged_descriptions_are_named(root: Path, name: str):
    path = root / name
    whole = path.read_text()
    path.write_text(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=f"{name}: not JSON"):
        open_dataset(root)
    path.write_text(json.dumps({**json.loads(whole), "version": 99}))
    with pytest.raises(
        ValueError, match=f"{name}: format 'spikevrt-.*' version 99; allowed: .* version [23]; run `spikevrt pre"
    ):
        open_dataset(root)
    values = json.loads(whole)
    del values["num_bins" if name == "dataset.json" else "exposures"]
    path.write_text(json.dumps(values))
    with pytest.raises(ValueError, match=f"{name}: (num_bins|exposures) is missing"):
        open_dataset(root)


def test_a_dataset_of_version_1_says_prepare_again(root: Path):
    path = root / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 1}))
    message = "format 'spikevrt-dataset' version 1; allowed: 'spikevrt-dataset' version 3; run `spikevrt prepare` again"
    with pytest.raises(ValueError, match=message) as caught:
        open_dataset(root)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "keys", "value", "message"),
    [
        ("dataset.json", ["num_bins"], 0, "dataset.json: num_bins: 0; allowed: 1 or more"),
        ("dataset.json", ["binning"], "odd", "dataset.json: binning: 'odd'; allowed: whole, start, fractional"),
        ("dataset.json", ["std"], -1.0, "dataset.json: voxel stats: .*std above 0"),
        ("dataset.json", ["train"], [3], r"dataset.json: train\[0\]: 3; allowed: str"),
        ("dataset.json", ["val"], ["a\nb"], r"dataset.json: val: .*; allowed: names of sequences"),
        ("dataset.json", ["val"], ["../a"], r"dataset.json: val: \['../a'\]; allowed: names of sequences"),
        ("dataset.json", ["val"], ["\ud800"], r"dataset.json: val: .*; allowed: names of sequences"),
        ("train/a/sequence.json", ["spikes", "width"], 0, "spikes.width: 0; allowed: 1 or more"),
        ("train/a/sequence.json", ["spikes", "rows"], "up", "spikes.rows: 'up'; allowed: bottom-up, top-down"),
        ("train/a/sequence.json", ["frames", "format"], "exe", "frames.format: 'exe'; allowed: npy, png"),
        ("train/a/sequence.json", ["spikes", "cells"], "no", "cells: 'no'; allowed: sensor"),
        ("train/a/sequence.json", ["spikes", "ratio"], 0, "spikes.ratio: 0; allowed: 1 or more"),
        (
            "train/a/sequence.json",
            ["spikes", "bad_pixels"],
            [[7, 0]],
            r"bad_pixels: \[7, 0\]; allowed: \[row, column\]",
        ),
        ("train/a/sequence.json", ["spikes", "bad_pixels"], ["00"], r"bad_pixels\[0\]: '00'; allowed: list"),
        ("train/a/sequence.json", ["exposures"], [], r"exposures: \[\]; allowed: one or more"),
        ("train/a/sequence.json", ["exposures"], [{"frame_idx": "0"}], r"exposures\[0\].frame_idx: '0'; allowed: int"),
    ],
)
def test_a_wrong_value_in_a_description_is_named(root: Path, name: str, keys: list[str], value: object, message: str):
    path = root / name
    values = json.loads(path.read_text())
    node = values
    for key in keys[:-1]:
        node = node[key]
    node[keys[-1]] = value
    path.write_text(json.dumps(values))
    with pytest.raises(ValueError, match=message) as caught:
        open_dataset(root)
    assert "\n" not in str(caught.value)


def test_a_voxel_file_of_another_shape_is_named(root: Path):
    path = root / "train" / "a" / "spike_vox" / "000000.npy"
    np.save(path, np.zeros((NUM_BINS, 11, 7), dtype=np.uint8))
    with pytest.raises(
        ValueError, match=r"000000.npy: uint8 of shape \(5, 11, 7\); allowed: uint8 or .* of shape \(5, 7, 11\)"
    ):
        clips(root)[0]


# --- registered recordings, bad pixels ------------------------------------------------------------------------------

SHIFT = ((0.5, 0.0, 0.3), (0.0, 0.5, -0.2), (0.0, 0.0, 1.0))  # ratio 2, moved by a part of a pixel


def bad_pixels(recording: Path) -> None:
    sidecar = recording / "recording.json"
    values = json.loads(sidecar.read_text())
    values["spikes"]["bad_pixels"] = [[3, 4], [0, 0]]
    sidecar.write_text(json.dumps(values))


@pytest.mark.parametrize("case", ["registered", "bad pixels", "both", "no whole ratio"])
def test_a_registered_recording_gives_the_same_bits_by_both_paths_and_in_the_restorer(
    make_recording: MakeRecording, tmp_path: Path, case: str
):
    frames = np.random.default_rng(2).integers(0, 256, (3, 15, 23, 3), dtype=np.uint8)
    path = make_recording("a", num_frames=3, **({"frames": frames} if case == "no whole ratio" else {}))
    if case == "no whole ratio":
        sidecar = path / "recording.json"
        values = json.loads(sidecar.read_text())
        values["frames"] |= {"width": 23, "height": 15}
        sidecar.write_text(json.dumps(values))
    if case in ("registered", "both"):
        write_alignment(path, Alignment(offset_ticks=2.0, homography=SHIFT))
    if case in ("bad pixels", "both"):
        bad_pixels(path)
    root = prepare([path], tmp_path / "set", num_bins=NUM_BINS, val_fraction=0)
    recording, info = open_recording(path), open_dataset(root)
    stored = np.load(root / "train" / "a" / "spike_vox" / "000000.npy")
    assert stored.dtype == (np.float16 if "b" in case else np.uint8) and stored.shape == (NUM_BINS, 7, 11)
    for crop_px, normalize in itertools.product((CROP, None), ("none", "density")):
        settings = {"crop_px": crop_px, "augment": False, "normalize": normalize}
        cached, streamed = (clips(root, voxels=voxels, **settings) for voxels in ("precomputed", "raw"))
        assert_same(cached[0], streamed[0])
        if crop_px is None:
            spec = SpikeInputs(num_bins=NUM_BINS, normalize=normalize)
            (clip,) = read_clips(recording, ReadSpec(RestoreOptions(), spec, info.stats), Seen())
            assert torch.equal(cached[0]["spike_vox"], torch.stack([one.voxels for one in clip.inputs]))
            assert torch.equal(cached[0]["frames"], torch.stack([one.frame for one in clip.inputs]))
            assert cached[0]["frames"].shape[-2:] == (14, 22)  # twice the sensor's


def test_frames_that_an_alignment_moves_out_of_the_stream_are_logged_as_dropped(
    make_recording: MakeRecording, tmp_path: Path
):
    path = make_recording("a", num_frames=3)
    write_alignment(path, Alignment(offset_ticks=4.0))  # the last exposure ends 3 ticks before the stream
    root = prepare([path], tmp_path / "set", num_bins=NUM_BINS, val_fraction=0)
    (line,) = (root / "train" / "a" / "dropped.log").read_text().splitlines()[1:]
    assert line.startswith("2 its ticks are [44, 61) with an offset of 4")
    info = open_dataset(root)
    assert (info.num_frames, info.num_dropped) == (2, 1)
    assert [exposure.start_tick for exposure in info.train[0].exposures] == [4, 24]


def test_a_dataset_whose_cells_were_read_between_sensor_pixels_is_to_be_prepared_again(
    make_recording: MakeRecording, tmp_path: Path
):
    root = prepare([make_recording("a", num_frames=3)], tmp_path / "set", num_bins=NUM_BINS, val_fraction=0)
    described = root / "train" / "a" / "sequence.json"
    described.write_text(described.read_text().replace('"cells": "sensor"', '"cells": "registered"'))
    with pytest.raises(ValueError, match=r"cells: 'registered'; allowed: sensor; run `spikevrt prepare` again$"):
        open_dataset(root)
